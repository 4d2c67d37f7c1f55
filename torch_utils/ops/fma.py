"""Multiply and add.  The text inside published snapshots calls it; this project's own code needs no name for it."""

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a · b + c, of tensors that broadcast to one shape; differentiable any number of times."""
    return torch.addcmul(c, a, b)
