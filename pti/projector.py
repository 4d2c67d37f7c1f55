"""Projects photos to a latent of the generator, without changing the generator (Karras 2020, appendix D; An 2023).

projection = Projection(G, target, perceptual, ProjectionSettings())
for step in projection.steps():
    ...
found = projection.result()
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

import camera_utils
from inference import synthesis
from pti import losses, schedules
from pti.losses import Perceptual
from pti.pose import PoseCorrection, moved
from pti.rendering import Drawing, draws_of_step, rays_start_at_head
from pti.settings import LossWeights, ProjectionSettings
from pti.targets import Target
from training.triplane import TriPlaneGenerator

W_SEED = 123  # seed of the latents from which the statistics of w are computed
W_BATCH = 1000
NOISE_NAME = "noise_const"


class WStatistics(NamedTuple):
    """Statistics of w at the frontal camera: its mean [w_dim], its overall standard deviation, and the mean z [1, z_dim]."""

    mean: torch.Tensor
    deviation: float
    mean_z: torch.Tensor


class Pivot(NamedTuple):
    """The result of a projection, on the generator's device and without gradients."""

    ws: torch.Tensor  # [1, num_ws, w_dim]
    ws_bcg: torch.Tensor | None  # the background's own latent, if there are masks
    labels: torch.Tensor  # [k, 25]: the cameras to render with
    motion: torch.Tensor  # [k, 4, 4]: moves the photos' cameras to those
    noise: dict[str, torch.Tensor]  # optimised noise buffers of the generator by name; empty if they were not optimised


class Step(NamedTuple):
    """One step of a stage: weighted loss terms, and what the last photo's camera saw before the step."""

    terms: dict[str, float]
    seen: dict[str, torch.Tensor]


@torch.no_grad()
def w_statistics(G: TriPlaneGenerator, samples: int) -> WStatistics:
    """Compute statistics of w over `samples` latents z of ``RandomState(123)``, conditioned on the frontal camera."""
    device = synthesis.device_of(G)
    z = torch.from_numpy(np.random.RandomState(W_SEED).randn(samples, G.z_dim)).to(device, torch.float32)
    with draws_of_step(device, W_SEED, step=0):  # sampling cameras draws random numbers, even without deviation
        frontal = camera_utils.orbit_label(0, 0, synthesis.orbit_radius(G), device=device)
    w = torch.cat([G.mapping(part, frontal.expand(len(part), -1))[:, 0] for part in z.split(W_BATCH)])
    mean = w.mean(dim=0)
    deviation = (w - mean).square().sum(dim=1).mean().sqrt().item()
    return WStatistics(mean, deviation, z.mean(dim=0, keepdim=True))


