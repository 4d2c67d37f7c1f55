"""A generator's heads seen from all round: their surfaces, their pictures, and how much of the box they fill."""

from collections.abc import Sequence

import numpy as np
import torch

from inference import synthesis
from inference.shapes import DEFAULT_LEVEL, density_grid
from metrics.consistency import Agreement, Surface, compare_all, z_from_ray_depth
from training.images import picture
from training.triplane import Face, TriPlaneGenerator

HEAD_LEVEL = 0.5  # of masks and opacities: what is at least that is head
DEPTH_RESOLUTION = 64  # rays along a side for surfaces, of every network and of the truth
TURNS = (0.0, 15.0, 45.0, 90.0)  # degrees of yaw from a head's first view to those it is compared with, and they with another
ANGLES = (15.0, 30.0, 45.0, 90.0)  # between two views, at which agreement is told
SIDES = {"front": (-30.0, 0.0, 30.0), "back": (150.0, 180.0, -150.0)}  # degrees: views that should, and should not, show a face
LATTICE = 48  # points along a side of the box, for shapes


def head_of(G: TriPlaneGenerator, seed: int, truncation_psi: float = 1.0) -> Face:
    """The head of a seed, conditioned on the frontal camera, to be seen from anywhere."""
    ws = synthesis.seeds_to_ws(G, [seed], synthesis.conditioning_label(synthesis.orbit(G), 90.0), truncation_psi)
    return synthesis.prepare(G, ws)


def level_camera(G: TriPlaneGenerator, yaw_degrees: float) -> torch.Tensor:
    """The label [1, 25] of a level camera."""
    return synthesis.orbit(G)(synthesis.View(float(np.radians(yaw_degrees))))


def pictures_from(G: TriPlaneGenerator, head: Face, yaws: Sequence[float]) -> list[np.ndarray]:
    """The head from level cameras at `yaws` in degrees: pictures uint8 [H, H, 3]."""
    return [picture(synthesis.render(G, head, level_camera(G, yaw)), "image")[0] for yaw in yaws]


@torch.no_grad()
def surface_of(G: TriPlaneGenerator, head: Face, label: torch.Tensor, resolution: int) -> Surface:
    """What the camera `label` [25] sees of the head's surface with `resolution`² rays.

    It is where the rays end on average by their weights, and only where they end at least half in the head.
    """
    with torch.random.fork_rng(devices=[label.device] if label.device.type == "cuda" else []):
        torch.manual_seed(0)
        seen = G.march(head.grids, label[None], resolution)
    distance, opacity = (rays.reshape(resolution, resolution) for rays in (seen.depth, seen.opacity))
    depth = z_from_ray_depth(distance, label)
    return Surface(depth.masked_fill(opacity < HEAD_LEVEL, torch.inf), label)


def agreement_of(
    G: TriPlaneGenerator, head: Face, first_yaw: float, resolution: int = DEPTH_RESOLUTION
) -> dict[float, Agreement]:
    """What `compare_all` finds at ANGLES in views of a head at TURNS from the first, whose yaw is in degrees."""
    cameras = [level_camera(G, first_yaw + turn)[0] for turn in TURNS]
    return compare_all([surface_of(G, head, camera, resolution) for camera in cameras], ANGLES)


def filled(G: TriPlaneGenerator, head: Face) -> np.ndarray:
    """Which points of a lattice in the box are inside the head: bools [LATTICE³]."""
    return (density_grid(G, head, LATTICE, show_progress=False) >= DEFAULT_LEVEL).ravel()


def overlaps(filled_points: np.ndarray) -> np.ndarray:
    """Of each two of N heads (bools [N, P]) what they share of what they fill together (IoU): float64 [N, N]."""
    counts = filled_points.astype(np.float64)
    both = counts @ counts.T
    sizes = counts.sum(axis=1)
    either = sizes[:, None] + sizes - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)
