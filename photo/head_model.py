"""Positions of the parts of an average head in the world of the labels.  Photos are fitted to them.

`landmarks.csv` has a row for each of MediaPipe's 478 face landmarks: x, y, z in world units (see `camera_utils`), and a weight.
The points were triangulated from pictures with known cameras (`photo.calibrate`): two published photos with their labels, which
have a total weight of two, and 827 views of the shipped rendered heads within 50 degrees, which have a total weight of one.
They were then made symmetrical.  The weights sum to 1 and come from MediaPipe's own face geometry: 33 points that expressions
hardly move.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LANDMARKS_PATH = Path(__file__).with_name("landmarks.csv")

# Indices of MediaPipe's landmarks.  Right and left are the person's.
RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, MOUTH_CORNERS = (33, 133), (362, 263), (61, 291)
OVAL_LANDMARKS = (  # around the face
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

# Points that can be given by hand, in world units.  The ears are where they join the head, the crown is without hair.
HEAD_POINTS = {
    "right-eye": (-0.072, 0.027, 0.128),
    "left-eye": (0.072, 0.027, 0.128),
    "nose": (0.0, -0.049, 0.213),
    "mouth": (0.0, -0.117, 0.160),
    "chin": (0.0, -0.225, 0.155),
    "right-ear": (-0.184, -0.018, -0.086),
    "left-ear": (0.184, -0.018, -0.086),
    "crown": (0.0, 0.315, -0.090),
}

# The head with its hair, from the chin up, as an ellipsoid measured on the rendered heads.
HEAD_MIDDLE = np.array([0.0, 0.057, -0.085])
HEAD_RADII = np.array([0.205, 0.288, 0.255])


@dataclass(frozen=True)
class FaceModel:
    """MediaPipe's landmarks on an average face: `points` [478, 3] in world units, and `weights` [478] that sum to 1."""

    points: np.ndarray
    weights: np.ndarray


@functools.cache
def face_model() -> FaceModel:
    """Read the table `landmarks.csv`."""
    table = np.loadtxt(LANDMARKS_PATH, delimiter=",", skiprows=1)
    return FaceModel(table[:, :3], table[:, 3] / table[:, 3].sum())


def head_outline(count: int = 2000) -> np.ndarray:
    """Points [count, 3], evenly distributed over the ellipsoid of the head with its hair."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    sphere = np.stack([radius * np.cos(azimuth), height, radius * np.sin(azimuth)], axis=1)
    return HEAD_MIDDLE + HEAD_RADII * sphere
