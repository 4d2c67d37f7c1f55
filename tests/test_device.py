"""How much memory there is."""

import os

import torch

from torch_utils import device


def test_free_memory_is_some_and_not_more_than_there_is():
    assert 0 < device.free_memory(torch.device("cpu")) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_containers_limit_counts(tmp_path):
    assert device._left_to_container(tmp_path) == float("inf")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert device._left_to_container(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert device._left_to_container(tmp_path) == float("inf")
