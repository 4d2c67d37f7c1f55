"""Renders one view of a scene: colours (denoised and tone-mapped), a soft mask, and depth."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import camera_utils

from .light import LUMINANCE
from .scene import Scene
from .variant import mitsuba as mi
from .variant import mitsuba_oidn

MAX_DEPTH = 4  # light paths with up to three bounces
GUIDE_SAMPLES = 8  # per pixel, for the albedo and normals that guide the denoiser
GRAIN = 0.2  # share of the noisy picture that is kept; without any, skin looks like wax

_NEAR, _FAR = 0.1, 10.0  # world units
_MAX_RADIANCE = 8.0  # brighter samples would leave spots that the denoiser keeps
_SATURATION = 1.15  # cameras make colours slightly more vivid than they are
_KNEE, _TOP = 0.55, 0.94  # linear value above which brightness is compressed, and the value that it never reaches


@dataclass(frozen=True)
class View:
    """A picture without its background.

    colour [r, r, 3]: sRGB in 0..1, not multiplied by alpha; alpha [r, r]: share of the pixel covered by the head, 0..1; depth
    [r, r]: float32, world units along the camera's z axis to what the ray through the pixel's centre hits, 0 for nothing.
    """

    colour: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray


def render_view(scene: Scene, cam2world: np.ndarray, resolution: int, spp: int, seed: int) -> View:
    """Render with a camera [4, 4] (OpenCV axes, world units) and `spp` light paths per pixel.  Reproducible by its seed."""
    cam2world = np.asarray(cam2world, np.float64)
    sensor = _sensor(cam2world, resolution)
    paths = mi.load_dict({"type": "path", "max_depth": MAX_DEPTH, "hide_emitters": True})
    rendered = np.array(mi.render(scene.content, sensor=sensor, integrator=paths, spp=spp, seed=seed))
    guides = mi.load_dict({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"})
    surfaces = np.array(mi.render(scene.content, sensor=sensor, integrator=guides, spp=GUIDE_SAMPLES, seed=seed))[..., -6:]

    alpha = np.clip(rendered[..., 3], 0, 1)
    radiance = _denoise(rendered[..., :3], surfaces) / np.maximum(alpha, 1e-3)[..., None]
    colour = tone_map(radiance * scene.exposure)
    return View(colour.astype(np.float32), alpha, _depth(scene, cam2world, resolution))


def tone_map(linear: np.ndarray) -> np.ndarray:
    """Map linear colours [..., 3] to sRGB in 0..1: linearly up to the knee, then compressed, so that nothing clips."""
    grey = (linear @ LUMINANCE)[..., None]
    linear = np.clip(grey + _SATURATION * (linear - grey), 0, None)
    room, over = _TOP - _KNEE, np.maximum(linear - _KNEE, 0)
    linear = np.minimum(linear, _KNEE) + room * over / (over + room)
    return np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def compose(view: View, background: np.ndarray) -> np.ndarray:
    """Put the view on a background [r, r, 3] (sRGB in 0..1).  Returns bytes [r, r, 3]."""
    alpha = view.alpha[..., None]
    return np.round(np.clip(view.colour * alpha + background * (1 - alpha), 0, 1) * 255).astype(np.uint8)


def _sensor(cam2world: np.ndarray, resolution: int) -> Any:
    """The camera of the labels.  Mitsuba's own camera also looks along z, but with x to the left and y up."""
    field_of_view = 2 * np.degrees(np.arctan(0.5 / camera_utils.DEFAULT_FOCAL))
    film = {"type": "hdrfilm", "width": resolution, "height": resolution, "pixel_format": "rgba"}
    film |= {"component_format": "float32", "rfilter": {"type": "box"}}  # the denoiser needs pixels without shared samples
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": float(field_of_view),
            "fov_axis": "x",
            "near_clip": _NEAR,
            "far_clip": _FAR,
            "to_world": mi.ScalarTransform4f(cam2world @ np.diag([-1.0, -1.0, 1.0, 1.0])),
            "film": film,
            "sampler": {"type": "multijitter"},
        }
    )


def _denoise(colour: np.ndarray, surfaces: np.ndarray) -> np.ndarray:
    """Denoise radiance [r, r, 3], guided by albedo and normals [r, r, 6]."""
    noisy = np.ascontiguousarray(np.minimum(colour, _MAX_RADIANCE), np.float32)
    albedo = np.ascontiguousarray(np.clip(surfaces[..., :3], 0, 1), np.float32)
    normals = np.ascontiguousarray(surfaces[..., 3:], np.float32)
    clean = np.clip(np.array(mitsuba_oidn.denoise(noisy, albedo, normals, hdr=True)), 0, None)
    return clean + GRAIN * (np.clip(noisy, 0.6 * clean, 1.5 * clean) - clean)


def _depth(scene: Scene, cam2world: np.ndarray, resolution: int) -> np.ndarray:
    """Distances [r, r] along the camera's z axis; 0 where the ray through a pixel's centre hits nothing."""
    middles = (np.arange(resolution) + 0.5) / resolution - 0.5
    x, y = np.meshgrid(middles / camera_utils.DEFAULT_FOCAL, middles / camera_utils.DEFAULT_FOCAL)
    rays = np.stack([x, y, np.ones_like(x)], axis=2).reshape(-1, 3)
    lengths = np.linalg.norm(rays, axis=1)
    directions = (rays / lengths[:, None]) @ cam2world[:3, :3].T
    distances = _ray_distances(scene.content, cam2world[:3, 3], directions)
    return (distances / lengths).astype(np.float32).reshape(resolution, resolution)


def _ray_distances(content: Any, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distances at which rays with unit `directions` [n, 3] hit something, or 0."""
    if mi.variant() == "scalar_rgb":
        hits = (content.ray_intersect_preliminary(mi.Ray3f(origin, direction)) for direction in directions)
        distances = np.array([float(hit.t) for hit in hits])
    else:
        rays = mi.Ray3f(mi.Point3f(*origin.tolist()), mi.Vector3f(directions.T.astype(np.float32)))
        distances = np.array(content.ray_intersect_preliminary(rays, coherent=True).t)
    return np.where(np.isfinite(distances), distances, 0)
