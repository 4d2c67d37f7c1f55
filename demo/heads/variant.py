"""The renderer and its denoiser: mitsuba, compiled with LLVM if a working version is found, else its scalar variant."""

import os
import re
from pathlib import Path

from dnnlib.util import UserError

__all__ = ["find_llvm", "mitsuba", "mitsuba_oidn", "select_variant"]

OLDEST_LLVM = 17  # versions 15 and 16 abort the process in the middle of a kernel
LLVM_FOLDERS = (
    "/usr/lib/*-linux-gnu",
    "/usr/lib64",
    "/usr/lib/llvm-*/lib",
    "/usr/local/lib",
    "/opt/homebrew/opt/llvm/lib",
    "/usr/local/opt/llvm/lib",
)
_LLVM_NAME = re.compile(r"libLLVM(?:-(\d+)[\d.]*\.so[\d.]*|\.so\.(\d+)[\d.]*|\.(\d+)[\d.]*\.dylib)")


def find_llvm(folders: tuple[str, ...] = LLVM_FOLDERS) -> Path | None:
    """The newest working libLLVM in `folders` (patterns), or the one named by DRJIT_LIBLLVM_PATH.  None if none works."""
    named = os.environ.get("DRJIT_LIBLLVM_PATH")
    if named and _llvm_version(Path(named)) >= OLDEST_LLVM and Path(named).is_file():
        return Path(named)
    found = [path for folder in folders for path in Path("/").glob(f"{folder.lstrip('/')}/libLLVM*") if path.is_file()]
    found = [path for path in found if _llvm_version(path) >= OLDEST_LLVM]
    return max(sorted(found), key=_llvm_version, default=None)


def _llvm_version(library: Path) -> int:
    """The major version in a name such as libLLVM.so.19.1, libLLVM-17.so or libLLVM.20.dylib; 0 for other files."""
    for path in (library.resolve(), library):
        match = _LLVM_NAME.fullmatch(path.name)
        if match:
            return int(next(filter(None, match.groups())))
    return 0


_library = find_llvm()
if _library is not None:
    os.environ["DRJIT_LIBLLVM_PATH"] = str(_library)  # read when the renderer is imported

try:
    import mitsuba
    import mitsuba_oidn
except ImportError:
    raise UserError("rendering heads needs mitsuba and mitsuba-oidn: pip install 'multi_pose[heads]'") from None


def select_variant() -> str:
    """Set mitsuba's variant, once for the process, and return its name: ``llvm_ad_rgb`` (twice as fast) or ``scalar_rgb``."""
    if mitsuba.variant() is None:
        mitsuba.set_variant("scalar_rgb" if _library is None else "llvm_ad_rgb")
    return mitsuba.variant()
