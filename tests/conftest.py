"""Settings of the whole suite: one thread per process, GPU tests only where there is a GPU; and a small data set."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tiny networks, threads cost more than they gain

import pytest
import torch
from helpers import write_data_set


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def head_data(tmp_path_factory):
    """Image and mask archives of six views around the head, at 128 pixels."""
    return write_data_set(tmp_path_factory.mktemp("data"), [0, 30, -60, 100, -140, 180])
