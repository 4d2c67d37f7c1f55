"""Compiled versions of `torch_utils.ops`: built on first use, kept for the next process, and never needed.

The environment variable TORCH_UTILS_OPS says what to do: ``auto`` (the default) builds, and where that fails says so once and
goes on in plain PyTorch; ``ref`` is plain PyTorch; ``require`` makes a failure an error.

CPU and CUDA ops are two libraries with the same names in them, each built when it is first wanted.  A build lies in torch's
cache of extensions (TORCH_EXTENSIONS_DIR) under a name made of all that it depends on: sources, flags, compilers, processor or
GPU, torch.  One process builds, others wait for it.
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
    """Ops for one kind of device."""

    name: str  # in torch.ops
    title: str
    folder: Path


CPU = Library("multi_pose", "ops", SOURCES)
CUDA = Library("multi_pose_cuda", "CUDA ops", SOURCES / "cuda")

_lock = threading.Lock()


def mode() -> str:
    """The entry of `MODES` that the environment asks for; UserError for anything else."""
    value = os.environ.get(SWITCH, "auto")
    if value not in MODES:
        raise UserError(f"{SWITCH}={value}: it is one of {', '.join(MODES)}")
    return value


def compiled(*tensors: torch.Tensor | None, half: bool = False) -> Any | None:
    """The compiled ops, as attributes, if they can take these tensors (None stands for an argument left out), else None.

    That is where all are float32, or all float64, and all on the CPU or on one CUDA device; there also all float16, or all
    bfloat16, for ops that have it (`half`).  The first call for a kind of device builds.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    device, dtype = given[0].device, given[0].dtype
    half = half and device.type == "cuda" and dtype in HALF_PRECISION
    if not (half or dtype in FULL_PRECISION) or any(t.device != device or t.dtype != dtype for t in given):
        return None
    return {"cpu": cpu_ops, "cuda": cuda_ops}.get(device.type, lambda: None)()


def cpu_ops() -> Any | None:
    """The namespace of the compiled CPU ops, or None in plain PyTorch; RuntimeError if required ones cannot be built."""
    return _ops(CPU)


def cuda_ops() -> Any | None:
    """The same of the CUDA ops, for the devices that this process sees."""
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
    """Load the library, built before if need be; returns what went wrong, which `auto` also tells."""
    try:
        _load_or_build(library)
    except Exception as error:  # whatever is wrong with compiler, disk or torch's headers, PyTorch alone does the same
        failure = _reason(error)
        if mode() == "auto":
            print(
                f"Warning: no compiled {library.title}, slower plain PyTorch instead ({SWITCH}=ref asks for that): {failure}",
                file=sys.stderr,
            )
        return failure
    return None


def _reason(error: Exception) -> str:
    """One line: the compiler's first complaint, or else the error's first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaints = [line for line in lines if "error:" in line]
    return (complaints + lines + [type(error).__name__])[0]


def _load_or_build(library: Library) -> None:
    from torch.utils import cpp_extension  # here: it imports setuptools, which nothing else needs

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
    """Arguments of the builder, and a text that tells compilers and processors apart; an error if there is no compiler."""
    compiler = cpp_extension.get_cxx_compiler()
    # The processor as the compiler sees it: builds are for this machine's instructions.
    native = subprocess.run([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True)
    return {"extra_cflags": list(CPU_FLAGS)}, _version(compiler) + native.stdout


def _for_cuda(cpp_extension: Any) -> tuple[dict[str, list[str]], str]:
    """The same for all GPUs in sight."""
    home = cuda_home()
    if home is None:
        raise RuntimeError("no nvcc on the path: install a CUDA toolkit, or say in CUDA_HOME where it is")
    cpp_extension.CUDA_HOME = str(home)
    nvcc = str(home / "bin" / "nvcc")
    return {"extra_cflags": ["-O3"], "extra_cuda_cflags": ["-O3", *_cuda_targets()]}, (
        _version(nvcc) + _version(cpp_extension.get_cxx_compiler()) + os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    )


def _cuda_targets() -> list[str]:
    """Arguments of nvcc for the GPUs in sight; none where there are none and TORCH_CUDA_ARCH_LIST tells the builder."""
    devices = range(torch.cuda.device_count())
    names = sorted({"{}{}".format(*torch.cuda.get_device_capability(device)) for device in devices})
    if not names and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        names = _usual_architectures(torch.version.cuda)
        listed = ", ".join(f"{name[:-1]}.{name[-1]}" for name in names)
        print(
            f"No GPU in sight: building for compute capability {listed}, the usual ones of CUDA {torch.version.cuda}; "
            "TORCH_CUDA_ARCH_LIST names others",
            file=sys.stderr,
        )
    return [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]


def _usual_architectures(cuda: str | None) -> list[str]:
    """What data centres have that this version of CUDA compiles for."""
    version = tuple(int(part) for part in (cuda or "11.8").split(".")[:2])
    oldest = ["70"] if version < (13, 0) else []
    newest = ["100"] if version >= (12, 8) else []
    return [*oldest, "80", "86", *(["90"] if version >= (11, 8) else []), *newest]


def cuda_home() -> Path | None:
    """The folder of the CUDA toolkit: CUDA_HOME, or that of the nvcc on the path, which may be a link or a script elsewhere."""
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
    """A name for all that a build depends on."""
    parts = [str(flags), compilers, torch.__version__, platform.machine(), sys.version]
    for path in sorted(library.folder.iterdir()):
        parts += [path.name, path.read_text()] if path.is_file() else []
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _file_lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock `path` among the processes of this machine; the system frees it when its holder dies.

    Without `wait`, BlockingIOError if another holds it.
    """
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def _build_folder(built: Path) -> Iterator[Path]:
    """An empty folder to build `built` in, whose lock the caller holds; it goes afterwards.

    So do those of builds that were killed: whoever builds holds the lock of the same name, which is free where nobody does.
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
    """Let the builder find the ninja of this Python's packages, where the environment is not activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([before, str(Path(sys.executable).parent)])
    try:
        yield
    finally:
        os.environ["PATH"] = before
