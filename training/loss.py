"""The losses of generator and discriminator: phase -> named terms -> sum -> backward -> report."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils import training_stats
from torch_utils.ops import upfirdn2d
from training import conditioning, regularizers, schedules
from training.dual_discriminator import filtered_resizing

PHASES = ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth")


class Moment(NamedTuple):
    """What the schedules say at one moment of training."""

    blur_sigma: float
    swap_probability: float | None  # None: no conditioning on the camera
    rendering_resolution: int
    density_noise: float


class LatentMeans(NamedTuple):
    """Means over a batch of what the mapping networks made, for their running averages."""

    w: torch.Tensor  # [w_dim]
    shift: torch.Tensor  # [3]


class Observed(NamedTuple):
    """Of samples that were made for the discriminator, and of the real ones beside them, what tells how a run goes."""

    shift: torch.Tensor  # [N, 3]: of the cameras
    fake_coverage: torch.Tensor  # [N]: the mean of each mask
    real_coverage: torch.Tensor  # [N]


class Outcome(NamedTuple):
    """What a phase comes to besides gradients."""

    loss: torch.Tensor  # the sum of its terms, a scalar without gradient
    means: LatentMeans | None = None  # where fakes were made for the discriminator
    observed: Observed | None = None  # likewise


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of [N, C, H, W] with zeros outside: weights 2^-(x/sigma)² up to three sigma pixels away."""
    radius = math.floor(sigma * 3)
    if radius == 0:
        return images
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    weights = (-(x / sigma).square()).exp2()
    return upfirdn2d.filter2d(images, weights / weights.sum())


