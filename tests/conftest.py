"""Settings of the whole suite: one thread each, and no GPU tests where there is no GPU."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import pytest
import torch


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
