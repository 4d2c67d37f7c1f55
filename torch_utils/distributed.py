"""Distributed training: starts the processes, or joins those of torchrun, and exchanges data between them.

There are two process groups.  Gradients use NCCL on GPUs and gloo on the CPU.  Counts, flags and Python objects always use
gloo, so that exchanging them never waits for a GPU.
"""

import multiprocessing.connection
import os
import signal
import socket
import sys
import time
from typing import Any, Callable

import torch
import torch.distributed as dist

from dnnlib import UserError
from dnnlib.cli import one_line_errors

GRACE_SECONDS = 10  # time that processes get to stop on their own after another one has failed

_LOST_PEER_SIGNS = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")  # in errors of gloo and NCCL

_control_group: Any = None


def get_rank() -> int:
    """The rank of this process, 0 to `get_world_size()` - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with the same environment variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def launch(function: Callable[..., None], args: tuple, num_processes: int, backend: str) -> None:
    """Run ``function(local_rank, *args)`` in `num_processes` processes that form a group, and wait for them.

    Under torchrun the processes already exist, on one machine or several, and this one joins them.  `num_processes` must then
    be their total number or that of one machine.  A single process without torchrun runs here and forms no group.
    """
    if under_torchrun():
        world_size, local = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
        if num_processes not in (world_size, local):
            raise UserError(f"--gpus {num_processes}, but torchrun started {world_size} processes ({local} on this machine)")
        _run("env://", int(os.environ["RANK"]), world_size, int(os.environ["LOCAL_RANK"]), backend, function, args)
    elif num_processes == 1:
        function(0, *args)
    else:
        _supervise(f"tcp://127.0.0.1:{free_port()}", num_processes, backend, function, args)


def _supervise(address: str, num_processes: int, backend: str, function: Callable, args: tuple) -> None:
    """Start the processes and wait for them.  If one fails, stop the others, which would otherwise wait for it forever.

    Ctrl-C and SIGTERM are passed on to the processes as SIGTERM.
    """
    context = torch.multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_spawned, args=(rank, address, num_processes, backend, function, args), name=f"rank {rank}")
        for rank in range(num_processes)
    ]
    for worker in workers:
        worker.start()

    def end_all(*_: Any) -> None:
        for worker in workers:
            worker.terminate()

    previous = {number: signal.signal(number, end_all) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        running = list(workers)
        while running:
            multiprocessing.connection.wait([worker.sentinel for worker in running])
            # A killed process takes others down with it, so it is the one to report.
            ended = sorted((worker for worker in running if not worker.is_alive()), key=lambda worker: worker.exitcode)
            running = [worker for worker in running if worker not in ended]  # `ended` is fixed: more may end in between
            if ended and ended[0].exitcode != 0:
                _end(running)
                print(file=sys.stderr)  # the processes may have left a progress bar or half a line
                raise UserError(f"{ended[0].name} {_how_it_ended(ended[0].exitcode)}; the other processes were stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(workers: list[Any]) -> None:
    """Stop processes that wait for one that is gone: with SIGTERM first, then with SIGKILL."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.join(max(deadline - time.monotonic(), 0))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _how_it_ended(exitcode: int) -> str:
    return f"ended with exit code {exitcode}" if exitcode > 0 else f"was killed by {signal.Signals(-exitcode).name}"


@one_line_errors
def _spawned(local_rank: int, address: str, world_size: int, backend: str, function: Callable, args: tuple) -> None:
    _run(address, local_rank, world_size, local_rank, backend, function, args)


def _run(address: str, rank: int, world_size: int, local_rank: int, backend: str, function: Callable, args: tuple) -> None:
    global _control_group
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Processes that compete for all cores spend more time waiting for each other than working.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        torch.set_num_threads(max((os.cpu_count() or 1) // here, 1))
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world_size)
    _control_group = dist.new_group(backend="gloo")
    try:
        function(local_rank, *args)
        dist.barrier(group=_control_group)  # no process leaves while another is still communicating
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _LOST_PEER_SIGNS):
            raise
        raise UserError(f"rank {rank} lost its connection to a process that has ended; see that process's error") from None
    finally:
        _control_group = None
        dist.destroy_process_group()


def free_port() -> int:
    """A port of this machine that is currently unused."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sum `tensor` over all processes in place, and return it."""
    if get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true in any process.  All processes must call this."""
    if get_world_size() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=_control_group)
    return bool(votes)


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, ordered by rank.  All processes must call this."""
    if get_world_size() == 1:
        return [value]
    values = [None] * get_world_size()
    dist.all_gather_object(values, value, group=_control_group)
    return values


def broadcast_object(value: Any) -> Any:
    """The `value` of rank 0.  All processes must call this."""
    if get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control_group)
    return box[0]


@torch.no_grad()
def broadcast_module(module: torch.nn.Module) -> None:
    """Copy rank 0's parameters and buffers to every process."""
    if get_world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, src=0)
