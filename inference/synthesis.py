"""Renders pictures from a network file and seeds: loading, latents, cameras and views.

Cameras are used exactly as given: the shift of `G.apply_delta_c` aligns a face with the label of a photo, and these pictures
have no photo.  The noise of the synthesis layers is constant, and every view uses the same sampling jitter, so that the same
call gives the same picture and videos do not flicker.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import numpy as np
import torch

import camera_utils
from dnnlib import UserError
from torch_utils.device import keep_freed_memory, select_device
from training.loading import load_network
from training.triplane import Face, TriPlaneGenerator

ORIGIN = (0.0, 0.0, 0.0)
MIN_SAMPLES = 4  # on a ray: fine samples are drawn between the weights of coarse ones, the outer of which are dropped
MAX_SAMPLES = 1024  # more are more memory and no better picture


class View(NamedTuple):
    """A camera on the orbit: its yaw and pitch in radians from the frontal camera, and the point it looks at."""

    yaw: float
    pitch: float = 0.0
    pivot: tuple[float, float, float] = ORIGIN


class CameraPath(NamedTuple):
    """A closed camera path: the point looked at, and yaw and pitch (radians) as functions of an angle from 0 to 2 pi."""

    pivot: tuple[float, float, float]
    yaw: Callable[[float], float]
    pitch: Callable[[float], float]

    def view(self, time: float) -> View:
        """The camera at `time` in [0, 1)."""
        angle = 2 * math.pi * time
        return View(self.yaw(angle), self.pitch(angle), self.pivot)


def _sway(pivot: tuple[float, float, float]) -> CameraPath:
    return CameraPath(pivot, yaw=lambda angle: 1.5 * math.sin(angle), pitch=lambda angle: -0.05 + 0.25 * math.cos(angle))


CAMERA_PATHS = {  # the videos' --cfg
    "FFHQ": _sway((0.0, 0.0, 0.2)),
    "Cats": _sway(ORIGIN),
    "Head": CameraPath(ORIGIN, yaw=lambda angle: angle, pitch=lambda angle: -0.05 + 0.5 * math.sin(angle)),
}
STILL_PITCH = -0.2  # stills are taken from a little above
SAMPLE_VIEWS = tuple(View(math.radians(yaw), STILL_PITCH) for yaw in (0, -45, -90, -135, -180))
NAMED_YAWS = {"front": 0.0, "side": 90.0, "back": 180.0}  # degrees


def still_views(text: str) -> list[View]:
    """Parse views such as ``front,45,back``: names in NAMED_YAWS or yaws in degrees.  Raises UserError for anything else."""
    try:
        degrees = [NAMED_YAWS[part] if part in NAMED_YAWS else float(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        degrees = [math.nan]
    if not all(map(math.isfinite, degrees)):
        raise UserError(f"--views {text}: give yaws in degrees, or {', '.join(NAMED_YAWS)}, with commas between")
    return [View(math.radians(yaw), STILL_PITCH) for yaw in degrees]


def load_generator(
    network: str,
    device: str | None = None,
    trust_pickle: bool = False,
    sample_mult: float = 1,
    nrr: int | None = None,
) -> TriPlaneGenerator:
    """Load the averaged generator of a network file or URL for rendering on `device` (None: the best one available).

    `sample_mult` multiplies the numbers of samples per ray; `nrr` replaces the size of raw pictures.  On the CPU, this process
    keeps freed tensor memory from now on (`keep_freed_memory`).  Raises UserError if the file cannot be used, or contains
    something other than a generator that takes camera labels.
    """
    chosen = select_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    G = load_network(network, key="G_ema", device=chosen, trust_pickle=trust_pickle)
    if not isinstance(G, TriPlaneGenerator):
        advice = "; without --trust-pickle it is rebuilt as one of ours, if it can be" if trust_pickle else ""
        raise UserError(f"{network}: G_ema is a {type(G).__name__}, not a generator of heads that is known here{advice}")
    if G.c_dim != camera_utils.LABEL_DIM:
        raise UserError(
            f"{network}: the network takes labels of {G.c_dim} numbers, and cameras have {camera_utils.LABEL_DIM}; "
            "choose one that was trained with camera labels"
        )
    for name in ("depth_resolution", "depth_resolution_importance"):
        G.rendering_kwargs[name] = int(G.rendering_kwargs[name] * sample_mult)
    samples = G.rendering_kwargs.depth_resolution
    if not MIN_SAMPLES <= samples <= MAX_SAMPLES:
        raise UserError(
            f"--sample_mult {sample_mult:g} makes {samples} samples on a ray; {MIN_SAMPLES} to {MAX_SAMPLES} will do"
        )
    if nrr is not None:
        G.neural_rendering_resolution = nrr
    return G


def network_name(path_or_url: str) -> str:
    """The name of a network in folder names: its file's name without the suffix."""
    return Path(urlparse(path_or_url).path).stem


