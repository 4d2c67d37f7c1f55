"""The yaw of labels, and the yaw that a small regression reads from pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist

SECTORS = {"front": (0, 45), "side": (45, 135), "back": (135, 180)}  # |yaw| in degrees
READ_SIZE = 64  # size of the pictures that are read
CELL = 8  # pixels of a cell of the histograms
ORIENTATIONS = 8
MASK_WEIGHT = 0.1  # weight of the outline relative to the edges inside it
RIDGE = 0.01


def sector_shares(yaws: np.ndarray) -> dict[str, float]:
    """Shares of yaws (degrees, -180 to 180) in each of SECTORS."""
    size = np.abs(yaws)
    return {name: float(((size >= low) & ((size < high) | (high == 180))).mean()) for name, (low, high) in SECTORS.items()}


def difference(yaws: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Angles between yaws in degrees, 0 to 180."""
    return np.abs((yaws - others + 180) % 360 - 180)


class YawReader:
    """Reads the yaw of a head from its picture and mask: kernel ridge regression on cosine and sine of the yaw.

    It is fitted on pictures with known yaw and their mirror images, and uses no other knowledge.  Its features are histograms
    of edge directions (Dalal 2005) inside the mask, and the mask, so it sees little of colours and light and nothing of the
    camera.
    """

    def __init__(self, features: np.ndarray, yaws: np.ndarray):
        """features [N, 2, F] come from `describe`, yaws [N] are in degrees."""
        self._known = np.concatenate([features[:, 0], features[:, 1]])
        angles = np.radians(np.concatenate([yaws, -yaws]))
        distances = cdist(self._known, self._known, "sqeuclidean")
        self._scale = np.median(distances)
        kernel = np.exp(-distances / self._scale)
        targets = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._weights = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), targets)

    def read(self, features: np.ndarray) -> np.ndarray:
        """Read the yaws [N] in degrees, -180 to 180, of pictures with features [N, 2, F]."""
        kernel = np.exp(-cdist(features[:, 0], self._known, "sqeuclidean") / self._scale)
        cosine, sine = (kernel @ self._weights).T
        return np.degrees(np.arctan2(sine, cosine))


def read_each_by_others(features: np.ndarray, yaws: np.ndarray, heads: Sequence[str]) -> np.ndarray:
    """Read the yaws [N] of pictures by readers fitted without the head that is shown, to measure the error on new heads."""
    heads = np.asarray(heads)
    found = np.empty(len(yaws))
    for head in np.unique(heads):
        own = heads == head
        found[own] = YawReader(features[~own], yaws[~own]).read(features[own])
    return found


def describe(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Features of a picture (uint8 [H, H, 3]) with its mask ([h, h] in 0..1), and of their mirror image: [2, F]."""
    grey = np.asarray(Image.fromarray(picture).convert("L").resize((READ_SIZE, READ_SIZE), Image.Resampling.BILINEAR))
    mask = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((READ_SIZE, READ_SIZE), Image.Resampling.BILINEAR))
    grey = grey.astype(np.float32)
    return np.stack([_features(grey, mask), _features(grey[:, ::-1], mask[:, ::-1])])


def _features(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    down, right = np.gradient(grey)
    strength = np.hypot(right, down) * mask
    direction = np.floor(np.arctan2(down, right) % np.pi * (ORIENTATIONS / np.pi)).astype(int) % ORIENTATIONS
    edges = np.stack([_cells(strength * (direction == index)) for index in range(ORIENTATIONS)])
    edges = edges / (edges.sum(axis=0) + edges.mean() * ORIENTATIONS + 1e-6)  # dark hair counts as much as bright skin
    outline = _cells(mask)
    return np.concatenate([edges.ravel() / (READ_SIZE / CELL), MASK_WEIGHT * outline.ravel()])


def _cells(values: np.ndarray) -> np.ndarray:
    """Means of [READ_SIZE, READ_SIZE] over cells."""
    count = READ_SIZE // CELL
    return values.reshape(count, CELL, count, CELL).mean(axis=(1, 3))
