"""A square region of a photo with any position, size and angle."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """A square in a photo: its centre and side in pixels, and its clockwise rotation in radians.

    Points in the frame are (x, y) in sides of the square, measured from its upper left corner; inside, both are in [0, 1].
    Points in the photo are in pixels from the photo's upper left corner, so the centre of the first pixel is (0.5, 0.5).
    """

    centre: tuple[float, float]
    size: float
    angle: float = 0.0

    @property
    def axes(self) -> np.ndarray:
        """The x and y directions of the frame in the photo: unit vectors in the rows of a [2, 2] array."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, sin], [-sin, cos]])

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """Convert points [..., 2] of the frame to points of the photo."""
        return (np.asarray(points) - 0.5) @ self.axes * self.size + self.centre

    def from_photo(self, points: np.ndarray) -> np.ndarray:
        """Convert points [..., 2] of the photo to points of the frame."""
        return (np.asarray(points) - self.centre) @ self.axes.T / self.size + 0.5

    def corners(self) -> np.ndarray:
        """Corners [4, 2] of the frame in the photo: its upper left, upper right, lower right and lower left."""
        return self.to_photo(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
