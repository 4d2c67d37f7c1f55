"""The schedules at their ends and in the middle."""

import pytest

from training import schedules


def test_blur_fades_linearly_to_nothing():
    assert [schedules.blur_sigma(n, 10, 100) for n in (0, 50_000, 100_000, 10**9)] == pytest.approx([10, 5, 0, 0])
    assert schedules.blur_sigma(0, 10, 0) == 0  # a fade of length 0 is complete


def test_pose_swapping_falls_from_always_to_its_final_probability():
    values = [schedules.pose_swap_probability(n, 0.7, 1000) for n in (0, 500_000, 1_000_000, 2_000_000)]
    assert values == pytest.approx([1, 0.85, 0.7, 0.7])
    assert schedules.pose_swap_probability(0, 0.7, 0) == pytest.approx(0.7)


def test_rendering_resolution_is_rounded_between_its_ends():
    values = [schedules.rendering_resolution(n, 64, 128, 1000) for n in (0, 10_000, 500_000, 1_000_000, 5_000_000)]
    assert values == [64, 65, 96, 128, 128]
    assert schedules.rendering_resolution(10**9, 64, None, 1000) == 64


def test_density_noise_fades_from_one():
    assert [schedules.density_noise(n, 200) for n in (0, 50_000, 200_000, 300_000)] == pytest.approx([1, 0.75, 0, 0])
    assert schedules.density_noise(0, 0) == 0


def test_ema_forgets_half_in_its_half_life():
    decay = schedules.ema_decay(10**9, 32, 10, None)
    assert decay ** (10_000 / 32) == pytest.approx(0.5)


def test_ema_rampup_shortens_the_half_life_early_on():
    assert schedules.ema_decay(0, 32, 10, 0.05) == pytest.approx(0)  # the first weights are copied
    assert schedules.ema_decay(20_000, 32, 10, 0.05) == pytest.approx(0.5 ** (32 / 1000))
    assert schedules.ema_decay(10**9, 32, 10, 0.05) == schedules.ema_decay(10**9, 32, 10, None)
