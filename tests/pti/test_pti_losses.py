"""Loss terms and schedules against their formulas."""

import math

import numpy as np
import pytest
import torch

from pti import losses, schedules
from pti.settings import PUBLISHED_RATE, SMALL_RATE, LossWeights, ProjectionSettings, TuningSettings


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.RandomState(seed).uniform(-1, 1, shape).astype(np.float32))


def difference(a, b):
    return (a - b).abs().mean()


def test_plain_terms_are_weighted_perceptual_and_squared_difference():
    image, target = noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=1)
    terms = losses.picture_terms(dict(image=image), target, None, difference, LossWeights(perceptual=2.0, mse=0.1))
    assert set(terms) == {"perceptual", "mse"}
    assert terms["perceptual"].item() == pytest.approx(2 * np.abs(image.numpy() - target.numpy()).mean(), rel=1e-5)
    assert terms["mse"].item() == pytest.approx(0.1 * ((image.numpy() - target.numpy()) ** 2).mean(), rel=1e-5)


def test_masked_terms_weigh_the_head():
    image, target = noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=1)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    seen = dict(image=image, image_mask=torch.full([1, 1, 4, 4], 0.25))
    terms = losses.picture_terms(seen, target, mask, difference, LossWeights(silhouette=3.0, background=0.5))
    error = (image - target).numpy()
    assert terms["perceptual"].item() == pytest.approx(np.abs(error[..., :4]).sum() / error.size, rel=1e-5)
    expected = ((error[..., :4] ** 2).sum() + 0.5 * (error[..., 4:] ** 2).sum()) / (error.size / 2 * 1.5)
    assert terms["mse"].item() == pytest.approx(0.1 * expected, rel=1e-5)
    assert terms["silhouette"].item() == pytest.approx(3 * (0.75**2 + 0.25**2) / 2, rel=1e-5)


def test_a_network_without_masks_has_no_silhouette():
    image = noise(1, 3, 8, 8)
    terms = losses.picture_terms(dict(image=image), image, torch.ones(1, 1, 8, 8), difference, LossWeights())
    assert {name: value.item() for name, value in terms.items()} == dict(perceptual=0, mse=0)


def test_w_distance_is_a_mean_over_all_entries():
    ws, mean = noise(1, 4, 6), noise(6, seed=1)
    assert losses.w_distance(ws, mean).item() == pytest.approx(((ws - mean).numpy() ** 2).mean(), rel=1e-5)


def test_noise_correlation_is_that_of_neighbours_at_every_scale():
    picture = noise(16, 16).numpy().astype(np.float64)
    expected = 0.0
    for scale in (picture, picture.reshape(8, 2, 8, 2).mean(axis=(1, 3))):
        expected += sum((scale * np.roll(scale, 1, axis)).mean() ** 2 for axis in (0, 1))
    found = losses.noise_correlation([torch.from_numpy(picture).float(), torch.from_numpy(picture).float()])
    assert found.item() == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize(
    "t, expected",
    [(0, 0), (0.025, 0.05), (0.05, 0.1), (0.5, 0.1), (0.75, 0.1), (0.875, 0.05), (0.998, 0.1 * math.sin(0.004 * math.pi) ** 2)],
)
def test_learning_rate_rises_and_falls_as_published(t, expected):
    assert schedules.learning_rate(t, ProjectionSettings()) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("t, expected", [(0, 0), (0.1, 0.01), (0.2, 0.01), (0.3, 0.005), (0.4, 0), (0.5, 0)])
def test_cameras_move_only_while_layers_share_one_w(t, expected):
    assert schedules.pose_rate(t, ProjectionSettings()) == pytest.approx(expected, abs=1e-7)
    assert schedules.pose_rate(t, ProjectionSettings(w_until=0, refine_pose=False)) == 0


@pytest.mark.parametrize("t, expected", [(0, 1), (0.75, 1), (0.875, 0.5), (1, 0)])
def test_the_rate_of_tuning_falls_at_the_end(t, expected):
    assert schedules.fall(t, 0.25) == pytest.approx(expected, abs=1e-7)
    assert schedules.fall(t, 0.0) == 1  # as published


def test_small_networks_are_tuned_faster():
    assert TuningSettings().rate(128) == SMALL_RATE and TuningSettings().rate(512) == PUBLISHED_RATE
    assert TuningSettings(learning_rate=0.1).rate(128) == TuningSettings(learning_rate=0.1).rate(512) == 0.1


@pytest.mark.parametrize("t, expected", [(0, 0.5), (0.375, 0.125), (0.75, 0), (0.9, 0)])
def test_w_noise_falls_with_the_square_of_time(t, expected):
    assert schedules.w_noise(t, 10.0, ProjectionSettings()) == pytest.approx(expected)


def test_plateau_is_reached_only_without_progress():
    falling, flat, never = schedules.Plateau(5), schedules.Plateau(5), schedules.Plateau(0)
    assert not any(falling.reached(0.9**step) for step in range(50))
    assert [flat.reached(1.0) for _ in range(7)] == [False] * 5 + [True] * 2
    assert not any(never.reached(1.0) for _ in range(50))
