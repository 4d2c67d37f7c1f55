"""One file per op: the public function, and its plain-PyTorch reference beside every faster path."""
