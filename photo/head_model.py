"""Where the parts of an average head are in the world of the labels: what photos are compared with.

`landmarks.csv` has a row for each of MediaPipe's 478 face landmarks: x, y, z in world units (see `camera_utils`), and a
weight.  The points were triangulated from pictures whose cameras are known: two published photos with their labels, which
count twice, and 827 views of the shipped rendered heads from up to 50 degrees, which count once in all; then made symmetrical
(`photo.calibrate`).  The weights, which sum to 1, are those of MediaPipe's own face geometry: 33 points that expressions hardly
move.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LANDMARKS_PATH = Path(__file__).with_name("landmarks.csv")

# Numbers of MediaPipe's landmarks.  Right and left are the person's.
RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, MOUTH_CORNERS = (33, 133), (362, 263), (61, 291)
OVAL_LANDMARKS = (  # round the face
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

# Points that a person can show by hand, in world units; the ears are where they grow, the crown is without hair.
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

# The head with its hair, from the chin up: an ellipsoid, measured on the rendered heads.
HEAD_MIDDLE = np.array([0.0, 0.057, -0.085])
HEAD_RADII = np.array([0.205, 0.288, 0.255])


@dataclass(frozen=True)
class FaceModel:
    """MediaPipe's landmarks on an average face: `points` [478, 3] in world units, `weights` [478] that sum to 1."""

    points: np.ndarray
    weights: np.ndarray


@functools.cache
def face_model() -> FaceModel:
    """The table of `landmarks.csv`."""
    table = np.loadtxt(LANDMARKS_PATH, delimiter=",", skiprows=1)
    return FaceModel(table[:, :3], table[:, 3] / table[:, 3].sum())


def head_outline(count: int = 2000) -> np.ndarray:
    """Points [count, 3] spread evenly over the ellipsoid of the head with its hair."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    sphere = np.stack([radius * np.cos(azimuth), height, radius * np.sin(azimuth)], axis=1)
    return HEAD_MIDDLE + HEAD_RADII * sphere
