"""What all lessons have in common: steps that depend on nothing but seed and images seen, rates that fall, a state."""

import math
from typing import Any

import numpy as np
import torch

BETAS = (0.5, 0.99)  # of Adam
LAST_RATE = 0.05  # of the first: what learning rates fall to


class Lesson:
    """A subclass has `name`, `total` and `_terms`, and sets `parts` (modules) and `optimizers` with their first rates."""

    name: str
    total: int  # images of the whole lesson

    def __init__(self, seed: int):
        self.seed = seed
        self.nimg = 0
        self.parts: dict[str, torch.nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def _terms(self, rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], int]:
        """The weighted terms of one batch, and how many images it has."""
        raise NotImplementedError

    def step(self) -> dict[str, float]:
        """Learn from one batch; the terms' values by name."""
        rng = np.random.default_rng([self.seed, self.nimg])
        torch.manual_seed(int(rng.integers(2**63)))
        factor = LAST_RATE + (1 - LAST_RATE) / 2 * (1 + math.cos(math.pi * min(self.nimg / self.total, 1)))
        terms, count = self._terms(rng)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("first_lr", group["lr"]) * factor
            optimizer.step()
        self.nimg += count
        return {name: value.item() for name, value in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that the lesson needs to go on."""
        states = {name: part.state_dict() for name, part in (self.parts | self.optimizers).items()}
        return dict(states, nimg=self.nimg)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.nimg = state["nimg"]
        for name, part in (self.parts | self.optimizers).items():
            part.load_state_dict(state[name])
