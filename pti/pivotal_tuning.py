"""Tunes a generator around a latent, so that it reproduces the photos better than any latent can (Roich 2021).

tuning = Tuning(G, target, pivot, perceptual, TuningSettings())
with tuning.borrowed():  # changes the weights of G, and restores them at the end
    for step in tuning.steps():
        ...
    tuning.save(path)
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import camera_utils
from inference import synthesis
from pti import losses, schedules
from pti.losses import Perceptual
from pti.projector import Pivot, Step, backward, noise_in
from pti.rendering import Drawing, draws_of_step, rays_start_at_head
from pti.settings import LossWeights, TuningSettings
from pti.targets import Target
from training.checkpoint import save_snapshot
from training.triplane import TriPlaneGenerator

ANCHOR_EVERY = 2  # steps between uses of the anchors, whose weight is multiplied accordingly
SEEN_DEGREES = 60.0  # a photo sees all sides within this angle
PITCH_DEGREES = 15.0  # standard deviation of the pitch of the cameras for other latents


class Anchor(NamedTuple):
    """What the untuned generator shows for ws from a camera, which the tuned one should still show.  Kept on the CPU."""

    ws: torch.Tensor  # [1, num_ws, w_dim]
    ws_bcg: torch.Tensor | None
    label: torch.Tensor  # [1, 25]
    seen: dict[str, torch.Tensor]


class Tuning:
    """Tunes `G` to reproduce the photos of `target` at `pivot`.  Only one generator is in the device's memory.

    What the untuned generator shows for other latents (`locality`), and for the pivot from unseen sides (`back_prior`), is
    recorded before the first step, so that no second generator has to be kept.
    """

    def __init__(
        self,
        G: TriPlaneGenerator,
        target: Target,
        pivot: Pivot,
        perceptual: Perceptual,
        settings: TuningSettings,
        weights: LossWeights = LossWeights(),
        drawing: Drawing = Drawing(),
    ):
        self.G, self.target, self.pivot, self.perceptual = G, target, pivot, perceptual
        self.settings, self.weights, self.drawing = settings, dataclasses.replace(weights, mse=settings.mse), drawing
        self.device = synthesis.device_of(G)
        self.masks = target.masks_for_loss(settings.mask)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Restore the weights of the generator at the end of the block.  The copy is kept on the CPU."""
        before = {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.G.named_parameters()}
        try:
            yield
        finally:
            self.G.requires_grad_(False)
            for name, parameter in self.G.named_parameters():
                parameter.grad = None
                parameter.copy_(before[name])

    def steps(self) -> Iterator[Step]:
        """Run the steps one after the other.  Without progress (`early_stop`), skip to the decay of the learning rate."""
        with draws_of_step(self.device, self.settings.seed, step=0):
            anchors = self._record()
        # The mapping networks are not trained, because the latent is fixed.
        weights = [parameter for name, parameter in self.G.named_parameters() if "mapping" not in name]
        for parameter in weights:
            parameter.requires_grad_()
        optimizer, rate = torch.optim.Adam(weights, foreach=False), self.settings.rate(self.G.img_resolution)
        plateau, number = schedules.Plateau(self.settings.early_stop), 0
        while number < self.settings.steps:
            for group in optimizer.param_groups:
                group["lr"] = rate * schedules.fall(number / self.settings.steps, self.settings.ramp_down)
            optimizer.zero_grad(set_to_none=True)
            with draws_of_step(self.device, self.settings.seed, number), rays_start_at_head(self.G):
                with noise_in(self.G, self.pivot.noise):
                    terms, seen = self._photos()
                if anchors and number % ANCHOR_EVERY == 0:
                    kinds = list(anchors)
                    kind = kinds[number // ANCHOR_EVERY % len(kinds)]
                    self._hold(kind, anchors[kind], number, len(kinds) * ANCHOR_EVERY)
            optimizer.step()
            yield Step(terms, seen)
            number = schedules.step_after(number, sum(terms.values()), plateau, self.settings)

    def save(self, path: Path) -> None:
        """Write a snapshot of the tuned generator, including optimised noise.  The file appears only when it is complete."""
        with noise_in(self.G, self.pivot.noise):
            save_snapshot(path, dict(G_ema=self.G), {})

    def _photos(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """Accumulate the gradients of the photos' losses.  Returns the terms and what the last camera saw."""
        terms: dict[str, float] = {}
        count = len(self.target.images)
        views = self.drawing.views(self.G, self.pivot.ws, self.pivot.labels, self.pivot.ws_bcg)
        for index, seen in enumerate(views):
            mask = None if self.masks is None else self.masks[index : index + 1]
            photo = self.target.images[index : index + 1]
            found = losses.picture_terms(seen, photo, mask, self.perceptual, self.weights)
            backward(found, count, terms)
        return terms, {name: picture.detach() for name, picture in seen.items()}

    # Anchors

    def _hold(self, kind: str, anchors: list[Anchor], number: int, rarity: int) -> None:
        """Accumulate the gradients of how much one of the anchors has changed."""
        weight = rarity * (self.settings.locality if kind == "locality" else self.settings.back_prior)
        anchor = anchors[np.random.RandomState([self.settings.seed, number]).randint(len(anchors))]
        ws, label = anchor.ws.to(self.device), anchor.label.to(self.device)
        ws_bcg = None if anchor.ws_bcg is None else anchor.ws_bcg.to(self.device)
        noise = self.pivot.noise if kind == "back_prior" else {}
        with noise_in(self.G, noise):
            (seen,) = self.drawing.views(self.G, ws, label, ws_bcg)
        was = {name: picture.to(self.device) for name, picture in anchor.seen.items()}
        terms = dict(picture=self.perceptual(seen["image"], was["image"]) + (seen["image"] - was["image"]).square().mean())
        if "image_mask" in was:
            terms["silhouette"] = (seen["image_mask"] - was["image_mask"]).square().mean()
        (weight * sum(terms.values())).backward()

    @torch.no_grad()
    def _record(self) -> dict[str, list[Anchor]]:
        """Record what the untuned generator shows, by purpose.  Purposes with weight 0 are left out, and all without steps."""
        rng = np.random.RandomState(self.settings.seed)
        count = self.settings.anchors
        anchors: dict[str, list[Anchor]] = {}
        if self.settings.steps == 0:
            return anchors
        if self.settings.locality > 0:
            latents, labels = self._other_latents(rng, count), self._any_cameras(rng, count)
            anchors["locality"] = [self._seen(ws, None, label) for ws, label in zip(latents, labels)]
        if self.settings.back_prior > 0:
            with noise_in(self.G, self.pivot.noise):
                cameras = unseen_cameras(self.pivot.labels, count, synthesis.orbit_radius(self.G))
                anchors["back_prior"] = [self._seen(self.pivot.ws, self.pivot.ws_bcg, label) for label in cameras]
        return anchors

    def _seen(self, ws: torch.Tensor, ws_bcg: torch.Tensor | None, label: torch.Tensor) -> Anchor:
        with draws_of_step(self.device, self.settings.seed, step=0), rays_start_at_head(self.G):
            (seen,) = self.drawing.views(self.G, ws, label, ws_bcg)
        kept = {name: seen[name].cpu() for name in ("image", "image_mask") if name in seen}
        return Anchor(ws.cpu(), None if ws_bcg is None else ws_bcg.cpu(), label.cpu(), kept)

    def _other_latents(self, rng: np.random.RandomState, count: int) -> list[torch.Tensor]:
        """Latents [1, num_ws, w_dim] in random directions from the pivot, at most `locality_radius` away."""
        z = torch.from_numpy(rng.randn(count, self.G.z_dim)).to(self.device, torch.float32)
        frontal = camera_utils.orbit_label(0, 0, synthesis.orbit_radius(self.G), device=self.device)
        directions = self.G.mapping(z, frontal.expand(count, -1)) - self.pivot.ws
        lengths = directions.flatten(1).norm(dim=1)[:, None, None]
        latents = self.pivot.ws + directions * (self.settings.locality_radius / lengths).clamp(max=1)
        return list(latents.split(1))

    def _any_cameras(self, rng: np.random.RandomState, count: int) -> list[torch.Tensor]:
        yaws, pitches = rng.uniform(-math.pi, math.pi, count), rng.randn(count) * math.radians(PITCH_DEGREES)
        radius = synthesis.orbit_radius(self.G)
        return [camera_utils.orbit_label(*view, radius, device=self.device) for view in zip(yaws, pitches)]


def unseen_cameras(labels: torch.Tensor, count: int, radius: float) -> list[torch.Tensor]:
    """`count` level cameras [1, 25] on the orbit, evenly distributed over the sides that no photo in `labels` [k, 25] sees.

    If the photos see all sides, the cameras farthest from them are returned.
    """
    positions = torch.nn.functional.normalize(labels[:, camera_utils.POSITION_ENTRIES], dim=1)
    turn = [camera_utils.orbit_label(2 * math.pi * step / 360, 0.0, radius, device=labels.device) for step in range(360)]
    places = torch.nn.functional.normalize(torch.cat(turn)[:, camera_utils.POSITION_ENTRIES], dim=1)
    nearest = (places @ positions.T).amax(dim=1)  # cosine of the angle to the nearest photo
    unseen = torch.nonzero(nearest < math.cos(math.radians(SEEN_DEGREES)))[:, 0].tolist()
    if not unseen:
        unseen = sorted(nearest.argsort()[:count].tolist())
    return [turn[unseen[int(place)]] for place in np.linspace(0, len(unseen) - 1, count)]
