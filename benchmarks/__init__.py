"""Benchmarks of time and memory against a plain implementation of the published arithmetic: ``python -m benchmarks``."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of the measured code would interrupt the table
