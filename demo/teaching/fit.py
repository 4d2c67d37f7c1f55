"""The first lesson: grids of each person, and one decoder and super-resolution for all, from views with known depths."""

from dataclasses import dataclass

import numpy as np
import torch

from demo.teaching.grids import FreeGrids, backgrounds
from demo.teaching.lesson import BETAS, Lesson
from demo.teaching.people import People
from demo.teaching.reproduction import Reproduction, reproduction_terms
from demo.teaching.terms import FeatureDifference, roughness
from training.triplane import Face
from training.volumetric_rendering import trigrid

SHARED_PARTS = ("decoder", "torgb", "superresolution")  # of the generator, that all people share


@dataclass(frozen=True)
class FitSettings:
    """How grids are fitted."""

    passes: float = 8.0  # times that each view is seen
    grid_lr: float = 0.02  # of what sets people apart
    mean_lr: float = 0.005  # of what they share
    shared_lr: float = 0.003
    background_lr: float = 0.05
    roughness: float = 0.02  # weight of the total variation of what sets people apart
    size: float = 0.01  # weight of its mean size
    reproduction: Reproduction = Reproduction()


class Fit(Lesson):
    """Free grids of all people, and the parts of `G` behind them."""

    name = "fit"

    def __init__(self, G: torch.nn.Module, people: People, settings: FitSettings, seed: int, device: torch.device):
        super().__init__(seed)
        self.G = G
        self.people = people
        self.settings = settings
        self.device = device
        self.total = int(settings.passes * len(people) * people.views)
        self.depth = G.grid_model.triplane_depth
        self.grids = FreeGrids(len(people), 3 * trigrid.GRID_CHANNELS * self.depth, G.grid_model.triplane_size).to(device)
        self.behind = torch.nn.Embedding(len(people) * people.views, trigrid.GRID_CHANNELS * 16, sparse=True).to(device)
        torch.nn.init.zeros_(self.behind.weight)
        self.features = FeatureDifference().to(device)
        self._forget_styles()
        shared = [parameter for name in SHARED_PARTS for parameter in getattr(G, name).parameters()]
        self.parts = dict(G=G, grids=self.grids, behind=self.behind)
        self.optimizers = dict(
            shared_optimizer=torch.optim.Adam(shared, lr=settings.shared_lr, betas=BETAS),
            mean_optimizer=torch.optim.Adam(self.grids.shared.parameters(), lr=settings.mean_lr, betas=BETAS),
            grid_optimizer=torch.optim.SparseAdam(self.grids.own.parameters(), lr=settings.grid_lr, betas=BETAS),
            behind_optimizer=torch.optim.SparseAdam(self.behind.parameters(), lr=settings.background_lr, betas=BETAS),
        )

    def _terms(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], int]:
        settings = self.settings
        views = self.people.draw(rng, settings.reproduction.persons, settings.reproduction.views).to(self.device)
        own = self.grids.difference(views.who)
        grids = trigrid.split_planes(self.grids.mean() + own, self.depth)
        behind = backgrounds(self.behind, views.numbers, trigrid.GRID_CHANNELS)
        ws = self.anybody(len(views.labels))
        terms = reproduction_terms(self.G, grids, ws, behind, views, settings.reproduction, self.features)
        terms["roughness"] = settings.roughness * roughness(own)
        terms["size"] = settings.size * own.abs().mean()
        return terms, len(views.labels)

    @torch.no_grad()
    def _forget_styles(self) -> None:
        """Let the shared parts begin without styles: what they learn with the ws of nobody then holds with those of anybody."""
        for part in SHARED_PARTS:
            for name, parameter in getattr(self.G, part).named_parameters():
                if name.endswith("affine.weight"):
                    torch.nn.init.zeros_(parameter)

    def anybody(self, count: int) -> torch.Tensor:
        """ws [count, num_ws, w_dim] of nobody in particular: who it is must be in the grids, not in super-resolution."""
        return torch.zeros(count, self.G.backbone.num_ws, self.G.w_dim, device=self.device)

    @torch.no_grad()
    def face(self, person: int) -> Face:
        """A person as `G.render` takes it."""
        who = torch.tensor([person], device=self.device)
        planes = self.grids.mean() + self.grids.difference(who)
        behind = backgrounds(self.behind, who * self.people.views, trigrid.GRID_CHANNELS)
        return Face(self.anybody(1), trigrid.split_planes(planes, self.depth), behind)
