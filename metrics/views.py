"""From which cameras pictures are compared: the law of a data set's cameras, by side, and the endless row of draws from it.

There is one law.  What training shows as real, mirrored, filtered and repeated, is the data set; the cameras that condition a
generator and those that it is rendered from are drawn from its labels.  So are they here.
"""

from typing import NamedTuple

import numpy as np
import torch

import camera_utils
from dnnlib import UserError
from training.dataset import HeadPictures

FRONT_BELOW, BACK_ABOVE = 60.0, 120.0  # |yaw| in degrees; what is neither is a side
VIEWS = ("all", "front", "side", "back")
_BLOCK = 4096  # cameras that are drawn at a time


def in_view(labels: np.ndarray, view: str) -> np.ndarray:
    """Which of the labels [N, 25] look from `view`, one of VIEWS: bools [N]."""
    yaw = camera_utils.yaw_pitch_roll_degrees(torch.from_numpy(labels))[:, 0].abs().numpy()
    front, back = yaw < FRONT_BELOW, yaw > BACK_ABOVE
    return {"all": np.ones_like(front), "front": front, "side": ~(front | back), "back": back}[view]


def require_view(labels: np.ndarray, view: str, least: int = 1) -> np.ndarray:
    """`in_view`; UserError where that is fewer than `least`."""
    inside = in_view(labels, view)
    if inside.sum() < least:
        sides = f"front: |yaw| under {FRONT_BELOW:g} degrees, back: over {BACK_ABOVE:g}"
        where = "" if view == "all" else f" from the {view} ({sides})"
        raise UserError(f"the data has {inside.sum() or 'no'} pictures{where}, too few to compare with; choose other --views")
    return inside


class Draw(NamedTuple):
    """A sample to be made: its latent [z_dim], and the items of the data set whose cameras it gets."""

    z: np.ndarray
    rendered: int  # whose camera it is seen from
    conditioning: int  # whose camera conditions it: the same, unless they are drawn apart


class Row:
    """The endless row of draws of a seed: number k is a function of the seed and k alone.

    Cameras are those of the items of `dataset`, each as likely, as in training.  A side's samples are those of the row that
    are seen from there, so that several sides share what is made for them.
    """

    def __init__(self, dataset: HeadPictures, seed: int, z_dim: int, apart: bool = False):
        """`apart` draws the camera that conditions a sample apart from the one it is seen from."""
        self.labels = dataset.item_labels()
        self.seed = seed
        self.z_dim = z_dim
        self.apart = apart
        self._blocks: dict[int, np.ndarray] = {}

    def __getitem__(self, number: int) -> Draw:
        rendered, other = self._items(number // _BLOCK)[number % _BLOCK]
        z = np.random.default_rng([self.seed, 1, number]).standard_normal(self.z_dim, dtype=np.float32)
        return Draw(z, int(rendered), int(other if self.apart else rendered))

    def numbers(self, view: str, count: int) -> np.ndarray:
        """The first `count` numbers whose samples are seen from `view`, ascending; UserError if the data has no such view."""
        inside = require_view(self.labels, view)
        found: list[np.ndarray] = []
        block = 0
        while sum(map(len, found)) < count:
            found.append(block * _BLOCK + np.flatnonzero(inside[self._items(block)[:, 0]]))
            block += 1
        return np.concatenate(found)[:count]

    def _items(self, block: int) -> np.ndarray:
        """Items of the data set [_BLOCK, 2] in a block of the row: seen from, and another."""
        if block not in self._blocks:
            self._blocks[block] = np.random.default_rng([self.seed, 0, block]).integers(len(self.labels), size=[_BLOCK, 2])
        return self._blocks[block]
