"""What a run tells of its health besides its losses: gradients, masks, camera shifts, and a look at a few heads per tick.

Nothing here changes training: it reads what is there anyway, and the look draws from random generators of its own.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

import camera_utils
from dnnlib import EasyDict
from torch_utils import training_stats
from training.dataset import HeadDataset
from training.images import from_uint8
from training.loss import Observed

LOOK_EVERY = 1000  # images at least between two looks, so that they cost under a percent of the time
_FACES = 8
_RADII = 16  # of the blur that detail stands out from, and of what a rim is, in a picture's width
_AXES = "xyz"


def nonfinite_share(values: torch.Tensor) -> torch.Tensor:
    """The share of `values` that is not finite, a scalar; nothing waits for a GPU."""
    return torch.count_nonzero(values * 0) / values.numel()  # nan for what is not finite; a third of the time of isfinite


def report_observed(seen: Observed, shifts: bool) -> None:
    """Report how much of the masks is head and, where cameras learn `shifts`, the shifts in world units, by axis."""
    training_stats.report("Mask/coverage/fake", seen.fake_coverage)
    training_stats.report("Mask/coverage/real", seen.real_coverage)
    if shifts:
        for axis, values in zip(_AXES, seen.shift.unbind(dim=1)):
            training_stats.report(f"Camera/shift/{axis}", values)


def derived(stats: training_stats.Collector) -> dict[str, EasyDict]:
    """What follows from a tick's `stats`, in their form: the margin of the scores, and the spread of the camera shifts."""
    found = {"Loss/scores/margin": stats["Loss/scores/real"] - stats["Loss/scores/fake"]}
    axes = [f"Camera/shift/{axis}" for axis in _AXES]
    if stats.num(axes[0]):
        found["Camera/shift/spread"] = math.hypot(*map(stats.std, axes))
    return {name: EasyDict(num=1, mean=value, std=0.0) for name, value in found.items()}


class Probe:
    """A look at the same few heads from the front and from behind, which tells flat, doubled and repeated ones."""

    def __init__(self, dataset: HeadDataset, real_images: np.ndarray, G: torch.nn.Module, device: torch.device, seed: int):
        """`real_images` uint8 [N, 3, H, H] are pictures of `dataset`, whose first camera lends its lens."""
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.z = torch.from_numpy(rng.standard_normal([_FACES, G.z_dim], dtype=np.float32)).to(device)
        lens = camera_utils.unpack_label(torch.from_numpy(dataset.label(0)))[1]
        radius = G.rendering_kwargs.avg_camera_radius
        self.front, self.back = (
            camera_utils.orbit_label(yaw, 0.0, radius, intrinsics=lens).to(device).expand(_FACES, -1) for yaw in (0, math.pi)
        )
        self.real_diversity = diversity(from_uint8(torch.from_numpy(real_images)))

    def report(self, G: torch.nn.Module, batch: int) -> None:
        """Look at what `G` makes, `batch` heads at a time, and report what `measure` finds."""
        for name, values in measure(*self._views(G, batch)).items():
            training_stats.report0(f"Probe/{name}", values)
        training_stats.report0("Probe/diversity_real", self.real_diversity)

    @torch.no_grad()
    def _views(self, G: torch.nn.Module, batch: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The heads from the front and from behind, both conditioned on the front."""
        device = self.z.device
        parts = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            for z, front, back in zip(*(tensor.split(batch) for tensor in (self.z, self.front, self.back))):
                face = G.prepare(G.mapping(z, front), noise_mode="const")
                _, shift = G.apply_delta_c(z, front)
                cameras = (camera_utils.shift_label(c, shift) for c in (front, back))
                parts.append([G.render(face, c, noise_mode="const") for c in cameras])
        return tuple({key: torch.cat([part[key] for part in view]) for key in view[0]} for view in zip(*parts))


def measure(front: dict[str, torch.Tensor], back: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What two opposite views of N heads, dictionaries as generators return them, say of the heads.

    `diversity`, a scalar: see there.  `relief` [N]: the standard deviation of the front's depth in the mask, world units.
    `back_likeness` [N]: the correlation of the front's fine detail with that of the back, mirrored as the outline is or
    not, whichever is larger: near 0 for a head with a face on one side, near 1 for one with a face on both.
    """
    near, mask = front["image_raw"], front["image_mask"].clamp(0, 1)
    both = _eroded(mask * back["image_mask"].clamp(0, 1).flip(3))
    detail, behind = _detail(near), _detail(back["image_raw"])
    likeness = [_correlation(detail, other, both) for other in (behind, behind.flip(3))]
    return dict(
        diversity=diversity(front["image"]),
        relief=_moments(front["image_depth"], _eroded(mask))[1].sqrt(),
        back_likeness=torch.maximum(*likeness),
    )


def diversity(images: torch.Tensor) -> torch.Tensor:
    """The standard deviation among pictures [N, 3, H, H], the mean over their pixels, in units of the pictures' range / 2."""
    return images.std(dim=0).mean()


def _detail(images: torch.Tensor) -> torch.Tensor:
    """Grey pictures [N, 1, H, H] of [N, 3, H, H] without what a blur leaves of them: shading and colour are gone."""
    grey, radius = images.mean(dim=1, keepdim=True), _radius(images)
    return grey - F.avg_pool2d(F.pad(grey, [radius] * 4, mode="replicate"), 2 * radius + 1, stride=1)


def _eroded(mask: torch.Tensor) -> torch.Tensor:
    """Masks [N, 1, H, H] without their rims, where depth and detail belong to the outline."""
    radius = _radius(mask)
    return -F.max_pool2d(-mask, 2 * radius + 1, stride=1, padding=radius)


def _radius(images: torch.Tensor) -> int:
    return max(images.shape[-1] // _RADII, 1)


def _moments(values: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [N, 1, 1, 1] and variance [N] of pictures [N, 1, H, H]; both 0 where there is no weight."""
    share = weights / weights.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    mean = (values * share).sum(dim=(1, 2, 3), keepdim=True)
    return mean, ((values - mean).square() * share).sum(dim=(1, 2, 3))


def _correlation(one: torch.Tensor, other: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Pearson's [N] of pictures [N, 1, H, H]; 0 where there is nothing to compare."""
    (mean, variance), (other_mean, other_variance) = _moments(one, weights), _moments(other, weights)
    covariance = _moments((one - mean) * (other - other_mean), weights)[0].flatten()
    return covariance / (variance * other_variance).sqrt().clamp(min=1e-8)
