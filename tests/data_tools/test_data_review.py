"""Faulty data: what `train.py` refuses before the first step, and what it only reports."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from helpers import write_data_set

import camera_utils
import train
from data_tools.review import review
from dnnlib import UserError
from dnnlib.archive import Archive
from training.dataset import HeadDataset

YAWS = (-150, -90, -40, 35, 80, 120, 170, 60)


@pytest.fixture
def data_set(tmp_path):
    """A sound data set as two folders, into which tests plant faults."""
    folders = []
    for archive in write_data_set(tmp_path, YAWS):
        folder = tmp_path / archive.stem
        source = Archive(str(archive))
        for name in (*source.image_names(), *(["dataset.json"] if "img" in archive.stem else [])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read(name))
        folders.append(folder)
    return folders


def change_labels(images, change, count):
    """Replace the first `count` labels by the result of `change` for (cam2world, intrinsics)."""
    path = images / "dataset.json"
    labels = json.loads(path.read_text())["labels"]
    for entry in labels[:count]:
        cam2world, intrinsics = camera_utils.unpack_label(torch.tensor([entry[1]]))
        entry[1] = camera_utils.pack_label(*change(cam2world.clone(), intrinsics.clone()))[0].tolist()
    path.write_text(json.dumps(dict(labels=labels)))


def look(folders, **kwargs):
    return review(HeadDataset(*map(str, folders)), **kwargs)


def in_pixels(cam2world, intrinsics):
    intrinsics[:, :2] *= 512
    return cam2world, intrinsics


def world_to_camera(cam2world, intrinsics):
    return torch.linalg.inv(cam2world), intrinsics


def mirrored(cam2world, intrinsics):
    cam2world[:, :3, 0] *= -1
    return cam2world, intrinsics


def test_sound_data_is_not_remarked_on(data_set):
    assert look(data_set) == []


@pytest.mark.parametrize("change, words", [(in_pixels, "pixels"), (world_to_camera, "origin"), (mirrored, "mirror image")])
def test_cameras_that_nothing_can_be_learned_from_are_refused(data_set, change, words):
    change_labels(data_set[0], change, len(YAWS))
    with pytest.raises(UserError, match=words):
        look(data_set)
    assert any(words in line for line in look(data_set, accept=True))


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_odd_cameras_are_counted(data_set, count):
    change_labels(data_set[0], mirrored, count)
    assert any(line.startswith("label whose rotation is a mirror") and f"{count} of 8" in line for line in look(data_set))


def test_cameras_of_another_distance_are_said_and_train(data_set):
    def farther(cam2world, intrinsics):
        cam2world[:, :3, 3] *= 1.5
        return cam2world, intrinsics

    change_labels(data_set[0], farther, len(YAWS))
    (line,) = look(data_set)
    assert "radius" in line and "8 of 8" in line


@pytest.mark.parametrize("level, words", [(0, "no head"), (1, "0 and 1")])
def test_masks_that_nothing_can_be_learned_from_are_refused(data_set, level, words):
    for path in data_set[1].rglob("*.png"):
        mask = np.asarray(PIL.Image.open(path)) > 127
        PIL.Image.fromarray((mask * level).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match=words):
        look(data_set)


def test_train_refuses_before_anything_is_made(data_set, tmp_path, capsys):
    change_labels(data_set[0], in_pixels, len(YAWS))
    paths = ["--img_data", str(data_set[0]), "--seg_data", str(data_set[1]), "--outdir", str(tmp_path / "runs")]
    options = [*paths, "--cfg=ffhq", "--preset=cpu", "--batch=2", "--gpus=1", "--gamma=1", "--gamma_seg=1", "-n"]
    with pytest.raises(SystemExit) as refused:
        train.main(options)
    printed = capsys.readouterr()
    assert refused.value.code != 0 and "pixels" in printed.err and len(printed.err.strip().splitlines()) == 1
    with pytest.raises(SystemExit) as accepted:
        train.main([*options, "--accept-data", "true"])
    printed = capsys.readouterr()
    assert accepted.value.code == 0 and "Warning" in printed.err and "pixels" in printed.err
    assert not (tmp_path / "runs").exists()
