"""The third lesson: the whole generator learns from pictures what regression on grids has left blurred."""

from dataclasses import dataclass

import numpy as np
import torch

from demo.teaching.distil import Targets
from demo.teaching.lesson import BETAS, Lesson
from demo.teaching.people import People
from demo.teaching.reproduction import Reproduction, reproduction_terms
from demo.teaching.terms import FeatureDifference
from training.triplane import Face


@dataclass(frozen=True)
class PicturesSettings:
    """How the generator learns from pictures."""

    passes: float = 8.0  # times that each view is seen
    lr: float = 0.01
    reproduction: Reproduction = Reproduction()


class Pictures(Lesson):
    """All of `G`; people's latents stay those of `targets`."""

    name = "pictures"

    def __init__(
        self, G: torch.nn.Module, targets: Targets, people: People, settings: PicturesSettings, seed: int, device: torch.device
    ):
        super().__init__(seed)
        self.G = G
        self.targets = targets
        self.people = people
        self.settings = settings
        self.device = device
        self.total = int(settings.passes * len(people) * people.views)
        self.features = FeatureDifference().to(device)
        self.parts = dict(G=G, targets=targets)
        self.optimizers = dict(optimizer=torch.optim.Adam(G.parameters(), lr=settings.lr, betas=BETAS, fused=True))

    def latents(self, z: torch.Tensor) -> torch.Tensor:
        """z [N, z_dim] -> ws [N, num_ws, w_dim]."""
        return self.G.mapping(z, z.new_zeros(len(z), self.G.c_dim))

    def _terms(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], int]:
        settings = self.settings.reproduction
        views = self.people.draw(rng, settings.persons, settings.views).to(self.device)
        ws = self.latents(self.targets.z[views.who])
        grids = self.G.make_grids(ws)
        behind = self.G.make_background(self.latents(self.targets.z_behind[views.numbers]))
        by_view = ws.repeat_interleave(len(views.labels) // len(views.who), dim=0)
        terms = reproduction_terms(self.G, grids, by_view, behind, views, settings, self.features)
        self.G.backbone.mapping.track(ws[:, 0].detach().mean(dim=0))
        return terms, len(views.labels)

    @torch.no_grad()
    def face(self, person: int) -> Face:
        """A person as `G.render` takes it."""
        ws = self.latents(self.targets.z[person, None])
        return self.G.prepare(ws, self.latents(self.targets.z_behind[person * self.people.views, None]))
