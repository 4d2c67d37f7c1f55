"""Distributed training: starts the processes, or joins those of torchrun, and exchanges data between them.

There are two process groups.  Gradients use NCCL on GPUs and gloo on the CPU.  Counts, flags and Python objects always use
gloo, so that exchanging them never waits for a GPU.
"""

import datetime
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from dnnlib import UserError
from dnnlib.cli import in_one_line

# How long a collective waits: for a first batch, a build of ops, or files that rank 0 saves.  NCCL's own ten minutes are less.
TIMEOUT = datetime.timedelta(minutes=30)
GRACE_SECONDS = 10  # time that processes get to stop on their own after another one has failed

_LOST_PEER = 75  # exit code of a process that another one, which has failed, has left alone
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


def speaks() -> bool:
    """Whether this process is the one to tell what concerns all, before `launch` has made them a group too."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def last_local_rank(num_processes: int) -> int:
    """The highest local rank that `launch` gives to processes which this one stands for: its own under torchrun."""
    return int(os.environ["LOCAL_RANK"]) if under_torchrun() else num_processes - 1


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
    workers, mistakes = [], []
    for rank in range(num_processes):
        receiver, sender = context.Pipe(duplex=False)
        shared = (rank, address, num_processes, backend, function, args, sender)
        workers.append(context.Process(target=_spawned, args=shared, name=f"rank {rank}"))
        mistakes.append(receiver)
        workers[-1].start()
        sender.close()  # the process has its own

    def end_all(*_: Any) -> None:
        for worker in workers:
            worker.terminate()

    previous = {number: signal.signal(number, end_all) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        failure = _first_failure(workers, mistakes)
        if failure is not None:
            _end([worker for worker in workers if worker.is_alive()])
            print(file=sys.stderr)  # the processes may have left a progress bar or half a line
            raise UserError(failure)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _first_failure(workers: list[Any], mistakes: list[Any]) -> str | None:
    """Wait until all processes have ended well, or one has failed: why.

    A mistake comes through the process's pipe in `mistakes`, before the process ends.  Those that only lost their connection
    are not the ones to blame, unless nobody else has ended within `GRACE_SECONDS`.
    """
    running, pipes = list(workers), list(mistakes)
    lost, deadline = None, None
    while running:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        ready = multiprocessing.connection.wait([*pipes, *(worker.sentinel for worker in running)], left)
        if not ready:
            return lost
        for pipe in [pipe for pipe in pipes if pipe in ready]:
            try:
                return pipe.recv()
            except EOFError:  # the process has ended without one
                pipes.remove(pipe)
        for worker in [worker for worker in running if not worker.is_alive()]:
            running.remove(worker)
            if worker.exitcode == _LOST_PEER:
                lost = lost or f"{worker.name} lost its connection to the others; they were stopped"
                deadline = deadline or time.monotonic() + GRACE_SECONDS
            elif worker.exitcode != 0:
                return f"{worker.name} {_how_it_ended(worker.exitcode)}; the other processes were stopped"
    return lost


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


def _spawned(rank: int, address: str, world_size: int, backend: str, function: Callable, args: tuple, mistakes: Any) -> None:
    def tell(line: str, code: int) -> NoReturn:
        if code != _LOST_PEER:
            mistakes.send(line)
        sys.exit(code)

    _run(address, rank, world_size, rank, backend, function, args, tell)


def _print_and_exit(line: str, code: int) -> NoReturn:
    print(f"Error: {line}", file=sys.stderr, flush=True)
    sys.exit(1 if code == _LOST_PEER else code)


def _run(
    address: str,
    rank: int,
    world_size: int,
    local_rank: int,
    backend: str,
    function: Callable,
    args: tuple,
    tell: Callable[[str, int], NoReturn] = _print_and_exit,
) -> None:
    """Call `function` as one of a group.  An error is told while the others still wait: once they notice, all are stopped."""
    global _control_group
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Processes that compete for all cores spend more time waiting for each other than working.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        torch.set_num_threads(max((os.cpu_count() or 1) // here, 1))
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world_size, timeout=TIMEOUT)
    _control_group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    try:
        function(local_rank, *args)
        dist.barrier(group=_control_group)  # no process leaves while another is still communicating
    except (Exception, KeyboardInterrupt) as error:
        line = in_one_line(error)
        if line is not None:
            tell(line, 1)
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LOST_PEER_SIGNS):
            tell(f"rank {rank} lost its connection to a process that has ended; see that process's error", _LOST_PEER)
        traceback.print_exc()
        sys.exit(1)
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
