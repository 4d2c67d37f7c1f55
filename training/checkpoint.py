"""Files of a run: network snapshots for others to use, and the whole state of training for the run to go on from."""

import copy
import pickle
from pathlib import Path
from typing import Any

import torch

from dnnlib import UserError
from dnnlib.util import atomic_path

KEPT_STATES = 2  # the one before the last stays in case the last is lost
_STATE_VERSION = 1


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


def state_paths(run_dir: Path) -> list[Path]:
    """The training states in a run folder, oldest first; their names count images."""
    return sorted(run_dir.glob("training-state-*.pt"))


def images_seen(state_path: Path) -> int:
    """How many images a state had seen, by its name."""
    return int(state_path.stem.rpartition("-")[2])


def save_state(run_dir: Path, nimg: int, state: dict[str, Any]) -> None:
    """Write ``training-state-NIMG.pt``, whole, and remove all but the last `KEPT_STATES`."""
    with atomic_path(run_dir / f"training-state-{nimg:09d}.pt") as temporary, open(temporary, "wb") as file:
        try:
            torch.save(dict(state, version=_STATE_VERSION, nimg=nimg), file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # the disk's own error, which torch's writer trips over
                raise error.__context__ from None
            raise
    for old in state_paths(run_dir)[:-KEPT_STATES]:
        old.unlink()


def load_state(run_dir: Path) -> dict[str, Any]:
    """The newest state in `run_dir` that can be read, tensors on the CPU; UserError if there is none.

    Nothing in the file is executed.
    """
    for path in reversed(state_paths(run_dir)):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            print(f"Passing over {path}, which cannot be read: {' '.join(str(error).split())[:100]}")
            continue
        if state["version"] == _STATE_VERSION:
            return state
        print(f"Passing over {path}, which has version {state['version']} and not {_STATE_VERSION}")
    raise UserError(f"{run_dir} has no training state to go on from; --resume one of its network snapshots instead")
