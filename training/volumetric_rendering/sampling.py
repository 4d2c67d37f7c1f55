"""Depths along rays: evenly spread and jittered first, then where the first look found something (Mildenhall 2020, 5.2)."""

import torch
import torch.nn.functional as F


def stratified_depths(start: torch.Tensor, end: torch.Tensor, jitter: torch.Tensor, disparity: bool = False) -> torch.Tensor:
    """Depths [N, R, S, 1] from `start` to `end` (broadcastable to [N, R, 1]), each moved by `jitter` of a step.

    `jitter` [N, R, S, 1] is uniform in [0, 1).  `disparity` spreads them evenly in 1 / depth.
    """
    count = jitter.shape[2]
    t = torch.linspace(0, 1, count, device=jitter.device)[:, None]
    start, end = start[..., None, :], end[..., None, :]
    if disparity:
        t = t + jitter / (count - 1)
        return 1 / ((1 - t) / start + t / end)
    return start + (end - start) * t + jitter * ((end - start) / (count - 1))


@torch.no_grad()
def importance_depths(depths: torch.Tensor, weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """More depths [N, R, S_fine, 1], drawn where the coarse march had weight; no gradient.

    depths [N, R, S, 1] and weights [N, R, S - 1, 1] of the coarse march, u [N·R, S_fine] uniform in [0, 1).
    The weights are blurred a little first (a max, then a mean filter; Barron 2021, mip-NeRF, section 3.1).
    """
    batch, rays, count, _ = depths.shape
    w = weights.reshape(batch * rays, 1, count - 1)
    w = F.avg_pool1d(F.max_pool1d(w, 2, stride=1, padding=1), 2, stride=1)[:, 0] + 0.01
    z = depths.reshape(batch * rays, count)
    middles = 0.5 * (z[:, :-1] + z[:, 1:])
    return _sample_histogram(middles, w[:, 1:-1], u).reshape(batch, rays, -1, 1)


def _sample_histogram(edges: torch.Tensor, weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Invert the distribution with `weights` [R, B] between `edges` at `u` [R, S] -> [R, S].

    `edges` has B + 2 entries of which the last is never reached, as in the published code: pictures depend on it.
    """
    bins = weights.shape[1]
    p = weights + 1e-5
    cdf = F.pad((p / p.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))  # [R, B + 1]
    index = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=bins)
    cdf_below, cdf_above = cdf.gather(1, below), cdf.gather(1, above)
    edge_below, edge_above = edges.gather(1, below), edges.gather(1, above)
    width = cdf_above - cdf_below
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    return edge_below + (u - cdf_below) / width * (edge_above - edge_below)
