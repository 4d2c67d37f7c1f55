"""Estimates the camera of a photo and the frame to cut, from detected landmarks or from points given by hand.

All three methods look for the frame in which an average head (`head_model`), seen by a camera at the distance and focal length
of the labels, matches what is in the photo.  The published training photos are cropped in this way.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

import camera_utils
from dnnlib import UserError

from .frame import Frame
from .head_model import HEAD_POINTS, LEFT_EYE_CORNERS, MOUTH_CORNERS, RIGHT_EYE_CORNERS, face_model, head_outline

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0])
FRONTAL = OPENGL_TO_OPENCV  # cam2world rotation of the frontal camera
DEPTH_WEIGHT = 0.5  # weight of the landmarks' depth against their position; of 0.3 to 2, best on the rendered heads
EYES_TO_FRAME, MOUTH_TO_FRAME = 2.0, 1.8  # the first box is the larger of these multiples of eye distance and eye-to-mouth


@dataclass(frozen=True)
class View:
    """The part of a photo to cut out, and the camera that sees it."""

    frame: Frame
    label: torch.Tensor  # [25], float32
    misfit: float = 0.0  # root mean square distance between the model and what was found, in sides of the frame

    @property
    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll of the head in the frame, in degrees."""
        return tuple(camera_utils.yaw_pitch_roll_degrees(self.label).tolist())


def label_from_rotation(rotation: np.ndarray) -> torch.Tensor:
    """The label [25], float64, of a camera on the labels' sphere that looks at the origin with cam2world rotation [3, 3]."""
    cam2world = torch.eye(4, dtype=torch.float64)
    cam2world[:3, :3] = torch.as_tensor(rotation)
    cam2world[:3, 3] = -camera_utils.DEFAULT_RADIUS * cam2world[:3, 2]
    return camera_utils.pack_label(cam2world, camera_utils.intrinsics_from_focal().to(torch.float64))


def label_from_angles(yaw: float, pitch: float, roll: float = 0.0) -> torch.Tensor:
    """The label [25], float64, for which `camera_utils.yaw_pitch_roll_degrees` returns these angles, in degrees."""
    world2camera = Rotation.from_euler("xyz", [pitch, -yaw, roll], degrees=True).as_matrix()  # x first, then y, then z
    return label_from_rotation(world2camera.T @ OPENGL_TO_OPENCV)


