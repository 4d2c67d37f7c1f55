"""What `demo/score.py` measures: a generator's samples beside held-out heads whose truth is known."""
