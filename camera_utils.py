"""Cameras and their labels: the one place that knows how 25 numbers say where a picture was taken from.

A label is a float32 row of 25: the camera-to-world matrix, 4x4 row-major, then the intrinsics, 3x3 row-major and
normalised by the picture's size.  World: y up, z toward the viewer of a frontal face, x to that viewer's right, the head
at the origin.  Cameras follow OpenCV: x right, y down, z forward.  Angles are in radians unless a name says degrees.
"""

import math

import torch
import torch.nn.functional as F

LABEL_DIM = 25
POSE_ENTRIES = slice(0, 16)  # cam2world, row-major
INTRINSICS_ENTRIES = slice(16, 25)  # intrinsics, row-major
POSITION_ENTRIES = slice(3, 12, 4)  # the camera's place in the world: last column of cam2world
MIRRORED_ENTRIES = (1, 2, 3, 4, 8)  # what changes sign when x becomes -x in the world and in the picture

DEFAULT_RADIUS = 2.7  # distance of the labelled cameras from the head, in world units
DEFAULT_FOCAL = 4.2647  # focal length of the labelled cameras, in picture widths
PIXEL_FOCAL = 50  # a focal length over it is in pixels: in picture widths it would be a view of one degree
DEFAULT_FOV_DEGREES = 18.837  # what the scripts offer as its field of view
FRONT = math.pi / 2  # azimuth and polar angle of the frontal camera


