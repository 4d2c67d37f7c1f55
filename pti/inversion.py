"""Runs the inversion of one target from photos to files, in stages.  Stages whose files exist are skipped."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import camera_utils
from dnnlib import cli
from inference import shapes, synthesis
from inference.videos import write_video
from meshes.head_file import save_head
from meshes.texture import Shot, head_mask
from pti.pivotal_tuning import Tuning
from pti.projector import Pivot, Projection, Step, noise_in
from pti.rendering import plan_drawing, rays_start_at_head
from pti.results import Results, digest_of_network, digest_of_target
from pti.settings import ProjectionSettings, TuningSettings
from pti.targets import Target, TargetSource
from torch_utils.device import peak_memory_gb
from training.images import picture, save_image, tile, to_uint8
from training.triplane import Face, TriPlaneGenerator

FARTHER = 0.05  # world units; the videos' camera is farther away than those of training: 2.75 instead of 2.7


@dataclass(frozen=True)
class Wanted:
    """What to produce besides the latent and the generator, and in which form."""

    video: bool = True
    fps: int = 30
    frames: int = 240  # per full turn
    shapes: bool = False
    shape_res: int = 256
    shape_format: str = ".glb"
    shape_level: float | None = None


@dataclass(frozen=True)
class Machine:
    """Where and how generators are loaded and run."""

    device: torch.device
    trust_pickle: bool = False
    nrr: int | None = None
    precision: str = "fp32"
    max_memory_gb: float | None = None

    def load(self, network: str) -> TriPlaneGenerator:
        """Load the generator of a file or URL."""
        return synthesis.load_generator(network, str(self.device), self.trust_pickle, nrr=self.nrr)


class Inversion:
    """The inversion of one target with one network.  Only one generator is in memory, except while one is being saved."""

    def __init__(
        self,
        target: Target,
        perceptual: torch.nn.Module,
        projection: ProjectionSettings,
        tuning: TuningSettings,
        wanted: Wanted,
        machine: Machine,
        results: Results,
    ):
        self.target, self.perceptual = target.to(machine.device), perceptual
        self.projection, self.tuning, self.wanted, self.machine, self.results = projection, tuning, wanted, machine, results

    def fit(self, G: TriPlaneGenerator) -> Pivot:
        """Run the stages that need the original network, as far as their files are missing.  Tunes `G` in place."""
        self.results.save_target(self.target)
        pivot = self._pivot(G)
        if not self.results.generator.exists():
            self._tune(G, pivot)
        return pivot

    def show(self, pivot: Pivot) -> None:
        """Run the stages that need the tuned network, as far as their files are missing."""
        if self._missing_after_tuning():
            tuned = self.machine.load(str(self.results.generator))
            self._turn(tuned, pivot, self.results.video_after)
            if self.wanted.shapes:
                self._save_shapes(tuned, pivot)

    # Stages

    def _pivot(self, G: TriPlaneGenerator) -> Pivot:
        if not self.results.pivot.exists():
            self.results.forget_pivot()
            drawing = plan_drawing(G, self.perceptual, self.machine.precision == "mixed", self.machine.max_memory_gb)
            search = Projection(G, self.target, self.perceptual, self.projection, drawing=drawing)
            steps = search.steps()
            with _measured("projection", self.machine.device, self.projection.steps) as counted:
                if self.wanted.video:
                    frames = (self._progress_frame(step) for step in counted(steps))
                    write_video(frames, self.results.progress_video, self.wanted.fps, self.projection.steps)
                else:
                    for _ in cli.progress(counted(steps), total=self.projection.steps, unit="step", desc="projection"):
                        pass
            self.results.save_pivot(search.result(), self.target)
        elif self.wanted.video and not self.results.progress_video.exists():
            print(f"{self.results.progress_video.name} can only be made during the projection; --restart true does both again")
        pivot = self.results.load_pivot(self.machine.device)
        if not self.results.projection.exists():
            views = torch.cat([seen["image"] for seen in _photo_views(G, prepare(G, pivot), pivot)])
            save_image(tile(to_uint8(views), len(views)), self.results.projection)
        self._turn(G, pivot, self.results.video_before)
        return pivot

    def _progress_frame(self, step: Step) -> np.ndarray:
        """The last photo beside what its camera sees."""
        return tile(to_uint8(torch.cat([self.target.images[-1:], step.seen["image"]])), 2)

    def _tune(self, G: TriPlaneGenerator, pivot: Pivot) -> None:
        drawing = plan_drawing(G, self.perceptual, self.machine.precision == "mixed", self.machine.max_memory_gb)
        tuning = Tuning(G, self.target, pivot, self.perceptual, self.tuning, drawing=drawing)
        with _measured("tuning", self.machine.device, self.tuning.steps) as counted:
            for _ in cli.progress(counted(tuning.steps()), total=self.tuning.steps, unit="step", desc="tuning"):
                pass
        tuning.save(self.results.generator)

    def _turn(self, G: TriPlaneGenerator, pivot: Pivot, path: Path) -> None:
        """Film one turn around the head, unless the file exists or is not wanted."""
        if not self.wanted.video or path.exists():
            return
        face = prepare(G, pivot)
        radius = synthesis.orbit_radius(G) + FARTHER
        yaws = [2 * math.pi * frame / self.wanted.frames for frame in range(self.wanted.frames)]
        labels = [camera_utils.orbit_label(yaw, 0.0, radius, device=self.machine.device) for yaw in yaws]
        with rays_start_at_head(G):
            frames = (picture(seen, "image")[0] for seen in synthesis.views(G, face, labels))
            write_video(frames, path, self.wanted.fps, len(labels))

    def _save_shapes(self, G: TriPlaneGenerator, pivot: Pivot) -> None:
        face, head = prepare(G, pivot), self.results.head(self.wanted.shape_format)
        densities = shapes.density_grid(G, face, self.wanted.shape_res)
        shapes.save_volume(densities, self.results.volume)
        if head.exists():
            return
        with rays_start_at_head(G):
            photos = photo_shots(self.target, pivot, _photo_views(G, face, pivot))
            save_head(G, face, densities, head, pivot.labels[:1], self.wanted.shape_level, photos)

    def _missing_after_tuning(self) -> bool:
        files = [self.results.video_after] if self.wanted.video else []
        if self.wanted.shapes:
            files += [self.results.volume, self.results.head(self.wanted.shape_format)]
        return not all(file.exists() for file in files)


@torch.no_grad()
def prepare(G: TriPlaneGenerator, pivot: Pivot) -> Face:
    """Compute what all views of the face at `pivot` share."""
    with noise_in(G, pivot.noise):
        return G.prepare(pivot.ws, pivot.ws_bcg, noise_mode="const")


def _photo_views(G: TriPlaneGenerator, face: Face, pivot: Pivot) -> list[dict[str, torch.Tensor]]:
    with rays_start_at_head(G):
        return list(synthesis.views(G, face, pivot.labels.split(1)))


def photo_shots(target: Target, pivot: Pivot, seen: list[dict[str, torch.Tensor]]) -> list[Shot]:
    """The photos with the cameras of `pivot`, in the form that the texture of a mesh takes them.

    If there are no masks, the generator's masks in the views `seen` by those cameras are used.
    """
    masks = [head_mask(view) for view in seen] if target.masks is None else target.masks.split(1)
    shots = zip(target.images.split(1), masks, pivot.labels.split(1), strict=True)
    return [Shot(*shot, is_photo=True) for shot in shots]


@contextlib.contextmanager
def _measured(stage: str, device: torch.device, planned: int) -> Iterator[Any]:
    """Yield a function that counts the steps passing through it.  At the end, print time per step and peak memory."""
    count, start = 0, time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def counted(steps: Iterator[Step]) -> Iterator[Step]:
        nonlocal count
        for step in steps:
            count += 1
            yield step

    yield counted
    seconds = (time.perf_counter() - start) / max(count, 1)
    early = f" of {planned}" if count < planned else ""
    print(f"{stage}: {count}{early} steps, {seconds:.3g} s a step, peak memory {peak_memory_gb(device):.2f} GiB")


def invert(
    network: str,
    source: TargetSource,
    indices: list[int],
    folder: Path,
    perceptual: torch.nn.Module,
    projection: ProjectionSettings,
    tuning: TuningSettings,
    wanted: Wanted,
    machine: Machine,
    asked: dict[str, Any],
    restart: bool = False,
) -> None:
    """Run the missing stages of the inversion of photos `indices`, as one target, in a subfolder of `folder` named after it.

    `asked` are further options that must not change once the folder exists.  Raises UserError if any have changed, or if
    another process is working there.
    """
    G = machine.load(network)
    target = source.load(indices, G.img_resolution)
    results = Results(folder / target.name)
    photos = "1 photo" if len(indices) == 1 else f"{len(indices)} photos"
    print(f"{target.name}: {photos} at {G.img_resolution} pixels -> {results.folder}")
    names = dict(resolution=G.img_resolution, network=digest_of_network(G), target=digest_of_target(target))
    settings = dict(projection=asdict(projection), tuning=asdict(tuning), nrr=machine.nrr)
    with results.lock():
        results.begin(dict(**names, **settings, **asked), asdict(wanted), restart)
        inversion = Inversion(target, perceptual, projection, tuning, wanted, machine, results)
        pivot = inversion.fit(G)
        del G
        inversion.show(pivot)
