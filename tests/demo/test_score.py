"""The figures of demo/score.py, on surfaces whose answer is known, and the command on a tiny network."""

import contextlib
import json
import pickle
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from helpers import camera, hit_sphere, small_generator, sphere

import camera_utils
from demo import score
from demo.heads.truth import DEPTH_STEPS, depth_image
from demo.heads.views import ViewRanges, fixed_views, plan_view, sample_views
from demo.scores import figures, samples, yaw
from demo.scores.held_out import in_camera_axes, load_held_out, load_jitter
from dnnlib import UserError
from inference import synthesis
from metrics import faces
from metrics.consistency import compare_all, z_from_ray_depth
from metrics.heads import ANGLES


def write_set(folder, heads=4, resolution=64):
    """A held-out set as demo/render_heads.py writes it: eggs with a bright face on one side, an ear on each side and a nose."""
    labels = []
    for head in range(heads):
        for part in ("img", "seg", "truth"):
            (folder / part / f"{head:05d}").mkdir(parents=True)
        for number, view in enumerate(fixed_views(12)):
            label = torch.tensor(view.label)
            distance, points = hit_sphere(label, resolution, radius=0.26 + 0.02 * head)
            mask = distance.isfinite()
            x, y, z = points.nan_to_num(0, 0, 0).unbind(-1)
            face = (z > 0.12) & ((x.abs() - 0.08).square() + (y - 0.05).square() > 0.002) & ((x.abs() > 0.05) | (y > -0.12))
            ear = (z.abs() < 0.05) & (y.abs() < 0.08)
            grey = torch.where(mask, torch.where(face, 200.0 - 10 * head, torch.where(ear, 150.0, 60.0)), 90.0)
            name = f"{head:05d}/{number:03d}"
            PIL.Image.fromarray(grey.byte().numpy()).convert("RGB").save(folder / "img" / f"{name}.png")
            PIL.Image.fromarray((255 * mask).byte().numpy()).save(folder / "seg" / f"{name}.png")
            depth = z_from_ray_depth(distance, label).masked_fill(~mask, 0)
            depth_image(depth.numpy()).save(folder / "truth" / f"{name}.png")
            labels.append([f"{name}.png", list(view.label)])
    (folder / "img" / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("held_out"))


@pytest.fixture(scope="module")
def G():
    return small_generator(8, triplane_size=32)


@pytest.fixture(scope="module")
def network(G, tmp_path_factory):
    path = tmp_path_factory.mktemp("networks") / "network-snapshot-000012.pkl"
    path.write_bytes(pickle.dumps(dict(G_ema=G)))
    return str(path)


# Yaw


def test_shares_of_sectors():
    shares = yaw.sector_shares(np.array([0, -44.9, 45, -90, 135, 180, -180, 100]))
    assert shares == {"front": 0.25, "side": 0.375, "back": 0.375}


def test_differences_go_round_the_circle():
    np.testing.assert_allclose(yaw.difference(np.array([170, -10, 90]), np.array([-170, 10, -90])), [20, 20, 180])


def test_yaw_is_read_from_pictures_of_heads_that_the_reader_does_not_know(held_out):
    truth = load_held_out(held_out)
    described = np.stack([yaw.describe(*view) for view in zip(truth.pictures, truth.masks)])
    off = yaw.difference(yaw.read_each_by_others(described, truth.yaws, truth.heads), truth.yaws)
    assert np.median(off) < 15
    mirrored = yaw.YawReader(described, truth.yaws).read(described[:, ::-1])
    assert np.median(yaw.difference(mirrored, -truth.yaws)) < 15


