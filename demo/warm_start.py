"""Teach a generator the people of a rendered set by their several views, as a start for train.py --resume.

A generative adversarial network needs many hours on a CPU until it knows what a head is.  A rendered set says who is in
each picture, so that the generator can be shown it directly: each person gets a latent, and generator and latents learn
together to make that person's pictures (generative latent optimisation, Bojanowski 2018).  Differences alone leave the
pictures blurred; with --adversary a discriminator learns beside them, and the generator from it too (Larsen 2016).
"""

import copy
import json
import sys
from pathlib import Path, PurePath
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F

if not __package__:  # run as a script: Python looks for modules in this folder, but they are in the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dnnlib import UserError, cli  # noqa: E402
from dnnlib.util import InterruptFlag, construct_class_by_name, make_output_dir  # noqa: E402
from torch_utils import misc  # noqa: E402
from torch_utils.device import select_device  # noqa: E402
from training.checkpoint import load_state, save_snapshot, save_state, state_paths  # noqa: E402
from training.config import R1_INTERVAL, TrainingConfig  # noqa: E402
from training.dataset import HeadDataset  # noqa: E402
from training.dual_discriminator import filtered_resizing  # noqa: E402
from training.images import from_uint8  # noqa: E402
from training.layers import normalize_second_moment  # noqa: E402
from training.options import PRESETS, SCENES  # noqa: E402
from training.schedules import ema_decay  # noqa: E402
from training.snapshots import Grids  # noqa: E402

MOST_VIEWS = 200  # of one person; a folder of more is not a person
BEHIND_WEIGHT = 0.2  # of pixels without head beside those of the head
MASK_WEIGHT = 0.5  # of the mask's cross entropy beside the pictures' differences
PYRAMID_LEVELS = 4
SAVE_EVERY = 1000  # images
BETAS = (0.5, 0.99)  # of Adam
SURFACE_DENSITY = 5.0  # before softplus: about where rays end
SNAPSHOT = "warm-start.pkl"
STATE = ("G", "D", "G_ema", "latents", "G_optimizer", "D_optimizer", "latent_optimizer")  # that a run needs to go on


def people_of(dataset: HeadDataset) -> np.ndarray:
    """Who each item shows, int [len]: the pictures of one folder show one person."""
    folders = [str(PurePath(name).parent) for name in dataset.item_names()]
    people = np.unique(folders, return_inverse=True)[1].reshape(-1)
    if len(people) > MOST_VIEWS * (people.max() + 1):
        raise UserError(f"{dataset.images.path} has no folder for each person, as those of demo/render_heads.py have")
    return people


def pyramid_difference(images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean |difference| of [N, 3, H, H] and of its halves, quarters, ..., each level alike; weights [N, 1, H, H]."""
    difference, total = images - targets, 0.0
    for _ in range(PYRAMID_LEVELS):
        total = total + (difference.abs() * weights).mean() / weights.mean()
        difference, weights = F.avg_pool2d(difference, 2), F.avg_pool2d(weights, 2)
    return total / PYRAMID_LEVELS


def mask_difference(opacity: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of what the rays hit, [N, 1, h, h], and a mask in [0, 1] of the same shape."""
    return F.binary_cross_entropy(opacity.clamp(1e-3, 1 - 1e-3), mask.clamp(0, 1))


@torch.no_grad()
def with_normal_latents(generator: torch.nn.Module, latents: torch.Tensor) -> torch.nn.Module:
    """A copy of `generator` for z ~ N(0, I), of one that has learned the people of `latents` [P, z_dim].

    As the mapping normalises them, those have mean m and covariance L Lᵀ: what its first layer made of m + L z, the copy's
    makes of z, with weights W L and bias b + W m.
    """
    generator = copy.deepcopy(generator)
    seen = normalize_second_moment(latents).double()
    mean, covariance = seen.mean(dim=0), torch.cov(seen.T)
    root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(len(covariance), device=covariance.device))
    layer = generator.backbone.mapping.fc0
    weight = layer.weight[:, : len(mean)].double()
    layer.bias += (weight @ mean * (layer.weight_gain / layer.bias_gain)).float()
    layer.weight[:, : len(mean)] = (weight @ root).float()
    return generator


@torch.no_grad()
def sharpen(generator: torch.nn.Module, factor: float) -> None:
    """Make the shells in which rays end thinner: densities (before softplus) go `factor` times as far from a surface's."""
    output = generator.decoder.net[2]
    output.weight[0] *= factor
    output.bias[0] = factor * output.bias[0] + (1 - factor) * SURFACE_DENSITY / output.bias_gain


