"""The benchmark cases: each does the same work twice, as this project does it and as published code does it."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.published import published
from dnnlib.util import construct_class_by_name
from inference import shapes, synthesis
from inference.videos import write_video
from pti.perceptual import StructuralLoss
from pti.pivotal_tuning import Tuning
from pti.projector import Pivot, Step
from pti.settings import TuningSettings
from pti.targets import Target
from training.batches import BatchSource
from training.config import TrainingConfig
from training.dataset import HeadDataset
from training.images import picture
from training.training_loop import Trainer
from training.triplane import Face, TriPlaneGenerator

DATA = Path(__file__).parent.parent / "dataset" / "heads-128"
PUBLISHED_POINTS = 1_000_000  # points that published code looks up at a time, running the backbone each time
PAST_FADES = 10_000_000  # images seen, after which all schedules are constant
SEEN_BY_BOTH = 1000  # numbers of each gradient that are compared


@dataclass(frozen=True)
class Setting:
    """Device and size: `quick` uses small networks, `brief` skips repetitions, which do not change the peak memory."""

    device: torch.device
    quick: bool = False
    brief: bool = False

    def __getitem__(self, sizes: tuple[int, int]) -> int:
        """Select from (full, quick) sizes."""
        return sizes[self.quick]


class Work(NamedTuple):
    """A case with both ways to do it.  Each returns tensors; those of the published way must equal the fast way's first ones.

    `published` may do a part of the work if the rest only repeats it; the whole consists of `parts` of it.  It is None if there
    is nothing to compare with.  `note` explains what the seconds of one run of the fast way mean.
    """

    title: str
    fast: Callable[[], list[torch.Tensor]]
    published: Callable[[], list[torch.Tensor]] | None
    parts: float = 1
    arithmetic: Callable[[], Any] | None = None  # the necessary products, with networks on `meta`; None: as published
    tolerance: float = 1e-3  # norm of the difference relative to the norm
    keeps_memory: bool = True  # the fast way keeps freed memory, like commands that load a generator
    note: Callable[[float], str] = lambda seconds: ""


def config(setting: Setting, **changes: Any) -> TrainingConfig:
    """The published 512 command for one process; `quick` makes it smaller."""
    options = dict(outdir="", cfg="ffhq", img_data=str(DATA / "img.zip"), seg_data=str(DATA / "seg.zip"), gpus=1, batch=4)
    options |= dict(gamma=1, gamma_seg=1, gen_pose_cond=True, mirror=True, use_torgb_raw=True, decoder_activation="none")
    options |= dict(disc_module="MaskDualDiscriminatorV2", bcg_reg_prob=0.2, triplane_depth=3, density_reg=0, trans_reg=10)
    options |= dict(gpc_reg_prob=0.7, workers=min(3, os.cpu_count() or 1))
    if setting.quick:
        options |= dict(cbase=4096, cmax=128, triplane_size=64, depth_resolution=16, depth_resolution_importance=16)
        options |= dict(neural_rendering_resolution_initial=32)
    return TrainingConfig(**options | changes)


class Scene:
    """A generator with random weights, one face, and a camera that turns around it."""

    def __init__(self, setting: Setting, device: torch.device):
        torch.manual_seed(0)
        kwargs = config(setting).generator_kwargs(img_resolution=setting[512, 128])
        self.G: TriPlaneGenerator = construct_class_by_name(**kwargs).eval().requires_grad_(False).to(device)
        self.ws = torch.randn(1, self.G.backbone.num_ws, self.G.w_dim).to(device)
        self.camera = lambda turn: synthesis.orbit(self.G)(synthesis.View(6.2832 * turn))

    def whole(self, turn: float = 0.1) -> dict[str, torch.Tensor]:
        """A picture computed from scratch, with the same random draws as `view`."""
        return self.view(synthesis.prepare(self.G, self.ws), turn)

    def view(self, face: Any, turn: float = 0.1) -> dict[str, torch.Tensor]:
        """A picture of an existing face."""
        return synthesis.render(self.G, face, self.camera(turn))


def picture_case(setting: Setting) -> Work:
    """One picture from a latent."""
    scene, plan = Scene(setting, setting.device), Scene(setting, torch.device("meta"))
    title = f"picture, {scene.G.img_resolution}"
    return Work(
        title, lambda: list(scene.whole().values()), plainly(lambda: list(scene.whole().values())), arithmetic=plan.whole
    )


def view_case(setting: Setting) -> Work:
    """One more picture of the same face.  Published code keeps the planes, but computes the background again."""
    scene, plan = Scene(setting, setting.device), Scene(setting, torch.device("meta"))
    planned = synthesis.prepare(plan.G, plan.ws)
    # Computed when first needed, because a process that measures memory needs only one of them.
    face = functools.cache(lambda way: synthesis.prepare(scene.G, scene.ws))

    def again() -> list[torch.Tensor]:
        with torch.no_grad():
            background = scene.G.make_background(scene.ws, noise_mode="const")
        return list(scene.view(face("published")._replace(background=background)).values())

    title = f"next view, {scene.G.img_resolution}"
    return Work(title, lambda: list(scene.view(face("fast")).values()), plainly(again), arithmetic=lambda: plan.view(planned))


def turntable_case(setting: Setting) -> Work:
    """24 frames of one face as a video.  Published code computes each frame from the latent."""
    scene, plan = Scene(setting, setting.device), Scene(setting, torch.device("meta"))
    frames, measured = (2, 1) if setting.brief else (24, 2)

    def film(make: Callable[[float], dict[str, torch.Tensor]], count: int) -> list[torch.Tensor]:
        shown = []

        def drawn():
            for index in range(count):
                shown.append(make(index / frames)["image"])
                yield picture({"image": shown[-1]}, "image")[0]

        with tempfile.TemporaryDirectory() as folder:
            write_video(drawn(), Path(folder) / "film.mp4", fps=24, total=count)
        return shown

    def fast() -> list[torch.Tensor]:
        face = synthesis.prepare(scene.G, scene.ws)
        return film(lambda turn: scene.view(face, turn), frames)

    def arithmetic() -> None:
        face = synthesis.prepare(plan.G, plan.ws)
        for _ in range(frames):
            plan.view(face)

    return Work(
        f"turntable of {frames} frames, {scene.G.img_resolution}",
        fast,
        plainly(lambda: film(scene.whole, measured)),
        frames / measured,
        arithmetic,
    )


def points_case(setting: Setting, with_backbone: bool = True) -> Work:
    """The densities at a million points, from a latent or from existing planes."""
    scene, plan = Scene(setting, setting.device), Scene(setting, torch.device("meta"))
    count = setting[PUBLISHED_POINTS, 100_000]
    points = ((torch.rand(1, count, 3) - 0.5) * scene.G.rendering_kwargs.box_warp).to(setting.device)
    kept: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def densities(scene: Scene, way: str, at_a_time: int) -> list[torch.Tensor]:
        if with_backbone or way not in kept:
            kept[way] = scene.G.make_grids(scene.ws, noise_mode="const")
        places = points.to(kept[way].device).split(at_a_time, dim=1)
        look_up = (lambda *where: scene.G.query(*where)[0]) if way == "published" else scene.G.density
        return [torch.cat([look_up(kept[way], part) for part in places], dim=1)]

    densities(plan, "plan", count)
    return Work(
        f"{count:,} densities, {'with backbone' if with_backbone else 'from existing planes'}",
        lambda: densities(scene, "fast", shapes.points_at_a_time(setting.device)),
        plainly(lambda: densities(scene, "published", count)),
        arithmetic=lambda: densities(plan, "plan", count),
    )


def planes_case(setting: Setting) -> Work:
    """The densities at a million points, from existing planes."""
    return points_case(setting, with_backbone=False)


def grid_case(setting: Setting) -> Work:
    """A lattice of densities.  Published code looks up all of it, and runs the backbone for each million points."""
    scene, plan = Scene(setting, setting.device), Scene(setting, torch.device("meta"))
    size = setting[256, 64] // (4 if setting.brief else 1)
    half, at_a_time = scene.G.rendering_kwargs.box_warp / 2, min(PUBLISHED_POINTS, size**3 // 4)
    first = size**3 // 2 - at_a_time // 2
    index = torch.arange(first, first + at_a_time)
    axis = torch.linspace(-half, half, size)
    points = torch.stack([axis[index // size**2], axis[index // size % size], axis[index % size]], dim=-1)[None]
    inner = (points.abs() <= axis[size - 1 - shapes.border_width(size)] + 1e-6).all(dim=-1)[0]

    @torch.no_grad()
    def fast() -> list[torch.Tensor]:
        face = Face(scene.ws, scene.G.make_grids(scene.ws, noise_mode="const"), None)
        lattice = shapes.density_grid(scene.G, face, size)
        return [torch.from_numpy(lattice).flatten()[first : first + at_a_time][inner]]

    @torch.no_grad()
    def chunk() -> list[torch.Tensor]:
        sigma = scene.G.sample_mixed(points.to(setting.device), None, scene.ws, noise_mode="const")["sigma"]
        return [sigma.flatten().cpu()[inner]]

    @torch.no_grad()
    def arithmetic() -> None:
        grids = plan.G.make_grids(plan.ws, noise_mode="const")
        plan.G.density(grids, torch.empty(1, (size - 2 * shapes.border_width(size)) ** 3, 3, device="meta"))

    return Work(f"density grid, {size}³", fast, plainly(chunk), size**3 / at_a_time, arithmetic)


def training_case(setting: Setting) -> Work:
    """One iteration at 128 pixels with all phases: generator, discriminator and R1.  The learning rate is 0."""
    trainer = Trainer(config(setting, **({} if setting.quick else dict(cbase=8192))), setting.device)
    trainer.nimg = PAST_FADES
    trainer.source = BatchSource(trainer.dataset, trainer.config, setting.device, 0, 1, trainer.nimg)
    batch = trainer.source.next_batch()
    for phase in trainer.phases:
        for group in phase.optimizer.param_groups:
            group["lr"] = 0.0

    def iteration() -> list[torch.Tensor]:
        found = []
        for phase in trainer.phases:
            trainer.run_phase(phase, batch)
            found += some_gradients(phase.module)
        trainer.update_ema()
        return found

    return Work(
        f"training iteration, {trainer.dataset.resolution}, batch {trainer.config.batch}",
        iteration,
        plainly(iteration, training=True),
        # The discriminator has kinks: even in float64, its gradient jumped by 4e-4 between pictures that were 1e-6 apart.
        tolerance=5e-3,
        keeps_memory=False,
    )


def tuning_case(setting: Setting) -> Work:
    """One step of pivotal tuning to one photo with the structural loss.  The learning rate is 0."""
    scene = Scene(setting, setting.device)
    label, size = scene.camera(0.05), scene.G.img_resolution
    target = Target("noise", torch.rand(1, 3, size, size).to(setting.device) * 2 - 1, None, label)
    pivot = Pivot(scene.ws, None, label, torch.eye(4)[None], {})
    settings = TuningSettings(steps=10**6, learning_rate=0.0, back_prior=0.0)
    # Two tunings of the same generator, because each step has its own random draws and both ways must do the same steps.
    fast, plain = (Tuning(scene.G, target, pivot, StructuralLoss(), settings).steps() for _ in range(2))

    def step(steps: Iterator[Step]) -> list[torch.Tensor]:
        seen = next(steps).seen
        return [seen["image"], *some_gradients(scene.G)]

    return Work(f"tuning step, {size}", lambda: step(fast), plainly(lambda: step(plain)))


def loader_case(setting: Setting) -> Work:
    """One batch of the loader at 128 pixels, decoded, on the device."""
    options, batches = config(setting), setting[100, 40]  # many more than fit into the queues of the workers
    source = BatchSource(HeadDataset(**options.dataset_kwargs()), options, setting.device, 0, 1, 0)
    source.next_batch()

    def read() -> list[torch.Tensor]:
        for _ in range(batches):
            batch = source.next_batch()
        return batch.images

    count = batches * options.batch
    return Work(
        f"loader, {count} images of {source.dataset.resolution}",
        read,
        None,
        note=lambda seconds: f"{count / seconds:.0f} images per second with {options.workers} workers",
    )


CASES: dict[str, Callable[[Setting], Work]] = {
    "picture": picture_case,
    "view": view_case,
    "turntable": turntable_case,
    "grid": grid_case,
    "points": points_case,
    "planes": planes_case,
    "training": training_case,
    "pti": tuning_case,
    "loader": loader_case,
}


def plainly(work: Callable[[], list[torch.Tensor]], training: bool = False) -> Callable[[], list[torch.Tensor]]:
    """Run `work` as published code does."""

    def run() -> list[torch.Tensor]:
        with published(training):
            return work()

    return run


def some_gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    """A sample of the numbers of each gradient: enough to compare, with little memory."""
    gradients = [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    return [torch.cat([gradient[:: max(1, len(gradient) // SEEN_BY_BOTH)] for gradient in gradients])]
