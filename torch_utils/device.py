"""Chooses the device and reports its memory.  Nothing else in the project does."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch

from dnnlib import UserError


def select_device(name: str | None = None, local_rank: int = 0) -> torch.device:
    """Return the device called `name` (``cpu``, ``cuda``, ``cuda:1``), or the best one available for None and ``auto``.

    Plain ``cuda`` means GPU number `local_rank`.  Raises UserError if the name is unknown or the device does not exist.
    """
    if name in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; use cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(f"--device {name}: this project runs on cpu and cuda")
    if not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: PyTorch finds no CUDA device here; use --device cpu, or check nvidia-smi and the installed build"
        )
    index = local_rank if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: there is no GPU {index}, only {torch.cuda.device_count()} of them; lower --gpus or use another"
        )
    return torch.device("cuda", index)


# From glibc's malloc.h: parameters of mallopt, and the limits of the values that glibc adapts by default.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ADAPTED = {_M_TRIM_THRESHOLD: 64 * 2**20, _M_MMAP_THRESHOLD: 32 * 2**20}
_KEEPING = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_MMAP_THRESHOLD: 2**30}


def keep_freed_memory(keep: bool = True) -> None:
    """Keep memory freed by CPU tensors, in blocks up to 1 GiB, for later tensors.  `keep` False restores glibc's behaviour.

    By default glibc returns large blocks to the system, which clears each page of the next block: a third of the time of a
    picture.  The kept memory fragments where sizes change, so training would be a tenth faster but use a third more memory.
    Without glibc this function does nothing.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for parameter, value in (_KEEPING if keep else _ADAPTED).items():
        libc.mallopt(parameter, value)
    if not keep:
        libc.malloc_trim(0)


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory so far in GiB: allocated memory on a GPU, resident memory of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with contextlib.suppress(OSError, StopIteration):  # `resource` would include the peak of a parent before it forked
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated.

    On a GPU this is what other processes leave free plus PyTorch's own cache.  On the CPU it is what the system reports, or
    half of the machine's memory if it reports nothing.
    """
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    return min(_available_memory(), _left_to_container())


def _available_memory() -> int:
    try:
        entries = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(entries["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _left_to_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """The memory that a container's limit (cgroup v2) leaves.  Infinity without a limit."""
    try:
        return max(0, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):  # there are no such files, or they say "max"
        return float("inf")
