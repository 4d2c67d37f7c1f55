"""Reports what this machine provides for compiled ops, builds them all, and compares each with plain PyTorch.

python -m torch_utils.doctor

Exits with code 1 if an op disagrees with plain PyTorch, or if ops do not compile although TORCH_UTILS_OPS=require.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from dnnlib import cli
from torch_utils import custom_ops
from torch_utils.ops import examples

_FOLDER_FIX = "set TORCH_EXTENSIONS_DIR to a folder that can be written to"
# Patterns in the reason of a failed build, and how to fix it.  The first match counts.
_FIXES = (
    (r"nvcc|CUDA_HOME|cuda_runtime", "install the CUDA toolkit that PyTorch was built for, and set CUDA_HOME to its folder"),
    (r"[Nn]inja", "pip install ninja"),
    (r"Python\.h", "install Python's headers: apt install python3-dev, or use the Python of a conda environment"),
    (r"omp\.h|-lgomp|libgomp", "install a compiler with OpenMP: apt install g++"),
    (r"[Pp]ermission|[Rr]ead-only|No space|Not a directory", _FOLDER_FIX),
    (r"C\+\+\d\d|-std=", "install a newer compiler (g++ 11 or later), and name it in CXX"),
    (
        r"No such file|not found|CXX|g\+\+|c\+\+",
        "install a C++ compiler (apt install g++, or conda install gxx), or name one in CXX",
    ),
)
_ANY_FIX = "delete the files multi_pose_* in the cache folder and run this again; TORCH_UTILS_OPS=ref works without them"
_WRONG_FIX = "set TORCH_UTILS_OPS=ref, delete the files multi_pose_* in the cache folder, and report this with the lines above"


class Finding(NamedTuple):
    """One check: what was checked, the result, and how to fix a failure.  `fatal` ones set the exit code to 1."""

    what: str
    outcome: str
    fix: str | None = None
    fatal: bool = False


def machine() -> dict[str, str]:
    """Facts about the machine, by name: what the report of a failure should contain."""
    facts = dict(
        Python=f"{platform.python_version()}, {sys.executable}",
        PyTorch=f"{torch.__version__}, {f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}",
        CPU=f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        compiler=_first_line([os.environ.get("CXX", "c++"), "--version"]),
        ninja=_first_line([_beside_python("ninja"), "--version"]),
        nvcc=_last_line([_nvcc(), "--version"]),
        GPU=", ".join(_gpus()) or "none that PyTorch finds",
    )
    facts["cache folder"] = f"{cache_folder()}, {_free_space(cache_folder())}"
    facts[custom_ops.SWITCH] = custom_ops.mode()
    return facts


def cache_folder() -> Path:
    """The folder in which builds are cached."""
    from torch.utils import cpp_extension  # imported here because it loads setuptools

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())


def check_device(device: torch.device) -> list[Finding]:
    """Build the ops for `device` and compare each with plain PyTorch, in each dtype."""
    try:
        with examples.ops_mode("require"):
            ops = custom_ops.compiled(torch.zeros(1, device=device))
    except RuntimeError as error:
        reason = str(error).rpartition("cannot be built: ")[2]
        return [Finding(f"{device}: build", f"FAILED: {reason}", fix_of(reason), custom_ops.mode() == "require")]
    if ops is None:
        return [Finding(f"{device}: build", "there are no compiled ops for this device; plain PyTorch runs")]
    findings = [Finding(f"{device}: build", "ok")]
    for name, example in examples.EXAMPLES.items():
        dtypes = custom_ops.FULL_PRECISION
        if example.half and device.type == "cuda":
            dtypes += custom_ops.HALF_PRECISION
        findings += [check_op(name, example, device, dtype) for dtype in dtypes]
    return findings


def check_op(name: str, example: examples.Example, device: torch.device, dtype: torch.dtype) -> Finding:
    """Compare one op with plain PyTorch: values, gradients and, where it has them, second derivatives."""
    what = f"{device}: {name}, {str(dtype).removeprefix('torch.')}"
    try:
        difference = examples.largest_difference(example, device, dtype)
    except RuntimeError as error:
        return Finding(what, f"FAILED: {str(error).splitlines()[0]}", _WRONG_FIX, fatal=True)
    if difference > examples.TOLERANCES[dtype]:
        return Finding(what, f"FAILED: differs from plain PyTorch by {difference:.1e}", _WRONG_FIX, fatal=True)
    return Finding(what, f"ok, differs from plain PyTorch by {difference:.1e}")


def fix_of(reason: str) -> str:
    """How to fix a failed build."""
    if str(cache_folder()) in reason:
        return _FOLDER_FIX
    return next((fix for pattern, fix in _FIXES if re.search(pattern, reason)), _ANY_FIX)


@cli.command()
def main() -> None:
    """Report what this machine provides for compiled ops, build them all, and compare each with plain PyTorch.

    Exits with code 1 if an op disagrees with plain PyTorch, or if ops do not compile although TORCH_UTILS_OPS=require.
    """
    for name, fact in machine().items():
        print(f"{name + ':':<17}{fact}")
    if custom_ops.mode() == "ref":
        print(f"\n{custom_ops.SWITCH}=ref selects plain PyTorch, so nothing is built or checked")
        return
    failed = False
    for device in [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else []):
        print()
        for finding in check_device(device):
            print(f"{finding.what:<46}{finding.outcome}")
            if finding.fix is not None:
                print(f"  to fix it: {finding.fix}")
            failed |= finding.fatal
    sys.exit(1 if failed else 0)


def _cpu_name() -> str:
    try:
        names = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{gpu.name} ({gpu.major}.{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB)" for gpu in found]


def _nvcc() -> str:
    home = custom_ops.cuda_home()
    return "nvcc" if home is None else str(home / "bin" / "nvcc")


def _beside_python(program: str) -> str:
    """The path of a program: on the path, or among this Python's packages if the environment is not activated."""
    return shutil.which(program) or str(Path(sys.executable).parent / program)


def _first_line(command: list[str]) -> str:
    return (_output(command) or ["not found"])[0]


def _last_line(command: list[str]) -> str:
    return (_output(command) or ["not found"])[-1]


def _output(command: list[str]) -> list[str]:
    """The lines that `command` prints, preceded by the location of the program.  Empty if it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [f"{line}, {shutil.which(command[0])}" for line in done.stdout.splitlines() if line.strip()]


def _free_space(folder: Path) -> str:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free"
    except OSError as error:
        return f"cannot be written to: {error.strerror}"


if __name__ == "__main__":
    main()
