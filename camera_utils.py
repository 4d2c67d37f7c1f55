"""Cameras and camera labels.  This is the only module that knows the layout of a label.

A label is a float32 row of 25 numbers: the 4x4 camera-to-world matrix (row-major), followed by the 3x3 intrinsics (row-major),
normalised by the picture's size.  In the world, y points up, z toward the viewer of a frontal face and x to that viewer's
right; the head is at the origin.  Cameras follow OpenCV: x right, y down, z forward.  Angles are in radians unless a name
says degrees.
"""

import math

import torch
import torch.nn.functional as F

LABEL_DIM = 25
POSE_ENTRIES = slice(0, 16)  # cam2world, row-major
INTRINSICS_ENTRIES = slice(16, 25)  # intrinsics, row-major
POSITION_ENTRIES = slice(3, 12, 4)  # the camera's position in the world: the last column of cam2world
MIRRORED_ENTRIES = (1, 2, 3, 4, 8)  # these change sign when x is negated both in the world and in the picture

DEFAULT_RADIUS = 2.7  # distance of the labelled cameras from the head, in world units
DEFAULT_FOCAL = 4.2647  # focal length of the labelled cameras, in picture widths
PIXEL_FOCAL = 50  # larger focal lengths must be in pixels: in picture widths they would mean a field of view of one degree
DEFAULT_FOV_DEGREES = 18.837  # default field of view of the scripts
FRONT = math.pi / 2  # azimuth and polar angle of the frontal camera


