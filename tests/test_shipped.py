"""The files that the repository ships: the sets of heads, and the network trained on them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import camera_utils
import dataset_tool_seg
from demo.scores.held_out import load_held_out
from pti.benchmark import turned
from pti.perceptual import load_perceptual
from pti.projector import Projection
from pti.settings import ProjectionSettings
from pti.targets import TargetSource
from training.dataset import HeadDataset
from training.loading import load_network
from training.superresolution import resize

ROOT = Path(__file__).parent.parent
DATA = ROOT / "dataset"
MODEL = ROOT / "models" / "heads-128.pkl"
SETS = {  # name -> images, masks, heads, views of each, pixels, megabytes at most
    "training": (DATA / "heads-128" / "img.zip", DATA / "heads-128" / "seg.zip", 480, 6, 128, 18),
    "held-out": (DATA / "heads-128-held-out" / "img.zip", DATA / "heads-128-held-out" / "seg.zip", 24, 12, 128, 4),
    "test": (DATA / "testdata_img", DATA / "testdata_seg", 8, 5, 512, 3),
}


def size(path):
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


@pytest.mark.parametrize("name", SETS)
def test_a_shipped_set_is_sound(name, tmp_path):
    images, masks, heads, views, resolution, megabytes = SETS[name]
    sources = [f"--img_source={images}", f"--seg_source={masks}"]
    outcome = CliRunner().invoke(dataset_tool_seg.main, ["--check", *sources, f"--sheet={tmp_path / 'sheet.png'}"])
    assert outcome.exit_code == 0, outcome.output
    dataset = HeadDataset(str(images), str(masks))
    assert dataset.resolution == resolution and len(dataset) == heads * views
    assert sum(map(size, {images.parent} if images.suffix == ".zip" else {images, masks})) < megabytes * 2**20


def test_the_sets_have_no_head_in_common():
    """People are determined by seed and number, and the three sets have different seeds."""
    seeds = [json.loads((DATA / name / "options.json").read_text())["seed"] for name in ("heads-128", "heads-128-held-out")]
    assert len(set(seeds)) == len(seeds)


def test_the_held_out_set_knows_its_truth():
    truth = load_held_out(DATA / "heads-128-held-out")
    inside = truth.masks > 0.9
    assert np.isfinite(truth.depths[inside]).mean() > 0.99 and np.isinf(truth.depths[truth.masks == 0]).all()
    nearest, farthest = truth.depths[inside].min(), truth.depths[inside & np.isfinite(truth.depths)].max()
    assert camera_utils.DEFAULT_RADIUS - 0.7 < nearest < farthest < camera_utils.DEFAULT_RADIUS + 0.7


def test_the_shipped_network_makes_heads_from_all_sides():
    """From each held-out view, masks are where those of the data are, and front and back have different colours."""
    assert MODEL.stat().st_size <= 16 * 2**20
    generator = load_network(MODEL)
    truth = load_held_out(DATA / "heads-128-held-out")
    views = len(truth.heads) // len(set(truth.heads))
    zs = torch.from_numpy(np.random.RandomState(0).randn(8, generator.z_dim)).float()
    with torch.inference_mode():
        for view in range(views):
            made = generator(zs, truth.labels[view].expand(len(zs), -1), noise_mode="const")
            assert made["image"].shape == (len(zs), 3, 128, 128) and made["image"].isfinite().all()
            masks = resize(made["image_mask"], 128, antialias=True).mean(dim=0)[0].numpy()
            assert np.abs(masks - truth.masks[view::views].mean(axis=0)).mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("index, off", [(0, (3.5, 2.0)), (12, (-3.5, -2.0))])
def test_inversion_finds_a_camera_that_is_off(index, off):
    """For the front view of an unknown head, a camera error as large as that of landmarks is at least halved."""
    generator = load_network(MODEL)
    photo = TargetSource(str(DATA / "heads-128-held-out")).load([index], generator.img_resolution)
    wrong = dataclasses.replace(photo, labels=turned(photo.labels, off))
    settings = ProjectionSettings(steps=200, w_until=1.0, mask=True, refine_pose=True)
    search = Projection(generator, wrong, load_perceptual(None), settings)
    for _ in search.steps():
        pass
    true, before, after = (
        camera_utils.yaw_pitch_roll_degrees(labels[0]) for labels in (photo.labels, wrong.labels, search.result().labels)
    )
    assert (before - true).norm() > 4 and (after - true).norm() < (before - true).norm() / 2
