"""One law of cameras for real pictures, for what conditions a generator and for what it is rendered from."""

import numpy as np
import pytest
import torch
from stand_ins import Colours, Painter, save_script, write_painted

import camera_utils
from dnnlib import UserError
from metrics import measuring
from metrics.measuring import Measurer, Settings
from metrics.views import VIEWS, Row, in_view
from photo.camera import View
from photo.frame import Frame
from training.dataset import HeadPictures

YAWS = (10, 40, 80, 130, 170)  # all on one side: what is mirrored shows


def labels_at(*degrees):
    return np.concatenate([camera_utils.orbit_label(np.radians(yaw), 0.1).numpy() for yaw in degrees])


@pytest.fixture
def detector(tmp_path):
    return str(save_script(Colours(), tmp_path / "colours.pt"))


@pytest.fixture
def painted(tmp_path):
    return write_painted(tmp_path / "img.zip", YAWS)


def measure(G, dataset, tmp_path, **settings):
    given = dict(metrics=("fid400_full",), cache=str(tmp_path / "cache"), batch=100)
    return list(Measurer(Settings(**{**given, **settings}), dataset, torch.device("cpu")).measure(G, {}))


def test_views_are_split_at_60_and_120_degrees():
    labels = labels_at(0, 58, -58, 62, -90, 118, 122, -170, 180)
    found = {view: np.flatnonzero(in_view(labels, view)).tolist() for view in VIEWS}
    assert found == {"all": list(range(9)), "front": [0, 1, 2], "side": [3, 4, 5], "back": [6, 7, 8]}


def test_every_draw_is_a_function_of_its_number(painted):
    dataset = HeadPictures(str(painted), mirror=True)
    row, again = Row(dataset, 3, 4), Row(dataset, 3, 4)
    late = again[9000]
    assert late.rendered == row[9000].rendered and (late.z == row[9000].z).all()
    assert not (Row(dataset, 4, 4)[9000].z == late.z).all()
    assert row[5].conditioning == row[5].rendered
    apart = [Row(dataset, 3, 4, apart=True)[k] for k in range(50)]
    assert sum(draw.conditioning != draw.rendered for draw in apart) > 30


def test_a_side_has_its_samples_of_the_row(painted):
    row = Row(HeadPictures(str(painted), mirror=True), 0, 4)
    front, every = row.numbers("front", 60), row.numbers("all", 60)
    assert every.tolist() == list(range(60)) and (np.diff(front) > 0).all()
    assert front[:10].tolist() == row.numbers("front", 10).tolist()
    cameras = row.labels[[row[int(number)].rendered for number in front]]
    assert in_view(cameras, "front").all()
    with pytest.raises(UserError, match="no pictures from the back"):
        Row(HeadPictures(str(painted), max_yaw=90), 0, 4).numbers("back", 5)


def test_cameras_are_drawn_as_often_as_pictures_are_shown(painted):
    dataset = HeadPictures(str(painted), min_yaw=30, back_repeat=3)
    row = Row(dataset, 0, 4)
    yaw = camera_utils.yaw_pitch_roll_degrees(torch.from_numpy(row.labels[[row[k].rendered for k in range(4000)]]))[:, 0]
    shares = [((yaw - known).abs() < 1).float().mean().item() for known in YAWS]
    assert shares == pytest.approx([0, 1 / 8, 1 / 8, 3 / 8, 3 / 8], abs=0.03)


def test_samples_are_conditioned_on_the_camera_they_are_seen_from_unless_drawn_apart(painted, tmp_path, detector):
    dataset = HeadPictures(str(painted), mirror=True)
    together, apart = Painter(), Painter()
    measure(together, dataset, tmp_path, detector=detector, metrics=("fid50_full",))
    measure(apart, dataset, tmp_path, detector=detector, metrics=("fid50_random",))
    assert (together.conditioned[-1] == together.rendered).all()
    assert (apart.conditioned[-1] == apart.rendered).all(dim=1).float().mean() < 0.4
    assert (apart.rendered == together.rendered).all()


PLANTED = {
    "labels are not mirrored": lambda patch: patch.setattr(HeadPictures, "item_labels", unflipped_labels),
    "pictures are not mirrored": lambda patch: patch.setattr(HeadPictures, "_pixels", unflipped_pixels),
}
right_pixels = HeadPictures._pixels


def unflipped_labels(dataset):
    return dataset._labels[dataset.item_sources()]


def unflipped_pixels(dataset, archive, names, decode, index):
    return right_pixels(dataset, archive, names, decode, index % dataset._unmirrored)


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_mirror_flip_shows_in_the_distance(painted, tmp_path, detector, monkeypatch, error):
    right = measure(Painter(), HeadPictures(str(painted), mirror=True), tmp_path, detector=detector)
    PLANTED[error](monkeypatch)
    wrong = measure(Painter(), HeadPictures(str(painted), mirror=True), tmp_path / "planted", detector=detector)
    right, wrong = (line["figures"]["fid400_colours"] for (line,) in (right, wrong))
    assert wrong > 50 * right


class SideReader:
    """Stands for the landmarker: reads in which direction the painted head looks, by where it is bright."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def find(self, photo):
        grey = np.asarray(photo.reduced((2, 1))).mean(axis=-1)[0] / 255
        yaw = np.degrees(np.arcsin(np.clip((grey[1] - grey[0]) / 0.4, -1, 1)))
        label = camera_utils.orbit_label(np.radians(yaw), 0.0)[0]
        sign = camera_utils.yaw_pitch_roll_degrees(label)[0].item() * yaw
        label = label if sign >= 0 else camera_utils.flip_label(label)
        return [type("Face", (), {"view": View(Frame((16.0, 16.0), 32.0), label)})()]


def test_a_generator_that_mirrors_every_camera_shows_in_the_pose_alone(painted, tmp_path, detector, monkeypatch):
    """With mirrored data its pictures as a whole are those of a right one: no distance of sets can tell."""
    monkeypatch.setattr(measuring.Settings, "tools", fake_tools)
    dataset = HeadPictures(str(painted), mirror=True)
    settings = dict(metrics=("fid400_full", "pose"), views=("front",), num_images=30, detector=detector)
    figures = []
    for turned in (False, True):
        lines = measure(Painter(turned), dataset, tmp_path, **settings)
        figures.append({name: value for line in lines for name, value in line["figures"].items()})
    right, mirrored = figures
    assert right["pose_yaw_front"] < 5 and right["pose_yaw_real_front"] < 5 and right["pose_seen_front"] == 100
    assert mirrored["pose_yaw_front"] > 30
    assert mirrored["fid400_colours_front"] < 5 * right["fid400_colours_front"] + 1e-3


real_tools = Settings.tools


def fake_tools(settings, device):
    """The detector as it is, and a reader of painted pictures for the landmarker."""
    features = Settings(tuple(name for name in settings.metrics if name != "pose"), detector=settings.detector)
    tools = real_tools(features, device)
    tools.finder = SideReader()
    tools.told["pose"] = dict(name="reader", sha256="0")
    return tools
