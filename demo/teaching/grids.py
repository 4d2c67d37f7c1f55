"""Free grids: the planes of each person as numbers of their own, with no backbone between.

They learn a face from a tenth of the pictures that a backbone needs, since every view corrects just the cells that it sees.
A backbone is then taught to make them (`distil`), which needs no pictures at all.
"""

import torch
import torch.nn.functional as F

GAIN = 4.0  # cells in units of the numbers that are learned: Adam moves those by its rate
LEVELS = (64, 16)  # pixels of the planes that are summed; coarse ones move many cells together


class FreeGrids(torch.nn.Module):
    """Planes [P, channels, size, size] of P people: what all share, and what is each one's own."""

    def __init__(self, people: int, channels: int, size: int):
        super().__init__()
        self.channels = channels
        self.size = size
        self.levels = tuple(size * level // LEVELS[0] for level in LEVELS)
        self.shared = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(channels, s, s)) for s in self.levels])
        self.own = torch.nn.ModuleList([torch.nn.Embedding(people, channels * s * s, sparse=True) for s in self.levels])
        for table in self.own:
            torch.nn.init.zeros_(table.weight)

    def _sum(self, planes: list[torch.Tensor]) -> torch.Tensor:
        size = (self.size, self.size)
        return sum(F.interpolate(x, size, mode="bilinear") if x.shape[-1] < self.size else x for x in planes) * GAIN

    def mean(self) -> torch.Tensor:
        """The planes that all share, [1, channels, size, size]."""
        return self._sum([planes[None] for planes in self.shared])

    def difference(self, who: torch.Tensor) -> torch.Tensor:
        """What sets people `who` [N] apart, [N, channels, size, size]."""
        return self._sum([table(who).unflatten(1, (self.channels, s, s)) for table, s in zip(self.own, self.levels)])


def backgrounds(table: torch.nn.Embedding, numbers: torch.Tensor, channels: int) -> torch.Tensor:
    """Features [N, channels, 4, 4] of what is behind the heads of views `numbers` [N]; a row of `table` is a view."""
    return table(numbers).unflatten(1, (channels, 4, 4))
