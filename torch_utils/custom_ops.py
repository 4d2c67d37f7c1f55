"""Compiles the ops of `torch_utils.ops` on first use and caches them.  Everything also runs without them.

The environment variable TORCH_UTILS_OPS selects the mode.  ``auto`` (the default) compiles the ops; if that fails, it prints
one warning and falls back to plain PyTorch.  ``ref`` always uses plain PyTorch.  ``require`` turns a failure into an error.

CPU and CUDA ops are two libraries that define the same names.  Each is compiled when it is first needed.  A build is stored in
torch's extension cache (TORCH_EXTENSIONS_DIR) under a name derived from everything it depends on: sources, flags, compilers,
processor or GPU, and torch.  If several processes need a build, one compiles and the others wait.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import torch

from dnnlib import UserError

SWITCH = "TORCH_UTILS_OPS"
MODES = ("auto", "ref", "require")
SOURCES = Path(__file__).parent / "ops" / "csrc"
CPU_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
FULL_PRECISION = (torch.float32, torch.float64)
HALF_PRECISION = (torch.float16, torch.bfloat16)


class Library(NamedTuple):
    """The ops for one type of device."""

    name: str  # namespace in torch.ops
    title: str
    folder: Path


CPU = Library("multi_pose", "ops", SOURCES)
CUDA = Library("multi_pose_cuda", "CUDA ops", SOURCES / "cuda")

_lock = threading.Lock()


def mode() -> str:
    """The entry of `MODES` that the environment selects.  Raises UserError for anything else."""
    value = os.environ.get(SWITCH, "auto")
    if value not in MODES:
        raise UserError(f"{SWITCH}={value} is not a mode; set it to one of {', '.join(MODES)}")
    return value


def compiled(*tensors: torch.Tensor | None, half: bool = False) -> Any | None:
    """Return the namespace of the compiled ops if they support these tensors, and None otherwise.

    None among the tensors stands for an argument that was left out.  The tensors must all be float32 or all float64, and all on
    the CPU or all on one CUDA device.  On CUDA, ops with `half` also take tensors that are all float16 or all bfloat16.  The
    first call for a type of device compiles its ops.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    device, dtype = given[0].device, given[0].dtype
    half = half and device.type == "cuda" and dtype in HALF_PRECISION
    if not (half or dtype in FULL_PRECISION) or any(t.device != device or t.dtype != dtype for t in given):
        return None
    return {"cpu": cpu_ops, "cuda": cuda_ops}.get(device.type, lambda: None)()


def cpu_ops() -> Any | None:
    """The namespace of the compiled CPU ops, or None in plain PyTorch.  Raises RuntimeError if required ops do not compile."""
    return _ops(CPU)


def cuda_ops() -> Any | None:
    """The namespace of the compiled CUDA ops, built for the GPUs that this process sees; otherwise like `cpu_ops`."""
    return _ops(CUDA)


def _ops(library: Library) -> Any | None:
    wanted = mode()
    if wanted == "ref":
        return None
    with _lock:
        failure = _load(library)
    if failure is None:
        return getattr(torch.ops, library.name)
    if wanted == "require":
        raise RuntimeError(f"the compiled {library.title} that {SWITCH}=require asks for cannot be built: {failure}")
    return None


@functools.cache
def _load(library: Library) -> str | None:
    """Load the library and build it first if necessary.  Returns the reason of a failure; `auto` also prints it."""
    try:
        _load_or_build(library)
    except Exception as error:  # plain PyTorch works whatever is wrong with the compiler, the disk or torch's headers
        failure = _reason(error)
        if mode() == "auto":
            print(
                f"Warning: no compiled {library.title}, using slower plain PyTorch ({SWITCH}=ref silences this): {failure}",
                file=sys.stderr,
            )
        return failure
    return None


