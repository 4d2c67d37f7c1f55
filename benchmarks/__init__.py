"""How long things take and how much memory, beside the published arithmetic done plainly: ``python -m benchmarks``."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # bars of what is measured would run through the table