def project(label: torch.Tensor, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project points [P, 3] of the world into the frame of a label [25].  Returns positions [P, 2] and depths [P]."""
    places, depths = camera_utils.project_points(label[None].to(torch.float64), torch.as_tensor(points, dtype=torch.float64))
    return places[0].numpy(), depths[0].numpy()


def first_frame(right_eye: np.ndarray, left_eye: np.ndarray, mouth: np.ndarray) -> Frame:
    """The frame that three points [2] of the photo suggest, rotated so that eyes and mouth are upright in it.

    This is the rule of the published crops (before their face fit).  Its half side is doubled to give a side.
    """
    across, down = left_eye - right_eye, mouth - (left_eye + right_eye) / 2
    direction = across + np.array([down[1], -down[0]])
    centre = (left_eye + right_eye) / 2 + 0.1 * down
    half_side = max(EYES_TO_FRAME * math.hypot(*across), MOUTH_TO_FRAME * math.hypot(*down))
    return Frame((float(centre[0]), float(centre[1])), 2 * half_side, math.atan2(direction[1], direction[0]))


def first_frame_of(landmarks: np.ndarray) -> Frame:
    """`first_frame` for the landmarks [478, 2 or 3] of a face, in pixels of the photo."""
    pairs = (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, MOUTH_CORNERS)
    return first_frame(*(landmarks[list(pair), :2].mean(axis=0) for pair in pairs))


def view_of_landmarks(landmarks: np.ndarray, pitch_gain: float = 1.0, pitch_offset: float = 0.0) -> View:
    """Fit the view of a face to its landmarks [478, 3]: x, y in pixels of the photo, z away from the camera in the same unit.

    This is a least-squares fit of rotation, position and size.  The points of the model must fall on the landmarks, and their
    depths must match the landmarks' z; both are relative to their mean, since only differences of z are known.  The pitch is
    then corrected by `pitch_gain` and `pitch_offset` (degrees) for the known error of the landmarker, and position and size are
    fitted again.
    """
    model = face_model()
    chosen = model.weights > 0
    points, weights = model.points[chosen], model.weights[chosen]
    start = first_frame_of(landmarks)
    places = start.from_photo(landmarks[chosen, :2])
    depths = landmarks[chosen, 2] / start.size
    depths = depths - weights @ depths
    width_per_depth = camera_utils.DEFAULT_FOCAL / camera_utils.DEFAULT_RADIUS

    def label_of(turn: np.ndarray) -> torch.Tensor:
        return label_from_rotation(Rotation.from_rotvec(turn).as_matrix() @ FRONTAL)

    def residuals(place: np.ndarray, label: torch.Tensor) -> np.ndarray:
        size = math.exp(place[2])
        seen, distance = project(label, points)
        aside = place[:2] + size * (seen - 0.5) - places
        behind = size * width_per_depth * (distance - weights @ distance) - depths
        errors = np.concatenate([aside, DEPTH_WEIGHT * behind[:, None]], axis=1) / size
        return (errors * np.sqrt(weights)[:, None]).ravel()

    found = least_squares(lambda x: residuals(x[3:], label_of(x[:3])), [0, 0, 0, 0.5, 0.5, 0], method="lm")
    yaw, pitch, roll = camera_utils.yaw_pitch_roll_degrees(label_of(found.x[:3])).tolist()
    label = label_from_angles(yaw, pitch_gain * pitch + pitch_offset, roll)
    placed = least_squares(residuals, found.x[3:], args=(label,), method="lm")
    centre = start.to_photo(placed.x[:2])
    frame = Frame((float(centre[0]), float(centre[1])), start.size * math.exp(placed.x[2]), start.angle)
    return View(frame, label.to(torch.float32), math.sqrt(2 * found.cost))


def view_of_points(label: torch.Tensor, shown: dict[str, tuple[float, float]]) -> View:
    """Fit the view of a head with a known camera to two or more of the `HEAD_POINTS`, given in pixels of the photo.

    The points determine position, size and rotation of the frame, by least squares.  Raises UserError for an unknown name, for
    fewer than two points, and if all points coincide.
    """
    unknown = sorted(shown.keys() - HEAD_POINTS.keys())
    if unknown:
        raise UserError(f"no point of the head is called {unknown[0]}; choose from {', '.join(HEAD_POINTS)}")
    if len(shown) < 2:
        raise UserError("one point does not determine the size of the head; give two or more")
    seen, _ = project(label, np.array([HEAD_POINTS[name] for name in shown]))
    seen, target = seen - 0.5, np.array(list(shown.values()), dtype=np.float64)
    # Rotation and scale are one complex factor, so the least-squares problem has a closed-form solution.
    origin, turned = seen @ [1, 1j], target @ [1, 1j]
    spread = origin - origin.mean()
    factor = (spread.conj() @ (turned - turned.mean())) / (spread.conj() @ spread)
    if abs(factor) < 1e-9:
        raise UserError("the given points are all at the same place; give the points of the head that they are named after")
    centre = turned.mean() - factor * origin.mean()
    frame = Frame((float(centre.real), float(centre.imag)), float(abs(factor)), math.atan2(factor.imag, factor.real))
    misfit = np.sqrt((np.abs(factor * origin + centre - turned) ** 2).mean()) / abs(factor)
    return View(frame, label.to(torch.float32), float(misfit))


def view_of_box(label: torch.Tensor, box: tuple[float, float, float, float]) -> View:
    """The view of a head with a known camera, from a box around head and hair that starts at the chin.

    The box is (left, top, right, bottom) in pixels.  Raises UserError if it is not a box.
    """
    seen, _ = project(label, head_outline())
    edges = np.concatenate([seen.min(axis=0), seen.max(axis=0)]) - 0.5
    box_middle, box_size = np.add(box[:2], box[2:]) / 2, np.subtract(box[2:], box[:2])
    seen_middle, seen_size = (edges[:2] + edges[2:]) / 2, edges[2:] - edges[:2]
    if box_size.min() <= 0:
        raise UserError("the box must be left,top,right,bottom in pixels, with right beyond left and bottom beyond top")
    size = float(box_size @ seen_size / (seen_size @ seen_size))
    centre = box_middle - size * seen_middle
    misfit = float(np.sqrt(((box_size - size * seen_size) ** 2).mean()) / size)
    return View(Frame((float(centre[0]), float(centre[1])), size), label.to(torch.float32), misfit)
