"""The memory that a device reports."""

import os
import platform
import subprocess
import sys

import pytest
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


def test_peak_memory_is_that_of_this_process_alone():
    """A program's peak does not include memory that its parent held when starting it."""
    held = torch.ones(100_000_000)
    code = "import torch; from torch_utils.device import peak_memory_gb; print(peak_memory_gb(torch.device('cpu')))"
    here = device.peak_memory_gb(torch.device("cpu"))
    there = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert here > held.nbytes / 2**30 and there < here - 0.25


def faults_of_new_tensors(keep):
    """Page faults in a fresh program while ten tensors of 64 MB are created and freed, after ten others."""
    code = (
        "import resource, torch; from torch_utils.device import keep_freed_memory\n"
        f"keep_freed_memory({keep})\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for count in range(20):\n"
        "    if count == 10: before = faults()\n"
        "    torch.ones(16 * 2**20)\n"
        "print(faults() - before)"
    )
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library hands out memory")
def test_freed_memory_is_kept():
    pages = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert faults_of_new_tensors(False) - faults_of_new_tensors(True) > 8 * pages
