"""What a sample borrows from another: its conditioning camera, its background, its finer styles.  Pure; draws noted."""

from collections.abc import Callable

import torch


def swap_poses(c: torch.Tensor, probability: float) -> torch.Tensor:
    """Replace each label of c [N, 25] by its neighbour's with `probability` (EG3D, section 3.5).  Draws rand [N, 1]."""
    return torch.where(torch.rand([c.shape[0], 1], device=c.device) < probability, c.roll(1, dims=0), c)


def swap_backgrounds(ws: torch.Tensor, probability: float) -> torch.Tensor:
    """Styles ws [N, L, w_dim] for the background: each sample's neighbour's with `probability` (PanoHead, section 3.1).

    Draws rand [N, 1, 1], or nothing where `probability` is 0.
    """
    if probability <= 0:
        return ws
    return torch.where(torch.rand([ws.shape[0], 1, 1], device=ws.device) < probability, ws.roll(1, dims=0), ws)


def mix_styles(
    ws: torch.Tensor, z: torch.Tensor, map_z: Callable[[torch.Tensor], torch.Tensor], probability: float
) -> torch.Tensor:
    """With `probability`, take the rows of ws [N, L, w_dim] from a random layer on from other latents (Karras 2019, 3.1).

    `map_z` maps latents like `z` [N, z_dim] to ws.  The layer is the same for the batch.  Nothing is drawn where
    `probability` is 0.
    """
    if probability <= 0:
        return ws
    layers = ws.shape[1]
    first = torch.randint(1, layers, [], device=ws.device)
    first = torch.where(torch.rand([], device=ws.device) < probability, first, torch.full_like(first, layers))
    own = torch.arange(layers, device=ws.device) < first
    return torch.where(own[:, None], ws, map_z(torch.randn_like(z)))
