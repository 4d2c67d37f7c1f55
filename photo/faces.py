"""Finds faces in a photo, small or large, upright or rotated: their 478 landmarks in pixels of the photo."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dnnlib import UserError

from .camera import View, first_frame_of, view_of_landmarks
from .frame import Frame
from .head_model import OVAL_LANDMARKS
from .models import LANDMARKER, load_mediapipe, quiet_stderr
from .photograph import Photo

LOOK_PIXELS = 512  # side of the pictures that the landmarker gets
FACES_PER_LOOK = 8
LEAST_WINDOW = 192  # pixels of the photo; the detector finds faces that are at least a fifth of a window's side
MOST_LEVELS = 5  # the smallest windows are a sixteenth of the photo
QUARTER_TURNS = (0.0, np.pi / 2, -np.pi / 2, np.pi)
MAX_MISFIT = (
    0.03  # for faces; other things that the landmarker reports fit the model worse (photos and rendered heads: 0.004 to 0.016)
)
# Largest change between two close-ups, in first frames.  Faces turned by over 60 degrees that are misread, which nothing else
# reveals, change by 0.015 to 0.05; other faces by up to 0.013, and photos by up to 0.009.
MAX_UNSTEADINESS = 0.015
CLOSE_UP, SECOND_CLOSE_UP = 1.25, 1.5  # windows of the second and third pass, relative to a face's first frame
SECOND_CLOSE_UP_TURN = 0.15  # radians; a slightly different view, so that errors differ
# The landmarker follows only about three quarters of a head's pitch.  It sees rendered heads 2 degrees lower than their labels,
# and photos as labelled.  The correction is a line between the two (`photo.benchmark`).
PITCH_GAIN, PITCH_OFFSET = 1.25, -1.2  # degrees
SAME_FACE = 0.5  # detections closer than this, in face sizes, are the same face


@dataclass(frozen=True)
class Face:
    """A face: its landmarks [478, 3] (x, y in pixels of the photo, z away from the camera in the same unit) and its view."""

    landmarks: np.ndarray
    view: View

    @property
    def size(self) -> float:
        """Longer side of the bounding box of the face's oval, in pixels."""
        return float(np.ptp(self.landmarks[list(OVAL_LANDMARKS), :2], axis=0).max())

    @property
    def centre(self) -> np.ndarray:
        """Centre [2] of that box."""
        oval = self.landmarks[list(OVAL_LANDMARKS), :2]
        return (oval.min(axis=0) + oval.max(axis=0)) / 2


