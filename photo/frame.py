"""A square cut out of a photo, at any place, size and angle."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """A square in the plane of a photo: its middle and side in pixels, and how far it is turned clockwise, in radians.

    A point in the frame is (x, y) in sides of the square from its upper left corner, both in [0, 1] inside.  A point of
    the photo is in pixels from the photo's upper left corner, so that the middle of the first pixel is (0.5, 0.5).
    """

    centre: tuple[float, float]
    size: float
    angle: float = 0.0

    @property
    def axes(self) -> np.ndarray:
        """The frame's x and y directions in the photo, unit vectors, as the rows of a [2, 2] array."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, sin], [-sin, cos]])

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] of the frame -> the same in the photo."""
        return (np.asarray(points) - 0.5) @ self.axes * self.size + self.centre

    def from_photo(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] of the photo -> the same in the frame."""
        return (np.asarray(points) - self.centre) @ self.axes.T / self.size + 0.5

    def corners(self) -> np.ndarray:
        """The corners [4, 2] in the photo: upper left, upper right, lower right, lower left of the frame."""
        return self.to_photo(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
