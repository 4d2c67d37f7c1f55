"""Which augmentations also change the camera label."""

import math

import torch
from test_augment import BLITS, COLOUR, GEOMETRY, augment_with_labels, labels, only, pictures

from camera_utils import flip_label
from training.augment import AugmentPipe
from training.loss import StyleGAN2Loss


def test_labels_are_mirrored_exactly_where_pictures_are():
    given, given_labels = pictures(batch=64), labels(64)
    result, result_labels = augment_with_labels(only("xflip"), given, given_labels)
    mirrored = 0
    for i in range(64):
        if torch.equal(result["image"][i], given["image"][i]):
            assert torch.equal(result_labels[i], given_labels[i])
        else:
            mirrored += 1
            assert torch.equal(result["image"][i], given["image"][i].flip(2))
            assert torch.equal(result_labels[i], flip_label(given_labels[i]))
    assert 16 < mirrored < 48  # half of them at p = 1


def test_mirroring_goes_to_the_label_under_any_turn_and_shift():
    """Without scaling and colours, pixels only move, so the eight mirrored and rotated pictures show what was done."""
    given, given_labels = pictures(batch=64), labels(64)
    result, result_labels = augment_with_labels(only("xflip", "rotate90"), given, given_labels)
    seen = set()
    for i in range(64):
        sides = (given["image_mask"][i], given["image_mask"][i].flip(2))
        ((side, turns),) = [
            (side, turns)
            for side in (0, 1)
            for turns in range(4)
            if torch.equal(result["image_mask"][i], torch.rot90(sides[side], turns, dims=[1, 2]))
        ]
        seen.add((side, turns))
        assert torch.equal(result_labels[i], flip_label(given_labels[i]) if side else given_labels[i])
    assert len(seen) == 8


def test_nothing_but_mirroring_changes_labels():
    given_labels = labels(64)
    others = [name for name in (*BLITS, *GEOMETRY, *COLOUR) if name != "xflip"]
    _, result = augment_with_labels(only(*others), pictures(batch=64, size=8, raw=4), given_labels)
    assert torch.equal(result, given_labels)


def test_the_share_of_mirrored_labels_is_half_of_p():
    """The default pipe, with everything that follows the mirroring."""
    count, p = 4000, 0.6
    given_labels = labels(count)
    _, result = augment_with_labels(AugmentPipe(), pictures(batch=count, size=4, raw=4), given_labels, p)
    mirrored = (result != given_labels).any(dim=1)
    assert torch.equal(result[mirrored], flip_label(given_labels[mirrored]))
    assert abs(mirrored.float().mean().item() - p / 2) < 4 * math.sqrt(p / 2 * (1 - p / 2) / count)


def test_the_discriminator_gets_the_labels_of_the_augmented_pictures():
    pipe = only("xflip")
    given, given_labels = pictures(batch=16), labels(16)
    expected = augment_with_labels(pipe, given, given_labels)
    loss = StyleGAN2Loss("cpu", G=None, D=lambda *seen: seen, augment_pipe=pipe)
    torch.manual_seed(0)
    seen, seen_labels = loss.judge(given, given_labels)
    assert torch.equal(seen["image"], expected[0]["image"]) and torch.equal(seen_labels, expected[1])
    assert not torch.equal(seen_labels, given_labels)
