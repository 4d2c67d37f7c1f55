"""dataset_tool_seg.py --check: sound sets pass, and each fault of a broken one is named."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import camera_utils
import dataset_tool_seg
from camera_utils import orbit_label
from data_tools import contact_sheet
from data_tools.report import SHEET_SAMPLES, label_faults, yaw_histogram

YAWS = [-170, -100, -40, -5, 5, 50, 130, 175]  # degrees


@pytest.fixture
def data(tmp_path):
    """A sound data set of pictures from all sides in img/ and seg/."""
    for place in ("img", "seg"):
        (tmp_path / place).mkdir()
    for index in range(len(YAWS)):
        Image.new("RGB", (32, 32), (20 * index, 90, 90)).save(tmp_path / "img" / f"{index}.png")
        Image.new("L", (32, 32), 255).save(tmp_path / "seg" / f"{index}.png")
    write_labels(tmp_path, sound_labels())
    return tmp_path


def sound_labels():
    return {f"{index}.png": orbit_label(math.radians(yaw), 0.1)[0].tolist() for index, yaw in enumerate(YAWS)}


def write_labels(place, labels):
    (place / "img" / "dataset.json").write_text(json.dumps({"labels": list(labels.items())}))


def check(place, *options):
    arguments = [
        "--check",
        "--img_source",
        str(place / "img"),
        "--seg_source",
        str(place / "seg"),
        "--sheet",
        str(place / "sheet.png"),
    ]
    return CliRunner().invoke(dataset_tool_seg.main, [*arguments, *options])


def test_a_sound_set_is_sound(data):
    result = check(data)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "sound: no faults found" in lines
    assert any("8 of 32x32" in line for line in lines)
    assert "radius 2.700 to 2.700" in result.output and "note" not in result.output
    columns = min(len(YAWS), contact_sheet.COLUMNS)
    with Image.open(data / "sheet.png") as sheet:
        assert sheet.size == (columns * contact_sheet.CELL, contact_sheet.CELL + contact_sheet.CAPTION_HEIGHT)


def test_every_fault_is_named(data):
    labels = sound_labels()
    labels["1.png"] = labels["1.png"][:24]
    del labels["2.png"]
    labels["ghost.png"] = labels["3.png"]
    labels["4.png"][0] = math.nan
    write_labels(data, labels)
    (data / "seg" / "0.png").unlink()
    (data / "img" / "5.png").write_text("no picture")
    Image.new("RGB", (16, 16)).save(data / "img" / "6.png")
    Image.new("L", (32, 32)).save(data / "seg" / "7.png")
    result = check(data)
    assert result.exit_code == 1
    for line in (
        "label that is not 25 numbers: 1 (1.png (24))",
        "image without a label: 1 (2.png)",
        "label without an image: 1 (ghost.png)",
        "label with numbers that are not finite: 1 (4.png)",
        "image without a mask: 1 (0.png)",
        "image that cannot be read: 1 (5.png: not a picture)",
        "image of another size than most (32x32): 1",
        "mask that marks no head: 1 (7.png)",
    ):
        assert line in result.output
    assert "\nnot sound: 8 faults\n" in result.output


def test_masks_of_classes_are_named(data):
    for name, most in (("0", 1), ("1", 3)):
        Image.fromarray((np.arange(32, dtype=np.uint8) % (most + 1))[None].repeat(32, 0)).save(data / "seg" / f"{name}.png")
    output = check(data).output
    assert "mask of 0 and 1 instead of 0 and 255: 1 (0.png)" in output and "mask that is a map of classes: 1 (1.png)" in output


def test_a_set_without_labels_is_not_sound(data):
    (data / "img" / "dataset.json").unlink()
    result = check(data)
    assert result.exit_code == 1 and "data set without labels: 1" in result.output and (data / "sheet.png").exists()


def test_sizes_that_training_refuses_are_noted(data):
    for index in range(len(YAWS)):
        Image.new("RGB", (30, 30)).save(data / "img" / f"{index}.png")
        Image.new("L", (30, 30), 255).save(data / "seg" / f"{index}.png")
    result = check(data)
    assert result.exit_code == 0 and "note: 30x30 is no square power of two" in result.output


def test_the_sheet_has_a_name_by_default(data, monkeypatch):
    monkeypatch.chdir(data)
    arguments = ["--check", "--img_source", "img", "--seg_source", "seg"]
    assert CliRunner().invoke(dataset_tool_seg.main, arguments).exit_code == 0
    assert (data / "img_check.png").exists()


def test_a_sheet_that_is_no_picture_is_refused(data):
    result = check(data, "--sheet", str(data / "sheet.txt"))
    assert result.exit_code == 2 and "must end in .png or .jpg" in result.output


def test_a_source_without_pictures_is_refused(data):
    for path in (data / "seg").iterdir():
        path.unlink()
    result = check(data)
    assert result.exit_code == 1 and "contains no pictures" in result.output and not (data / "sheet.png").exists()


def changed(entry, value):
    label = orbit_label(0.4, -0.2).to(torch.float64)
    label[0, entry] = value
    return label


def opengl_axes():
    label = orbit_label(0.4, -0.2).to(torch.float64)
    for column in (1, 2):
        label[0, [column, column + 4, column + 8]] *= -1
    return label


def mirrored():
    label = orbit_label(0.4, -0.2).to(torch.float64)
    label[0, [0, 4, 8]] *= -1
    return label


@pytest.mark.parametrize(
    "label, kinds",
    [
        (orbit_label(2.5, 0.3).to(torch.float64), []),
        (changed(16, 4.2), []),
        (changed(16, 3.0), ["focal"]),
        (changed(18, 0.6), ["principal"]),
        (changed(17, 0.1), ["skew"]),
        (changed(24, 2.0), ["last row"]),
        (changed(12, 0.5), ["fourth row"]),
        (changed(0, 0.95), ["orthonormal"]),
        (mirrored(), ["mirror"]),
        (opengl_axes(), ["does not see"]),
        (orbit_label(0.4, 0, radius=4.0).to(torch.float64), ["radius"]),
    ],
)
def test_each_fault_of_a_label(label, kinds):
    found = [kind for kind, flags in label_faults(label).items() if flags.item()]
    assert len(found) == len(kinds) and all(part in kind for part, kind in zip(kinds, found)), found


def test_yaw_histogram_counts_every_angle():
    lines = yaw_histogram(torch.tensor([-180.0, -1, 0, 1, 2, 180]))
    counts = [int(line.split()[3]) for line in lines]
    assert len(lines) == 24 and sum(counts) == 6
    assert counts[0] == 1 and counts[11:13] == [1, 3] and counts[-1] == 1
    assert lines[12].count("#") == 40 and lines[11].count("#") == 14


def test_points_are_projected_where_the_camera_sees_them():
    label = orbit_label(0.0, 0.0)
    places, depth = camera_utils.project_points(
        label, torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.7], [0, 0, 3]])
    )
    shift = 4.2647 * 0.1 / 2.7
    expected = torch.tensor([[0.5, 0.5], [0.5 + shift, 0.5], [0.5, 0.5 - shift], [0.5, 0.5]])
    torch.testing.assert_close(places[0, :4], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(depth[0], torch.tensor([2.7, 2.7, 2.7, 2.0, -0.3]), atol=1e-5, rtol=0)


def test_a_large_set_is_sampled_evenly_by_yaw(tmp_path):
    count = SHEET_SAMPLES * 2 + 1
    for place, mode in (("img", "RGB"), ("seg", "L")):
        (tmp_path / place).mkdir()
        for index in range(count):
            Image.new(mode, (8, 8), "white").save(tmp_path / place / f"{index}.png")
    write_labels(tmp_path, {f"{index}.png": orbit_label(0.01 * index, 0.0)[0].tolist() for index in range(count)})
    result = check(tmp_path)
    assert result.exit_code == 0 and f"contact sheet of {SHEET_SAMPLES}" in result.output


def test_the_cell_shows_mask_axes_and_faults():
    mask = Image.fromarray(np.pad(np.full((60, 60), 255, np.uint8), 20))
    photo = Image.new("RGB", (100, 100), (200, 200, 200))
    label = orbit_label(0.5, 0.2)[0]
    sound, faulty = (contact_sheet.draw_cell(photo, mask, label, "a.png", is_faulty) for is_faulty in (False, True))
    assert (sound[5, 5] != 200).all() and tuple(sound[200, 200]) == (200, 200, 200)  # shaded outside, as it is inside
    assert (sound == contact_sheet.OUTLINE_COLOUR).all(-1).any()
    assert (sound == (255, 64, 64)).all(-1).any() and (sound == (80, 128, 255)).all(-1).any()
    assert (faulty[0] == (255, 32, 32)).all() and not (sound[0] == (255, 32, 32)).all()
