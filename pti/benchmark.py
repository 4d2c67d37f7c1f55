"""Measures inversion on heads that are known from all sides: inverts a frontal view and compares all other views.

The data set is one of `demo/render_heads.py --fixed-views true`, with a folder (in `img` and `seg`) for each head.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import click
import numpy as np
import torch

import camera_utils
from dnnlib import UserError, cli
from dnnlib.util import atomic_path, make_output_dir
from inference import synthesis
from pti.inversion import Machine, prepare
from pti.perceptual import load_perceptual, ssim
from pti.pivotal_tuning import Tuning
from pti.pose import moved, rigid
from pti.projector import Pivot, Projection
from pti.rendering import rays_start_at_head
from pti.results import digest_of_network, digest_of_target
from pti.settings import PUBLISHED_RATE, LossWeights, ProjectionSettings, TuningSettings
from pti.targets import Target, TargetSource
from torch_utils.device import select_device
from training.triplane import TriPlaneGenerator

HELD_OUT = Path(__file__).parent.parent / "dataset" / "heads-128-held-out"
MASKED = dict(mask=True)  # these heads have masks


@dataclass(frozen=True)
class Variant:
    """The settings and input of one way to invert, as far as they differ from the command's defaults."""

    projection: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    two_photos: bool = False
    camera_off: tuple[float, float] = (0.0, 0.0)  # degrees by which all cameras are rotated about the world's x and y


CAMERA_OFF = (3.5, 2.0)  # degrees; as large as the errors of cameras estimated from photos (`photo.benchmark`)
VARIANTS = {
    "published": Variant(
        dict(mask=False, w_until=0.0, refine_pose=False),
        dict(mask=False, back_prior=0.0, learning_rate=PUBLISHED_RATE, ramp_down=0.0, mse=LossWeights.mse),
    ),
    "default": Variant(),
    "no-mask": Variant(dict(mask=False), dict(mask=False)),
    "no-back-prior": Variant(tuning=dict(back_prior=0.0)),
    "published-rate": Variant(tuning=dict(learning_rate=PUBLISHED_RATE, ramp_down=0.0)),
    "published-mse": Variant(tuning=dict(mse=LossWeights.mse)),
    "locality": Variant(tuning=dict(locality=0.1)),
    "no-refine-pose": Variant(dict(refine_pose=False)),
    "camera-off": Variant(camera_off=CAMERA_OFF),
    "camera-off-no-refine-pose": Variant(dict(refine_pose=False), camera_off=CAMERA_OFF),
    "w-plus-at-once": Variant(dict(w_until=0.0, refine_pose=False)),
    "two-views": Variant(two_photos=True),
    "w": Variant(dict(space="w")),
    "early-stop": Variant(dict(early_stop=50), dict(early_stop=50)),
    "optimize-noise": Variant(dict(optimize_noise=True)),
}
SECOND_YAW = 60.0  # degrees; the yaw of the second photo if there are two
SECTORS = (("to 45", 45.0), ("45-90", 90.0), ("90-135", 135.0), ("135-180", 180.0))  # names and upper limits of |yaw|
INPUT = "input"
METRICS = ("psnr", "ssim", "iou")
GREY = 0.0  # in [-1, 1]; the background of compared heads, each cut out with its own mask
HEAD_LEVEL = 0.5  # threshold of masks for the intersection over union


