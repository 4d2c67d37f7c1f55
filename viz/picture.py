"""From a state and a network to a picture: latents, the face, the camera, and what is shown of it."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL.Image
import torch

import camera_utils
from dnnlib import EasyDict, UserError
from inference import synthesis
from pti.inversion import prepare as prepare_pivot
from pti.projector import Pivot
from pti.rendering import NEAR_OF_HEAD, rays_start_at_head
from pti.results import Results
from training import images
from training.triplane import Face, TriPlaneGenerator
from training.volumetric_rendering import trigrid
from viz import states
from viz.states import State

FACES_KEPT, FACE_BYTES_KEPT = 16, 2**30  # prepared faces in memory: so many at most, and as large as this together
DIRECTION_SAMPLES = 4000  # of w, for the principal directions
NEAREST = 0.05  # from the camera, where a ray may start
DRAFT_SIZE, DRAFT_SAMPLES = 32, 0.5  # of pictures made while something moves


@dataclass(frozen=True)
class Detail:
    """How well a picture is drawn: at most `size` raw pixels a side, a share of the samples, super-resolution or not."""

    size: int | None = None
    samples: float = 1.0
    superresolution: bool = True


DRAFT = Detail(DRAFT_SIZE, DRAFT_SAMPLES, superresolution=False)
RAW = Detail(superresolution=False)
FULL = Detail()


class Stale(Exception):
    """Nobody waits for this picture any more."""


class Network:
    """A generator to look at, its name for people and commands, and the latent of a photo if it was tuned to one.

    It remembers the last latents and faces: they depend on the state alone.  For one thread at a time.
    """

    def __init__(self, G: TriPlaneGenerator, name: str, pivot: Pivot | None = None, photo: np.ndarray | None = None):
        self.G, self.pivot, self.photo = G, pivot, photo
        self.name = self.file = name  # what people chose, and what is behind it: the newest snapshot of a run
        self.raw_size = G.neural_rendering_resolution
        self.seed_ws = lru_cache(64)(self._seed_ws)
        grids = 4 * 3 * trigrid.GRID_CHANNELS * G.grid_model.triplane_depth * G.grid_model.triplane_size**2
        self.face = lru_cache(max(2, min(FACES_KEPT, FACE_BYTES_KEPT // grids)))(self._face)
        self.directions = lru_cache(1)(self._directions)

    def details(self, image_mode: str) -> tuple[Detail, ...]:
        """From the quickest picture to the best: those of them that differ."""
        best = FULL if image_mode == "image" else RAW
        return (DRAFT, best) if self.raw_size <= DRAFT_SIZE or best is RAW else (DRAFT, RAW, best)

    def _seed_ws(self, seed: int, trunc: float, trunc_cutoff: int, pose_cond: float, fov_deg: float) -> torch.Tensor:
        conditioning = synthesis.conditioning_label(synthesis.orbit(self.G, fov_deg), pose_cond)
        return synthesis.seeds_to_ws(self.G, [seed], conditioning, trunc, trunc_cutoff)

    def _face(self, state: State) -> Face:
        ws, ws_bcg = latents(state, self)
        if state.face == states.PHOTO:
            return prepare_pivot(self.G, self.pivot._replace(ws=ws, ws_bcg=ws_bcg))
        with torch.no_grad():
            return self.G.prepare(ws, ws_bcg, noise_mode="const")

    @torch.no_grad()
    def _directions(self) -> torch.Tensor:
        """Principal directions of w [MAX_DIRECTIONS, w_dim], as long as the deviation along each (GANSpace, Härkönen 2020)."""
        G = self.G
        camera = synthesis.conditioning_label(synthesis.orbit(G), 90.0)
        z = torch.from_numpy(np.random.RandomState(0).randn(DIRECTION_SAMPLES, G.z_dim)).to(camera)
        w = torch.cat([G.mapping(part, camera.expand(len(part), -1))[:, 0] for part in z.split(1000)])
        _, lengths, rows = torch.linalg.svd(w - w.mean(dim=0), full_matrices=False)
        # The sign of a direction is arbitrary: its largest entry is made positive, so that a name keeps its meaning.
        rows, lengths = rows[: states.MAX_DIRECTIONS], lengths[: states.MAX_DIRECTIONS]
        signs = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
        return rows * signs * lengths[:, None] / DIRECTION_SAMPLES**0.5


def load(path: str, device: str | None = None, trust_pickle: bool = False) -> Network:
    """The network of a file, a URL, or a folder that pti/run.py wrote, which brings its photo and latent.

    UserError if there is none that can be used.
    """
    if not Path(path).is_dir():
        return Network(synthesis.load_generator(path, device, trust_pickle), path)
    results = Results(Path(path))
    if not is_inversion(Path(path)):
        raise UserError(f"{path} holds no {results.generator.name} and {results.pivot.name}, as pti/run.py writes them")
    G = synthesis.load_generator(str(results.generator), device, trust_pickle)
    photo = np.asarray(PIL.Image.open(results.target).convert("RGB")) if results.target.exists() else None
    return Network(G, path, results.load_pivot(synthesis.device_of(G)), photo)


def is_inversion(path: Path) -> bool:
    """Whether `path` is a finished folder of pti/run.py."""
    results = Results(path)
    return results.generator.exists() and results.pivot.exists()


def latents(state: State, network: Network) -> tuple[torch.Tensor, torch.Tensor | None]:
    """ws [1, num_ws, w_dim] of the face, and of the background where that is another's."""

    def of(seed: int) -> torch.Tensor:
        return network.seed_ws(seed, state.trunc, state.trunc_cutoff, state.pose_cond, state.fov_deg)

    ws, ws_bcg = of(state.seed), None
    if state.face == states.PHOTO:
        if network.pivot is None:
            raise UserError(f"{network.name} was not tuned to a photo: --face {states.SEED}")
        ws, ws_bcg = network.pivot.ws, network.pivot.ws_bcg
    if state.walk > 0:
        ws = ws.lerp(of(state.walk_seed), state.walk)
    first, last = state.mix
    if first < last:
        ws = synthesis.mix_styles(synthesis.mix_styles(ws, of(state.mix_seed), first), ws, last)
    if any(state.directions):
        steps = torch.tensor(state.directions, device=ws.device)
        ws = ws + steps @ network.directions()[: len(steps)]
    if state.background == states.OTHER:
        ws_bcg = of(state.background_seed)
    return ws, ws_bcg


