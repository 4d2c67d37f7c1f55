"""Sums along rays of features between samples, each interval with its weight (Max 1995), without sorting the features."""

import torch
from torch.autograd.function import once_differentiable

from torch_utils import custom_ops


def composite(weights: torch.Tensor, features: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Features [N, R, S, C], weights of the intervals [N, R, S - 1, 1] -> [N, R, C].

    An interval counts with the mean of its two ends.  Intervals are sorted by depth and features need not be: the k-th sample
    by depth is number order[n, r, k, 0] of `features`.  Differentiable once.
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