@torch.no_grad()
def compare(seen: dict[str, torch.Tensor], truth: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """PSNR (dB), SSIM and mask IoU between a generated view and the true one [1, 3, H, H] with its mask [1, 1, H, H].

    Both heads are put on grey.  If the network makes no masks, its head is cut out with the true mask, and there is no IoU.
    """
    opacity = seen.get("image_mask")
    if opacity is None:
        opacity, iou = mask, float("nan")
    else:
        opacity = torch.nn.functional.interpolate(opacity, size=mask.shape[-2:], mode="bilinear").clamp(0, 1)
        ours, true = opacity > HEAD_LEVEL, mask > HEAD_LEVEL
        iou = ((ours & true).sum() / (ours | true).sum().clamp(min=1)).item()
    grey = torch.full_like(truth, GREY)
    ours, true = (grey.lerp(picture.clamp(-1, 1), cut) / 2 + 0.5 for picture, cut in ((seen["image"], opacity), (truth, mask)))
    error = (ours - true).square().mean().clamp(min=1e-10)
    return dict(psnr=(-10 * error.log10()).item(), ssim=ssim(ours, true).mean().item(), iou=iou)


def look_round(G: TriPlaneGenerator, pivot: Pivot, views: Target) -> list[dict[str, float]]:
    """`compare` for each of the true `views`.  Their cameras are corrected in the same way as that of the first photo."""
    face = prepare(G, pivot)
    labels = moved(views.labels, pivot.motion[:1])
    with rays_start_at_head(G):
        seen = synthesis.views(G, face, labels.split(1))
        return [compare(*view) for view in zip(seen, views.images.split(1), views.masks.split(1))]


def turned(labels: torch.Tensor, degrees: tuple[float, float]) -> torch.Tensor:
    """Rotate the cameras of labels [k, 25] together about the world's x and y, as if the head were rotated the other way."""
    angles = labels.new_tensor([[*map(math.radians, degrees), 0.0]])
    return moved(labels, rigid(angles, torch.zeros_like(angles)))


def sector(yaw: float, is_input: bool) -> str:
    """The column of the table for a view of `yaw` degrees."""
    return INPUT if is_input else next(name for name, end in SECTORS if abs(yaw) <= end + 1e-3)


def heads_of(source: TargetSource) -> dict[str, list[int]]:
    """Indices of each head's photos, by the name of its folder.  Raises UserError if there are no such folders."""
    heads: dict[str, list[int]] = {}
    for index, name in enumerate(source.names):
        heads.setdefault(str(PurePosixPath(name).parent), []).append(index)
    if "." in heads:
        raise UserError("--data needs a folder for each head, as demo/render_heads.py makes them")
    return heads


class Bench:
    """Inverts heads with different variants.  Variants that share a projection compute it once per head."""

    def __init__(
        self, G: TriPlaneGenerator, perceptual: torch.nn.Module, projection: ProjectionSettings, tuning: TuningSettings
    ):
        self.G, self.perceptual, self.projection, self.tuning = G, perceptual, projection, tuning
        self._pivots: dict[tuple, Pivot] = {}

    def run(self, variant: str, views: Target) -> dict[str, dict[str, list[float]]]:
        """Invert a head from its most frontal view.  Returns stage -> metric -> the values for each of its `views`."""
        way = VARIANTS[variant]
        yaws, front = _angles(views)
        chosen = [front, int((yaws - SECOND_YAW).abs().argmin())] if way.two_photos else [front]
        views = dataclasses.replace(views, labels=turned(views.labels, way.camera_off))
        photos = dataclasses.replace(views, images=views.images[chosen], masks=views.masks[chosen], labels=views.labels[chosen])
        projection, settings = self._settings(way)
        pivot = self._project(photos, projection, variant)
        found = dict(before=look_round(self.G, pivot, views))
        tuning = Tuning(self.G, photos, pivot, self.perceptual, settings)
        with tuning.borrowed():
            for _ in cli.progress(tuning.steps(), total=settings.steps, desc=f"{variant}: tuning", leave=False):
                pass
            found["after"] = look_round(self.G, pivot, views)
        return {stage: {metric: [view[metric] for view in rows] for metric in METRICS} for stage, rows in found.items()}

    def asked(self, variant: str, views: Target) -> dict[str, Any]:
        """The photos and settings that determine the result of `run`, as JSON.  Changes of the code are not covered."""
        way = VARIANTS[variant]
        settings = [dataclasses.asdict(each) for each in self._settings(way)]
        return dict(
            views=digest_of_target(views), settings=settings, two_photos=way.two_photos, camera_off=list(way.camera_off)
        )

    def _settings(self, way: Variant) -> tuple[ProjectionSettings, TuningSettings]:
        return dataclasses.replace(self.projection, **way.projection), dataclasses.replace(self.tuning, **way.tuning)

    def _project(self, photos: Target, settings: ProjectionSettings, variant: str) -> Pivot:
        key = (digest_of_target(photos), settings)
        if key not in self._pivots:
            search = Projection(self.G, photos, self.perceptual, settings)
            for _ in cli.progress(search.steps(), total=settings.steps, desc=f"{variant}: projection", leave=False):
                pass
            self._pivots[key] = search.result()
        return self._pivots[key]


def table(records: dict[str, dict[str, Any]], variants: list[str]) -> list[str]:
    """Lines with PSNR / SSIM / IoU before and after tuning for each variant, with a column for each range of yaws.

    `records` holds the results of all heads: ``VARIANT/HEAD`` -> yaws, index of the input view, and what `Bench.run` returned.
    """
    columns = [INPUT, *(name for name, _ in SECTORS)]
    lines = ["PSNR dB / SSIM / mask IoU by |yaw| in degrees", "  ".join([f"{'':24}", *(f"{name:>17}" for name in columns)])]
    for variant in variants:
        mine = [record for key, record in records.items() if key.split("/")[0] == variant]
        for stage in ("before", "after") if mine else ():
            cells = []
            for column in columns:
                chosen = [
                    [record[stage][metric][index] for metric in METRICS]
                    for record in mine
                    for index, yaw in enumerate(record["yaws"])
                    if sector(yaw, index == record["input"]) == column
                ]
                cells.append(("{:5.2f}/{:.3f}/{:.3f}".format(*np.mean(chosen, axis=0)) if chosen else "-").rjust(17))
            lines.append("  ".join([f"{f'{variant}, {stage}':24}", *cells]))
    return lines


def _angles(views: Target) -> tuple[torch.Tensor, int]:
    """Yaws of the views in degrees, and the index of the most frontal one."""
    angles = camera_utils.yaw_pitch_roll_degrees(views.labels.cpu())
    return angles[:, 0], int(angles[:, :2].norm(dim=1).argmin())


@cli.command()
@click.option("--network", help="Network file or URL", metavar="PKL", required=True)
@click.option("--data", help="Held-out heads: img and seg, with a folder for each head", metavar="DIR", default=str(HELD_OUT))
@click.option("--outdir", help="Where to keep benchmark.json and benchmark.txt", metavar="DIR", required=True)
@click.option("--variants", help="Which variants to run", type=cli.Names(VARIANTS), default=",".join(VARIANTS))
@click.option("--heads", help="Number of heads  [default: all]", type=click.IntRange(min=1))
@click.option("--num-steps", help="Steps of the projection", type=click.IntRange(min=1), default=ProjectionSettings.steps)
@click.option("--num-steps-pti", help="Steps of the tuning", type=click.IntRange(min=0), default=TuningSettings.steps)
@click.option(
    "--lr-pti",
    help="Learning rate of the tuning",
    type=cli.FiniteFloat(min=0, min_open=True),
)
@click.option("--seed", help="Random seed", type=click.IntRange(min=0, max=2**31), default=ProjectionSettings.seed)
@click.option("--vgg", help="VGG16, as TorchScript or state dict", metavar="PATH|URL")
@click.option("--trust-pickle", help="Run code stored in the network file; only for files you trust", is_flag=True)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
def main(
    network: str,
    data: str,
    outdir: str,
    variants: list[str],
    heads: int | None,
    num_steps: int,
    num_steps_pti: int,
    lr_pti: float | None,
    seed: int,
    vgg: str | None,
    trust_pickle: bool,
    device: str | None,
) -> None:
    """Invert known heads from their frontal view and compare all views with the truth, with and without each option.

    Results are kept in OUTDIR/benchmark.json.  The same command resumes from there, and repeats only what changed in variants
    or photos.

    \b
    python -m pti.benchmark --network models/heads-128.pkl --outdir out/benchmark
    """
    machine = Machine(select_device(device), trust_pickle)
    source = TargetSource(data)
    if not source.has_masks:
        raise UserError(f"{data} has no masks beside its photos: give the folder that holds img and seg")
    groups = dict(list(heads_of(source).items())[:heads])
    perceptual = load_perceptual(vgg, device=machine.device)
    G = machine.load(network)
    path = make_output_dir(outdir) / "benchmark.json"
    asked = dict(network=digest_of_network(G), steps=[num_steps, num_steps_pti], lr_pti=lr_pti, seed=seed, vgg=vgg)
    records = _read(path, asked)
    tuning = TuningSettings(steps=num_steps_pti, learning_rate=lr_pti, seed=seed, **MASKED)
    bench = Bench(G, perceptual, ProjectionSettings(steps=num_steps, seed=seed, **MASKED), tuning)
    ways: dict[tuple[str, str], dict[str, Any]] = {}
    for head, photos in groups.items():
        views = source.load(photos, G.img_resolution)
        ways.update({(variant, head): bench.asked(variant, views) for variant in variants})
    todo = [
        (variant, head)
        for variant in variants
        for head in groups
        if records.get(f"{variant}/{head}", {}).get("asked") != ways[variant, head]
    ]
    for variant, head in cli.progress(todo, unit="head", desc="benchmark"):
        views = source.load(groups[head], G.img_resolution).to(machine.device)
        yaws, front = _angles(views)
        found = bench.run(variant, views)
        records[f"{variant}/{head}"] = dict(asked=ways[variant, head], yaws=yaws.tolist(), input=front, **found)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(dict(asked=asked, records=records)) + "\n", encoding="utf-8")
    lines = table({key: record for key, record in records.items() if key.split("/", 1)[1] in groups}, variants)
    with atomic_path(path.with_suffix(".txt")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _read(path: Path, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the records in benchmark.json, if there is one.  Raises UserError if they belong to other settings."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["asked"] == asked:
            return stored["records"]
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} belongs to another network or other numbers of steps; choose another --outdir")


if __name__ == "__main__":
    main()
