"""Measures time in alternation, peak memory in fresh processes, and the attainable rate of the device."""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.cases import CASES, Setting, Work
from torch_utils.device import keep_freed_memory, peak_memory_gb

ROUNDS = 5
LONG = 60.0  # seconds; a warm-up that takes longer is the measurement
PATHS = ("fast", "published")


class Disagreement(Exception):
    """The fast path does not compute what the published arithmetic does."""


def seconds_of(work: Work, setting: Setting, budget: float) -> dict[str, list[float]]:
    """Time both paths, taking turns, until `budget` seconds are spent: at least once, and at most `ROUNDS` times.

    The first round is a warm-up that does not count, unless it is `LONG`.  Published seconds are those of the whole work, even
    if only a part of it was done.  Raises Disagreement if results differ.
    """
    paths = dict(fast=work.fast) if work.published is None else dict(fast=work.fast, published=work.published)
    keeps = {name: work.keeps_memory and name == "fast" for name in paths}
    rehearsal = {name: _timed(run, keeps[name], setting.device) for name, run in paths.items()}
    if work.published is not None:
        check_agreement(rehearsal["fast"][1], rehearsal["published"][1], work.tolerance)
    times = {name: [seconds] for name, (seconds, _) in rehearsal.items()}
    start = time.perf_counter()
    if sum(map(sum, times.values())) < LONG:
        times = {name: [] for name in paths}
        for _ in range(1 if setting.quick else ROUNDS):
            for name, run in paths.items():
                times[name].append(_timed(run, keeps[name], setting.device)[0])
            if time.perf_counter() - start >= budget:
                break
    scale = dict(fast=1.0, published=work.parts)
    return {name: [seconds * scale[name] for seconds in found] for name, found in times.items()}


def _timed(run: Callable[[], Any], keep: bool, device: torch.device) -> tuple[float, Any]:
    """Seconds by the clock of the device: on a GPU, between two events, until the last kernel has ended."""
    keep_freed_memory(keep)
    if device.type != "cuda":
        start = time.perf_counter()
        result = run()
        return time.perf_counter() - start, result
    with torch.cuda.device(device):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wait_for(device)
        first.record()
        result = run()
        last.record()
        last.synchronize()
    return first.elapsed_time(last) / 1000, result


def wait_for(device: torch.device) -> None:
    """Wait until `device` has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def all_bits_of_float32() -> None:
    """Compute in full float32 on GPUs, as training does.  TensorFloat-32 would hide how fast and accurate the rest is."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def check_agreement(fast: list[torch.Tensor], published: list[torch.Tensor], tolerance: float) -> None:
    """Raise Disagreement unless each published result is close to the corresponding fast one."""
    for index, (one, other) in enumerate(zip(fast, published)):
        difference = ((one - other).norm() / other.norm()).item()
        if not difference <= tolerance:
            raise Disagreement(
                f"result {index} differs from the published arithmetic by {difference:.1e}, more than {tolerance:.0e}"
            )


def in_fresh_process(name: str, path: str, setting: Setting) -> dict[str, float]:
    """`memory_and_arithmetic` of a case in a fresh process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory_and_arithmetic, name, path, Setting(setting.device, setting.quick, brief=True)).result()


def memory_and_arithmetic(name: str, path: str, setting: Setting) -> dict[str, float]:
    """`memory`: peak GiB of one run of `path`, weights included.  For the published path also `flop`, which the case needs."""
    all_bits_of_float32()
    work = CASES[name](setting)
    keep_freed_memory(work.keeps_memory and path == "fast")
    if path == "fast":
        work.fast()
        return dict(memory=peak_memory_gb(setting.device))
    if work.arithmetic is None:
        flop = flop_of(work.published)
        return dict(memory=peak_memory_gb(setting.device), flop=flop)
    work.published()
    memory = peak_memory_gb(setting.device)
    whole = CASES[name](dataclasses.replace(setting, brief=False))
    return dict(memory=memory, flop=flop_of(whole.arithmetic))


def flop_of(run: Callable[[], Any]) -> float:
    """Multiplications and additions in matrix products and convolutions, as far as PyTorch computes them."""
    with _FlopCounter() as counter:
        run()
    return counter.flop


class _FlopCounter(TorchDispatchMode):
    """Counts FLOPs without following modules.  PyTorch's own counter does, which fails if gradients are taken inside."""

    flop = 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            self.flop += count(*args, **(kwargs or {}), out_val=result)
        return result


def attainable_rate(setting: Setting) -> dict[str, float]:
    """The best FLOPs per second of a large matrix product and of a large convolution, in float32, over several runs."""
    size = setting[2048, 512]
    a = torch.rand(size, size, device=setting.device)
    x = torch.rand(1, 256, size // 16, size // 16, device=setting.device).contiguous(memory_format=torch.channels_last)
    w = torch.rand(256, 256, 3, 3, device=setting.device).contiguous(memory_format=torch.channels_last)
    rates = {}
    with torch.no_grad():
        for name, run in (("matrix product", lambda: a @ a), ("convolution", lambda: torch.conv2d(x, w, padding=1))):
            fastest = min(_timed(run, True, setting.device)[0] for _ in range(ROUNDS))
            rates[name] = flop_of(run) / fastest
    return rates