def pack_label(cam2world: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """Pack cam2world [..., 4, 4] and intrinsics [..., 3, 3] into labels [..., 25].  Intrinsics may lack the leading axes."""
    batch = cam2world.shape[:-2]
    return torch.cat([cam2world.reshape(*batch, 16), intrinsics.expand(*batch, 3, 3).reshape(*batch, 9)], dim=-1)


def unpack_label(label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unpack labels [..., 25] into cam2world [..., 4, 4] and intrinsics [..., 3, 3]."""
    batch = label.shape[:-1]
    return label[..., POSE_ENTRIES].reshape(*batch, 4, 4), label[..., INTRINSICS_ENTRIES].reshape(*batch, 3, 3)


def flip_label(label: torch.Tensor) -> torch.Tensor:
    """Return the labels [..., 25] of the mirrored pictures as a new tensor.  Flipping twice restores the label."""
    flipped = label.clone()
    for entry in MIRRORED_ENTRIES:  # one by one, because indexing with a list makes the host wait for a GPU
        flipped[..., entry].neg_()
    return flipped


def shift_label(label: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return labels [..., 25] whose cameras are moved by `shift` [..., 3] in world units, as a new tensor."""
    moved = label.clone()
    moved[..., POSITION_ENTRIES] += shift
    return moved


def is_in_pixels(label: list[float]) -> bool:
    """Whether the intrinsics of a label (25 numbers) are in pixels: a long focal length and a principal point beyond 1."""
    return label[16] > PIXEL_FOCAL and label[18] > 1


def pixels_to_widths(label: list[float], width: int) -> list[float]:
    """Convert the intrinsics of a label (25 numbers) of a square picture of `width` pixels from pixels to picture widths."""
    return [*label[:16], *(number / width for number in label[16:22]), *label[22:]]


def intrinsics_from_focal(focal: float = DEFAULT_FOCAL, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalised intrinsics [3, 3] with the principal point at the centre of the picture."""
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], dtype=torch.float32, device=device)


def FOV_to_intrinsics(fov_degrees: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalised intrinsics [3, 3] for a field of view in degrees, computed as EG3D's and PanoHead's scripts do.

    Their formula divides by 1.414 and uses 3.14159 for pi, so the angle is roughly that of the diagonal: 18.837 gives a focal
    length of 4.2634, where the labels have 4.2647.  The formula is kept to the digit because published pictures depend on it.
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
    """Project points [P, 3] of the world into the pictures of labels [N, 25].

    Returns (x, y) [N, P, 2] in picture widths and heights, measured from the upper left corner, and depths [N, P] along the
    viewing direction in world units.  A point with a depth of 0 or less is behind the camera; its (x, y) has no meaning.
    """
    cam2world, intrinsics = unpack_label(label)
    rotation, position = cam2world[:, :3, :3], cam2world[:, None, :3, 3]
    rays = (points - position) @ rotation  # points are rows, so the product is transposed
    depth = rays[..., 2]
    return ((rays / depth[..., None]) @ intrinsics.mT)[..., :2], depth


def create_cam2world_matrix(forward_vector: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """cam2world [N, 4, 4] of cameras at `origin` [N, 3] that look along `forward_vector` [N, 3] without roll."""
    return look_at(origin, origin + forward_vector)


def _on_sphere(horizontal: torch.Tensor, vertical: torch.Tensor, radius: float) -> torch.Tensor:
    """Positions [N, 3] at azimuths [N] and polar angles [N]; see `LookAtPoseSampler.sample` for the angles."""
    vertical = vertical.clamp(1e-5, math.pi - 1e-5)
    phi = torch.arccos(1 - 2 * (vertical / math.pi))
    theta = math.pi - horizontal
    return radius * torch.stack([phi.sin() * theta.cos(), phi.cos(), phi.sin() * theta.sin()], dim=-1)


class LookAtPoseSampler:
    """Samples cameras on a sphere that look at a given point.  Has the interface that EG3D's scripts use."""

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
        """Draw poses cam2world [batch_size, 4, 4] whose angles follow two normal distributions.

        `horizontal` is the azimuth and `vertical` the polar angle; both are pi/2 for the frontal camera, and the polar angle is
        kept away from the poles.  Positions lie on the sphere of `radius` around the world's origin, whatever the cameras
        look at.
        """
        h = torch.randn(batch_size, device=device) * horizontal_stddev + horizontal_mean
        v = torch.randn(batch_size, device=device) * vertical_stddev + vertical_mean
        origin = _on_sphere(h, v, radius)
        return look_at(origin, torch.as_tensor(lookat_position, dtype=torch.float32, device=device))


class GaussianCameraPoseSampler:
    """Samples cameras on a sphere that look at the world's origin.  Has the interface that EG3D's scripts use."""

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
        """Draw poses cam2world [batch_size, 4, 4] whose angles are distributed as in `LookAtPoseSampler.sample`."""
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
    """Samples cameras on a sphere that look at the origin, with uniform angles.  Has the interface that EG3D's scripts use."""

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
        """Draw poses cam2world [batch_size, 4, 4] whose angles lie within the given `*_stddev` of the means."""
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
    """The label [1, 25] of a camera at `yaw` and `pitch` from the frontal one, looking at `pivot`.

    Both angles are offsets to pi/2 in `LookAtPoseSampler.sample`: positive yaw moves the camera to larger azimuths, positive
    pitch moves it down.  `intrinsics` [3, 3] default to those of the labelled cameras.
    """
    pose = LookAtPoseSampler.sample(FRONT + yaw, FRONT + pitch, pivot, radius=radius, device=device)
    return pack_label(pose, intrinsics_from_focal(device=device) if intrinsics is None else intrinsics)


def yaw_pitch_roll_degrees(label: torch.Tensor) -> torch.Tensor:
    """Yaw, pitch and roll [..., 3] in degrees of labels [..., 25]: the angles of the face as seen by the camera.

    A frontal view is (0, 0, 0).  Yaw is in [-180, 180] and pitch in [-90, 90], so a view from behind has |yaw| > 90.
    """
    cam2world = unpack_label(label.to(torch.float64))[0]
    # OpenGL axes.  A rotation is inverted by transposing it.
    rotation = (cam2world[..., :3, :3] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64, device=label.device)).mT
    yaw = torch.asin(rotation[..., 2, 0].clamp(-1, 1))

    def pitch_for(yaw: torch.Tensor) -> torch.Tensor:
        return torch.atan2(rotation[..., 2, 1] / yaw.cos(), rotation[..., 2, 2] / yaw.cos())

    behind = pitch_for(yaw).abs() > math.pi / 2
    yaw = torch.where(behind, torch.copysign(torch.full_like(yaw, math.pi), yaw) - yaw, yaw)
    roll = torch.atan2(rotation[..., 1, 0] / yaw.cos(), rotation[..., 0, 0] / yaw.cos())
    return torch.stack([yaw, pitch_for(yaw), roll], dim=-1).rad2deg().to(torch.float32)
