"""The terms of both stages: small functions of pictures and latents, each with its formula."""

from typing import Callable

import torch
import torch.nn.functional as F

from pti.settings import LossWeights

Perceptual = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of two pictures [N, 3, H, W] in [-1, 1]
MIN_NOISE_PIXELS = 8  # of the smallest scale at which noise is looked at


def picture_terms(
    seen: dict[str, torch.Tensor],
    target: torch.Tensor,
    mask: torch.Tensor | None,
    perceptual: Perceptual,
    weights: LossWeights,
) -> dict[str, torch.Tensor]:
    """Weighted terms of what a generator shows against a photo `target` [1, 3, H, W].

    With the head's `mask` [1, 1, H, W] in [0, 1], the perceptual distance is that of heads before the photo's own background,
    squared differences count less behind the head, and the generator's silhouette is held to the mask.
    """
    image = seen["image"]
    if mask is None:
        return dict(
            perceptual=weights.perceptual * perceptual(image, target), mse=weights.mse * (image - target).square().mean()
        )
    terms = dict(
        perceptual=weights.perceptual * perceptual(target.lerp(image, mask), target),
        mse=weights.mse * masked_mse(image, target, mask, weights.background),
    )
    if "image_mask" in seen:
        terms["silhouette"] = weights.silhouette * silhouette(seen["image_mask"], mask)
    return terms


def masked_mse(image: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, background: float) -> torch.Tensor:
    """Mean squared difference where a pixel counts 1 on the head and `background` behind it."""
    weight = (background + (1 - background) * mask).expand_as(image)
    return (weight * (image - target).square()).sum() / weight.sum()


def silhouette(opacity: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the generator's mask [N, 1, h, h] and the photo's, which is brought to its size."""
    return (opacity - F.interpolate(mask, size=opacity.shape[-2:], mode="area")).square().mean()


def w_distance(ws: torch.Tensor, w_avg: torch.Tensor) -> torch.Tensor:
    """Mean over all entries of the squared distance of ws [1, L, w_dim] to the mean face w_avg [w_dim]."""
    return (ws - w_avg).square().mean()


def noise_correlation(noises: list[torch.Tensor]) -> torch.Tensor:
    """How much neighbours in noise pictures [h, h] agree, at every scale down to 8 pixels (Karras 2020, appendix D)."""
    total = torch.zeros((), device=noises[0].device)
    for noise in noises:
        noise = noise[None, None]
        while True:
            for axis in (2, 3):
                total = total + (noise * noise.roll(1, dims=axis)).mean() ** 2
            if noise.shape[-1] <= MIN_NOISE_PIXELS:
                break
            noise = F.avg_pool2d(noise, 2)
    return total
