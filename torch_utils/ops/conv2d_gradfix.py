"""Convolutions under the names that the source code inside published snapshots uses.

The original added second derivatives, which PyTorch's own convolutions have by now.
"""

import contextlib
from collections.abc import Iterator

from torch.nn.functional import conv2d, conv_transpose2d

__all__ = ["conv2d", "conv_transpose2d", "no_weight_gradients"]


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Callers use this to skip gradients of weights.  It does nothing, because autograd only computes what is requested."""
    yield
