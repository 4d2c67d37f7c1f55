"""Computes a soft mask of the person whose head is in the middle of a crop."""

import os
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from .faces import load_model
from .models import SEGMENTER, load_mediapipe, quiet_stderr

LOOK_PIXELS = 256  # resolution of the segmenter
HEAD_DISC = 0.15  # radius in sides of the picture: the head covers this disc wherever the camera is
LEAST_SHARE = 0.5  # share of that disc that the mask of a head must cover


class PersonSegmenter:
    """MediaPipe's selfie segmenter.  A context manager."""

    def __init__(self, model_path: str | os.PathLike | None = None):
        """`model_path` is a selfie_segmenter.tflite; for None see `ModelFile.read`.  UserError without it or mediapipe."""
        self._mediapipe = load_mediapipe()
        vision = self._mediapipe.tasks.vision
        base = self._mediapipe.tasks.BaseOptions(model_asset_buffer=SEGMENTER.read(model_path))
        options = vision.ImageSegmenterOptions(base_options=base, output_confidence_masks=True)
        with quiet_stderr():
            self._segmenter = load_model(vision.ImageSegmenter, options, model_path)
            self._confidence(Image.new("RGB", (LOOK_PIXELS, LOOK_PIXELS)))  # the first call also logs

    def __enter__(self) -> "PersonSegmenter":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._segmenter.close()

    def mask(self, picture: Image.Image) -> Image.Image | None:
        """Mask (L) of the person in the middle of a square picture: 255 for head, hair and shoulders.  None without one."""
        confidence = self._confidence(picture)
        regions, _ = ndimage.label(confidence > 0.5)
        rows, columns = np.indices(regions.shape)
        middle = (np.array(regions.shape) - 1) / 2
        disc = np.hypot(rows - middle[0], columns - middle[1]) < HEAD_DISC * len(regions)
        counts = np.bincount(regions[disc])
        counts[0] = 0
        if counts.max() < LEAST_SHARE * disc.sum():
            return None
        # Removes other people together with their soft edges, and keeps the soft edge of this one.
        nearest = ndimage.distance_transform_edt(regions == 0, return_distances=False, return_indices=True)
        person = regions[tuple(nearest)] == counts.argmax()
        return Image.fromarray((confidence * person * 255).round().astype(np.uint8))

    def _confidence(self, picture: Image.Image) -> np.ndarray:
        """Confidence [H, W] in [0, 1], at the size of the picture."""
        image = self._mediapipe.Image(self._mediapipe.ImageFormat.SRGB, np.ascontiguousarray(picture))
        return np.array(self._segmenter.segment(image).confidence_masks[0].numpy_view()).squeeze().clip(0, 1)