def face_of(state: State, network: Network) -> State:
    """The part of the state that the face depends on; all else is as it is by default."""
    names = ["face", "seed", "trunc", "trunc_cutoff", "walk", "walk_seed", "mix", "mix_seed", "directions"]
    if not network.G.rendering_kwargs.c_gen_conditioning_zero:  # a camera is part of the latent
        names += ["pose_cond", "fov_deg"]
    kept = {name: getattr(state, name) for name in names}
    if state.background == states.OTHER:
        kept.update(background=state.background, background_seed=state.background_seed)
    return State(**kept)


def camera(state: State, network: Network) -> torch.Tensor:
    """The label [1, 25] of the state's camera, on the network's device."""
    return state.camera(camera_utils.FOV_to_intrinsics(state.fov_deg, synthesis.device_of(network.G)))


@torch.no_grad()
def picture(state: State, network: Network, detail: Detail = FULL, stale: Callable[[], bool] | None = None) -> np.ndarray:
    """The picture of `state`, uint8 [H, W, 3], or [H, W, 4] without a background.

    `stale` is asked between the layers of the network whether the picture is still wanted; if not, this raises Stale.
    """
    with interruptible(stale) if stale is not None else contextlib.nullcontext():
        face, label = network.face(face_of(state, network)), camera(state, network)
        G, depths = drawing(state, network, detail)
        seen = synthesis.render(G, face, label)
    if state.image_mode == states.NORMALS:
        return normals_picture(seen["image_depth"], label, seen.get("image_mask"))[0]
    pixels = images.picture(seen, state.image_mode, depths)[0]
    if state.image_mode in ("image", "image_raw") and state.background in (states.WHITE, states.NONE):
        return _cut_out(pixels, seen, keep_alpha=state.background == states.NONE)
    return pixels


def drawing(state: State, network: Network, detail: Detail = FULL) -> tuple[TriPlaneGenerator, tuple[float, float]]:
    """A generator of the same weights that draws with the samples and from the distance of `state`, and its range of depths.

    The network itself is not changed: other threads may draw with it.
    """
    G, near_far = network.G, synthesis.depth_range(network.G)
    twin = type(G).__new__(type(G))
    twin.__dict__ = dict(G.__dict__, rendering_kwargs=EasyDict(G.rendering_kwargs), _modules=dict(G._modules))
    kwargs = twin.rendering_kwargs
    for name in ("depth_resolution", "depth_resolution_importance"):
        if kwargs[name] > 0:
            samples = int(kwargs[name] * state.sample_mult * detail.samples)
            kwargs[name] = min(max(samples, synthesis.MIN_SAMPLES), synthesis.MAX_SAMPLES)
    position = camera_utils.unpack_label(camera(state, network))[0][0, :3, 3]
    farther = position.norm().item() - synthesis.orbit_radius(G)
    if kwargs.ray_start != "auto" and abs(farther) > 1e-4:
        kwargs.ray_start, kwargs.ray_end = (max(kwargs[name] + farther, NEAREST) for name in ("ray_start", "ray_end"))
        kwargs.ray_end = max(kwargs.ray_end, kwargs.ray_start + NEAREST)
    if kwargs.ray_start != "auto" and state.face == states.PHOTO:  # as `rays_start_at_head`, from any distance
        at_head = synthesis.orbit_radius(G) + farther - NEAR_OF_HEAD * kwargs.box_warp
        kwargs.ray_start = min(max(kwargs.ray_start, at_head), kwargs.ray_end - NEAREST)
    if detail.size is not None:
        twin.neural_rendering_resolution = min(detail.size, network.raw_size)
    if not detail.superresolution:
        twin._modules["superresolution"] = _RawPicture()
    return twin, (near_far[0] + farther, near_far[1] + farther)


