"""One file per op: the public function, and a reference in plain PyTorch beside every faster path."""
