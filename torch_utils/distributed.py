"""Processes that train together: started here or by torchrun, and what they tell each other.

Two groups exist.  Gradients go over NCCL on GPUs and gloo on the CPU; counts, flags and Python objects go over gloo
always, so that they never wait for a GPU.
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

GRACE_SECONDS = 10  # that processes get to end by themselves when another has failed

_LOST_PEER_SIGNS = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")  # of gloo and NCCL

_control_group: Any = None


def get_rank() -> int:
    """This process's number, 0 to `get_world_size()` - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def under_torchrun() -> bool:
    """Whether torchrun (or a launcher with the same environment variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def speaks() -> bool:
    """Whether this process is the one to tell what concerns all, before `launch` has made them a group too."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def last_local_rank(num_processes: int) -> int:
    """The highest local rank that `launch` gives to processes which this one stands for: its own under torchrun."""
    return int(os.environ["LOCAL_RANK"]) if under_torchrun() else num_processes - 1


def launch(function: Callable[..., None], args: tuple, num_processes: int, backend: str) -> None:
    """Run ``function(local_rank, *args)`` in `num_processes` processes that form a group, and wait for them.

    Under torchrun the processes exist already, on one machine or many: this one joins them.  `num_processes` must then be
    their number, or that of one machine.  One process without torchrun runs here and forms no group.
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
    """Start the processes and wait for them.  If one fails the others are ended: alone they would wait for it for ever.

    Ctrl-C and SIGTERM are passed on as SIGTERM.
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
            # One that was killed takes others with it; it is the one to name.
            ended = sorted((worker for worker in running if not worker.is_alive()), key=lambda worker: worker.exitcode)
            running = [worker for worker in running if worker not in ended]  # not asked again: it may end in between
            if ended and ended[0].exitcode != 0:
                _end(running)
                print(file=sys.stderr)  # they may have left a progress bar or half a line
                raise UserError(f"{ended[0].name} {_how_it_ended(ended[0].exitcode)}; the other processes were stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(workers: list[Any]) -> None:
    """End processes that wait for one that is gone: kindly, then not."""
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
        # Processes that each want all cores wait for one another more than they work.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        torch.set_num_threads(max((os.cpu_count() or 1) // here, 1))
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world_size)
    _control_group = dist.new_group(backend="gloo")
    try:
        function(local_rank, *args)
        dist.barrier(group=_control_group)  # nobody leaves while another still talks
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _LOST_PEER_SIGNS):
            raise
        raise UserError(f"rank {rank} lost its connection to another process, which has ended; that one says why") from None
    finally:
        _control_group = None
        dist.destroy_process_group()


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Add up `tensor` over all processes, in place; returns it."""
    if get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true in any process; all of them must ask."""
    if get_world_size() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=_control_group)
    return bool(votes)


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, by rank; all of them must call."""
    if get_world_size() == 1:
        return [value]
    values = [None] * get_world_size()
    dist.all_gather_object(values, value, group=_control_group)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value`; all of them must call."""
    if get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control_group)
    return box[0]


@torch.no_grad()
def broadcast_module(module: torch.nn.Module) -> None:
    """Give every process rank 0's parameters and buffers."""
    if get_world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, src=0)