class FaceFinder:
    """MediaPipe's face landmarker, applied to windows of many sizes in a photo.  A context manager."""

    def __init__(self, model_path: str | os.PathLike | None = None):
        """`model_path` is a face_landmarker.task; for None see `ModelFile.read`.  UserError if it or mediapipe is missing."""
        self._mediapipe = load_mediapipe()
        vision = self._mediapipe.tasks.vision
        base = self._mediapipe.tasks.BaseOptions(model_asset_buffer=LANDMARKER.read(model_path))
        options = vision.FaceLandmarkerOptions(base_options=base, num_faces=FACES_PER_LOOK)
        with quiet_stderr():
            self._landmarker = load_model(vision.FaceLandmarker, options, model_path)
            self._look_at(Image.new("RGB", (LOOK_PIXELS, LOOK_PIXELS)))  # the first call also logs

    def __enter__(self) -> "FaceFinder":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._landmarker.close()

    def shows_face(self, picture: np.ndarray) -> bool:
        """Whether a square picture, uint8 [H, H, 3], that is framed like a portrait shows a face.  Looks only once."""
        size = (max(len(picture), LOOK_PIXELS),) * 2  # the detector needs small pictures to be enlarged
        return bool(self._look_at(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)))

    def find(self, photo: Photo, every_size: bool = False) -> list[Face]:
        """Find the faces of a photo, sorted from the largest to the smallest.

        Windows get smaller until they show a face, and then once more, because a face of nearly the same size can be missed at
        first.  `every_size` continues to the smallest windows.  If upright windows show nothing, windows rotated by quarter
        turns are tried.
        """
        for turns in (QUARTER_TURNS[:1], QUARTER_TURNS[1:]):
            found: list[Face] = []
            found_above = False
            for windows in _levels(photo.size, turns):
                candidates = [face for window in windows for face in self._look(photo, window)]
                found.extend(filter(None, (self._look_again(photo, face) for face in candidates)))
                if found_above and not every_size:
                    break
                found_above = bool(found)
            if found:
                return _without_doubles(found)
        return []

    def _look(self, photo: Photo, window: Frame) -> list[np.ndarray]:
        """Landmarks [478, 3] of every face in a window."""
        faces = []
        for landmarks in self._look_at(photo.cut(window, LOOK_PIXELS)):
            places = window.to_photo(landmarks[:, :2])
            faces.append(np.concatenate([places, landmarks[:, 2:] * window.size], axis=1))
        return faces

    def _look_again(self, photo: Photo, landmarks: np.ndarray) -> Face | None:
        """Look at a face again, upright and centred, where the landmarker is most accurate.  None if it is not a face.

        Upside-down faces are sometimes read as upright ones, so both orientations are tried.  The right one fits the model
        better and stays the same in both close-ups.
        """
        found = filter(None, (self._close_up(photo, landmarks, turn) for turn in (0.0, np.pi)))
        face = min(found, key=lambda pair: pair[0], default=(0.0, None))[1]
        return face if face is not None and face.view.misfit <= MAX_MISFIT else None

    def _close_up(self, photo: Photo, landmarks: np.ndarray, turn: float) -> tuple[float, Face] | None:
        """A measure of doubt, and the mean of two close-ups of a face.  None if the close-ups disagree."""
        looks = []
        for close_up, extra_turn in ((CLOSE_UP, turn), (SECOND_CLOSE_UP, SECOND_CLOSE_UP_TURN)):
            first = first_frame_of(landmarks)
            seen = self._look(photo, Frame(first.centre, close_up * first.size, first.angle + extra_turn))
            if not seen:
                return None
            middle = landmarks[:, :2].mean(axis=0)
            landmarks = min(seen, key=lambda face: np.hypot(*(face[:, :2].mean(axis=0) - middle)))
            looks.append(landmarks)
        unsteadiness = np.sqrt(((looks[0] - looks[1])[:, :2] ** 2).sum(axis=1).mean()) / first.size
        if unsteadiness > MAX_UNSTEADINESS:
            return None
        mean = (looks[0] + looks[1]) / 2
        face = Face(mean, view_of_landmarks(mean, PITCH_GAIN, PITCH_OFFSET))
        return face.view.misfit + unsteadiness, face

    def _look_at(self, picture: Image.Image) -> list[np.ndarray]:
        """Landmarks [478, 3], in sides of a square picture."""
        image = self._mediapipe.Image(self._mediapipe.ImageFormat.SRGB, np.ascontiguousarray(picture))
        result = self._landmarker.detect(image)
        return [np.array([[mark.x, mark.y, mark.z] for mark in face]) for face in result.face_landmarks]


def load_model(task: Any, options: Any, path: str | os.PathLike | None) -> Any:
    """Create a MediaPipe task.  Raises UserError if MediaPipe rejects the model file."""
    try:
        return task.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"mediapipe refuses {path or 'the published model file'}: {reason}") from None


def _levels(size: tuple[int, int], turns: tuple[float, ...]) -> Iterator[list[Frame]]:
    """Windows that cover a photo: first a single one, then smaller and smaller ones that overlap by half."""
    width, height = size
    yield [Frame((width / 2, height / 2), max(size), turn) for turn in turns]
    side = float(min(size))
    for _ in range(MOST_LEVELS):
        if side < max(size):
            columns, rows = (max(1, round(2 * length / side) - 1) for length in size)
            middles_x = np.linspace(side / 2, width - side / 2, columns) if columns > 1 else [width / 2]
            middles_y = np.linspace(side / 2, height - side / 2, rows) if rows > 1 else [height / 2]
            yield [Frame((float(x), float(y)), side, turn) for turn in turns for y in middles_y for x in middles_x]
        side /= 2
        if side < LEAST_WINDOW:
            return


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Keep the best detection of each face, sorted from the largest face to the smallest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.view.misfit):
        if all(np.hypot(*(face.centre - other.centre)) > SAME_FACE * max(face.size, other.size) for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.size)
