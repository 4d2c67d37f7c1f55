"""Loss terms of both stages, as small functions of pictures and latents."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from pti.settings import LossWeights

Perceptual = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # takes two pictures [N, 3, H, W] in [-1, 1]
MIN_NOISE_PIXELS = 8  # smallest scale at which noise is regularised


def picture_terms(
    seen: dict[str, torch.Tensor],
    target: torch.Tensor,
    mask: torch.Tensor | None,
    perceptual: Perceptual,
    weights: LossWeights,
) -> dict[str, torch.Tensor]:
    """Weighted loss terms between the output of a generator and a photo `target` [1, 3, H, W].

    With the `mask` [1, 1, H, W] of the head in [0, 1], the perceptual distance puts the generated head on the photo's own
    background, squared differences count less outside the head, and the generator's silhouette is held to the mask.
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
    """Mean squared difference with weight 1 for pixels of the head and `background` for the others."""
    weight = (background + (1 - background) * mask).expand_as(image)
    return (weight * (image - target).square()).sum() / weight.sum()


def silhouette(opacity: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between the generator's mask [N, 1, h, h] and the photo's, resized to match."""
    return (opacity - F.interpolate(mask, size=opacity.shape[-2:], mode="area")).square().mean()


def w_distance(ws: torch.Tensor, w_avg: torch.Tensor) -> torch.Tensor:
    """Mean squared distance between ws [1, L, w_dim] and the mean face w_avg [w_dim], over all entries."""
    return (ws - w_avg).square().mean()


def noise_correlation(noises: list[torch.Tensor]) -> torch.Tensor:
    """Correlation of neighbours in noise pictures [h, h], at every scale down to 8 pixels (Karras 2020, appendix D)."""
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
