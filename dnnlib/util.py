"""Attribute dictionaries, construction of objects by name, logs, locks and atomic file writes."""

import contextlib
import fcntl
import importlib
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Iterator


class UserError(Exception):
    """A mistake of the user.  The one-line message says what is wrong and what to do.

    Commands print only the message and exit with code 1.  Any other exception is a bug in this project.
    """


class EasyDict(dict):
    """A dictionary whose string keys are also attributes: ``d.key`` is ``d['key']``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None


def get_obj_by_name(name: str) -> Any:
    """Return the object with the dotted name `name`, such as ``training.triplane.TriPlaneGenerator``.

    Raises ImportError if no prefix of the name is a module, and AttributeError if the module lacks the rest of it.
    """
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            obj = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # A missing dependency of an existing module must not be mistaken for a name that is not a module.
            if error.name is not None and not (module_name + ".").startswith(error.name + "."):
                raise
            continue
        for part in parts[split:]:
            obj = getattr(obj, part)
        return obj
    raise ImportError(f"no module found for {name!r}")


def construct_class_by_name(*args: Any, class_name: str, **kwargs: Any) -> Any:
    """Call the class or function with the dotted name `class_name`, passing on all other arguments."""
    return get_obj_by_name(class_name)(*args, **kwargs)


def is_power_of_two(number: int) -> bool:
    """Whether `number` is 1, 2, 4, …"""
    return number > 0 and number & (number - 1) == 0


def format_time(seconds: float) -> str:
    """Format a duration for people: ``12s``, ``3m 05s``, ``2h 07m 10s``, ``1d 04h 30m``."""
    s = int(round(seconds))
    if s < 60:
        return f"{s}s"
    if s < 60 * 60:
        return f"{s // 60}m {s % 60:02}s"
    if s < 24 * 60 * 60:
        return f"{s // 3600}h {s // 60 % 60:02}m {s % 60:02}s"
    return f"{s // 86400}d {s // 3600 % 24:02}h {s // 60 % 60:02}m"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`.  It is renamed to `path` if the block succeeds, and removed otherwise.

    Readers therefore never see an incomplete file.  The temporary name keeps the suffix of `path`, because many writers infer
    the format from it.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:64]}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def warn_of_write_errors(what: str) -> Iterator[None]:
    """If the block fails because the disk is full or gone, print a warning that `what` was not written, and continue."""
    try:
        yield
    except OSError as error:
        print(f"Warning: {what} could not be written: {error.strerror or error}")


def existing_path(path: str | os.PathLike, what: str) -> Path:
    """Return `path` as a Path if it exists.  Otherwise raise a UserError that calls it `what`."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{what} not found: {path}")
    return path


def make_output_dir(path: str | os.PathLike) -> Path:
    """Create the folder `path` and its parents and check that it is writable.  Raises UserError if not."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write in the folder {path}: {error.strerror}; choose another one") from None
    return path


def next_run_dir(outdir: str | os.PathLike, desc: str) -> Path:
    """The path ``outdir/NNNNN-desc`` with the next free number.  The folder is not created."""
    outdir = Path(outdir)
    names = os.listdir(outdir) if outdir.is_dir() else []
    numbers = [int(match[0]) for match in (re.match(r"\d+", name) for name in names) if match]
    return outdir / f"{max(numbers, default=-1) + 1:05d}-{desc}"


class FileLock:
    """An exclusive lock on `path`, which is a folder or a file that is created if necessary and kept.

    The system releases the lock when the process ends, however it ends.  Raises UserError with the text `message` if another
    process holds the lock.
    """

    def __init__(self, path: str | os.PathLike, message: str):
        flags = os.O_RDONLY if os.path.isdir(path) else os.O_WRONLY | os.O_CREAT
        self._file = os.open(path, flags, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UserError(message) from None

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)


def is_locked(path: str | os.PathLike) -> bool:
    """Whether a process holds a FileLock on `path`."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two processes that ask do not see each other
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class InterruptFlag:
    """Becomes true when Ctrl-C is pressed or SIGTERM arrives inside the block.  A second Ctrl-C interrupts at once."""

    def __init__(self):
        self._raised = False

    def __bool__(self) -> bool:
        return self._raised

    def __enter__(self) -> "InterruptFlag":
        self._previous = {number: signal.signal(number, self._raise) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _raise(self, number: int, _: Any) -> None:
        self._raised = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Logger:
    """While open, copies everything written to stdout and stderr to a file.

    Text with a carriage return is not copied, so progress bars stay out of the file.
    """

    def __init__(self, path: str | os.PathLike):
        self._file = open(path, "a", encoding="utf-8", buffering=1)
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = (_Tee(stream, self._file) for stream in self._streams)

    def close(self) -> None:
        """Restore both streams and close the file.  Calling it again has no effect."""
        if not self._file.closed:
            sys.stdout, sys.stderr = self._streams
            self._file.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Tee:
    """A text stream that also writes to a second one."""

    def __init__(self, stream: Any, copy: Any):
        self._stream = stream
        self._copy = copy

    def write(self, text: str) -> int:
        self._stream.write(text)
        if "\r" not in text:
            with contextlib.suppress(OSError):  # a full disk must not silence the screen
                self._copy.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_url(
    url: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    num_attempts: int = 10,
    verbose: bool = True,
    return_filename: bool = False,
    cache: bool = True,
) -> BinaryIO | str:
    """`dnnlib.download.open_url` with the arguments that scripts of this family pass.

    Returns a file open for reading, or its path if `return_filename`.  Makes up to `num_attempts` attempts while there is no
    connection; `verbose` shows a progress bar.  Without `cache`, the download is not kept on disk, so there is no path to
    return: asking for one raises ValueError.  Raises UserError with the reason if the file cannot be had.
    """
    from . import download  # here: it imports this module

    if return_filename and not cache:
        raise ValueError("return_filename needs cache=True: a file that is not cached has no name")
    with contextlib.ExitStack() as stack:
        if not cache:
            cache_dir = stack.enter_context(tempfile.TemporaryDirectory())
        for attempt in range(1, num_attempts + 1):
            try:
                file = download.open_url(url, cache_dir, show_progress=verbose)
                break
            except download.Unreachable:
                if attempt == num_attempts:
                    raise
    if return_filename:
        with file:
            return file.name
    return file
