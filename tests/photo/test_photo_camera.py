"""The camera and the frame of a head, from landmarks and points whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import camera_utils
from dnnlib import UserError
from photo.camera import first_frame, label_from_angles, project, view_of_box, view_of_landmarks, view_of_points
from photo.frame import Frame
from photo.head_model import HEAD_POINTS, face_model, head_outline

POSES = [(0, 0, 0), (12, -5, 0), (-30, 10, 3), (45, 15, -6), (-45, -20, 0), (60, 0, 0)]
BEHIND = [(180, 0, 0), (-150, 10, 0), (120, -20, 5), (90, 0, 0)]


def landmarks_seen(label, frame):
    """The model's 478 landmarks [478, 3] as they would be found in a photo: pixels, and depths in the same unit."""
    places, depths = project(label, face_model().points)
    unit = frame.size * camera_utils.DEFAULT_FOCAL / camera_utils.DEFAULT_RADIUS
    return np.concatenate([frame.to_photo(places), unit * (depths - depths.mean())[:, None]], axis=1)


def total_rotation(view):
    """cam2world of a camera whose picture is not turned against the photo: where the turn is counted does not matter."""
    rotation = camera_utils.unpack_label(view.label)[0][:3, :3].numpy().astype(np.float64)
    return rotation @ Rotation.from_rotvec([0, 0, -view.frame.angle]).as_matrix()


def degrees_between(first, second):
    return np.degrees(Rotation.from_matrix(first.T @ second).magnitude())


@pytest.mark.parametrize("angles", POSES + BEHIND)
def test_a_label_has_the_angles_it_was_made_of(angles):
    measured = camera_utils.yaw_pitch_roll_degrees(label_from_angles(*angles)).numpy()
    difference = (measured - angles + 180) % 360 - 180
    assert np.abs(difference).max() < 1e-3


def test_a_label_has_the_distance_and_focal_length_of_the_training_data():
    cam2world, intrinsics = camera_utils.unpack_label(label_from_angles(33, -12, 4).to(torch.float32))
    assert cam2world[:3, 3].norm() == pytest.approx(camera_utils.DEFAULT_RADIUS, abs=1e-5)
    assert torch.equal(intrinsics, camera_utils.intrinsics_from_focal())
    origin, _ = project(label_from_angles(33, -12, 4), np.zeros((1, 3)))
    assert origin == pytest.approx(np.array([[0.5, 0.5]]))


def test_positive_yaw_is_as_in_the_published_labels():
    """A published label with yaw 11.4 has its camera at positive x: the face turns to the left of the picture."""
    cam2world = camera_utils.unpack_label(label_from_angles(11.4, 0))[0]
    assert cam2world[0, 3] > 0.5


@pytest.mark.parametrize("turn", [0, 37, 90, 180, -120])
@pytest.mark.parametrize("angles", POSES)
def test_camera_and_frame_come_back_from_landmarks(angles, turn):
    truth = label_from_angles(*angles)
    frame = Frame((830.0, 410.0), 640.0, np.radians(turn))
    view = view_of_landmarks(landmarks_seen(truth, frame))
    assert view.misfit < 1e-5
    assert view.frame.centre == pytest.approx(frame.centre, abs=0.05)
    assert view.frame.size == pytest.approx(frame.size, rel=1e-4)
    expected = camera_utils.unpack_label(truth)[0][:3, :3].numpy() @ Rotation.from_rotvec([0, 0, -frame.angle]).as_matrix()
    assert degrees_between(total_rotation(view), expected) < 0.1


def test_angles_come_back_where_eyes_and_mouth_stand_upright():
    view = view_of_landmarks(landmarks_seen(label_from_angles(0, 14), Frame((300.0, 300.0), 500.0, np.radians(25))))
    assert view.angles == pytest.approx((0, 14, 0), abs=0.1)
    assert np.degrees(view.frame.angle) == pytest.approx(25, abs=0.1)


