"""The third lesson: the whole generator learns from pictures what regression on grids has left blurred."""

from dataclasses import dataclass

import numpy as np
import torch

from demo.teaching.distil import LatentLesson, Targets
from demo.teaching.people import People
from demo.teaching.reproduction import Reproduction, reproduction_terms
from demo.teaching.terms import FeatureDifference


@dataclass(frozen=True)
class PicturesSettings:
    """How the generator learns from pictures."""

    passes: float = 8.0  # times that each view is seen
    lr: float = 0.01
    reproduction: Reproduction = Reproduction()


class Pictures(LatentLesson):
    """All of `G`; people's latents stay those of `targets`."""

    name = "pictures"

    def __init__(
        self, G: torch.nn.Module, targets: Targets, shown: People, settings: PicturesSettings, seed: int, device: torch.device
    ):
        super().__init__(G, targets, G.parameters(), settings.lr, seed)
        self.shown = shown
        self.settings = settings
        self.device = device
        self.total = int(settings.passes * len(shown) * shown.views)
        self.features = FeatureDifference().to(device)

    def _terms(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], int]:
        settings = self.settings.reproduction
        views = self.shown.draw(rng, settings.persons, settings.views).to(self.device)
        ws = self.people(views.who)
        grids = self.G.make_grids(ws)
        behind = self.G.make_background(self.latents(self.targets.z_behind[views.numbers]))
        by_view = ws.repeat_interleave(len(views.labels) // len(views.who), dim=0)
        terms = reproduction_terms(self.G, grids, by_view, behind, views, settings, self.features)
        return terms, len(views.labels)
