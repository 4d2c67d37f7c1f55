"""Network snapshots: what they hold and how they are written."""

import copy
import pickle
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import atomic_path


def frozen_copy(module: torch.nn.Module) -> torch.nn.Module:
    """A copy for others to use: on the CPU, in evaluation mode, without gradients."""
    # Moving before copying would change the original, and copying on the GPU would double its memory.
    memo = {id(tensor): _cpu_copy(tensor) for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo).eval().requires_grad_(False)


def _cpu_copy(tensor: torch.Tensor) -> torch.Tensor:
    data = tensor.detach().to("cpu", copy=True)
    return torch.nn.Parameter(data) if isinstance(tensor, torch.nn.Parameter) else data


def save_snapshot(path: Path, modules: dict[str, torch.nn.Module | None], extras: dict[str, Any]) -> None:
    """Pickle the networks (as frozen copies) and `extras` as one dictionary; the file appears whole."""
    content = {name: None if module is None else frozen_copy(module) for name, module in modules.items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(dict(content, **extras), file)