def pack_label(cam2world: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """[..., 4, 4] and [..., 3, 3] (the latter may lack the leading axes) -> labels [..., 25]."""
    batch = cam2world.shape[:-2]
    return torch.cat([cam2world.reshape(*batch, 16), intrinsics.expand(*batch, 3, 3).reshape(*batch, 9)], dim=-1)


def unpack_label(label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels [..., 25] -> cam2world [..., 4, 4] and intrinsics [..., 3, 3]."""
    batch = label.shape[:-1]
    return label[..., POSE_ENTRIES].reshape(*batch, 4, 4), label[..., INTRINSICS_ENTRIES].reshape(*batch, 3, 3)


def flip_label(label: torch.Tensor) -> torch.Tensor:
    """The label of the mirrored picture, as a new tensor [..., 25]; flipping twice gives the label back."""
    flipped = label.clone()
    for entry in MIRRORED_ENTRIES:  # one by one: a list of them would be an index that a GPU waits for
        flipped[..., entry].neg_()
    return flipped


def shift_label(label: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Move the cameras of labels [..., 25] by `shift` [..., 3], in world units; returns a new tensor."""
    moved = label.clone()
    moved[..., POSITION_ENTRIES] += shift
    return moved


def is_in_pixels(label: list[float]) -> bool:
    """Whether the intrinsics of one label, 25 numbers, are in pixels: a long focal length and a principal point beyond 1."""
    return label[16] > PIXEL_FOCAL and label[18] > 1


def pixels_to_widths(label: list[float], width: int) -> list[float]:
    """The label, 25 numbers, of a square picture of `width` pixels with its intrinsics in picture widths, not in pixels."""
    return [*label[:16], *(number / width for number in label[16:22]), *label[22:]]


def intrinsics_from_focal(focal: float = DEFAULT_FOCAL, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalised intrinsics [3, 3] with the principal point in the middle."""
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], dtype=torch.float32, device=device)


def FOV_to_intrinsics(fov_degrees: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalised intrinsics [3, 3] for a field of view in degrees, by the rule of EG3D's and PanoHead's scripts.

    Their rule divides by 1.414 and takes pi as 3.14159, so the angle is that of the diagonal, nearly: 18.837 gives
    4.2634 where the labels say 4.2647.  Kept to the digit, since published pictures were drawn with it.
    """
    return intrinsics_from_focal(1 / (math.tan(fov_degrees * 3.14159 / 360) * 1.414), device)


def look_at(origin: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """cam2world [N, 4, 4] of cameras at `origin` [N, 3] that look at `target` ([3] or [N, 3]) without roll."""
    forward = F.normalize(target - origin, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], device=origin.device).expand_as(forward)
    right = F.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    cam2world = torch.eye(4, device=origin.device).repeat(len(origin), 1, 1)
    cam2world[:, :3, :3] = torch.stack([right, down, forward], dim=-1)
    cam2world[:, :3, 3] = origin
    return cam2world


def project_points(label: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where points [P, 3] of the world fall in the pictures of labels [N, 25].

    Returns (x, y) [N, P, 2] in picture widths and heights from the upper left corner, and depth [N, P] along the view,
    in world units; a point of depth 0 or less is behind the camera, and its place means nothing.
    """
    cam2world, intrinsics = unpack_label(label)
    rotation, position = cam2world[:, :3, :3], cam2world[:, None, :3, 3]
    rays = (points - position) @ rotation  # transposed on both sides: rows are points
    depth = rays[..., 2]
    return ((rays / depth[..., None]) @ intrinsics.mT)[..., :2], depth


def create_cam2world_matrix(forward_vector: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """cam2world [N, 4, 4] of cameras at `origin` [N, 3] that look along `forward_vector` [N, 3] without roll."""
    return look_at(origin, origin + forward_vector)


def _on_sphere(horizontal: torch.Tensor, vertical: torch.Tensor, radius: float) -> torch.Tensor:
    """Positions [N, 3] at azimuths [N] and polar angles [N], as `LookAtPoseSampler.sample` describes them."""
    vertical = vertical.clamp(1e-5, math.pi - 1e-5)
    phi = torch.arccos(1 - 2 * (vertical / math.pi))
    theta = math.pi - horizontal
    return radius * torch.stack([phi.sin() * theta.cos(), phi.cos(), phi.sin() * theta.sin()], dim=-1)


class LookAtPoseSampler:
    """Cameras on a sphere that look at a point, as EG3D's scripts call it."""

    @staticmethod
    def sample(
        horizontal_mean: float,
        vertical_mean: float,
        lookat_position: torch.Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
        horizontal_stddev: float = 0.0,
        vertical_stddev: float = 0.0,
        radius: float = 1.0,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """cam2world [batch_size, 4, 4] with angles drawn from two normal distributions.

        `horizontal` is the azimuth and `vertical` the polar angle, pi/2 each for the frontal camera; the polar angle is
        kept off the poles.  The position is on the sphere of `radius` about the world's origin, whatever is looked at.
        """
        h = torch.randn(batch_size, device=device) * horizontal_stddev + horizontal_mean
        v = torch.randn(batch_size, device=device) * vertical_stddev + vertical_mean
        origin = _on_sphere(h, v, radius)
        return look_at(origin, torch.as_tensor(lookat_position, dtype=torch.float32, device=device))


class GaussianCameraPoseSampler:
    """Cameras on a sphere that look at the world's origin, as EG3D's scripts call it."""

    @staticmethod
    def sample(
        horizontal_mean: float,
        vertical_mean: float,
        horizontal_stddev: float = 0.0,
        vertical_stddev: float = 0.0,
        radius: float = 1.0,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """cam2world [batch_size, 4, 4] with angles drawn as by `LookAtPoseSampler.sample`."""
        return LookAtPoseSampler.sample(
            horizontal_mean,
            vertical_mean,
            horizontal_stddev=horizontal_stddev,
            vertical_stddev=vertical_stddev,
            radius=radius,
            batch_size=batch_size,
            device=device,
        )


class UniformCameraPoseSampler:
    """Cameras on a sphere that look at the world's origin, with angles spread evenly, as EG3D's scripts call it."""

    @staticmethod
    def sample(
        horizontal_mean: float,
        vertical_mean: float,
        horizontal_stddev: float = 0.0,
        vertical_stddev: float = 0.0,
        radius: float = 1.0,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """cam2world [batch_size, 4, 4] with angles up to `horizontal_stddev` and `vertical_stddev` away from the means."""
        h = (torch.rand(batch_size, device=device) * 2 - 1) * horizontal_stddev + horizontal_mean
        v = (torch.rand(batch_size, device=device) * 2 - 1) * vertical_stddev + vertical_mean
        origin = _on_sphere(h, v, radius)
        return look_at(origin, torch.zeros_like(origin))


def orbit_label(
    yaw: float,
    pitch: float,
    radius: float = DEFAULT_RADIUS,
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),
    intrinsics: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """The label [1, 25] of a camera `yaw` and `pitch` away from the frontal one, looking at `pivot`.

    Positive yaw moves the camera to larger azimuths, positive pitch downwards: the offsets to pi/2 of
    `LookAtPoseSampler.sample`.  `intrinsics` [3, 3] default to those of the labelled cameras.
    """
    pose = LookAtPoseSampler.sample(FRONT + yaw, FRONT + pitch, pivot, radius=radius, device=device)
    return pack_label(pose, intrinsics_from_focal(device=device) if intrinsics is None else intrinsics)


def yaw_pitch_roll_degrees(label: torch.Tensor) -> torch.Tensor:
    """Yaw, pitch and roll [..., 3] in degrees of labels [..., 25]: the angles of the face as the camera sees it.

    Frontal is (0, 0, 0); yaw is in [-180, 180] and pitch in [-90, 90], so a view from behind has |yaw| over 90.
    """
    cam2world = unpack_label(label.to(torch.float64))[0]
    # OpenGL axes, and the rotation of a rigid matrix is inverted by transposing it.
    rotation = (cam2world[..., :3, :3] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64, device=label.device)).mT
    yaw = torch.asin(rotation[..., 2, 0].clamp(-1, 1))

    def pitch_for(yaw: torch.Tensor) -> torch.Tensor:
        return torch.atan2(rotation[..., 2, 1] / yaw.cos(), rotation[..., 2, 2] / yaw.cos())

    behind = pitch_for(yaw).abs() > math.pi / 2
    yaw = torch.where(behind, torch.copysign(torch.full_like(yaw, math.pi), yaw) - yaw, yaw)
    roll = torch.atan2(rotation[..., 1, 0] / yaw.cos(), rotation[..., 0, 0] / yaw.cos())
    return torch.stack([yaw, pitch_for(yaw), roll], dim=-1).rad2deg().to(torch.float32)
