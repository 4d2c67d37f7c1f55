"""Cameras: golden records, round trips, signs; a flipped label is the label of the mirrored picture."""

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import camera_utils
from camera_utils import FRONT, LookAtPoseSampler
from training.rendering_settings import RenderingSettings
from training.volumetric_rendering import ray_sampler, renderer

GOLDEN = np.load(Path(__file__).parent / "golden" / "cameras.npz")


def relative_error(result, expected):
    expected = torch.as_tensor(expected)
    return float((result - expected).norm() / expected.norm())


def random_labels(count=8):
    """Labels of cameras anywhere around the head, off its centre and rolled."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand([count, 3], generator=generator) * 2 - 1
    labels = []
    for yaw, pitch, roll in angles.tolist():
        pose = LookAtPoseSampler.sample(FRONT + 3 * yaw, FRONT + pitch, (0.1, -0.05, 0.2), radius=2.7)
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
        labels.append(camera_utils.pack_label(pose @ turn, camera_utils.intrinsics_from_focal()))
    return torch.cat(labels)


# Golden records


@pytest.mark.parametrize("index", range(4))
def test_look_at_matrices(index):
    h, v, x, y, z, radius = GOLDEN[f"lookat_{index}_args"].tolist()
    pose = LookAtPoseSampler.sample(h, v, (x, y, z), radius=radius)
    assert relative_error(pose, GOLDEN[f"lookat_{index}"]) < 1e-4


def test_intrinsics_of_a_field_of_view():
    intrinsics = camera_utils.FOV_to_intrinsics(camera_utils.DEFAULT_FOV_DEGREES)
    assert relative_error(intrinsics, GOLDEN["fov_18_837"]) < 1e-4


def test_yaw_pitch_roll_of_labels():
    result = camera_utils.yaw_pitch_roll_degrees(torch.as_tensor(GOLDEN["labels"]))
    difference = (result - torch.as_tensor(GOLDEN["yaw_pitch_roll_deg"]) + 180) % 360 - 180  # -180 and 180 are one angle
    assert difference.norm() / np.linalg.norm(GOLDEN["yaw_pitch_roll_deg"]) < 1e-4


# Labels


def test_pack_and_unpack_are_inverse():
    labels = random_labels()
    pose, intrinsics = camera_utils.unpack_label(labels)
    assert pose.shape == (8, 4, 4) and intrinsics.shape == (8, 3, 3)
    assert torch.equal(camera_utils.pack_label(pose, intrinsics), labels)
    assert torch.equal(pose[0].flatten(), labels[0, :16])  # row-major


def test_pack_shares_one_matrix_of_intrinsics():
    pose = torch.eye(4).expand(2, 3, 4, 4)
    labels = camera_utils.pack_label(pose, camera_utils.intrinsics_from_focal(2.0))
    assert labels.shape == (2, 3, camera_utils.LABEL_DIM)
    assert labels[1, 2, 16:].tolist() == [2.0, 0, 0.5, 0, 2.0, 0.5, 0, 0, 1]


def test_flipping_twice_is_identity_and_once_is_not():
    labels = random_labels()
    before = labels.clone()
    flipped = camera_utils.flip_label(labels)
    assert torch.equal(labels, before)
    assert not torch.equal(flipped, labels)
    assert torch.equal(camera_utils.flip_label(flipped), labels)


def test_flipped_label_is_a_rigid_camera_with_yaw_and_roll_negated():
    labels = random_labels()
    flipped = camera_utils.flip_label(labels)
    rotation = camera_utils.unpack_label(flipped)[0][:, :3, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(8))
    expected = camera_utils.yaw_pitch_roll_degrees(labels) * torch.tensor([-1.0, 1, -1])
    torch.testing.assert_close(camera_utils.yaw_pitch_roll_degrees(flipped), expected, atol=1e-2, rtol=0)


def test_shift_moves_the_camera_in_a_new_label():
    labels = random_labels()
    before, shift = labels.clone(), torch.randn([8, 3])
    moved = camera_utils.shift_label(labels, shift)
    assert torch.equal(labels, before)
    (pose, intrinsics), (old_pose, old_intrinsics) = map(camera_utils.unpack_label, (moved, labels))
    assert torch.equal(pose[:, :3, 3], old_pose[:, :3, 3] + shift)
    assert torch.equal(pose[:, :3, :3], old_pose[:, :3, :3]) and torch.equal(intrinsics, old_intrinsics)


def test_shift_passes_gradients_to_the_shift():
    shift = torch.zeros([8, 3], requires_grad=True)
    camera_utils.shift_label(random_labels(), shift).sum().backward()
    assert torch.equal(shift.grad, torch.ones([8, 3]))


# Poses


@pytest.mark.parametrize("target", [(0.0, 0.0, 0.0), (0.1, -0.2, 0.3)])
def test_look_at_is_orthonormal_without_roll_and_centres_its_target(target):
    torch.manual_seed(0)
    pose = LookAtPoseSampler.sample(FRONT, FRONT, target, horizontal_stddev=2.0, vertical_stddev=0.4, radius=2.7, batch_size=64)
    rotation, origin = pose[:, :3, :3], pose[:, :3, 3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(64, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(64))
    assert pose[:, 3].tolist() == [[0, 0, 0, 1]] * 64
    torch.testing.assert_close(origin.norm(dim=1), torch.full([64], 2.7))
    assert rotation[:, 1, 0].abs().max() < 1e-6  # the picture's x axis is level
    assert (rotation[:, 1, 1] < 0).all()  # the picture's y axis points down
    in_camera = (rotation.mT @ (torch.tensor(target) - origin)[:, :, None])[:, :, 0]
    assert in_camera[:, :2].abs().max() < 1e-5 and (in_camera[:, 2] > 0).all()
    assert origin.std(dim=0).min() > 0.1  # the angles were drawn


def test_polar_angle_is_kept_off_the_poles():
    for v in (-1.0, 0.0, math.pi, 5.0):
        assert LookAtPoseSampler.sample(FRONT, v, radius=2.7).isfinite().all()


def test_orbit_label_signs():
    def position(yaw, pitch):
        return camera_utils.unpack_label(camera_utils.orbit_label(yaw, pitch))[0][0, :3, 3]

    torch.testing.assert_close(position(0, 0), torch.tensor([0, 0, 2.7]), atol=1e-5, rtol=0)  # in front, where z points
    torch.testing.assert_close(position(FRONT, 0), torch.tensor([2.7, 0, 0]), atol=1e-5, rtol=0)  # positive yaw: to +x
    torch.testing.assert_close(position(math.pi, 0), torch.tensor([0, 0, -2.7]), atol=1e-5, rtol=0)
    assert position(0, 0.3)[1] < -0.1 < 0.1 < position(0, -0.3)[1]  # positive pitch: downwards


def test_orbit_label_takes_pivot_radius_and_intrinsics():
    intrinsics = camera_utils.intrinsics_from_focal(3.0)
    pose, found = camera_utils.unpack_label(camera_utils.orbit_label(0, 0, radius=4, pivot=(1, 0, 0), intrinsics=intrinsics))
    torch.testing.assert_close(pose[0, :3, 3], torch.tensor([0, 0, 4.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(pose[0, :3, 2], torch.tensor([1, 0, -4]) / math.sqrt(17))
    assert torch.equal(found[0], intrinsics)


def test_yaw_of_orbit_label_round_trips_over_the_circle():
    for degrees in range(-180, 181, 5):
        angles = camera_utils.yaw_pitch_roll_degrees(camera_utils.orbit_label(math.radians(degrees), 0))[0]
        difference = (float(angles[0]) - degrees + 180) % 360 - 180
        # Yaw is an arcsine; near +-90 degrees its precision is the square root of float32's: 0.03 degrees.
        assert abs(difference) < 0.05, degrees
        if abs(abs(degrees) - 90) > 1:
            assert angles[1:].abs().max() < 1e-3


def test_pitch_is_positive_below_the_head_and_roll_is_that_of_the_camera():
    below = camera_utils.yaw_pitch_roll_degrees(camera_utils.orbit_label(0, 0.3))[0]
    above = camera_utils.yaw_pitch_roll_degrees(camera_utils.orbit_label(0, -0.3))[0]
    elevation = math.degrees(math.asin(2 * 0.3 / math.pi))  # the polar angle is arccos(1 - 2 v / pi)
    torch.testing.assert_close(below, torch.tensor([0, -elevation, 0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(above, torch.tensor([0, elevation, 0]), atol=1e-3, rtol=0)


# Pictures


def blobs(points, mirrored=False):
    """An analytic head: coloured balls, none of them in the plane of symmetry."""
    if mirrored:
        points = points * torch.tensor([-1.0, 1, 1])
    centres = torch.tensor([[0.15, 0.1, 0.2], [-0.2, -0.1, 0.1], [0.1, -0.15, -0.2], [-0.05, 0.2, 0.0]])
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    near = torch.exp(-(points[:, :, None] - centres).square().sum(dim=-1) / 0.01)  # [N, M, 4]
    return 60 * near.sum(dim=-1, keepdim=True) - 10, near @ colours / (near.sum(dim=-1, keepdim=True) + 1e-6)


def render(labels, mirrored=False, resolution=24):
    """Colours, depth and opacity [N, 5, h, h] of the blobs, with depths that do not depend on chance."""
    origins, directions = ray_sampler.sample_rays(*camera_utils.unpack_label(labels), resolution)
    with mock.patch.object(torch, "rand", lambda shape, device: torch.full(shape, 0.5, device=device)):
        seen = renderer.render_rays(lambda points: blobs(points, mirrored), origins, directions, RenderingSettings())
    return torch.cat(seen[:3], dim=-1).mT.reshape(len(labels), 5, resolution, resolution)


def test_mirrored_scene_with_flipped_label_is_the_mirrored_picture():
    labels = random_labels(4)
    picture = render(labels)
    assert picture[:, 4].amax(dim=[1, 2]).min() > 0.9  # there is something to see
    result = render(camera_utils.flip_label(labels), mirrored=True)
    # Only rounding differs: points near 2.7 are exact to 3e-7 in float32, and the picture changes by up to 300 per unit.
    torch.testing.assert_close(result, picture.flip(3), atol=1e-4, rtol=0)
    assert (render(labels, mirrored=True) - picture.flip(3)).abs().max() > 0.5
    assert (render(camera_utils.flip_label(labels)) - picture.flip(3)).abs().max() > 0.5


def test_frontal_picture_has_x_to_the_right_and_y_up():
    red, green = render(camera_utils.orbit_label(0, 0))[0, :2]
    row, column = divmod(int((red - green).argmax()), 24)
    assert row < 12 < column  # the red ball is at x > 0, y > 0
    row, column = divmod(int((green - red).argmax()), 24)
    assert column < 12 < row  # the green one at x < 0, y < 0


def test_projected_points_fall_on_the_pixels_whose_rays_hit_them():
    labels = random_labels()
    origins, directions = ray_sampler.sample_rays(*camera_utils.unpack_label(labels), 4)
    places, depths = camera_utils.project_points(labels[:1], (origins + 2.5 * directions)[0])
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    expected = (torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5) / 4
    torch.testing.assert_close(places[0], expected, atol=1e-5, rtol=0)
    forward = camera_utils.unpack_label(labels)[0][0, :3, 2]
    torch.testing.assert_close(depths[0], 2.5 * directions[0] @ forward)
