"""Names that the text inside published snapshots calls; this project's own code has `ray_sampler` and `sampling`."""

import torch

from .ray_sampler import box_limits


def normalize_vecs(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors [..., 3] scaled to length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def torch_dot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The dot product [...] of vectors x and y [..., C]."""
    return (x * y).sum(-1)


def transform_vectors(matrix: torch.Tensor, vectors4: torch.Tensor) -> torch.Tensor:
    """Vectors [N, 4] multiplied from the left by `matrix` [4, 4]."""
    return vectors4 @ matrix.T


def get_ray_limits_box(rays_o: torch.Tensor, rays_d: torch.Tensor, box_side_length: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rays (origins and directions [..., 3]) enter and leave the cube about the origin, [..., 1] each.

    Rays that miss it have -1 and -2.
    """
    start, end, hit = box_limits(rays_o, rays_d, box_side_length)
    return torch.where(hit, start, -1.0), torch.where(hit, end, -2.0)


def linspace(start: torch.Tensor, stop: torch.Tensor, num: int) -> torch.Tensor:
    """`num` evenly spaced values from `start` to `stop`, both included: [num, *shape] for tensors of one shape."""
    steps = torch.linspace(0, 1, num, dtype=start.dtype, device=start.device)
    return start + steps.reshape(-1, *[1] * start.ndim) * (stop - start)