class Projection:
    """Searches for the latent that reproduces the photos of `target`.  Changes neither `G` nor `target`."""

    def __init__(
        self,
        G: TriPlaneGenerator,
        target: Target,
        perceptual: Perceptual,
        settings: ProjectionSettings,
        weights: LossWeights = LossWeights(),
        drawing: Drawing = Drawing(),
    ):
        self.G, self.target, self.perceptual = G, target, perceptual
        self.settings, self.weights, self.drawing = settings, weights, drawing
        self.device = synthesis.device_of(G)
        self.statistics = w_statistics(G, settings.w_samples)
        self.masks = target.masks_for_loss(settings.mask)
        shift = G.apply_delta_c(self.statistics.mean_z, target.labels[:1])[1]
        self._labels = camera_utils.shift_label(target.labels, shift).detach()
        self._shift = shift.detach()
        rows = G.backbone.num_ws if settings.space == "w+" else 1
        self._w = self.statistics.mean.repeat(1, rows, 1).requires_grad_()
        has_background = settings.mask and G.grid_model.use_background
        self._w_bcg = self.statistics.mean.repeat(1, G.bcg_synthesis.num_ws, 1).requires_grad_() if has_background else None
        self._pose = PoseCorrection(self._labels) if settings.refine_pose else None
        self._noise = _fresh_noise(G, settings.seed) if settings.optimize_noise else {}
        latents = [self._w, *([] if self._w_bcg is None else [self._w_bcg]), *self._noise.values()]
        poses = [] if self._pose is None else [dict(params=list(self._pose.parameters()))]
        self._optimizer = torch.optim.Adam([dict(params=latents), *poses], betas=(0.9, 0.999))

    def steps(self) -> Iterator[Step]:
        """Run the steps one after the other.  In the first ones, all layers share one w.

        Sharing lets the rows of w+ start from a head, and prevents implausible shapes from making up for a wrong camera.  When
        the other steps make no more progress (`early_stop`), skip to the decay of the learning rate.
        """
        plateau, step = schedules.Plateau(self.settings.early_stop), 0
        while step < self.settings.steps:
            done = self._step(step)
            yield done
            if schedules.shares_w(step / self.settings.steps, self.settings):
                step += 1
            else:
                step = schedules.step_after(step, sum(done.terms.values()), plateau, self.settings)

    def result(self) -> Pivot:
        """The latent, the cameras and the noise found so far."""
        motion = torch.eye(4, device=self.device).repeat(len(self._labels), 1, 1)
        motion[:, :3, 3] = self._shift
        if self._pose is not None:
            motion = self._pose.motion().detach() @ motion
        ws = self._w.detach().expand(1, self.G.backbone.num_ws, -1).clone()
        ws_bcg = None if self._w_bcg is None else self._w_bcg.detach().clone()
        noise = {name: tensor.detach().clone() for name, tensor in self._noise.items()}
        return Pivot(ws, ws_bcg, moved(self.target.labels, motion), motion, noise)

    def _step(self, step: int) -> Step:
        t = step / self.settings.steps
        shares_w = schedules.shares_w(t, self.settings)
        rates = schedules.learning_rate(t, self.settings), schedules.pose_rate(t, self.settings)
        for group, rate in zip(self._optimizer.param_groups, rates):
            group["lr"] = rate
        noise = schedules.w_noise(t, self.statistics.deviation, self.settings)
        self._optimizer.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        with draws_of_step(self.device, self.settings.seed, step), rays_start_at_head(self.G), self._with_noise():
            jolt = torch.randn_like(self._w[:, :1] if shares_w else self._w) * noise
            for index in range(len(self._labels)):
                labels = self._labels if self._pose is None else self._pose(self._labels)
                labels = labels if shares_w else labels.detach()  # cameras are fixed by now, so rays need no gradient
                ws = (self._w + jolt).expand(1, self.G.backbone.num_ws, -1)
                (seen,) = self.drawing.views(self.G, ws, labels[index : index + 1], self._w_bcg)
                mask = None if self.masks is None else self.masks[index : index + 1]
                photo = self.target.images[index : index + 1]
                found = losses.picture_terms(seen, photo, mask, self.perceptual, self.weights)
                backward(found, len(self._labels), terms)
            backward(self._latent_terms(), 1, terms)
        if shares_w:
            self._w.grad.copy_(self._w.grad.mean(dim=1, keepdim=True))
        self._optimizer.step()
        _normalise(self._noise)
        return Step(terms, {name: picture.detach() for name, picture in seen.items()})

    def _latent_terms(self) -> dict[str, torch.Tensor]:
        terms = dict(w_distance=self.weights.w_distance * losses.w_distance(self._w, self.statistics.mean))
        if self._w_bcg is not None:
            terms["w_distance_background"] = self.weights.w_distance * losses.w_distance(self._w_bcg, self.statistics.mean)
        if self._noise:
            terms["noise"] = self.weights.noise * losses.noise_correlation(list(self._noise.values()))
        return terms

    def _with_noise(self) -> contextlib.AbstractContextManager:
        return noise_in(self.G, self._noise)


def backward(terms: dict[str, torch.Tensor], parts: int, totals: dict[str, float]) -> None:
    """Add the gradient of 1/`parts` of the sum of `terms`, and add the terms themselves to `totals`."""
    (sum(terms.values()) / parts).backward()
    for name, value in terms.items():
        totals[name] = totals.get(name, 0.0) + value.item() / parts


@contextlib.contextmanager
def noise_in(G: TriPlaneGenerator, noise: dict[str, torch.Tensor]) -> Iterator[None]:
    """Replace the generator's noise buffers named in `noise` by the given tensors inside this block."""
    owners = {name: (G.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in noise}
    before = {name: getattr(*owner) for name, owner in owners.items()}
    for name, owner in owners.items():
        setattr(*owner, noise[name])
    try:
        yield
    finally:
        for name, owner in owners.items():
            setattr(*owner, before[name])


def _fresh_noise(G: TriPlaneGenerator, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.RandomState(seed)
    names = {name: buffer for name, buffer in G.backbone.named_buffers("backbone") if name.endswith(NOISE_NAME)}
    return {
        name: torch.from_numpy(rng.randn(*buffer.shape).astype(np.float32)).to(buffer.device).requires_grad_()
        for name, buffer in names.items()
    }


@torch.no_grad()
def _normalise(noises: dict[str, torch.Tensor]) -> None:
    for noise in noises.values():
        noise.sub_(noise.mean()).mul_(noise.square().mean().rsqrt())
