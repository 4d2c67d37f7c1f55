"""Two fully connected layers with a softplus between them, applied to many points without storing the hidden layer.

The compiled path exists on the CPU only.  On CUDA, `grid_mlp` fuses the layers with the lookup before them, without gradients.
"""

import torch
import torch.nn.functional as F

from torch_utils import custom_ops

_WHOLE = 16  # the compiled path needs numbers of inputs and hidden features that are multiples of this


def softplus_mlp(x: torch.Tensor, w1: torch.Tensor, b1: torch.Tensor, w2: torch.Tensor, b2: torch.Tensor) -> torch.Tensor:
    """Return w2 [outputs, hidden] · softplus(w1 [hidden, inputs] · x + b1) + b2 for x [M, inputs], as [M, outputs]."""
    tensors = x, w1, b1, w2, b2
    fits = w1.shape[0] % _WHOLE == 0 and w1.shape[1] % _WHOLE == 0
    if not fits or not hasattr(custom_ops.compiled(*tensors), "softplus_mlp"):
        return _reference(*tensors)
    return _Mlp.apply(x.contiguous(), w1, b1, w2, b2)


def _reference(x, w1, b1, w2, b2):
    return F.linear(F.softplus(F.linear(x, w1, b1)), w2, b2)


class _Mlp(torch.autograd.Function):
    """The compiled path.  Its gradient recomputes the hidden layer; gradients that must be differentiable are PyTorch's."""

    @staticmethod
    def forward(ctx, *tensors):
        ctx.save_for_backward(*tensors)
        return custom_ops.compiled(*tensors).softplus_mlp(*tensors)

    @staticmethod
    def backward(ctx, grad):
        tensors = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return custom_ops.compiled(*tensors).softplus_mlp_grad(grad.contiguous(), *tensors)
        copies = [tensor.view_as(tensor) for tensor in tensors]
        wanted = [copy for copy, needed in zip(copies, ctx.needs_input_grad) if needed]
        found = iter(torch.autograd.grad(_reference(*copies), wanted, grad, create_graph=True))
        return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
