"""Measurements of `demo/score.py`: samples of a generator compared with held-out heads whose truth is known."""
