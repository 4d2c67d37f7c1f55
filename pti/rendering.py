"""Renders pictures with gradients in a limited amount of memory."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

import camera_utils
from dnnlib import UserError
from inference import synthesis
from pti.settings import PRECISIONS
from training.rendering_settings import RenderingSettings
from training.triplane import Face, TriPlaneGenerator
from training.volumetric_rendering import ray_sampler, renderer
from training.volumetric_rendering.ray_marcher import March

MAX_STRIPS = 64
NEAR_OF_HEAD = 0.35  # box sides; rays start at most this far in front of the head's centre: at 2.35 on an orbit of 2.7
COPIES_OF_A_WEIGHT = 4  # the weight, its gradient, and Adam's two averages


@dataclass(frozen=True)
class Drawing:
    """How pictures are computed.

    `mixed` uses the network's own float16 layers (on a GPU).  `strips` is the number of parts into which the rays of a view are
    split.  With more than one, the intermediate values of a strip are recomputed for its gradient: less memory, more time.
    """

    mixed: bool = False
    strips: int = 1

    def views(
        self, G: TriPlaneGenerator, ws: torch.Tensor, labels: torch.Tensor, ws_bcg: torch.Tensor | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yield what `G.synthesis` returns for the face ws [1, L, w_dim] from each of the cameras `labels` [k, 25].

        Each view has its own graph, so that it can be released before the next view is rendered.
        """
        for label in labels.split(1):
            yield self._render(G, G.prepare(ws, ws_bcg, **self._synthesis_kwargs()), label)

    def _synthesis_kwargs(self) -> dict[str, Any]:
        return dict(noise_mode="const", force_fp32=not self.mixed)

    def _render(self, G: TriPlaneGenerator, face: Face, label: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.strips == 1:
            return G.render(face, label, **self._synthesis_kwargs())
        strips = _strips_of_rays(G, label, self.strips)
        parts = [checkpoint(_march, G, face.grids, *strip, use_reentrant=False) for strip in strips]
        features, depth, opacity = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return G.compose(face.ws, March(features, depth, opacity, None), face.background, **self._synthesis_kwargs())


def _strips_of_rays(G: TriPlaneGenerator, label: torch.Tensor, strips: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Split the R rays of a camera into origins and directions [1, about R / strips, 3]."""
    rays = ray_sampler.sample_rays(*camera_utils.unpack_label(label), G.neural_rendering_resolution)
    return list(zip(*(part.chunk(strips, dim=1) for part in rays), strict=True))


def _march(
    G: TriPlaneGenerator, grids: torch.Tensor, origins: torch.Tensor, directions: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Features, depth and opacity of some rays."""
    settings = RenderingSettings.from_kwargs(G.rendering_kwargs)
    return renderer.render_rays(lambda points: G.query(grids, points), origins, directions, settings)[:3]


def use_precision(precision: str, device: torch.device) -> None:
    """Configure PyTorch for `precision`: 'fp32', 'tf32' (shorter floats in products) or 'mixed' (tf32 and float16 layers).

    Raises UserError if it is unknown or not supported by this device.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision}: choose from {', '.join(PRECISIONS)}")
    if precision != "fp32" and device.type == "cpu":
        raise UserError(f"--precision {precision} needs a GPU; on the CPU everything is computed in fp32")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"


@contextlib.contextmanager
def rays_start_at_head(G: TriPlaneGenerator) -> Iterator[None]:
    """Start rays closer to the head inside this block, because anything floating before it would hide it from the camera."""
    kwargs = G.rendering_kwargs
    start = kwargs.ray_start
    nearest = synthesis.orbit_radius(G) - NEAR_OF_HEAD * kwargs.box_warp
    if start != "auto" and start < nearest < kwargs.ray_end:
        kwargs.ray_start = nearest
    try:
        yield
    finally:
        kwargs.ray_start = start


@contextlib.contextmanager
def draws_of_step(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Use the random numbers of this step inside this block, whatever was drawn before.  The outer state is not affected."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


def bytes_kept(function: Callable[[], Any], known: Iterable[torch.Tensor]) -> int:
    """Bytes that the graph of what `function` computes keeps for its gradient, in addition to the `known` tensors.

    The number is the same on every device, except for ops that are compiled for it.
    """
    sizes: dict[int, int] = {}
    apart = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept = []  # keeps the tensors alive, so that no address is used twice

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in apart:
            sizes[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor.detach()  # the tensor itself would keep alive the graph that keeps it

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        function()
    return sum(sizes.values())


def plan_drawing(G: TriPlaneGenerator, perceptual: torch.nn.Module, mixed: bool, max_memory_gb: float | None) -> Drawing:
    """The smallest number of strips with which both stages are expected to stay within `max_memory_gb` GiB.

    The estimate includes weights with gradients and Adam's averages, and what the graph of one view and its `perceptual` loss
    keeps.  On a GPU, PyTorch as a whole is limited too.  Raises UserError if no number of strips is enough.
    """
    if max_memory_gb is None:
        return Drawing(mixed)
    device = synthesis.device_of(G)
    limit = max_memory_gb * 2**30
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
    fixed = COPIES_OF_A_WEIGHT * sum(parameter.nbytes for parameter in G.parameters())
    apart, rays = _bytes_of_a_view(G, perceptual, mixed)
    strips = 1
    while fixed + apart + rays // strips > limit:
        strips *= 2
        if strips > MAX_STRIPS:
            need = (fixed + apart + rays // MAX_STRIPS) / 2**30
            raise UserError(
                f"--max-memory {max_memory_gb:g}: this network needs about {need:.2f} GiB; give more, or lower --nrr"
            )
    return Drawing(mixed, strips)


def _bytes_of_a_view(G: TriPlaneGenerator, perceptual: torch.nn.Module, mixed: bool) -> tuple[int, int]:
    """Bytes that the graph keeps for gradients of weights, latent and camera: without the rays, and for all rays of a view.

    Neither stage needs more than this.  It is measured in strips, since all rays at once might not fit into memory.
    """
    device = synthesis.device_of(G)
    drawing = Drawing(mixed, MAX_STRIPS)
    ws = torch.zeros([1, G.backbone.num_ws, G.w_dim], device=device, requires_grad=True)
    label = camera_utils.orbit_label(0, 0, synthesis.orbit_radius(G), device=device).requires_grad_()

    def loss() -> list[torch.Tensor]:
        return [perceptual(seen["image"], torch.zeros_like(seen["image"])) for seen in drawing.views(G, ws, label)]

    G.requires_grad_()
    try:
        with draws_of_step(device, seed=0, step=0), torch.enable_grad():
            weights = [*G.parameters(), *perceptual.parameters()]
            apart = bytes_kept(loss, weights)
            with torch.no_grad():
                grids = G.prepare(ws, None, **drawing._synthesis_kwargs()).grids
            strips = _strips_of_rays(G, label, MAX_STRIPS)
            rays = bytes_kept(lambda: _march(G, grids.requires_grad_(), *strips[0]), [*weights, grids])
            return apart, rays * len(strips)
    finally:
        G.requires_grad_(False)
