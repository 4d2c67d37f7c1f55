"""The second lesson: a backbone makes the fitted grids from latents.  No picture is rendered, so that it sees many.

People's latents come from the grids themselves: their principal components, each scaled to unit variance, so that people
are draws of z ~ N(0, I) and so are those who were never seen.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from demo.teaching.fit import Fit
from demo.teaching.grids import backgrounds
from demo.teaching.lesson import BETAS, Lesson
from training.triplane import Face
from training.volumetric_rendering import trigrid

CHUNK = 16  # people whose grids are in memory as float32 at a time
LEAST_IMPORTANCE = 0.05  # of cells that no ray meets, beside the mean of all


@dataclass(frozen=True)
class DistilSettings:
    """How grids are distilled."""

    passes: float = 40.0  # times that each person's grids are seen
    persons: int = 4  # in a step
    lr: float = 0.08
    backgrounds: int = 4  # in a step


class Targets(torch.nn.Module):
    """What is to be made, and from which latents."""

    def __init__(self, people: int, views: int, z_dim: int, channels: int, size: int):
        super().__init__()
        self.register_buffer("planes", torch.zeros(people, channels, size, size, dtype=torch.float16))
        self.register_buffer("importance", torch.zeros(channels, size, size))  # of each cell, 1 in the mean
        self.register_buffer("behind", torch.zeros(people * views, trigrid.GRID_CHANNELS, 4, 4))
        self.register_buffer("z", torch.zeros(people, z_dim))
        self.register_buffer("z_behind", torch.zeros(people * views, z_dim))
        self.register_buffer("scales", torch.ones(z_dim))  # of the components in z, 1 in the mean of their squares

    @torch.no_grad()
    def take(self, fit: Fit) -> None:
        """Copy what `fit` has learned, and find the latents."""
        for start in range(0, len(self.planes), CHUNK):
            who = torch.arange(start, min(start + CHUNK, len(self.planes)), device=fit.device)
            self.planes[start : start + CHUNK] = (fit.grids.mean() + fit.grids.difference(who)).half()
        second_moments = fit.optimizers["grid_optimizer"].state[fit.grids.own[0].weight]["exp_avg_sq"]
        importance = second_moments.sqrt().mean(dim=0).view_as(self.importance)
        self.importance.copy_(importance / importance.mean() + LEAST_IMPORTANCE)
        everything = torch.arange(len(self.behind), device=fit.device)
        self.behind.copy_(backgrounds(fit.behind, everything, trigrid.GRID_CHANNELS))
        self.z_behind.copy_(whitened(self.behind.flatten(1), self.z.shape[1])[0])
        z, self.scales = whitened(self.planes.flatten(1), self.z.shape[1], self.importance.sqrt().flatten())
        self.z.copy_(z)


def whitened(rows: torch.Tensor, size: int, weights: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The principal components of `rows` [N, D] as latents [N, size] of unit variance, and the components' scales [size].

    Columns count by `weights` [D].  Where there are fewer components than `size`, the rest is normal noise of a small scale.
    """
    count = len(rows)
    gram = torch.zeros(count, count, dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[1], 65536):  # float64 of all at once would not fit
        part = rows[:, start : start + 65536].double()
        part = part - part.mean(dim=0)
        gram += (part if weights is None else part * weights[start : start + 65536].double()) @ part.T
    values, vectors = torch.linalg.eigh(gram / count)
    kept = min(size, count - 1)
    values, vectors = values.flip(0)[:kept].clamp(min=0), vectors.flip(1)[:, :kept]
    latents = torch.randn(count, size, dtype=torch.float64, device=rows.device)
    latents[:, :kept] = vectors * count**0.5
    scales = torch.full([size], float(values[-1].sqrt()), dtype=torch.float64, device=rows.device)
    scales[:kept] = values.sqrt()
    return latents.float(), (scales / scales.square().mean().sqrt()).float()


class LatentLesson(Lesson):
    """A lesson in which `G` makes people from the latents of `targets`."""

    def __init__(self, G: torch.nn.Module, targets: Targets, learning: Iterable[torch.nn.Parameter], lr: float, seed: int):
        super().__init__(seed)
        self.G = G
        self.targets = targets
        self.parts = dict(G=G, targets=targets)
        self.optimizers = dict(optimizer=torch.optim.Adam(learning, lr=lr, betas=BETAS, fused=True))

    def latents(self, z: torch.Tensor) -> torch.Tensor:
        """z [N, z_dim] -> ws [N, num_ws, w_dim]."""
        return self.G.mapping(z, z.new_zeros(len(z), self.G.c_dim))

    def people(self, who: torch.Tensor) -> torch.Tensor:
        """ws [N, num_ws, w_dim] of people `who` [N] of a batch, whose mean the mapping keeps track of."""
        ws = self.latents(self.targets.z[who])
        self.G.backbone.mapping.track(ws[:, 0].detach().mean(dim=0))
        return ws

    @torch.no_grad()
    def face(self, person: int) -> Face:
        """A person, with the background of the first view, as `G.render` takes it."""
        first_view = person * (len(self.targets.z_behind) // len(self.targets.z))
        ws = self.latents(self.targets.z[person, None])
        return self.G.prepare(ws, self.latents(self.targets.z_behind[first_view, None]))


class Distil(LatentLesson):
    """The backbone, and the synthesis of backgrounds, learn from `Targets`."""

    name = "distil"

    def __init__(self, G: torch.nn.Module, people: int, views: int, settings: DistilSettings, seed: int, device: torch.device):
        size, depth = G.grid_model.triplane_size, G.grid_model.triplane_depth
        targets = Targets(people, views, G.z_dim, 3 * trigrid.GRID_CHANNELS * depth, size).to(device)
        super().__init__(G, targets, [*G.backbone.parameters(), *G.bcg_synthesis.parameters()], settings.lr, seed)
        self.settings = settings
        self.device = device
        self.total = int(settings.passes * people)

    @torch.no_grad()
    def begin(self, fit: Fit) -> None:
        """Take over what `fit` has learned; the mapping starts with large components of people as large directions of w."""
        self.targets.take(fit)
        self.G.backbone.mapping.fc0.weight[:, : self.G.z_dim] *= self.targets.scales

    def _terms(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], int]:
        targets = self.targets
        who = self._some(rng, len(targets.z), self.settings.persons)
        expected = targets.planes[who].float()
        made = self.G.backbone.synthesis(self.people(who))
        spread = ((expected - self.mean_planes).abs() * targets.importance).mean()
        terms = dict(grids=((made - expected).abs() * targets.importance).mean() / spread)
        numbers = self._some(rng, len(targets.behind), self.settings.backgrounds)
        behind = targets.behind[numbers]
        found = self.G.make_background(self.latents(targets.z_behind[numbers]))
        wanted = F.interpolate(behind, found.shape[-2:], mode="bilinear")
        terms["background"] = (found - wanted).abs().mean() / behind.abs().mean()
        return terms, len(who)

    def _some(self, rng: np.random.Generator, most: int, count: int) -> torch.Tensor:
        """`count` different numbers under `most`."""
        return torch.from_numpy(rng.choice(most, min(count, most), replace=False)).to(self.device)

    @functools.cached_property
    def mean_planes(self) -> torch.Tensor:
        """The mean of all targets."""
        return self.targets.planes.float().mean(dim=0)
