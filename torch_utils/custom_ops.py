"""Compiled versions of `torch_utils.ops`: built on first use, kept for the next process, and never needed.

The environment variable TORCH_UTILS_OPS says what to do: ``auto`` (the default) builds, and where that fails says so once and
goes on in plain PyTorch; ``ref`` is plain PyTorch; ``require`` makes a failure an error.

A build lies in torch's cache of extensions (TORCH_EXTENSIONS_DIR) under a name made of all that it depends on: sources, flags,
compiler, processor, torch.  One process builds, others wait for it.
"""

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Iterator

import torch

from dnnlib import UserError

SWITCH = "TORCH_UTILS_OPS"
MODES = ("auto", "ref", "require")
LIBRARY = "multi_pose"  # the name in torch.ops
SOURCES = Path(__file__).parent / "ops" / "csrc"
CPU_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")

_lock = threading.Lock()


def mode() -> str:
    """The entry of `MODES` that the environment asks for; UserError for anything else."""
    value = os.environ.get(SWITCH, "auto")
    if value not in MODES:
        raise UserError(f"{SWITCH}={value}: it is one of {', '.join(MODES)}")
    return value


def compiled(*tensors: torch.Tensor | None) -> Any | None:
    """The compiled ops, as attributes, if they can take these tensors (None stands for an argument left out), else None.

    That is where all are float32, or all float64, and on the CPU.  The first call builds.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    dtype = given[0].dtype
    if dtype not in (torch.float32, torch.float64) or any(t.device.type != "cpu" or t.dtype != dtype for t in given):
        return None
    return cpu_ops()


def cpu_ops() -> Any | None:
    """The namespace of the compiled CPU ops, or None in plain PyTorch; RuntimeError if they are required but cannot be built."""
    wanted = mode()
    if wanted == "ref":
        return None
    with _lock:
        failure = _load()
    if failure is None:
        return getattr(torch.ops, LIBRARY)
    if wanted == "require":
        raise RuntimeError(f"the compiled ops that {SWITCH}=require asks for cannot be built: {failure}")
    return None


@functools.cache
def _load() -> str | None:
    """Load the library, built before if need be; returns what went wrong, which `auto` also tells."""
    try:
        _load_or_build(sorted(SOURCES.glob("*.cpp")), CPU_FLAGS)
    except Exception as error:  # whatever is wrong with compiler, disk or torch's headers, PyTorch alone does the same
        failure = _reason(error)
        if mode() == "auto":
            print(
                f"Warning: no compiled ops, slower plain PyTorch instead ({SWITCH}=ref asks for that): {failure}",
                file=sys.stderr,
            )
        return failure
    return None


def _reason(error: Exception) -> str:
    """One line: the compiler's first complaint, or else the error's first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaints = [line for line in lines if "error:" in line]
    return (complaints + lines + [type(error).__name__])[0]


def _load_or_build(sources: list[Path], flags: tuple[str, ...]) -> None:
    from torch.utils import cpp_extension  # here: it imports setuptools, which nothing else needs

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    library = root / f"{LIBRARY}_{_fingerprint(cpp_extension.get_cxx_compiler(), flags)}.so"
    with _file_lock(library.with_suffix(".lock")):
        if library.exists():
            torch.ops.load_library(str(library))
            return
        print("Building compiled ops, once on this machine ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=root) as folder, _ninja_on_path():
            cpp_extension.load(
                LIBRARY, [str(p) for p in sources], extra_cflags=list(flags), build_directory=folder, is_python_module=False
            )
            (Path(folder) / f"{LIBRARY}.so").replace(library)


def _fingerprint(compiler: str, flags: tuple[str, ...]) -> str:
    """A name for all that a build depends on; an error if there is no compiler."""
    # The processor as the compiler sees it: builds are for this machine's instructions.
    native = subprocess.run([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True)
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    parts = [*flags, version, native.stdout, torch.__version__, platform.machine(), sys.version]
    for path in sorted(SOURCES.iterdir()):
        parts += [path.name, path.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold the lock `path` among the processes of this machine; the system frees it when its holder dies."""
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Let the builder find the ninja of this Python's packages, where the environment is not activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([before, str(Path(sys.executable).parent)])
    try:
        yield
    finally:
        os.environ["PATH"] = before
