"""The cameras of a person: random ones around the whole circle, or fixed ones, with labels that may be inaccurate.

Yaw is the angle about the vertical axis, 0 in front of the face and positive toward world x.  Pitch is the angle above the
horizon.  Cameras are on the usual orbit and look at the world's origin, then roll about their line of sight.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr, ndtri

import camera_utils

PITCH_DEVIATIONS = 2.5  # standard deviations between the middle and the ends of the pitch range, so most views are level
ROLL_DEVIATION = 2.5  # degrees, cut at twice that, because nobody holds the head perfectly upright
SHIFT_CUT = 2.0  # standard deviations at which the errors of crops are cut
FRAME_WIDTH = camera_utils.DEFAULT_RADIUS / camera_utils.DEFAULT_FOCAL  # world units that a picture spans at the origin
FIXED_PITCHES = (0.0, 15.0, -10.0, 25.0, 5.0, -20.0)  # degrees, in turn


@dataclass(frozen=True)
class ViewRanges:
    """Distributions of random cameras: (lowest, highest) yaw and pitch in degrees, and the error of the crops.

    `jitter` is the standard deviation, as a share of the frame, of the shift in the picture (right and down, in frame widths)
    and of the zoom.
    """

    yaw: tuple[float, float] = (-180.0, 180.0)
    pitch: tuple[float, float] = (-30.0, 30.0)
    jitter: float = 0.01


@dataclass(frozen=True)
class ViewPlan:
    """One camera: what its label says, and where it really is."""

    yaw: float  # degrees, like pitch and roll
    pitch: float
    roll: float
    label: tuple[float, ...]  # 25 numbers, exact in float32
    shift: tuple[float, float, float]  # world units, from the label's camera position to that of the picture

    @property
    def cam2world(self) -> np.ndarray:
        """The true pose of the picture [4, 4], float64, OpenCV axes: that of the label, moved by `shift`."""
        label = torch.tensor(self.label, dtype=torch.float64)
        shifted = camera_utils.shift_label(label, torch.tensor(self.shift, dtype=torch.float64))
        return camera_utils.unpack_label(shifted)[0].numpy()


def sample_views(rng: np.random.Generator, count: int, ranges: ViewRanges) -> list[ViewPlan]:
    """Draw `count` random cameras in order of yaw: one in each of as many equal parts of the range, so that all sides are seen.

    Pitch follows a normal distribution within its range, and roll one around 0.
    """
    low, high = ranges.yaw
    yaws = low + (high - low) * (np.arange(count) + rng.random(count)) / count
    pitches = np.mean(ranges.pitch) + np.ptp(ranges.pitch) / 2 * _cut_normal(rng, PITCH_DEVIATIONS, count) / PITCH_DEVIATIONS
    rolls = ROLL_DEVIATION * _cut_normal(rng, 2.0, count)
    # In the camera's axes: right, down, forward.  Moving forward by a share of the distance zooms by that share.
    steps = ranges.jitter * np.array([FRAME_WIDTH, FRAME_WIDTH, camera_utils.DEFAULT_RADIUS])
    shifts = steps * _cut_normal(rng, SHIFT_CUT, (count, 3))
    return [plan_view(*angles, shift) for *angles, shift in zip(yaws, pitches, rolls, shifts)]


def fixed_views(count: int) -> list[ViewPlan]:
    """The same `count` cameras for everyone: evenly spaced around the circle from the front, upright, with exact labels."""
    yaws = [(360 * k / count + 180) % 360 - 180 for k in range(count)]
    return [plan_view(yaw, FIXED_PITCHES[k % len(FIXED_PITCHES)], 0.0, np.zeros(3)) for k, yaw in enumerate(yaws)]


def plan_view(yaw: float, pitch: float, roll: float, camera_shift: np.ndarray) -> ViewPlan:
    """The camera at these angles (degrees), whose picture is taken `camera_shift` [3] away: right, down, forward."""
    y, p, r = (math.radians(float(angle)) for angle in (yaw, pitch, roll))
    direction = torch.tensor([[math.sin(y) * math.cos(p), math.sin(p), math.cos(y) * math.cos(p)]])
    cam2world = camera_utils.look_at(camera_utils.DEFAULT_RADIUS * direction, torch.zeros(3))[0]
    turn = torch.tensor([[math.cos(r), -math.sin(r), 0, 0], [math.sin(r), math.cos(r), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    label = camera_utils.pack_label(cam2world @ turn, camera_utils.intrinsics_from_focal())
    rotation = camera_utils.unpack_label(label)[0][:3, :3].to(torch.float64).numpy()
    return ViewPlan(
        yaw=float(yaw), pitch=float(pitch), roll=float(roll),
        # Using the shortest decimals that give the same float32 keeps dataset.json small.
        label=tuple(float(str(entry)) for entry in label.numpy()),
        shift=tuple((rotation @ camera_shift).tolist()),
    )  # fmt: skip


def _cut_normal(rng: np.random.Generator, cut: float, shape: int | tuple[int, ...]) -> np.ndarray:
    """Draw from a standard normal distribution, cut at -cut and cut."""
    return ndtri(ndtr(-cut) + (ndtr(cut) - ndtr(-cut)) * rng.random(shape))
