"""The one place where the device is chosen."""

import torch

from dnnlib import UserError


def select_device(name: str | None = None, local_rank: int = 0) -> torch.device:
    """The device called `name` (``cpu``, ``cuda``, ``cuda:1``), or the best there is for None and ``auto``.

    A plain ``cuda`` becomes the GPU number `local_rank`.  UserError if the name is unknown or the device is not there.
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
            f"--device {name}: there is no GPU {index}, only {torch.cuda.device_count()} of them; lower --gpus or choose another"
        )
    return torch.device("cuda", index)


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory so far in GiB: allocated on a GPU, resident in this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
