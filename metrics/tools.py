"""What sees something in pictures, for the metrics that were asked for: opened once, or refused with what to do."""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image

import camera_utils
from dnnlib import UserError
from dnnlib.download import open_url
from metrics.detectors import Detector, load_detector
from metrics.digests import sha256_of_file
from metrics.requests import DISTANCES, EFFICIENTNET, Request
from photo.faces import FaceFinder
from photo.head_model import LEFT_EYE_CORNERS, MOUTH_CORNERS, RIGHT_EYE_CORNERS, face_model
from photo.models import LANDMARKER, SEGMENTER
from photo.person_mask import PersonSegmenter
from pti.perceptual import is_script

NOSE_TIP = 1  # MediaPipe's number of it
# Where networks of faces (ArcFace, Deng 2019) want eyes, nose and mouth in a picture of 112 pixels: x, y.
FACE_PIXELS = 112
FACE_PLACES = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]])


class Embedder:
    """A network that knows people: TorchScript, RGB faces [N, 3, 112, 112] in [-1, 1] -> [N, D], as ArcFace is exported."""

    def __init__(self, place: str | None, device: torch.device | str):
        """UserError without a file, or for one that does not do so."""
        if place is None:
            raise UserError("id wants a network that knows faces: give --embedder, a path or URL of ArcFace as TorchScript")
        with open_url(place) as file:
            path = file.name
        self.sha256 = sha256_of_file(path)
        self._device = device
        try:
            if not is_script(path):
                raise ValueError("it is not TorchScript")
            self._network = torch.jit.load(path, map_location="cpu").eval().to(device)
            found = self.embed(np.zeros([2, FACE_PIXELS, FACE_PIXELS, 3], np.uint8))
            if found.ndim != 2:
                raise ValueError(f"it gives {found.ndim} dimensions instead of [N, D]")
        except (RuntimeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{place} is no network that takes faces [N, 3, {FACE_PIXELS}, {FACE_PIXELS}]: {reason}") from None

    @torch.no_grad()
    def embed(self, faces: np.ndarray) -> np.ndarray:
        """Unit vectors [N, D] of faces uint8 [N, 112, 112, 3]."""
        batch = torch.from_numpy(faces).to(self._device).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
        return torch.nn.functional.normalize(self._network(batch), dim=1).cpu().numpy()


def face_of(picture: np.ndarray, label: torch.Tensor) -> np.ndarray:
    """The face in a picture uint8 [H, H, 3] of the camera `label` [25], as an Embedder takes it: uint8 [112, 112, 3].

    An average face says where eyes, nose and mouth are in the picture; they are laid on FACE_PLACES by a turn, a scale and
    a shift, in the sense of least squares.
    """
    points = face_model().points
    pairs = (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, (NOSE_TIP,), MOUTH_CORNERS[:1], MOUTH_CORNERS[1:])
    marks = torch.tensor(np.array([points[list(numbers)].mean(axis=0) for numbers in pairs]), dtype=torch.float32)
    seen = camera_utils.project_points(label.cpu()[None], marks)[0][0].numpy() * len(picture)
    target, source = (places @ [1, 1j] for places in (FACE_PLACES, seen))
    # source ~ factor * target + shift: Pillow asks from which place of the picture each pixel comes.
    spread = target - target.mean()
    factor = spread.conj() @ (source - source.mean()) / (spread.conj() @ spread)
    shift = source.mean() - factor * target.mean()
    affine = (factor.real, -factor.imag, shift.real, factor.imag, factor.real, shift.imag)
    image = Image.fromarray(picture).transform((FACE_PIXELS,) * 2, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return np.asarray(image)


class Tools:
    """A detector, a finder of faces, a segmenter and an embedder, those that `requests` need; a context manager.

    UserError if one of them cannot be had.
    """

    detector: Detector
    finder: FaceFinder
    segmenter: PersonSegmenter
    embedder: Embedder

    def __init__(
        self,
        requests: Iterable[Request],
        device: torch.device | str,
        detector: str = EFFICIENTNET,
        embedder: str | None = None,
        landmarker: str | None = None,
        segmenter: str | None = None,
        trust_pickle: bool = False,
    ):
        kinds = {request.kind for request in requests}
        self.told: dict[str, dict[str, str]] = {}  # kind of metric -> what of its tool belongs into a fingerprint
        with contextlib.ExitStack() as stack:
            if kinds.intersection(DISTANCES):
                self.detector = load_detector(detector, device, trust_pickle)
                if "is" in kinds and self.detector.probabilities is None:
                    raise UserError(f"is50k wants probabilities of classes, and {detector} gives none: leave it out")
                told = dict(name=self.detector.name, sha256=self.detector.sha256)
                self.told.update(dict.fromkeys(DISTANCES, told))
            if kinds & {"two_faces", "pose"}:
                self.finder = stack.enter_context(FaceFinder(landmarker))
                told = dict(name="face landmarker", sha256=_sha256(LANDMARKER.read(landmarker)))
                self.told.update(two_faces=told, pose=told)
            if "seg" in kinds:
                self.segmenter = stack.enter_context(PersonSegmenter(segmenter))
                self.told["seg"] = dict(name="selfie segmenter", sha256=_sha256(SEGMENTER.read(segmenter)))
            if "id" in kinds:
                self.embedder = Embedder(embedder, device)
                name = os.path.splitext(os.path.basename(str(embedder)))[0]
                self.told["id"] = dict(name=name, sha256=self.embedder.sha256)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Tools":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.close()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