def _reason(error: Exception) -> str:
    """One line: the first error of the compiler, or else the first line of the exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaints = [line for line in lines if "error:" in line]
    return (complaints + lines + [type(error).__name__])[0]


def _load_or_build(library: Library) -> None:
    from torch.utils import cpp_extension  # imported here because it loads setuptools, which nothing else needs

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    flags, compilers = _for_cuda(cpp_extension) if library is CUDA else _for_cpu(cpp_extension)
    built = root / f"{library.name}_{_fingerprint(library, flags, compilers)}.so"
    with _file_lock(built.with_suffix(".lock")):
        if built.exists():
            torch.ops.load_library(str(built))
            return
        print(f"Building compiled {library.title}, once on this machine ...", file=sys.stderr, flush=True)
        sources = [str(path) for suffix in ("*.cpp", "*.cu") for path in sorted(library.folder.glob(suffix))]
        with _build_folder(built) as folder, _ninja_on_path():
            cpp_extension.load(library.name, sources, **flags, build_directory=str(folder), is_python_module=False)
            (folder / f"{library.name}.so").replace(built)


def _for_cpu(cpp_extension: Any) -> tuple[dict[str, list[str]], str]:
    """Arguments for the builder, and a text that identifies compiler and processor.  Raises an error without a compiler."""
    compiler = cpp_extension.get_cxx_compiler()
    # The processor as the compiler sees it, because builds use the instructions of this machine.
    native = subprocess.run([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True)
    return {"extra_cflags": list(CPU_FLAGS)}, _version(compiler) + native.stdout


def _for_cuda(cpp_extension: Any) -> tuple[dict[str, list[str]], str]:
    """Like `_for_cpu`, for the compilers and the visible GPUs."""
    home = cuda_home()
    if home is None:
        raise RuntimeError("no nvcc on the path: install a CUDA toolkit, or set CUDA_HOME to its folder")
    cpp_extension.CUDA_HOME = str(home)
    nvcc = str(home / "bin" / "nvcc")
    return {"extra_cflags": ["-O3"], "extra_cuda_cflags": ["-O3", *_cuda_targets()]}, (
        _version(nvcc) + _version(cpp_extension.get_cxx_compiler()) + os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    )


def _cuda_targets() -> list[str]:
    """Arguments of nvcc for the visible GPUs.  Empty if there are none and TORCH_CUDA_ARCH_LIST names the targets instead."""
    devices = range(torch.cuda.device_count())
    names = sorted({"{}{}".format(*torch.cuda.get_device_capability(device)) for device in devices})
    if not names and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        names = _usual_architectures(torch.version.cuda)
        listed = ", ".join(f"{name[:-1]}.{name[-1]}" for name in names)
        print(
            f"No GPU visible: building for compute capability {listed}, the usual ones of CUDA {torch.version.cuda}; "
            "set TORCH_CUDA_ARCH_LIST to choose others",
            file=sys.stderr,
        )
    return [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]


def _usual_architectures(cuda: str | None) -> list[str]:
    """The data-centre architectures that this version of CUDA can compile for."""
    version = tuple(int(part) for part in (cuda or "11.8").split(".")[:2])
    oldest = ["70"] if version < (13, 0) else []
    newest = ["100"] if version >= (12, 8) else []
    return [*oldest, "80", "86", *(["90"] if version >= (11, 8) else []), *newest]


def cuda_home() -> Path | None:
    """The folder of the CUDA toolkit: CUDA_HOME, or that of the nvcc on the path, resolving links and wrapper scripts."""
    if os.environ.get("CUDA_HOME"):
        return Path(os.environ["CUDA_HOME"])
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    plan = subprocess.run([nvcc, "-dryrun", "-x", "cu", os.devnull, "-o", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
    return Path(top[1]).resolve() if top else None


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


def _fingerprint(library: Library, flags: dict[str, list[str]], compilers: str) -> str:
    """A hash of everything that a build depends on."""
    parts = [str(flags), compilers, torch.__version__, platform.machine(), sys.version]
    for path in sorted(library.folder.iterdir()):
        parts += [path.name, path.read_text()] if path.is_file() else []
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _file_lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path` among the processes of this machine.  The system releases it if the holder dies.

    Without `wait`, raises BlockingIOError if another process holds the lock.
    """
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def _build_folder(built: Path) -> Iterator[Path]:
    """Yield an empty folder in which to build `built`, and remove it afterwards.  The caller must hold the build's lock.

    Also removes the folders of builds that were killed.  Every builder holds the lock of the same name, so a folder whose lock
    is free has been abandoned.
    """
    own = built.with_suffix(".build")
    shutil.rmtree(own, ignore_errors=True)
    for library in (CPU, CUDA):
        for folder in built.parent.glob(f"{library.name}_*.build"):
            with contextlib.suppress(OSError), _file_lock(folder.with_suffix(".lock"), wait=False):
                shutil.rmtree(folder)
    own.mkdir()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Let the builder find the ninja among this Python's packages, even if the environment is not activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([before, str(Path(sys.executable).parent)])
    try:
        yield
    finally:
        os.environ["PATH"] = before