class WarmStart:
    """The networks, the people's latents and their optimisers, and steps of them."""

    def __init__(self, config: TrainingConfig, device: torch.device, latent_lr: float, adversary: float):
        self.config = config
        self.latent_lr = latent_lr
        self.adversary = adversary
        self.device = device
        self.nimg = 0
        self.sharpness = 1.0
        torch.manual_seed(config.seed)
        self.dataset = HeadDataset(**config.dataset_kwargs())
        self.people = people_of(self.dataset)
        resolution = self.dataset.resolution
        self.G = construct_class_by_name(**config.generator_kwargs(resolution)).train().to(device)
        self.G_ema = construct_class_by_name(**config.generator_kwargs(resolution)).eval().requires_grad_(False).to(device)
        self.D = construct_class_by_name(**config.discriminator_kwargs(resolution)).requires_grad_(False).to(device)
        self.loss = construct_class_by_name(device=device, G=self.G, D=self.D, **config.loss_kwargs())
        self.G_ema.load_state_dict(self.G.state_dict())
        for generator in (self.G, self.G_ema):
            generator.neural_rendering_resolution = config.neural_rendering_resolution_initial
        latents = np.random.default_rng(config.seed).standard_normal([self.people.max() + 1, self.G.z_dim], np.float32)
        self.latents = torch.nn.Embedding.from_pretrained(torch.from_numpy(latents), freeze=False, sparse=True).to(device)
        self.latent_optimizer = torch.optim.SparseAdam(self.latents.parameters(), lr=latent_lr, betas=BETAS)
        self.G_optimizer = torch.optim.Adam(self.G.parameters(), lr=config.glr, betas=BETAS, eps=1e-8, fused=True)
        self.D_optimizer = torch.optim.Adam(self.D.parameters(), lr=config.dlr, betas=(0.0, 0.99), eps=1e-8, fused=True)

    def step(self) -> float:
        """Show the generator one batch; returns how far it is off."""
        rng = np.random.default_rng([self.config.seed, self.nimg])
        torch.manual_seed(int(rng.integers(2**63)))
        numbers = rng.choice(len(self.dataset), self.config.batch, replace=False)
        images, masks, labels = (
            torch.from_numpy(np.stack(a)).to(self.device) for a in zip(*(self.dataset[i] for i in numbers))
        )
        images, masks = from_uint8(images), from_uint8(masks, low=0.0)
        z = self.latents(torch.from_numpy(self.people[numbers]).to(self.device))

        # A generator that is conditioned on the camera gets another's: the latent alone must say who it is.
        ws = self.G.mapping(z, labels.roll(1, dims=0))
        made = self.G.synthesis(ws, labels)
        size = made["image_raw"].shape[-1]
        raw, mask = filtered_resizing(images, size), filtered_resizing(masks, size)
        loss = pyramid_difference(made["image"], images, masks.clamp(min=BEHIND_WEIGHT))
        loss = loss + pyramid_difference(made["image_raw"], raw, mask.clamp(min=BEHIND_WEIGHT))
        loss = loss + MASK_WEIGHT * mask_difference(made["image_mask"], mask)
        total = loss
        if self.adversary:
            total = loss + self.adversary * F.softplus(-self.loss.judge(made, labels)).mean()
        optimizers = (self.G_optimizer, self.latent_optimizer)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
        if self.adversary:
            self._step_discriminator(images, masks, labels, {name: picture.detach() for name, picture in made.items()})
        with torch.no_grad():
            self.G.backbone.mapping.track(ws[:, 0].mean(dim=0))
            decay = ema_decay(self.nimg, self.config.batch, self.config.ema_kimg, self.config.ema_rampup)
            misc.update_average(self.G_ema, self.G, decay)
        self.nimg += self.config.batch
        return loss.item()

    def _step_discriminator(self, images: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor, made: dict) -> None:
        """Show the discriminator a batch of the set beside what the generator `made` of the same people."""
        self.D.requires_grad_(True)
        self.D_optimizer.zero_grad(set_to_none=True)
        regular = self.nimg // self.config.batch % R1_INTERVAL == 0
        for phase, gain in (("Dmain", 1), ("Dreg", R1_INTERVAL))[: 1 + regular]:
            self.loss.accumulate_gradients(phase, images, masks, labels, None, labels, gain, self.nimg, fakes=made)
        self.D_optimizer.step()
        self.D.requires_grad_(False)

    def sharpen(self, sharpness: float) -> None:
        """Make surfaces `sharpness` times as thin as those that are learned without; see `sharpen`."""
        for generator in (self.G, self.G_ema):
            sharpen(generator, sharpness / self.sharpness)
        self.sharpness = sharpness

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on."""
        return dict(sharpness=self.sharpness) | {name: getattr(self, name).state_dict() for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.nimg, self.sharpness = state["nimg"], state["sharpness"]
        for name in STATE:
            getattr(self, name).load_state_dict(state[name])
        for name, rate in (("G_optimizer", self.config.glr), ("latent_optimizer", self.latent_lr)):
            for group in getattr(self, name).param_groups:
                group["lr"] = rate  # which may be another one from here on

    def save(self, outdir: Path) -> None:
        """Write pictures of people who are not in the set, the networks, and the state."""
        G, G_ema = (with_normal_latents(generator, self.latents.weight) for generator in (self.G, self.G_ema))
        Grids(self.dataset, self.G.z_dim, self.device, self.config.seed).save_fakes(
            outdir, f"fakes{self.nimg // 1000:06d}", G_ema, self.config.batch
        )
        save_snapshot(outdir / SNAPSHOT, dict(G=G, D=self.D, G_ema=G_ema), {})
        save_state(outdir, self.nimg, self.state_dict())


@cli.command(help=__doc__)
@click.option("--outdir", help="Folder for the snapshot, pictures and state", metavar="DIR", required=True)
@click.option("--img_data", help="Images of demo/render_heads.py with labels", metavar="ZIP|DIR", required=True)
@click.option("--seg_data", help="Their masks", metavar="ZIP|DIR", required=True)
@click.option("--cfg", help="As for train.py", type=click.Choice(SCENES), default="ffhq")
@click.option("--preset", help="As for train.py", type=click.Choice(PRESETS), default="heads")
@click.option("--kimg", help="Thousands of images", type=cli.FiniteFloat(min=0, min_open=True), default=20)
@click.option("--batch", help="Pictures in a step", type=click.IntRange(min=2), default=8)
@click.option("--glr", help="Learning rate", type=cli.FiniteFloat(min=0, min_open=True), default=0.0025)
@click.option("--latent_lr", help="That of the people's latents", type=cli.FiniteFloat(min=0, min_open=True), default=0.05)
@click.option(
    "--sharpness",
    help="How many times as thin surfaces are as those of a start without it  [default: as the run has it]",
    type=cli.FiniteFloat(min=0, min_open=True),
)
@click.option("--adversary", help="Weight of a discriminator's opinion", type=cli.FiniteFloat(min=0), default=0)
@click.option("--gamma", help="R1 of that discriminator", type=cli.FiniteFloat(min=0), default=1)
@click.option("--seed", help="Seed of all that is random", type=click.IntRange(0, cli.MAX_SEED), default=0)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME", default="auto")
def main(preset: str, adversary: float, gamma: float, latent_lr: float, sharpness: float | None, **options: Any) -> None:
    # A person's mirror image is another person, and would halve how often each is seen; what is compared is not blurred.
    recipe = dict(PRESETS[preset], mirror=False, blur_fade_kimg=0)
    config = TrainingConfig(gpus=1, gamma=gamma, gamma_seg=gamma, preset=preset, **recipe, **options)
    run = WarmStart(config, select_device(config.device), latent_lr, adversary)
    folder = make_output_dir(config.outdir)
    if state_paths(folder):
        run.load_state_dict(load_state(folder))
    if sharpness is not None:
        run.sharpen(sharpness)
    print(f"{run.people.max() + 1} people, {len(run.dataset)} views")
    with InterruptFlag() as interrupt, cli.progress(total=int(config.kimg * 1000), initial=run.nimg, unit="img") as bar:
        losses = []
        while run.nimg < config.kimg * 1000 and not interrupt:
            losses.append(run.step())
            bar.update(config.batch)
            if run.nimg // SAVE_EVERY > (run.nimg - config.batch) // SAVE_EVERY:
                with open(folder / "stats.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(dict(kimg=run.nimg / 1000, loss=float(np.mean(losses)))) + "\n")
                losses = []
                run.save(folder)
    run.save(folder)
    print(f"{run.nimg / 1000:g} kimg: train.py --resume {folder / SNAPSHOT}")


if __name__ == "__main__":
    main()