class _RawPicture(torch.nn.Module):
    """In the place of super-resolution: the raw picture as it is."""

    def forward(self, rgb: torch.Tensor, x: torch.Tensor, ws: torch.Tensor, **_: object) -> torch.Tensor:
        return rgb


def _cut_out(pixels: np.ndarray, seen: dict[str, torch.Tensor], keep_alpha: bool) -> np.ndarray:
    """The head alone, by its opacity: with that as fourth channel, or on white.  UserError without masks."""
    mask = images.picture(seen, "image_mask")[0]
    mask = enlarged(mask, pixels.shape[0])[..., :1]
    if keep_alpha:
        return np.concatenate([pixels, mask], axis=2)
    return (pixels.astype(np.float32) * (mask / 255) + 255 * (1 - mask / 255) + 0.5).astype(np.uint8)


def normals_picture(depth: torch.Tensor, label: torch.Tensor, mask: torch.Tensor | None = None) -> np.ndarray:
    """Normals of the surface at depths [N, 1, H, W] along the rays of label [1, 25], uint8 [N, H, W, 3].

    They are the camera's: red is right, green up, blue towards it; 128 is zero, as where `mask` [N, 1, H, W] is below a half.
    """
    size = depth.shape[-1]
    focal = camera_utils.unpack_label(label)[1][0, 0, 0]
    steps = (torch.arange(size, device=depth.device) + 0.5) / size - 0.5
    y, x = torch.meshgrid(steps / focal, steps / focal, indexing="ij")
    rays = torch.nn.functional.normalize(torch.stack([x, -y, -torch.ones_like(x)]), dim=0)
    points = torch.nn.functional.pad(rays * depth, (1, 1, 1, 1), mode="replicate")
    across, up = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2], points[:, :, :-2, 1:-1] - points[:, :, 2:, 1:-1]
    normals = torch.nn.functional.normalize(torch.linalg.cross(across, up, dim=1), dim=1)
    return images.to_uint8(normals if mask is None else normals * (mask >= 0.5))


@contextlib.contextmanager
def interruptible(stale: Callable[[], bool]) -> Iterator[None]:
    """Inside, a layer of a network that begins in this thread raises Stale if `stale` says so."""
    thread = threading.get_ident()

    def check(*_: object) -> None:
        if threading.get_ident() == thread and stale():
            raise Stale

    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def photo_picture(network: Network) -> np.ndarray:
    """What the photo's own camera sees of the face of the photo, uint8 [H, W, 3]."""
    face = network.face(face_of(State(face=states.PHOTO), network))
    with rays_start_at_head(network.G):
        return images.picture(synthesis.render(network.G, face, network.pivot.labels[:1]), "image")[0]


def enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """A square picture [H, W, 3 or 4] at `side` pixels."""
    return np.asarray(PIL.Image.fromarray(pixels).resize((side, side), PIL.Image.Resampling.BICUBIC))


def front_view(network: Network) -> dict[str, object]:
    """The fields of the state that look from the front, from where the network's training did."""
    radius = min(max(synthesis.orbit_radius(network.G), states.MIN_DISTANCE), states.MAX_DISTANCE)
    return dict(yaw=0.0, pitch=0.0, distance=radius, target=(0.0, 0.0, 0.0))


def photo_view(network: Network) -> dict[str, object]:
    """The fields of the state that look from the photo's camera."""
    pose, intrinsics = camera_utils.unpack_label(network.pivot.labels[:1])
    position, forward = pose[0, :3, 3].cpu().numpy(), pose[0, :3, 2].cpu().numpy()
    # It looks past the origin, maybe: at the point of its axis that is nearest to the head's middle.
    target = position - forward * float(position @ forward)
    fov = 2 * math.degrees(math.atan(1 / (1.414 * intrinsics[0, 0, 0].item())))  # the rule of `FOV_to_intrinsics`
    return dict(states.view_of(position, target), fov_deg=round(fov, 3))
