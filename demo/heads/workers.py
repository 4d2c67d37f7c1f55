"""Distributes work over processes that may die.  Tasks of dead processes are retried a few times."""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from dnnlib import UserError

TRIES = 3
TASKS_PER_PROCESS = 12  # then a fresh process takes over, because the renderer keeps memory of old scenes
MAX_DEFAULT_WORKERS = 16  # each needs up to 1 GB
GRACE_SECONDS = 5.0
# Processes share the cores, so none needs threads.  Also, sums whose order depends on threads would change the files.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Work = Callable[[Any, Callable[[], None]], None]


@dataclass(frozen=True)
class Event:
    """What happened to a task.

    kind: "step" (one more part is done), "done", "died" (its process died; all steps will be repeated), or "given up" (it died
    TRIES times).
    """

    kind: str
    task: Any


def default_workers() -> int:
    """The number of cores that this process may use, up to MAX_DEFAULT_WORKERS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_WORKERS)


def run(work: Work, tasks: Iterable[Any], workers: int) -> Iterator[Event]:
    """Call `work(task, step)` for every task in one of `workers` processes, and yield events as they happen.

    `work` is pickled, so it must be importable from its module; it calls `step()` after each part of a task.  All processes
    have ended when the iterator ends or is closed.

    A UserError in `work` is raised here.  Any other exception is a bug, and raised as a RuntimeError with its traceback.
    """
    waiting = deque((task, 1) for task in tasks)
    crew: list[_Worker] = []
    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                crew.append(_Worker(work))
                crew[-1].give(*waiting.popleft())
            ready = wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                kind = worker.receive()
                if kind == "died":
                    crew.remove(worker)
                    if worker.attempt < TRIES:
                        waiting.append((worker.task, worker.attempt + 1))
                        yield Event("died", worker.task)
                    else:
                        yield Event("given up", worker.task)
                    continue
                yield Event(kind, worker.task)
                if kind == "done" and waiting and worker.tasks_done < TASKS_PER_PROCESS:
                    worker.give(*waiting.popleft())
                elif kind == "done":
                    crew.remove(worker)
                    worker.retire()
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.retire()


class _Worker:
    """A process and its current task."""

    def __init__(self, work: Work):
        context = multiprocessing.get_context("spawn")  # a fork would share the renderer's threads and locks
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work))
        with _environment(_ENVIRONMENT):
            self.process.start()
        theirs.close()  # so that the connection ends with the process
        self.tasks_done = 0

    def give(self, task: Any, attempt: int) -> None:
        self.task, self.attempt = task, attempt
        with contextlib.suppress(OSError):  # the process died before it could start, which receiving will report
            self.connection.send(task)

    def receive(self) -> str:
        """The kind of the next event."""
        try:
            kind, detail = self.connection.recv()
        except (EOFError, OSError):
            self.retire()
            return "died"
        if kind == "mistake":
            raise UserError(detail)
        if kind == "bug":
            raise RuntimeError(f"at {self.task}:\n{detail}")
        self.tasks_done += kind == "done"
        return kind

    def retire(self) -> None:
        """Close the connection, which makes the process end, and wait for it."""
        self.connection.close()
        self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, work: Work) -> None:
    """Main loop of a worker: receive tasks and send events through the connection, until the other side closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    with contextlib.suppress(EOFError, OSError):  # the other side is gone, so there is nothing left to do
        while True:
            task = connection.recv()
            connection.send(_attempt(work, task, lambda: connection.send(("step", None))))


def _attempt(work: Work, task: Any, step: Callable[[], None]) -> tuple[str, str | None]:
    try:
        work(task, step)
    except UserError as error:
        return "mistake", str(error)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except OSError as error:  # most likely a full disk
        return "mistake", f"{error.filename or 'cannot write'}: {error.strerror or error}"
    except Exception:
        return "bug", traceback.format_exc()
    return "done", None


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, for processes that are started there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
