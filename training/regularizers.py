"""Regularisers as pure functions: they return losses, and neither call backward nor report."""

from collections.abc import Callable

import torch

DENSITY_TYPES = ("l1", "monotonic-detach", "monotonic-fixed")
_L1_POINTS, _MONOTONIC_POINTS = 1000, 2000  # per face
_MONOTONIC_WEIGHT = 10.0
_FINE_STEP = 1 / 256  # of the box: one cell of the usual grid

# Points [N, M, 3] -> densities [N, M, 1] of the faces at hand.
Density = Callable[[torch.Tensor], torch.Tensor]


def squared_gradients(logits: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """R1 (Mescheder 2018): for each of `inputs` [N, ...], the squared norm [N] of the gradient of the logits' sum."""
    gradients = torch.autograd.grad(outputs=[logits.sum()], inputs=inputs, create_graph=True, only_inputs=True)
    return [gradient.square().flatten(1).sum(dim=1) for gradient in gradients]


def mean_translation(shift: torch.Tensor) -> torch.Tensor:
    """Squared length of the batch's mean camera shift [N, 3], a scalar: cameras may move, not all the same way."""
    return shift.mean(dim=0).square().sum()


def density_terms(
    kind: str, density: Density, batch: int, weight: float, neighbour_distance: float, box_warp: float, device: torch.device
) -> dict[str, torch.Tensor]:
    """The density regulariser `kind` of `DENSITY_TYPES` as named scalar terms.

    ``l1``: densities at random points and their neighbours at normal distance `neighbour_distance` are alike (EG3D,
    supplement).  ``monotonic-*``: a point must not be emptier than the one a cell in front of it (toward +z), and
    neighbours at the size of a cell are alike; with ``-detach`` only the point behind is moved.
    """
    if kind == "l1":
        return {"l1": weight * _smoothness(density, batch, neighbour_distance, device)}
    if kind not in DENSITY_TYPES:
        raise ValueError(f"the density regulariser is one of {', '.join(DENSITY_TYPES)}, not {kind!r}")
    step = _FINE_STEP * box_warp
    front = _random_points(batch, _MONOTONIC_POINTS, device)
    behind = front.clone()
    behind[..., 2] -= step
    front_density, behind_density = density(torch.cat([front, behind], dim=1)).chunk(2, dim=1)
    if kind == "monotonic-detach":
        front_density = front_density.detach()
    return {
        "monotonic": _MONOTONIC_WEIGHT * torch.relu(front_density - behind_density).mean(),
        "l1": weight * _smoothness(density, batch, step, device),
    }


def _random_points(batch: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.rand([batch, count, 3], device=device) * 2 - 1


def _smoothness(density: Density, batch: int, distance: float, device: torch.device) -> torch.Tensor:
    points = _random_points(batch, _L1_POINTS, device)
    neighbours = points + torch.randn_like(points) * distance
    here, there = density(torch.cat([points, neighbours], dim=1)).chunk(2, dim=1)
    return torch.nn.functional.l1_loss(here, there)
