"""Heads as the real renderer makes them, small: a sound data set, the same each time, and true to its mesh and depth."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("anny", reason="anny is not installed: pip install -e .[heads]")
pytest.importorskip("mitsuba", reason="mitsuba is not installed: pip install -e .[heads]")

import camera_utils
import dataset_tool_seg
from demo import render_heads
from demo.heads import truth
from demo.heads.output import SetOptions
from demo.heads.views import ViewRanges

pytestmark = pytest.mark.slow

RESOLUTION = 64
# Bald: hair is not in the mesh.
OPTIONS = SetOptions(
    identities=2, views=3, resolution=RESOLUTION, seed=3, spp=8, format="jpg", truth=True, style="bald", ranges=ViewRanges()
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The folder of two bald people from three sides."""
    folder = tmp_path_factory.mktemp("heads") / "set"
    render_heads.render_set(folder, OPTIONS, processes=2)
    return folder


def test_the_data_set_tool_finds_no_fault(rendered, tmp_path):
    sources = ["--img_source", str(rendered / "img"), "--seg_source", str(rendered / "seg")]
    result = CliRunner().invoke(dataset_tool_seg.main, ["--check", *sources, "--sheet", str(tmp_path / "check.png")])
    assert result.exit_code == 0 and "6 of 64x64" in result.output, result.output


def test_it_is_the_same_each_time(rendered, tmp_path):
    render_heads.render_set(tmp_path / "again", OPTIONS, processes=1)
    files = [path.relative_to(rendered) for path in rendered.rglob("*") if path.is_file()]
    assert len(files) == 6 * 3 + 2 * 2 + 3
    assert [name for name in files if (rendered / name).read_bytes() != (tmp_path / "again" / name).read_bytes()] == []


@pytest.mark.parametrize("number", range(OPTIONS.identities))
def test_the_mesh_seen_by_the_cameras_is_the_mask_and_the_depth(rendered, number):
    vertices, triangles = read_ply(rendered / f"truth/{number:05d}/head.ply")
    person = json.loads((rendered / f"people/{number:05d}.json").read_text())
    for view, name in zip(person["views"], OPTIONS.view_names(number), strict=True):
        label = camera_utils.shift_label(torch.tensor(view["label"]), torch.tensor(view["shift"]))
        depth = depth_of_mesh(vertices, triangles, label)
        mask = np.asarray(Image.open(rendered / f"seg/{name}.png")) > 127
        assert (mask & (depth > 0)).sum() / (mask | (depth > 0)).sum() > 0.97
        with Image.open(rendered / f"truth/{name}.png") as image:
            true_depth = truth.read_depth(image)
        both = (depth > 0) & (true_depth > 0)
        errors = np.abs(depth - true_depth)[both]
        # Half a step of the file; brows stand a little before the skin, and silhouettes fall on either side.
        assert np.median(errors) < 0.6 / truth.DEPTH_STEPS and np.mean(errors > 0.005) < 0.02


def read_ply(path):
    header, data = path.read_bytes().split(b"end_header\n")
    counts = [int(line.split()[-1]) for line in header.decode().splitlines() if line.startswith("element")]
    vertices = np.frombuffer(data, "<f4", 3 * counts[0]).reshape(-1, 3)
    rows = np.frombuffer(data, [("count", "u1"), ("corners", "<i4", 3)], counts[1], 12 * counts[0])
    return vertices, rows["corners"]


def depth_of_mesh(vertices, triangles, label):
    """Depths [r, r] at the middles of pixels, 0 where no triangle is."""
    places, depths = camera_utils.project_points(label[None].double(), torch.tensor(vertices, dtype=torch.float64))
    corners = places[0].numpy()[triangles] * RESOLUTION - 0.5  # the middles of pixels are whole numbers
    inverse = 1 / depths[0].numpy()[triangles]  # linear in the picture
    first, last = np.ceil(corners.min(1)).astype(int), np.floor(corners.max(1)).astype(int)
    nearest = np.zeros([RESOLUTION, RESOLUTION])
    for dx, dy in np.ndindex(*(last - first).max(0) + 1):
        pixel = first + (dx, dy)
        kept = np.flatnonzero(((pixel <= last) & (pixel >= 0) & (pixel < RESOLUTION)).all(1))
        a, b, c = (corners[kept, k] - pixel[kept] for k in range(3))
        areas = np.stack([cross(b, c), cross(c, a), cross(a, b)], axis=1)
        total = areas.sum(1)
        inside = ((areas >= 0).all(1) | (areas <= 0).all(1)) & (total != 0)
        value = (areas[inside] * inverse[kept[inside]]).sum(1) / total[inside]
        np.maximum.at(nearest, tuple(pixel[kept[inside]].T[::-1]), value)
    return np.divide(1, nearest, out=np.zeros_like(nearest), where=nearest > 0)


def cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
