"""Multiply and add.  Only the source code inside published snapshots calls this."""

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return a · b + c for tensors that broadcast to one shape.  Differentiable any number of times."""
    return torch.addcmul(c, a, b)
