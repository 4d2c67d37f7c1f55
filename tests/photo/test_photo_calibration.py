"""The table of landmarks and the errors relative to labels, for known cameras."""

import numpy as np
import pytest
import torch

import camera_utils
from photo.benchmark import Seen, errors_of, table
from photo.calibrate import mirror_partners, symmetrical, triangulate
from photo.camera import label_from_angles, project, view_of_landmarks
from photo.faces import Face
from photo.frame import Frame
from photo.head_model import face_model

PIXELS = 400


def seen(label, angles, frame):
    """A picture labelled `label` in which a head with these angles is found in a frame."""
    places, depths = project(label_from_angles(*angles), face_model().points)
    depths = frame.size * camera_utils.DEFAULT_FOCAL / camera_utils.DEFAULT_RADIUS * depths
    landmarks = np.concatenate([frame.to_photo(places), depths[:, None]], axis=1)
    return Seen("a.png", label.to(torch.float32), Face(landmarks, view_of_landmarks(landmarks)), PIXELS)


def test_points_are_triangulated_from_where_cameras_see_them():
    points = np.random.default_rng(0).normal(0, 0.1, (20, 3))
    labels = torch.stack([label_from_angles(*angles) for angles in ((0, 0), (25, 5), (-40, -10))])
    places = np.stack([project(label, points)[0] for label in labels])
    assert triangulate(labels, places, np.array([1.0, 2.0, 0.5])) == pytest.approx(points, abs=1e-6)


def test_a_camera_that_counts_more_pulls_the_points_to_its_lines():
    labels = torch.stack([label_from_angles(0, 0), label_from_angles(90, 0), label_from_angles(0, 0)])
    places = np.array([[[0.5, 0.5]], [[0.5, 0.5]], [[0.6, 0.5]]])
    x = [triangulate(labels, places, np.array(weights))[0, 0] for weights in ([1, 1, 0], [1, 1, 1], [1, 1, 3])]
    assert 0 == pytest.approx(x[0], abs=1e-6) and x[0] < x[1] < x[2]


def test_partners_are_each_other_s_and_on_the_other_side():
    partners = mirror_partners()
    assert (partners[partners] == np.arange(478)).all()
    assert partners[33] == 263 and partners[61] == 291 and partners[1] == 1
    points = np.random.default_rng(0).normal(size=(478, 3))
    even = symmetrical(points, partners)
    assert even[partners] * [-1, 1, 1] == pytest.approx(even)


def test_errors_are_estimate_minus_label():
    middle = (PIXELS / 2, PIXELS / 2)
    label = label_from_angles(0, 0)
    assert errors_of(seen(label, (0, 0), Frame(middle, PIXELS))) == pytest.approx(np.zeros(6), abs=0.1)
    turned = errors_of(seen(label, (0, 6), Frame((middle[0] + 20, middle[1]), 1.1 * PIXELS)))
    assert turned == pytest.approx([0, 6, 0, 5, 0, 10], abs=0.2)


def test_a_frame_that_is_turned_counts_as_roll():
    """A picture whose label has all the roll, and an estimate that has put it into the frame."""
    label = label_from_angles(0, 0, 8)
    errors = errors_of(seen(label, (0, 0, 8), Frame((PIXELS / 2, PIXELS / 2), PIXELS)))
    assert errors == pytest.approx(np.zeros(6), abs=0.2)


def test_the_table_counts_by_yaw():
    middle = (PIXELS / 2, PIXELS / 2)
    good = seen(label_from_angles(20, 0), (20, 0), Frame(middle, PIXELS))
    bad = seen(label_from_angles(20, 0), (20, 9), Frame(middle, PIXELS))
    none = Seen("b.png", good.label, None, PIXELS)
    header, row = table([good, bad, none])
    assert row.startswith(" 15-30         3        1") and row.endswith("50%") and "yaw" in header