class StyleGAN2Loss:
    """Non-saturating losses with R1, density and translation regularisers (Karras 2020; EG3D; PanoHead).

    Random numbers come from torch's global generators in the order that `Order of random draws` in docs/conventions.md
    gives.  `gpc_reg_prob` None switches conditioning on the camera off.  `blur_fade_kimg` and the other fades count
    thousands of images.
    """

    def __init__(
        self,
        device,
        G,
        D,
        augment_pipe=None,
        r1_gamma=10,
        r1_gamma_seg=10,
        style_mixing_prob=0,
        blur_init_sigma=0,
        blur_fade_kimg=0,
        neural_rendering_resolution_initial=64,
        neural_rendering_resolution_final=None,
        neural_rendering_resolution_fade_kimg=0,
        gpc_reg_prob=None,
        gpc_reg_fade_kimg=1000,
        dual_discrimination=True,
        bcg_reg_prob=0,
        density_noise_fade_kimg=0,
    ):
        if not dual_discrimination:
            raise ValueError("every discriminator here sees the picture and the raw picture: dual_discrimination must be true")
        self.device = device
        self.G = G
        self.D = D
        self.augment_pipe = augment_pipe
        self.r1_gamma = r1_gamma
        self.r1_gamma_seg = r1_gamma_seg
        self.style_mixing_prob = style_mixing_prob
        self.blur_init_sigma = blur_init_sigma
        self.blur_fade_kimg = blur_fade_kimg
        self.neural_rendering_resolution_initial = neural_rendering_resolution_initial
        self.neural_rendering_resolution_final = neural_rendering_resolution_final
        self.neural_rendering_resolution_fade_kimg = neural_rendering_resolution_fade_kimg
        self.gpc_reg_prob = gpc_reg_prob
        self.gpc_reg_fade_kimg = gpc_reg_fade_kimg
        self.bcg_reg_prob = bcg_reg_prob
        self.density_noise_fade_kimg = density_noise_fade_kimg

    def moment(self, nimg: float) -> Moment:
        """The schedules' values after `nimg` images."""
        swap = None
        if self.gpc_reg_prob is not None:
            swap = schedules.pose_swap_probability(nimg, self.gpc_reg_prob, self.gpc_reg_fade_kimg)
        return Moment(
            blur_sigma=schedules.blur_sigma(nimg, self.blur_init_sigma, self.blur_fade_kimg),
            swap_probability=swap,
            rendering_resolution=schedules.rendering_resolution(
                nimg,
                self.neural_rendering_resolution_initial,
                self.neural_rendering_resolution_final,
                self.neural_rendering_resolution_fade_kimg,
            ),
            density_noise=schedules.density_noise(nimg, self.density_noise_fade_kimg),
        )

    def accumulate_gradients(self, phase, real_img, real_seg, real_c, gen_z, gen_c, gain, cur_nimg, fakes=None) -> Outcome:
        """Add the gradients of one batch in one of `PHASES` to those of the network that learns in it.

        real_img [N, 3, H, H] in [-1, 1], real_seg [N, 1, H, H] in [0, 1], real_c and gen_c labels [N, 25], gen_z
        [N, z_dim]; `gain` multiplies the loss.  In a discriminator's phase `fakes`, as `generate` makes them, may take the
        place of what the generator would make of gen_z.  The caller updates the running averages of the latents from the
        means that are returned, and must check that the loss is finite.
        """
        if phase not in PHASES:
            raise ValueError(f"phase is one of {', '.join(PHASES)}, not {phase!r}")
        now = self.moment(cur_nimg)
        main, regular = phase.endswith(("main", "both")), phase.endswith(("reg", "both"))
        losses, means, observed = [], None, None
        if phase.startswith("G"):
            if main:
                losses.append(self._generator_main(gen_z, gen_c, now, gain))
            if regular and self.G.rendering_kwargs.density_reg > 0:
                losses.append(self._generator_density(gen_z, gen_c, now, gain))
        else:
            fake_loss = None
            if main:
                if fakes is None:
                    with torch.no_grad():
                        fakes, ws, shift = self.generate(gen_z, gen_c, now)
                    means = LatentMeans(ws[:, 0].mean(dim=0), shift.mean(dim=0))
                    coverages = (masks.mean(dim=(1, 2, 3)) for masks in (fakes["image_mask"], real_seg))
                    observed = Observed(shift, *coverages)
                fake_loss = self._discriminator_fake(fakes, gen_c, gain)
                losses.append(fake_loss)
            losses.append(self._discriminator_real(real_img, real_seg, real_c, now, gain, fake_loss, regular))
        return Outcome(torch.stack(losses).sum(), means, observed)

    # The networks as the losses see them

    def map_latents(self, z, c, now: Moment):
        """Latents and labels -> ws [N, num_ws, w_dim], with poses swapped and styles mixed."""
        label = torch.zeros_like(c) if now.swap_probability is None else conditioning.swap_poses(c, now.swap_probability)
        ws = self.G.mapping(z, label)
        return conditioning.mix_styles(ws, z, lambda z: self.G.mapping(z, label), self.style_mixing_prob)

    def generate(self, z, c, now: Moment):
        """Fakes as the discriminator sees them, their ws, and the camera shifts [N, 3]."""
        ws = self.map_latents(z, c, now)
        shifted, shift = self.G.apply_delta_c(z, c)
        ws_bcg = conditioning.swap_backgrounds(ws, self.bcg_reg_prob)
        made = self.G.synthesis(ws, shifted, now.rendering_resolution, ws_bcg=ws_bcg, density_noise=now.density_noise)
        fakes = {
            "image": blur(made["image"], now.blur_sigma),
            "image_raw": made["image_raw"],
            "image_mask": made["image_mask"],
        }
        return fakes, ws, shift

    def judge(self, images, c):
        """Logits [N, 1] of the dictionary `images` under the labels c [N, 25], augmented together."""
        if self.augment_pipe is not None:
            images, c = self.augment_pipe(images, c)
        return self.D(images, c)

    # The losses

    def _generator_main(self, gen_z, gen_c, now, gain):
        fakes, _, shift = self.generate(gen_z, gen_c, now)
        logits = self.judge(fakes, gen_c)
        _report_logits("fake", logits)
        terms = {"Loss/G/loss": F.softplus(-logits).mean()}
        trans_reg = self.G.rendering_kwargs.get("trans_reg", 0)
        if trans_reg > 0:
            terms["Loss/G/trans_reg_loss"] = trans_reg * regularizers.mean_translation(shift)
        _report_terms(terms)
        return _backward(terms, gain)

    def _generator_density(self, gen_z, gen_c, now, gain):
        ws = self.map_latents(gen_z, gen_c, now)
        grids = self.G.make_grids(ws)
        kwargs = self.G.rendering_kwargs
        terms = regularizers.density_terms(
            kwargs.reg_type,
            lambda points: self.G.query(grids, points, now.density_noise)[0],
            batch=ws.shape[0],
            weight=kwargs.density_reg,
            neighbour_distance=kwargs.density_reg_p_dist,
            box_warp=kwargs.box_warp,
            device=ws.device,
        )
        _report_terms({f"Loss/G/density_{name}": term for name, term in terms.items()})
        return _backward(terms, gain)

    def _discriminator_fake(self, fakes, gen_c, gain):
        logits = self.judge(fakes, gen_c)
        _report_logits("fake", logits)
        return _backward({"fake": F.softplus(logits).mean()}, gain)

    def _discriminator_real(self, real_img, real_seg, real_c, now, gain, fake_loss, regular):
        """`fake_loss` None: the regulariser alone."""
        size = now.rendering_resolution
        real = {
            "image": blur(real_img, now.blur_sigma).detach(),  # R1 is taken on what the discriminator sees, blurred
            "image_raw": blur(filtered_resizing(real_img, size), now.blur_sigma).detach(),
            "image_mask": filtered_resizing(real_seg, size).detach(),
        }
        for tensor in real.values():
            tensor.requires_grad_(regular)
        logits = self.judge(real, real_c)
        _report_logits("real", logits)
        terms = {}
        if fake_loss is not None:
            terms["real"] = F.softplus(-logits).mean()
            training_stats.report("Loss/D/loss", fake_loss + terms["real"])
        if regular:
            image, raw, mask = regularizers.squared_gradients(logits, list(real.values()))
            terms["r1"] = (self.r1_gamma / 2 * (image + raw) + self.r1_gamma_seg / 2 * mask).mean()
            _report_terms({"Loss/r1_penalty": image + raw, "Loss/r1_penalty_seg": mask, "Loss/D/reg": terms["r1"]})
        return _backward(terms, gain)


def _backward(terms: dict[str, torch.Tensor], gain: float) -> torch.Tensor:
    """Add the gradients of the terms' sum, times `gain`; returns the sum without gradient."""
    total = sum(terms.values())
    (total * gain).backward()
    return total.detach()


def _report_logits(kind: str, logits: torch.Tensor) -> None:
    training_stats.report(f"Loss/scores/{kind}", logits)
    training_stats.report(f"Loss/signs/{kind}", logits.sign())


def _report_terms(terms: dict[str, torch.Tensor]) -> None:
    for name, term in terms.items():
        training_stats.report(name, term)