def latents(seeds: Iterable[int], z_dim: int) -> torch.Tensor:
    """Latents z [N, z_dim], float32.  Each row is ``RandomState(seed).randn(1, z_dim)``."""
    rows = [np.random.RandomState(seed).randn(1, z_dim) for seed in seeds]
    return torch.from_numpy(np.concatenate(rows)).to(torch.float32)


def device_of(G: torch.nn.Module) -> torch.device:
    """The device of the weights of `G`."""
    return next(G.parameters()).device


def orbit(G: TriPlaneGenerator, fov_degrees: float = camera_utils.DEFAULT_FOV_DEGREES) -> Callable[[View], torch.Tensor]:
    """The orbit of the network's cameras: a function from a View to its label [1, 25] on the network's device."""
    intrinsics = camera_utils.FOV_to_intrinsics(fov_degrees, device_of(G))
    radius = orbit_radius(G)

    def label(view: View) -> torch.Tensor:
        return camera_utils.orbit_label(view.yaw, view.pitch, radius, view.pivot, intrinsics, intrinsics.device)

    return label


def conditioning_label(camera: Callable[[View], torch.Tensor], azimuth_degrees: float, pivot: tuple = ORIGIN) -> torch.Tensor:
    """The label [1, 25] that conditions the mapping: a level camera at `azimuth_degrees`, where 90 is frontal."""
    return camera(View(math.radians(azimuth_degrees - 90), pivot=pivot))


def orbit_radius(G: TriPlaneGenerator) -> float:
    """Distance in world units between the head and the cameras that the network was trained with."""
    return G.rendering_kwargs.get("avg_camera_radius", camera_utils.DEFAULT_RADIUS)


def depth_range(G: TriPlaneGenerator) -> tuple[float, float]:
    """Depths of the front and back of the box as seen by the frontal camera: white and black in depth pictures."""
    radius, half = orbit_radius(G), G.rendering_kwargs.box_warp / 2
    return radius - half, radius + half


@torch.no_grad()
def seeds_to_ws(
    G: TriPlaneGenerator,
    seeds: Iterable[int],
    conditioning: torch.Tensor,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> torch.Tensor:
    """Map `seeds` to ws [N, num_ws, w_dim], conditioned on the camera `conditioning` [1, 25]."""
    z = latents(seeds, G.z_dim).to(conditioning.device)
    return G.mapping(z, conditioning.expand(len(z), -1), truncation_psi, truncation_cutoff)


def mix_styles(first: torch.Tensor, second: torch.Tensor, layer: int) -> torch.Tensor:
    """Mix styles: ws [N, num_ws, w_dim] with the rows before `layer` from `first` and the others from `second`."""
    return torch.cat([first[:, :layer], second[:, layer:]], dim=1)


@torch.no_grad()
def prepare(G: TriPlaneGenerator, ws: torch.Tensor) -> Face:
    """Compute what all views of the faces ws [N, num_ws, w_dim] share.  This is the expensive part, needed once per face."""
    return G.prepare(ws, noise_mode="const")


@torch.no_grad()
def render(G: TriPlaneGenerator, face: Face, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Render `face` from the camera `label` [1, 25].  Returns what `G.synthesis` returns."""
    device = label.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        return G.render(face, label.expand(len(face.ws), -1), noise_mode="const")


def views(G: TriPlaneGenerator, face: Face, labels: Iterable[torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Render `face` from each of the cameras `labels`, one after the other."""
    return (render(G, face, label) for label in labels)
