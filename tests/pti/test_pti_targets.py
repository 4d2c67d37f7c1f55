"""Photos from folders: sizes, names, and everything that does not match in one line."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib import UserError
from pti.targets import TargetSource


@pytest.fixture
def copy(photos, tmp_path):
    """The photos in a folder that may be changed, named as data sets are."""
    shutil.copytree(photos / "img", tmp_path / "some_img")
    shutil.copytree(photos / "seg", tmp_path / "some_seg")
    return tmp_path


def test_photos_masks_and_cameras(photos):
    target = TargetSource(str(photos)).load([0, 2], 64)
    assert target.name == "000+1"
    assert target.images.shape == (2, 3, 64, 64) and target.masks.shape == (2, 1, 64, 64) and target.labels.shape == (2, 25)
    with PIL.Image.open(photos / "img" / "00007" / "002.png") as image:
        pixels = np.asarray(image).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)) / 127.5 - 1
    np.testing.assert_allclose(target.images[1].permute(1, 2, 0), pixels, atol=1.01 / 127.5)  # Pillow rounds rows, then columns
    assert target.masks[0, 0, 32, 32] == 1 and target.masks[0, 0, 0, 0] == 0


def test_masks_are_found_beside_the_photos_or_where_they_are_said_to_be(copy):
    assert TargetSource(str(copy / "some_img")).load([0], 64).masks is not None
    (copy / "some_seg").rename(copy / "elsewhere")
    assert TargetSource(str(copy / "some_img")).load([0], 64).masks is None
    assert TargetSource(str(copy / "some_img"), str(copy / "elsewhere")).load([0], 64).masks is not None


def test_masks_are_found_from_inside_the_folder(copy, monkeypatch):
    monkeypatch.chdir(copy / "some_img")
    assert TargetSource(".").load([0], 64).masks is not None


def test_a_folder_may_hold_both_as_zips(photos, tmp_path):
    for name in ("img", "seg"):
        shutil.make_archive(str(tmp_path / name), "zip", photos / name)
    folders, zips = TargetSource(str(photos)), TargetSource(str(tmp_path))
    assert zips.names == folders.names
    assert torch.equal(zips.load([1], 64).masks, folders.load([1], 64).masks)


def test_photos_of_one_name_are_called_by_their_folders(copy):
    content = json.loads((copy / "some_img" / "dataset.json").read_text())
    shutil.copytree(copy / "some_img" / "00007", copy / "some_img" / "00008")
    shutil.copytree(copy / "some_seg" / "00007", copy / "some_seg" / "00008")
    content["labels"] += [[name.replace("00007", "00008"), label] for name, label in content["labels"]]
    (copy / "some_img" / "dataset.json").write_text(json.dumps(content))
    assert TargetSource(str(copy / "some_img")).load([4], 64).name == "00008-001"


def spoil_label(folder):
    content = json.loads((folder / "some_img" / "dataset.json").read_text())
    content["labels"][1][1] = content["labels"][1][1][:-1]
    (folder / "some_img" / "dataset.json").write_text(json.dumps(content))


def drop_label(folder):
    content = json.loads((folder / "some_img" / "dataset.json").read_text())
    (folder / "some_img" / "dataset.json").write_text(json.dumps(dict(labels=content["labels"][1:])))


def no_square(folder):
    PIL.Image.new("RGB", (60, 50)).save(folder / "some_img" / "00007" / "000.png")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "some_img" / "dataset.json").unlink(), "has no dataset.json .*dataset_tool_photo.py"),
        (drop_label, "does not match: it lacks 1 of 3 photos, such as 00007/000.png"),
        (spoil_label, "00007/001.png has no 25 finite numbers"),
        (lambda folder: (folder / "some_seg" / "00007" / "001.png").unlink(), "1 of 3 photos have no mask, such as 00007/001"),
        (lambda folder: shutil.rmtree(folder / "some_img" / "00007"), "contains no pictures"),
        (no_square, "00007/000.png is 60x50, but labels describe cameras of squares"),
        (lambda folder: (folder / "some_img" / "00007" / "000.png").write_bytes(b"x"), "cannot read 00007/000.png"),
    ],
)
def test_what_does_not_match_is_one_clear_line(copy, spoil, message):
    spoil(copy)
    with pytest.raises(UserError, match=message):
        TargetSource(str(copy / "some_img")).load([0], 64)


def test_photos_that_are_not_there(photos):
    with pytest.raises(UserError, match="--idx 3: .* has photos 0 to 2"):
        TargetSource(str(photos)).load([3], 64)
    with pytest.raises(UserError, match="no such folder"):
        TargetSource(str(photos / "nowhere"))


def test_moving_to_a_device_keeps_what_there_is(photos):
    target = TargetSource(str(photos)).load([0], 64)
    assert torch.equal(target.to("cpu").images, target.images) and target.to("cpu").name == target.name