def test_the_mirrored_face_has_the_mirrored_camera():
    frame = Frame((500.0, 500.0), 500.0)
    view = view_of_landmarks(landmarks_seen(label_from_angles(25, 5, 0), frame))
    mirrored = view_of_landmarks(landmarks_seen(label_from_angles(-25, 5, 0), frame))
    assert mirrored.label == pytest.approx(camera_utils.flip_label(view.label), abs=1e-3)


def test_landmarks_of_something_else_fit_badly():
    marks = landmarks_seen(label_from_angles(0, 0), Frame((500.0, 500.0), 500.0))
    rng = np.random.default_rng(0)
    assert view_of_landmarks(marks + rng.normal(0, 30, marks.shape)).misfit > 0.03


def test_first_frame_follows_the_published_rule():
    """By hand: e = (100, 0), m = (0, 120), so the half side is max(200, 216) and the centre a tenth of m below the eyes."""
    frame = first_frame(np.array([100.0, 200.0]), np.array([200.0, 200.0]), np.array([150.0, 320.0]))
    assert frame.centre == pytest.approx((150, 212)) and frame.size == pytest.approx(432) and frame.angle == 0
    turned = first_frame(np.array([200.0, 100.0]), np.array([200.0, 200.0]), np.array([80.0, 150.0]))
    assert turned.angle == pytest.approx(np.pi / 2) and turned.size == pytest.approx(432)


@pytest.mark.parametrize("names", [("right-eye", "left-eye", "mouth"), ("left-ear", "right-ear", "crown"), ("chin", "crown")])
@pytest.mark.parametrize("angles", BEHIND)
def test_points_shown_by_hand_give_the_frame(angles, names):
    label, frame = label_from_angles(*angles), Frame((700.0, 350.0), 420.0, 0.2)
    places, _ = project(label, np.array([HEAD_POINTS[name] for name in names]))
    view = view_of_points(label, dict(zip(names, map(tuple, frame.to_photo(places)))))
    assert view.frame.centre == pytest.approx(frame.centre) and view.frame.size == pytest.approx(frame.size)
    assert view.frame.angle == pytest.approx(frame.angle) and view.misfit == pytest.approx(0, abs=1e-9)
    assert view.label == pytest.approx(label.to(torch.float32))


@pytest.mark.parametrize("angles", BEHIND + POSES)
def test_a_box_shown_by_hand_gives_the_frame(angles):
    label, frame = label_from_angles(*angles), Frame((700.0, 350.0), 420.0)
    places = frame.to_photo(project(label, head_outline())[0])
    view = view_of_box(label, (*places.min(axis=0), *places.max(axis=0)))
    assert view.frame.centre == pytest.approx(frame.centre) and view.frame.size == pytest.approx(frame.size)


def test_points_that_make_no_head_are_refused():
    label = label_from_angles(180, 0)
    for shown, message in (
        ({"crown": (1, 1)}, "one point"),
        ({"crown": (5, 5), "chin": (5, 5)}, "at the same place"),
        ({"crown": (5, 5), "beak": (5, 9)}, "beak"),
    ):
        with pytest.raises(UserError, match=message):
            view_of_points(label, shown)
    with pytest.raises(UserError, match="box"):
        view_of_box(label, (10, 10, 5, 20))


def test_frames_map_there_and_back():
    frame = Frame((40.0, 30.0), 20.0, np.pi / 2)
    assert frame.to_photo(np.array([0.0, 0.0])) == pytest.approx([50, 20])  # turned clockwise, its upper left is at the right
    points = np.random.default_rng(0).random((10, 2))
    assert frame.from_photo(frame.to_photo(points)) == pytest.approx(points)


def test_the_face_model_is_symmetrical_and_where_the_training_heads_are():
    model = face_model()
    assert model.points.shape == (478, 3) and model.weights.sum() == pytest.approx(1)
    mirrored = model.points * [-1, 1, 1]
    nearest = np.abs(model.points[:, None] - mirrored[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 2e-4
    eyes, _ = project(label_from_angles(0, 0), np.array([HEAD_POINTS["right-eye"], HEAD_POINTS["left-eye"]]))
    assert eyes[:, 1] == pytest.approx([0.455, 0.455], abs=0.02) and eyes[0, 0] < eyes[1, 0]