def test_the_figures_of_yaw_tell_heads_that_turn_with_the_camera(held_out):
    """Samples that always show the front have the cameras' law of yaw, and another in their pictures."""
    truth = load_held_out(held_out)
    turned = [
        samples.Sample(truth.pictures[12 * (i // 12)], truth.masks[12 * (i // 12)], label, torch.zeros(3))
        for i, label in enumerate(truth.labels)
    ]
    rows, histograms = figures.yaw_figures(turned, truth)
    found = {row.name: row for row in rows}
    assert found["cameras at the back"].samples == found["cameras at the back"].data == pytest.approx(100 * 3 / 12)
    assert found["pictures seen from the back"].samples < 5 and found["pictures seen from the back"].data > 15
    assert found["yaw seen over 90 degrees off"].samples == pytest.approx(100 * 5 / 12, abs=10)
    assert found["yaw seen over 90 degrees off"].data < 10
    assert {name: round(sum(shares), 6) for name, shares in histograms.items()} == dict.fromkeys(histograms, 1.0)


def test_yaws_at_the_middle_of_bins_stay_there():
    shares = figures.yaw_histogram(np.array([-180, 180, 0.01, -0.01, 30, 150, -150, 14.9]))
    assert shares == [0.25, 0.125, 0, 0, 0, 0, 0.375, 0.125, 0, 0, 0, 0.125]


def test_fewer_labels_have_the_same_law_of_yaw():
    labels = torch.stack([camera(degrees) for degrees in (100, 0, -100, 0, 100, 0, -100, 0)])
    few = camera_utils.yaw_pitch_roll_degrees(samples.spread_by_yaw(labels, 4))[:, 0]
    assert sorted(few.round().tolist()) == [-100, 0, 0, 100]
    assert len(samples.spread_by_yaw(labels, 20)) == 20


# The truth


def test_a_held_out_set_is_read_as_it_was_written(held_out):
    truth = load_held_out(held_out)
    assert truth.pictures.shape == (48, 64, 64, 3) and truth.heads[:13] == ["00000"] * 12 + ["00001"]
    exact = sphere(truth.labels[1], radius=0.26).depth
    np.testing.assert_array_equal(np.isfinite(truth.depths[1]), exact.isfinite())
    np.testing.assert_allclose(truth.depths[1], exact, atol=0.5 / DEPTH_STEPS + 1e-6)
    found = [compare_all(views, ANGLES) for views in truth.surfaces().values()]
    assert len(found) == 4 and all(head[90.0].share > 0.99 and head[30.0].agreeing > 0 for head in found)


def damage(folder, what):
    if what == "no truth":
        (folder / "truth").rename(folder / "lies")
    elif what == "a depth is missing":
        (folder / "truth/00000/003.png").unlink()
    elif what == "a depth of another size":
        depth_image(np.ones([32, 32])).save(folder / "truth/00000/003.png")
    elif what == "a depth that is no picture":
        (folder / "truth/00000/003.png").write_bytes(b"no")
    elif what == "a mask is missing":
        (folder / "seg/00000/003.png").unlink()
    elif what == "no labels":
        (folder / "img/dataset.json").write_text(json.dumps({"labels": []}))


@pytest.mark.parametrize(
    "what, text",
    [
        ("no truth", "has no truth; make one with"),
        ("a depth is missing", "has no file 00000/003.png"),
        ("a depth of another size", "00000/003.png are not squares of one size"),
        ("a depth that is no picture", "cannot read 00000/003.png"),
        ("a mask is missing", r"image without a mask: 1 \(00000/003.png\)"),
        ("nothing", "shows one head; at least two"),
        ("no labels", "00000/000.png has no label of 25 finite numbers"),
    ],
)
def test_a_set_that_is_not_whole_is_refused_in_one_line(tmp_path, what, text):
    damage(write_set(tmp_path / "set", heads=1, resolution=64), what)
    with pytest.raises(UserError, match=text) as error:
        load_held_out(tmp_path / "set")
    assert "\n" not in str(error.value)


def test_jitter_is_told_along_the_axes_of_the_cameras(tmp_path):
    moved = np.array([0.01, -0.02, 0.03])
    views = [plan_view(degrees, 10.0, 3.0, moved) for degrees in (0, 90, 200)]
    (tmp_path / "people").mkdir()
    content = {"views": [{"label": view.label, "shift": view.shift} for view in views]}
    (tmp_path / "people/00000.json").write_text(json.dumps(content))
    np.testing.assert_allclose(load_jitter(tmp_path), np.tile(moved, [3, 1]), atol=1e-6)


def test_jitter_is_known_by_its_law_where_people_are_not_told(tmp_path):
    ranges = ViewRanges(jitter=0.02)
    (tmp_path / "options.json").write_text(json.dumps({"ranges": {"yaw": [-180, 180], "pitch": [-30, 30], "jitter": 0.02}}))
    views = sample_views(np.random.default_rng(5), 2000, ranges)
    labels, shifts = (torch.tensor([getattr(view, name) for view in views]) for name in ("label", "shift"))
    np.testing.assert_allclose(load_jitter(tmp_path).std(axis=0), in_camera_axes(shifts, labels).std(dim=0), rtol=0.1)


@pytest.mark.parametrize("content", [None, "{}", "[", '{"ranges": {"jitter": "much", "yaw": 3}}'])
def test_a_training_set_that_does_not_tell_its_jitter_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "options.json").write_text(content)
    with pytest.raises(UserError, match="neither people" if content is None else "cannot be read"):
        load_jitter(tmp_path)


# Faces


def test_without_mediapipe_faces_are_not_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with faces.open_finder() as finder:
        assert isinstance(finder, faces.NotMeasurable) and "pip install mediapipe" in str(finder)
    with pytest.raises(UserError, match="mediapipe"), faces.open_finder("own.task"):
        pass


def test_a_file_that_is_no_model_is_refused(tmp_path):
    pytest.importorskip("mediapipe")
    (tmp_path / "bad.task").write_bytes(b"no model")
    with pytest.raises(UserError, match="mediapipe refuses"), faces.open_finder(tmp_path / "bad.task"):
        pass


def test_no_face_is_found_in_a_plain_picture():
    pytest.importorskip("mediapipe")
    with faces.open_finder() as finder:
        if isinstance(finder, faces.NotMeasurable):
            pytest.skip(str(finder))
        assert finder.shows_face(np.full([128, 128, 3], 127, np.uint8)) is False


# The learned shift


def test_the_shift_is_told_along_the_axes_of_the_cameras():
    """Cameras that all move by 0.01 to the left and 0.03 backwards, wherever they stand."""
    labels = torch.stack([camera(degrees) for degrees in (0, 60, 180)])
    rotation = camera_utils.unpack_label(labels)[0][:, :3, :3]
    shifts = (rotation @ torch.tensor([-0.01, 0.0, -0.03])[:, None])[:, :, 0]
    drawn = [samples.Sample(None, None, *pair) for pair in zip(labels, shifts)]
    rows = {row.name: row for row in figures.shift_figures(drawn, jitter=np.array([[0.02, 0, 0], [-0.02, 0, 0]]))}
    assert rows["camera shift, mean right"].samples == pytest.approx(-0.01, abs=1e-6)
    assert rows["camera shift, mean forward"].samples == pytest.approx(-0.03, abs=1e-6)
    assert rows["camera shift, deviation forward"].samples == pytest.approx(0, abs=1e-6)
    assert rows["camera shift, length"].data == pytest.approx(0.02) and rows["camera shift, mean right"].data == 0
    assert rows["camera shift, deviation right"].data == pytest.approx(0.02)


def test_samples_have_the_shift_that_the_network_gives_their_label(G):
    labels = torch.stack([camera(30), camera(-100)])
    drawn = list(samples.draw_like_data(G, [3, 4], labels))
    expected = G.apply_delta_c(synthesis.latents([4], G.z_dim), labels[1:])[1][0]
    assert expected.norm() > 0
    torch.testing.assert_close(drawn[1].shift, expected)
    assert drawn[1].picture.shape == (128, 128, 3) and drawn[1].mask.shape == (16, 16) and drawn[1].mask.max() <= 1


# The command


def call(*args):
    result = CliRunner().invoke(score.main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


class BrightTop:
    """Stands for the landmarker: finds a face where the first pixel is bright."""

    def shows_face(self, picture):
        assert picture.dtype == np.uint8 and picture.ndim == 3
        return bool(picture[0, 0, 0] > 80)


def test_the_command_prints_a_table_and_writes_json(network, held_out, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "open_finder", lambda model: contextlib.nullcontext(BrightTop()))
    monkeypatch.setattr(score, "DEPTH_RESOLUTION", 16)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/options.json").write_text(json.dumps({"ranges": {"jitter": 0.01}}))
    options = ("--network", network, "--data", held_out, "--train_data", tmp_path / "train", "--samples", 4, "--heads", 2)
    for folder in ("a", "b"):
        code, output = call(*options, "--outdir", tmp_path / folder)
        assert code == 0, output
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["score.json"]
    content, again = (json.loads((tmp_path / folder / "score.json").read_text()) for folder in ("a", "b"))
    assert content == again
    assert content["network"] == "network-snapshot-000012" and content["images_seen"] == 12000
    assert content["samples"] == 4 and content["heads"] == 2 and content["torch"] == torch.__version__
    rows = {row["name"]: row for row in content["figures"]}
    assert rows["mask coverage"]["data"] == pytest.approx(100 * load_held_out(held_out).masks.mean())
    assert 0 <= rows["points that agree, 45 degrees"]["samples"] <= 100
    assert rows["points that agree, 90 degrees"]["data"] > 98
    assert rows["face found in back views"]["data"] == 100  # the background of the set is bright enough
    assert rows["camera shift, length"]["samples"] > 0 and rows["camera shift, deviation forward"]["data"] == pytest.approx(
        0.88 * 0.01 * camera_utils.DEFAULT_RADIUS, rel=0.1
    )
    assert all(row["name"] in output for row in content["figures"]) and "NaN" not in (tmp_path / "a/score.json").read_text()


def test_what_cannot_be_measured_is_said(network, held_out, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setattr(score, "TRAINING_SET", tmp_path / "none")
    monkeypatch.setattr(score, "DEPTH_RESOLUTION", 16)
    path = tmp_path / "made" / "own.json"
    options = ("--network", network, "--data", held_out, "--samples", 2, "--heads", 2, "--seed", 5, "--json", path)
    code, output = call(*options)
    assert (
        code == 0 and "not measured: finding faces needs mediapipe" in output and "data: not known, give --train_data" in output
    )
    rows = {row["name"]: row for row in json.loads(path.read_text())["figures"]}
    assert rows["face found in back views"]["samples"] is rows["camera shift, length"]["data"] is None


@pytest.mark.parametrize(
    "args, code, text",
    [
        (("--outdir", "a", "--json", "b"), 2, "both say where the figures go"),
        (("--samples", 1), 2, "1 is not in the range x>=2"),
        (("--landmarker", "missing.task"), 1, "Error: --landmarker"),
        (("--data", "missing"), 1, "Error: --data not found: missing"),
        (("--train_data", "missing"), 1, "Error: --train_data not found: missing"),
        (("--network", "missing.pkl"), 1, "missing.pkl"),
    ],
)
def test_bad_input_gets_one_line(network, held_out, tmp_path, monkeypatch, args, code, text):
    monkeypatch.chdir(tmp_path)
    got, output = call("--network", network, "--data", held_out, *args)
    assert got == code and text in output and "Traceback" not in output
    assert not list(tmp_path.iterdir())
