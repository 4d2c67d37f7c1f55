"""The camera of a photo and the frame to cut, from landmarks that were found or from points that were shown by hand.

All three ways look for the frame in which an average head (`head_model`), seen by a camera at the labels' distance and focal
length, falls on what is in the photo.  That is how the published training photos are cropped.
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
DEPTH_WEIGHT = 0.5  # of the landmarks' depth against their place: lowest error on the rendered heads, of 0.3 to 2
EYES_TO_FRAME, MOUTH_TO_FRAME = 2.0, 1.8  # the first box is the larger of these times eye distance and eye-to-mouth


@dataclass(frozen=True)
class View:
    """What is cut from a photo, and the camera that sees it."""

    frame: Frame
    label: torch.Tensor  # [25], float32
    misfit: float = 0.0  # root mean square distance of the model from what was found, in sides of the frame

    @property
    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll of the head in the frame, degrees."""
        return tuple(camera_utils.yaw_pitch_roll_degrees(self.label).tolist())


def label_from_rotation(rotation: np.ndarray) -> torch.Tensor:
    """The label [25], float64, of a camera with the cam2world rotation [3, 3] on the labels' sphere, looking at the origin."""
    cam2world = torch.eye(4, dtype=torch.float64)
    cam2world[:3, :3] = torch.as_tensor(rotation)
    cam2world[:3, 3] = -camera_utils.DEFAULT_RADIUS * cam2world[:3, 2]
    return camera_utils.pack_label(cam2world, camera_utils.intrinsics_from_focal().to(torch.float64))


def label_from_angles(yaw: float, pitch: float, roll: float = 0.0) -> torch.Tensor:
    """The label [25], float64, whose `camera_utils.yaw_pitch_roll_degrees` are these, in degrees."""
    world2camera = Rotation.from_euler("xyz", [pitch, -yaw, roll], degrees=True).as_matrix()  # x first, then y, then z
    return label_from_rotation(world2camera.T @ OPENGL_TO_OPENCV)


def project(label: torch.Tensor, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] of the world -> their places [P, 2] in the frame of a label [25], and their depths [P]."""
    places, depths = camera_utils.project_points(label[None].to(torch.float64), torch.as_tensor(points, dtype=torch.float64))
    return places[0].numpy(), depths[0].numpy()


def first_frame(right_eye: np.ndarray, left_eye: np.ndarray, mouth: np.ndarray) -> Frame:
    """The frame that three points [2] of the photo suggest: turned so that eyes and mouth stand upright in it.

    This is the rule of the published crops (before their fit of a face), with the half side doubled to a side.
    """
    across, down = left_eye - right_eye, mouth - (left_eye + right_eye) / 2
    direction = across + np.array([down[1], -down[0]])
    centre = (left_eye + right_eye) / 2 + 0.1 * down
    half_side = max(EYES_TO_FRAME * math.hypot(*across), MOUTH_TO_FRAME * math.hypot(*down))
    return Frame((float(centre[0]), float(centre[1])), 2 * half_side, math.atan2(direction[1], direction[0]))


def first_frame_of(landmarks: np.ndarray) -> Frame:
    """`first_frame` for the landmarks [478, 2 or 3] of a face, in the photo's pixels."""
    pairs = (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, MOUTH_CORNERS)
    return first_frame(*(landmarks[list(pair), :2].mean(axis=0) for pair in pairs))


def view_of_landmarks(landmarks: np.ndarray, pitch_gain: float = 1.0, pitch_offset: float = 0.0) -> View:
    """The view of a face from its 478 landmarks [478, 3]: x, y in the photo's pixels, z away from the camera in the same unit.

    Least squares over rotation, place and size: the model's points must fall on the landmarks, and their depths (from the
    mean, since only differences are known) on the landmarks' z.  The pitch is then multiplied and shifted (degrees) by what the
    finder of the landmarks is known to be off, and place and size are fitted to it.
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
    """The view of a head whose camera is known, from the photo's pixels where two or more of `HEAD_POINTS` are shown.

    They place, size and turn the frame, by least squares.  UserError for an unknown name, fewer than two points, or points
    that are one and the same.
    """
    unknown = sorted(shown.keys() - HEAD_POINTS.keys())
    if unknown:
        raise UserError(f"no point of the head is called {unknown[0]}; choose from {', '.join(HEAD_POINTS)}")
    if len(shown) < 2:
        raise UserError("one point does not say how large the head is; show two or more")
    seen, _ = project(label, np.array([HEAD_POINTS[name] for name in shown]))
    seen, target = seen - 0.5, np.array(list(shown.values()), dtype=np.float64)
    # A turn and a scale are one complex factor, so the least squares have a closed form.
    origin, turned = seen @ [1, 1j], target @ [1, 1j]
    spread = origin - origin.mean()
    factor = (spread.conj() @ (turned - turned.mean())) / (spread.conj() @ spread)
    if abs(factor) < 1e-9:
        raise UserError("the points that are shown are all at one place; show the ones that are asked for")
    centre = turned.mean() - factor * origin.mean()
    frame = Frame((float(centre.real), float(centre.imag)), float(abs(factor)), math.atan2(factor.imag, factor.real))
    misfit = np.sqrt((np.abs(factor * origin + centre - turned) ** 2).mean()) / abs(factor)
    return View(frame, label.to(torch.float32), float(misfit))


def view_of_box(label: torch.Tensor, box: tuple[float, float, float, float]) -> View:
    """The view of a head whose camera is known, from a box round head and hair, from the chin up.

    The box is (left, top, right, bottom) in pixels; UserError if that is no box.
    """
    seen, _ = project(label, head_outline())
    edges = np.concatenate([seen.min(axis=0), seen.max(axis=0)]) - 0.5
    box_middle, box_size = np.add(box[:2], box[2:]) / 2, np.subtract(box[2:], box[:2])
    seen_middle, seen_size = (edges[:2] + edges[2:]) / 2, edges[2:] - edges[:2]
    if box_size.min() <= 0:
        raise UserError("the box must be left,top,right,bottom in pixels, the right and lower edge beyond the others")
    size = float(box_size @ seen_size / (seen_size @ seen_size))
    centre = box_middle - size * seen_middle
    misfit = float(np.sqrt(((box_size - size * seen_size) ** 2).mean()) / size)
    return View(Frame((float(centre[0]), float(centre[1])), size), label.to(torch.float32), misfit)
