"""Composites features along rays with a weight per interval (Max 1995), without sorting the features."""

import torch
from torch.autograd.function import once_differentiable

from torch_utils import custom_ops


def composite(weights: torch.Tensor, features: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Composite features [N, R, S, C] with weights [N, R, S - 1, 1] of the intervals between them.  Returns [N, R, C].

    The feature of an interval is the mean of its two ends.  Intervals are sorted by depth, but features need not be: the k-th
    sample by depth is number order[n, r, k, 0] of `features`.  Differentiable once.
    """
    if custom_ops.compiled(weights, features) is None:
        return _reference(weights, features, order)
    return _Composite.apply(weights.contiguous(), features.contiguous(), order.contiguous())


def _reference(weights: torch.Tensor, features: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    features = features.gather(2, order.expand_as(features))
    return (weights * (0.5 * (features[:, :, :-1] + features[:, :, 1:]))).sum(dim=2)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, features, order):
        ctx.save_for_backward(weights, features, order)
        return custom_ops.compiled(features).composite(weights, features, order)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weights, features, order = ctx.saved_tensors
        return *custom_ops.compiled(features).composite_grad(grad.contiguous(), weights, features, order), None
