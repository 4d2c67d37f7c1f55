"""Means and deviations of reported values over all processes.  Reporting never waits for a GPU; only reading does."""

import math
import re
from typing import Any

import torch

from dnnlib import EasyDict

from . import distributed

_pending: dict[str, list[torch.Tensor]] = {}  # name -> moments [3] that were reported but not added up yet
_totals: dict[str, torch.Tensor] = {}  # name -> moments [3] since the process began: count, sum, sum of squares
_FOLD_AFTER = 256  # reports of one name that are kept before they are added up on their device


def report(name: str, value: Any) -> Any:
    """Add all numbers in `value` (a tensor, a number or a list) to the statistic `name`, and return `value`."""
    numbers = torch.as_tensor(value).detach().flatten()
    if numbers.numel():
        numbers = numbers.to(torch.float32)
        moments = torch.stack([torch.full_like(numbers[0], numbers.numel()), numbers.sum(), numbers.square().sum()])
        queue = _pending.setdefault(name, [])
        queue.append(moments)
        if len(queue) >= _FOLD_AFTER:
            _pending[name] = [torch.stack(queue).to(torch.float64).sum(dim=0)]
    return value


def report0(name: str, value: Any) -> Any:
    """Like `report`, on rank 0 only."""
    return report(name, value) if distributed.get_rank() == 0 else value


def _fold() -> None:
    """Add everything pending to the totals on the CPU.  This is the only function that waits for a device."""
    for name, queue in _pending.items():
        moments = torch.stack([m.to(torch.float64) for m in queue]).sum(dim=0).cpu()
        _totals[name] = _totals.get(name, torch.zeros(3, dtype=torch.float64)) + moments
    _pending.clear()


class Collector:
    """Statistics of everything reported between two calls of `update`, over all processes.

    `regex` selects names; it must match the whole name.  With `keep_previous`, a name that was not reported in between keeps
    its previous values.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True):
        self._pattern = re.compile(regex)
        self._keep_previous = keep_previous
        self._seen: dict[str, torch.Tensor] = {}
        self._moments: dict[str, torch.Tensor] = {}
        self.update()
        self._moments.clear()

    def update(self) -> None:
        """Collect everything reported since the last call.  All processes must call this together."""
        merged = self._unseen_of_all()
        self._seen = {name: total for name, total in _totals.items() if self._pattern.fullmatch(name)}
        if not self._keep_previous:
            self._moments.clear()
        self._moments.update({name: moments for name, moments in merged.items() if moments[0] > 0})

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs.  All processes must call this together.

        What was reported since the last `update` is summed over the processes; on loading, rank 0 represents all of them.
        """
        return {"behind": self._unseen_of_all(), "moments": dict(self._moments)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`.  Rank 0 takes over what was reported before."""
        _fold()
        self._moments = dict(state["moments"])
        self._seen = {name: total.clone() for name, total in _totals.items()}
        if distributed.get_rank() == 0:
            for name, moments in state["behind"].items():
                _totals.setdefault(name, torch.zeros(3, dtype=torch.float64))
                self._seen[name] = _totals[name] - moments

    def _unseen_of_all(self) -> dict[str, torch.Tensor]:
        """Moments of reports since the last `update`, summed over processes.  All processes must call this together."""
        _fold()
        matching = (name for name in _totals if self._pattern.fullmatch(name))
        mine = {name: _totals[name] - self._seen.get(name, torch.zeros(3, dtype=torch.float64)) for name in matching}
        merged: dict[str, torch.Tensor] = {}
        for rank_moments in distributed.gather_objects(mine):
            for name, moments in rank_moments.items():
                merged[name] = merged.get(name, 0) + moments
        return merged

    def names(self) -> list[str]:
        """All names that have values, in order of their first report."""
        return list(self._moments)

    def num(self, name: str) -> int:
        """The number of reported values."""
        return int(self._moments[name][0]) if name in self._moments else 0

    def mean(self, name: str) -> float:
        """The mean of the reported values; nan if there are none."""
        return float(self._moments[name][1] / self._moments[name][0]) if name in self._moments else math.nan

    def std(self, name: str) -> float:
        """The standard deviation of the reported values; nan if there are none."""
        if name not in self._moments:
            return math.nan
        count, total, squares = self._moments[name].tolist()
        return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))

    def as_dict(self) -> EasyDict:
        """num, mean and std by name, in the form that stats.jsonl uses."""
        return EasyDict({n: EasyDict(num=self.num(n), mean=self.mean(n), std=self.std(n)) for n in self.names()})

    def __getitem__(self, name: str) -> float:
        return self.mean(name)
