"""Cameras of the rendered heads: where they stand, what their labels say, and how far crops are off."""

import numpy as np
import pytest
import torch

import camera_utils
from demo.heads.views import FRAME_WIDTH, ViewRanges, fixed_views, plan_view, sample_views


def labels(plans):
    return torch.tensor([plan.label for plan in plans])


def test_the_frontal_camera_is_the_usual_one():
    plan = plan_view(0, 0, 0, np.zeros(3))
    assert torch.allclose(labels([plan]), camera_utils.orbit_label(0.0, 0.0), atol=1e-6)
    assert np.allclose(plan.cam2world, camera_utils.unpack_label(labels([plan]))[0][0])


def test_angles_are_those_of_the_camera_on_its_orbit():
    position = plan_view(90, 30, 0, np.zeros(3)).cam2world[:3, 3]
    assert np.allclose(position, 2.7 * np.array([np.cos(np.pi / 6), 0.5, 0]), atol=1e-6)
    angles = camera_utils.yaw_pitch_roll_degrees(labels([plan_view(-40, 0, 5, np.zeros(3)), plan_view(0, 20, -3, np.zeros(3))]))
    assert torch.allclose(angles, torch.tensor([[-40.0, 0.0, 5.0], [0.0, 20.0, -3.0]]), atol=1e-3)


def test_labels_are_rigid_and_exact_in_float32():
    plans = sample_views(np.random.default_rng(0), 50, ViewRanges())
    rotation = camera_utils.unpack_label(labels(plans))[0][:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)
    assert all(np.float32(number) == np.float64(np.float32(number)) for plan in plans for number in plan.label)
    assert all(len(str(number)) < 16 for plan in plans for number in plan.label)


def test_views_are_all_round_and_mostly_level():
    many = [sample_views(np.random.default_rng(seed), 6, ViewRanges()) for seed in range(300)]
    yaws = np.array([[plan.yaw for plan in plans] for plans in many])
    assert (np.floor((yaws + 180) / 60) == np.arange(6)).all()  # each in its own sixth of the circle
    pitches = np.array([plan.pitch for plans in many for plan in plans])
    assert np.abs(pitches).max() <= 30 and 10 < pitches.std() < 14 and abs(pitches.mean()) < 1
    rolls = np.array([plan.roll for plans in many for plan in plans])
    assert 1.5 < rolls.std() < 3 and np.abs(rolls).max() <= 5


def test_ranges_are_kept():
    plans = sample_views(np.random.default_rng(1), 40, ViewRanges(yaw=(-30, 10), pitch=(5, 5)))
    assert all(-30 <= plan.yaw <= 10 and plan.pitch == pytest.approx(5) for plan in plans)


def test_jitter_moves_the_camera_and_not_the_label():
    shaken = sample_views(np.random.default_rng(2), 300, ViewRanges(jitter=0.02))
    steady = sample_views(np.random.default_rng(2), 300, ViewRanges(jitter=0.0))
    assert [plan.label for plan in shaken] == [plan.label for plan in steady]
    assert all(plan.shift == (0, 0, 0) for plan in steady)
    origin, depth = camera_utils.project_points(labels(shaken), torch.zeros(1, 3))
    assert torch.allclose(origin, torch.full_like(origin, 0.5), atol=1e-4)
    moved = camera_utils.shift_label(labels(shaken), torch.tensor([plan.shift for plan in shaken]))
    assert np.allclose(camera_utils.unpack_label(moved)[0], [plan.cam2world for plan in shaken], atol=1e-6)
    seen, distance = camera_utils.project_points(moved, torch.zeros(1, 3))
    # A cut normal law of this deviation: 0.88 of it is left.
    assert (seen - 0.5).std(dim=0).flatten() / 0.02 == pytest.approx([0.88, 0.88], abs=0.15)
    assert (distance / 2.7 - 1).std().item() / 0.02 == pytest.approx(0.88, abs=0.15)
    assert (seen - 0.5).abs().max() <= 2 * 0.02 * 1.05


def test_a_frame_is_as_wide_as_the_label_sees():
    edge, _ = camera_utils.project_points(camera_utils.orbit_label(0.0, 0.0), torch.tensor([[FRAME_WIDTH / 2, 0.0, 0.0]]))
    assert edge[0, 0, 0].item() == pytest.approx(1.0, abs=1e-5)


def test_fixed_views_go_round_from_the_front():
    plans = fixed_views(12)
    assert [plan.yaw for plan in plans] == [0, 30, 60, 90, 120, 150, -180, -150, -120, -90, -60, -30]
    assert all(plan.roll == 0 and plan.shift == (0, 0, 0) for plan in plans)
    assert plans[0].pitch == 0 and len({plan.pitch for plan in plans}) > 3
    assert plans == fixed_views(12)
