"""The training data: pairing, labels, the yaw filter, repetition, mirroring, and the order."""

import itertools
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
from helpers import write_data_set

import camera_utils
from dnnlib import UserError
from training.dataset import HeadDataset, ShareSampler, global_order, select_views


def labels_at(yaws):
    return torch.cat([camera_utils.orbit_label(math.radians(yaw), 0.0) for yaw in yaws]).numpy()


def test_items_are_pictures_masks_and_cameras(head_data):
    dataset = HeadDataset(*map(str, head_data))
    assert (len(dataset), dataset.resolution) == (6, 128)
    image, mask, label = dataset[1]
    assert (image.shape, image.dtype) == ((3, 128, 128), np.uint8)
    assert (mask.shape, mask.dtype) == ((1, 128, 128), np.uint8)
    assert set(np.unique(mask)) == {0, 255}
    assert (image[:, mask[0] == 255].T == (200, 150, 120)).all()
    assert np.allclose(label, camera_utils.orbit_label(math.radians(30), 0.0)[0])


def test_mirrored_items_come_last_with_mirrored_labels(head_data):
    dataset = HeadDataset(*map(str, head_data), mirror=True)
    assert len(dataset) == 12
    for index in range(6):
        (image, mask, label), (image_m, mask_m, label_m) = dataset[index], dataset[index + 6]
        assert np.array_equal(image_m, image[:, :, ::-1]) and np.array_equal(mask_m, mask[:, :, ::-1])
        assert np.array_equal(label_m, camera_utils.flip_label(torch.from_numpy(label)).numpy())
        assert np.array_equal(label_m, dataset.label(index + 6))  # generated views follow the same rule as real ones


def test_labels_given_out_are_copies(head_data):
    dataset = HeadDataset(*map(str, head_data))
    dataset.label(0)[:] = 0
    assert dataset.label(0).any()


def test_yaw_filter_keeps_both_ends_and_repeats_views_from_behind():
    labels = labels_at([0, 45, -45, 89, 91, -120, 179])
    assert select_views(labels, 0, 180, 1).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert select_views(labels, 40, 92, 1).tolist() == [1, 2, 3, 4]
    assert select_views(labels, 0, 180, 3).tolist() == [0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    assert select_views(labels, 100, 180, 2).tolist() == [5, 5, 6, 6]  # from min_yaw on, where that is over 90


def test_a_filter_that_leaves_nothing_is_refused(head_data):
    with pytest.raises(UserError, match="min_yaw"):
        HeadDataset(*map(str, head_data), min_yaw=61, max_yaw=99)


def test_it_travels_to_other_processes(head_data):
    dataset = HeadDataset(*map(str, head_data))
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[3][0], dataset[3][0])


def test_missing_masks_and_labels_are_named(head_data, tmp_path):
    images, masks = head_data
    shutil.unpack_archive(images, tmp_path / "img")
    shutil.unpack_archive(masks, tmp_path / "seg")
    (tmp_path / "seg/00000/img00000002.png").unlink()
    with pytest.raises(UserError, match="img00000002.png"):
        HeadDataset(str(tmp_path / "img"), str(tmp_path / "seg"))
    with pytest.raises(UserError, match="masks .* have no image"):
        (tmp_path / "img/00000/img00000002.png").unlink()
        HeadDataset(str(tmp_path / "img"), str(masks))
    (tmp_path / "img/dataset.json").unlink()
    with pytest.raises(UserError, match="no labels"):
        HeadDataset(str(tmp_path / "img"), str(tmp_path / "seg"))


def test_sizes_must_be_powers_of_two(tmp_path):
    with pytest.raises(UserError, match="100x100.*power of two"):
        HeadDataset(*map(str, write_data_set(tmp_path, [0], resolution=100)))


def test_every_item_comes_once_per_round_in_a_new_order():
    rounds = np.array(list(itertools.islice(global_order(0, 10, seed=1), 50))).reshape(5, 10)
    assert (np.sort(rounds, axis=1) == np.arange(10)).all()
    assert len({tuple(r) for r in rounds}) == 5
    assert list(itertools.islice(global_order(0, 10, seed=2), 10)) != rounds[0].tolist()


@pytest.mark.parametrize("start", [0, 3, 10, 27])
def test_the_order_can_be_taken_up_anywhere(start):
    whole = list(itertools.islice(global_order(0, 10, seed=1), 60))
    assert list(itertools.islice(global_order(start, 10, seed=1), 20)) == whole[start : start + 20]


def test_shares_of_all_processes_make_up_the_whole():
    whole = list(itertools.islice(global_order(0, 7, seed=5), 24))
    shares = [list(itertools.islice(iter(ShareSampler(7, 2, share, 3, seed=5)), 8)) for share in range(3)]
    merged = [index for run in range(4) for share in shares for index in share[2 * run : 2 * run + 2]]
    assert merged == whole


def test_a_damaged_picture_is_named(head_data, tmp_path):
    shutil.unpack_archive(head_data[0], tmp_path / "img")
    (tmp_path / "img/00000/img00000003.png").write_bytes(b"not a picture")
    dataset = HeadDataset(str(tmp_path / "img"), str(head_data[1]))
    with pytest.raises(UserError, match="img00000003.png.*not a picture"):
        dataset[3]
