"""How `demo/teach.py` teaches a generator heads whose depths are known."""
