"""Checks whether the depths of one head, seen from several sides, describe the same surface."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

import camera_utils
from training.volumetric_rendering.ray_sampler import sample_rays

TOLERANCE = 0.02  # world units: about 8 mm on a rendered head, two pixels of a 64 pixel picture


class Surface(NamedTuple):
    """What one camera sees of a head."""

    depth: torch.Tensor  # [H, H] along the camera's z axis, world units; infinite where there is no head
    label: torch.Tensor  # [25], on the same device


@dataclass
class Agreement:
    """How many points of one view another view confirms; see `compare`."""

    agreeing: int = 0
    contradicted: int = 0
    hidden: int = 0

    @property
    def share(self) -> float:
        """Share of confirmed points among those that the other view can judge; nan if there are none."""
        judged = self.agreeing + self.contradicted
        return self.agreeing / judged if judged else float("nan")

    @property
    def hidden_share(self) -> float:
        """Share of hidden points among all points inside the other picture; nan if there are none."""
        seen = self.agreeing + self.contradicted + self.hidden
        return self.hidden / seen if seen else float("nan")

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(self.agreeing + other.agreeing, self.contradicted + other.contradicted, self.hidden + other.hidden)


def z_from_ray_depth(distance: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Convert distances along the rays [H, H] of the camera `label` [25], as generators return, to depths along its z axis."""
    return distance * _rays(label, len(distance))[2]


def thin_out(surface: Surface, resolution: int) -> Surface:
    """Keep every k-th pixel in each direction, so that `resolution` pixels remain.  Depths remain those of single rays.

    The kept pixels are not at the centres of the larger ones that they now represent, so the principal point is moved.  Views
    with fewer pixels are returned unchanged.  Raises ValueError if the size is not a multiple of `resolution`.
    """
    size = len(surface.depth)
    if size <= resolution:
        return surface
    step, rest = divmod(size, resolution)
    if rest:
        raise ValueError(f"{size} pixels cannot be thinned out to {resolution}")
    first = step // 2
    offset = (first + 0.5 - step / 2) / size  # from the centre of a large pixel to that of the kept one, in picture widths
    pose, intrinsics = camera_utils.unpack_label(surface.label.clone())
    intrinsics[:2, 2] -= offset
    return Surface(surface.depth[first::step, first::step], camera_utils.pack_label(pose, intrinsics))


def angle_degrees(first: torch.Tensor, second: torch.Tensor) -> float:
    """The angle between two cameras (labels [25]) as seen from the world's origin."""
    here, there = (label[camera_utils.POSITION_ENTRIES].double() for label in (first, second))
    return torch.rad2deg(torch.atan2(torch.linalg.cross(here, there).norm(), here @ there)).item()


def compare(first: Surface, second: Surface, tolerance: float = TOLERANCE) -> Agreement:
    """Project the points that `first` sees into `second`, and check whether `second` sees them too.

    This is the geometric check of multi-view stereo (Yao 2018, MVSNet, section 4.2), extended to handle occlusion.  The point
    of each head pixel of `first` (its centre, at its depth) is projected to position q with depth z in `second`.  D are the
    depths of `second` at the four pixels around q, infinite where they show no head.  The point is

    - not counted if q is not surrounded by four pixels of the picture;
    - contradicted if even the smallest D is larger than z + tolerance: `second` looks through the point at what is behind;
    - hidden if all finite D are smaller than z - tolerance: another part of the head is in front, and `second` cannot judge;
    - in agreement otherwise: the surface sampled by the four pixels passes the point within the tolerance.
    """
    (x, y), z = _project(_points(first), second.label)
    resolution = len(second.depth)
    column, row = ((place * resolution - 0.5).floor().long() for place in (x, y))
    inside = (z > 0) & (column >= 0) & (row >= 0) & (column < resolution - 1) & (row < resolution - 1)
    column, row, z = column[inside], row[inside], z[inside]
    around = torch.stack([second.depth[row + down, column + right] for down in (0, 1) for right in (0, 1)])
    nearest = around.amin(dim=0)
    farthest = around.masked_fill(around.isinf(), -torch.inf).amax(dim=0)  # of the head
    contradicted = nearest > z + tolerance
    hidden = ~contradicted & (farthest < z - tolerance)
    counts = [int(flags.sum()) for flags in (contradicted, hidden)]
    return Agreement(len(z) - sum(counts), *counts)


def compare_all(
    surfaces: Sequence[Surface], angles: Sequence[float], margin: float = 7.5, tolerance: float = TOLERANCE
) -> dict[float, Agreement]:
    """`compare` for all pairs of views of one head, in both directions, by the angle between the cameras.

    A pair counts for the nearest of `angles` (degrees), provided that it is within `margin`.
    """
    found = {angle: Agreement() for angle in angles}
    for first, second in itertools.permutations(surfaces, 2):
        between = angle_degrees(first.label, second.label)
        angle = min(angles, key=lambda angle: abs(between - angle))
        if abs(between - angle) <= margin:
            found[angle] += compare(first, second, tolerance)
    return found


def _rays(label: torch.Tensor, resolution: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Origins and unit directions [H, H, 3] of a camera's rays, and their components along its z axis [H, H]."""
    cam2world, intrinsics = camera_utils.unpack_label(label[None])
    origins, directions = (rays.reshape(resolution, resolution, 3) for rays in sample_rays(cam2world, intrinsics, resolution))
    return origins, directions, directions @ cam2world[0, :3, 2]


def _points(surface: Surface) -> torch.Tensor:
    """The points [P, 3] of the world that the head's pixels show."""
    origins, directions, along_z = _rays(surface.label, len(surface.depth))
    head = surface.depth.isfinite()
    return origins[head] + directions[head] * (surface.depth / along_z)[head][:, None]


def _project(points: torch.Tensor, label: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    places, depth = camera_utils.project_points(label[None], points)
    return places[0].unbind(-1), depth[0]
