"""Settings of the whole suite: one thread per process, tests only where what they need is there; and a small data set."""

import importlib.util
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tiny networks, threads cost more than they gain

import pytest
import torch
from helpers import CHROMIUM, write_data_set


def missing_for(marker):
    """Why tests with this marker cannot run here, or None."""
    if marker == "gpu":
        return None if torch.cuda.is_available() else "no CUDA device"
    if importlib.util.find_spec("viser") is None:
        return 'no viser: pip install -e ".[viewer]"'
    return None if CHROMIUM else "no Chromium: apt-get install chromium"


def pytest_collection_modifyitems(items):
    for item in items:
        for marker in ("gpu", "browser"):
            if item.get_closest_marker(marker) and (reason := missing_for(marker)):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def head_data(tmp_path_factory):
    """Image and mask archives of six views around the head, at 128 pixels."""
    return write_data_set(tmp_path_factory.mktemp("data"), [0, 30, -60, 100, -140, 180])
