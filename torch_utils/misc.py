"""Helpers for modules and tensors: checks, copies and averages."""

import contextlib
import functools
import itertools
import re
import warnings
from typing import Any, Callable, Iterator, Sequence, Sized

import numpy as np
import torch


def assert_shape(tensor: torch.Tensor, shape: Sequence[int | None]) -> None:
    """Raise ValueError unless `tensor` has the given shape.  None in `shape` stands for any size."""
    actual = tuple(tensor.shape)
    if len(actual) != len(shape) or any(want is not None and want != have for want, have in zip(shape, actual)):
        raise ValueError(f"expected a tensor of shape {list(shape)}, got {list(actual)}")


def named_params_and_buffers(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Iterate over the names and tensors of all parameters, then of all buffers."""
    return itertools.chain(module.named_parameters(), module.named_buffers())


@torch.no_grad()
def copy_params_and_buffers(source: torch.nn.Module, target: torch.nn.Module, require_all: bool = False) -> list[str]:
    """Copy tensors of the same name and shape from `source` into `target`, and return the names that were not copied.

    With `require_all`, raises ValueError if `source` lacks a tensor of `target` or has it in another shape.
    """
    have = dict(named_params_and_buffers(source))
    skipped = []
    for name, tensor in named_params_and_buffers(target):
        if name in have and have[name].shape == tensor.shape:
            tensor.copy_(have[name].detach())
        elif require_all:
            found = list(have[name].shape) if name in have else "missing"
            raise ValueError(f"{name}: {found}, expected {list(tensor.shape)}")
        else:
            skipped.append(name)
    return skipped


@torch.no_grad()
def update_average(average: torch.nn.Module, current: torch.nn.Module, decay: float) -> None:
    """Update an exponential moving average: keep a share `decay` of the parameters of `average`, and copy the buffers."""
    for kept, new in zip(average.parameters(), current.parameters()):
        kept.copy_(new.lerp(kept, decay))
    for kept, new in zip(average.buffers(), current.buffers()):
        kept.copy_(new)


def summarize(module: torch.nn.Module) -> str:
    """A summary of `module`: one line per child with its counts of parameters and buffers, and a total."""
    rows = [("", "parameters", "buffers")]
    for name, child in (*module.named_children(), ("total", module)):
        rows.append((name, *(f"{sum(t.numel() for t in kind):,}" for kind in (child.parameters(), child.buffers()))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{name:<{widths[0]}}  {params:>{widths[1]}}  {buffers:>{widths[2]}}" for name, params, buffers in rows)


# For other people's scripts, and for the source code inside published snapshots


def params_and_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """All parameters of `module`, followed by all buffers."""
    return [tensor for _, tensor in named_params_and_buffers(module)]


def print_module_summary(module: torch.nn.Module, inputs: Sequence[Any]) -> Any:
    """Print `summarize(module)` and return the output of `module` for `inputs`."""
    print(summarize(module))
    return module(*inputs)


@contextlib.contextmanager
def ddp_sync(module: torch.nn.Module, sync: bool) -> Iterator[None]:
    """Average the gradients of a DistributedDataParallel `module` over processes inside this block only if `sync`."""
    quiet = isinstance(module, torch.nn.parallel.DistributedDataParallel) and not sync
    with module.no_sync() if quiet else contextlib.nullcontext():
        yield


@torch.no_grad()
def check_ddp_consistency(module: torch.nn.Module, ignore_regex: str | None = None) -> None:
    """Check that all processes hold the same parameters and buffers.  All processes must call this together.

    Raises RuntimeError in every process but the first if they differ.  Names `class.name` that match `ignore_regex` are
    skipped.
    """
    if not torch.distributed.is_initialized():
        return
    for name, tensor in named_params_and_buffers(module):
        full_name = f"{type(module).__name__}.{name}"
        if ignore_regex is not None and re.fullmatch(ignore_regex, full_name):
            continue
        first = tensor.detach().clone()
        torch.distributed.broadcast(first, src=0)
        if not torch.equal(first.nan_to_num(), tensor.detach().nan_to_num()):
            raise RuntimeError(f"{full_name} differs between process {torch.distributed.get_rank()} and the first")


class InfiniteSampler(torch.utils.data.Sampler):
    """Yields indices into `dataset` without end: those of process `rank` of `num_replicas`.

    With `shuffle`, the order depends on `seed` alone.  After an initial shuffle, each index is drawn from the first
    `window_size` (a fraction) of a queue and appended to its end, so at least the rest of the queue comes before the index is
    drawn again.
    """

    def __init__(
        self,
        dataset: Sized,
        rank: int = 0,
        num_replicas: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        window_size: float = 0.5,
    ):
        if not len(dataset) or not 0 <= rank < num_replicas or not 0 <= window_size <= 1:
            raise ValueError("the data set must not be empty, rank less than num_replicas, and window_size between 0 and 1")
        self.length, self.rank, self.num_replicas = len(dataset), rank, num_replicas
        self.shuffle, self.seed, self.window_size = shuffle, seed, window_size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(self.seed)
        queue = (rng.permutation(self.length) if self.shuffle else np.arange(self.length)).tolist()
        window = max(round(self.window_size * self.length), 1) if self.shuffle else 1
        for position in itertools.count():
            index = queue.pop(int(rng.integers(window)))
            queue.append(index)
            if position % self.num_replicas == self.rank:
                yield index


def profiled_function(function: Callable) -> Callable:
    """Decorator that makes torch's profiler show calls of `function` under its name."""

    @functools.wraps(function)
    def profiled(*args, **kwargs):
        with torch.autograd.profiler.record_function(function.__name__):
            return function(*args, **kwargs)

    return profiled


@contextlib.contextmanager
def suppress_tracer_warnings() -> Iterator[None]:
    """Silence torch.jit.trace's warnings about code it cannot trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        yield


def constant(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """Return a new tensor with the number or numbers `value`, repeated to fill `shape` if it is given.

    It has torch's default dtype and is on the CPU unless `dtype` and `device` are given.
    """
    tensor = torch.as_tensor(np.asarray(value), dtype=dtype or torch.get_default_dtype(), device=device or "cpu")
    return tensor.expand(tensor.shape if shape is None else tuple(shape)).clone(memory_format=memory_format)
