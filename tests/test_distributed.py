"""What processes know of each other before they are a group."""

import pytest

from torch_utils import distributed


@pytest.mark.parametrize("rank, local_rank, speaks", [("0", "0", True), ("5", "1", False)])
def test_under_torchrun_a_process_stands_for_itself(monkeypatch, rank, local_rank, speaks):
    launcher = dict(RANK=rank, LOCAL_RANK=local_rank, WORLD_SIZE="8", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert distributed.speaks() is speaks and distributed.last_local_rank(8) == int(local_rank)


def test_alone_it_stands_for_those_that_it_will_start(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.speaks() and distributed.last_local_rank(8) == 7
