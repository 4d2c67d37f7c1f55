"""Convolutions by the names that the text inside published snapshots calls.

The original gave them gradients of gradients, which PyTorch's own have by now.
"""

import contextlib
from typing import Iterator

from torch.nn.functional import conv2d, conv_transpose2d

__all__ = ["conv2d", "conv_transpose2d", "no_weight_gradients"]


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Where a caller says that gradients to weights are not wanted; autograd computes only those that are asked for."""
    yield
