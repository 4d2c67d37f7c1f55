"""dataset_tool_photo.py from its command line, with stand-ins for the two models: what it writes, leaves out and refuses."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import camera_utils
import dataset_tool_photo
import dataset_tool_seg
from dnnlib.archive import Archive, read_labels
from photo import data_set, models
from photo.camera import label_from_angles, project, view_of_landmarks
from photo.faces import Face
from photo.frame import Frame
from photo.head_model import face_model

FACES = {  # colour of a photo -> the faces in it: angles and frames
    (10, 0, 0): [((15.0, 5.0, 0.0), Frame((200.0, 150.0), 220.0))],
    (20, 0, 0): [((0.0, 0.0, 0.0), Frame((250.0, 150.0), 240.0)), ((0.0, 0.0, 0.0), Frame((120.0, 150.0), 200.0))],
    (30, 0, 0): [],
    (40, 0, 0): [((0.0, 0.0, 0.0), Frame((200.0, 150.0), 60.0))],
    (50, 0, 0): [((0.0, 0.0, 0.0), Frame((10.0, 10.0), 300.0))],
    (55, 0, 0): [((0.0, 0.0, 0.0), Frame((20.0, 150.0), 220.0))],
    (60, 0, 0): [((0.0, 70.0, 0.0), Frame((200.0, 150.0), 300.0)), ((-95.0, 0.0, 0.0), Frame((200.0, 150.0), 300.0))],
}


class Stand:
    """A context manager that takes the place of a model; `path` as given by the user."""

    def __init__(self, path=None):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass


class FakeFinder(Stand):
    def find(self, photo, every_size=False):
        faces = []
        for angles, frame in FACES[tuple(np.asarray(photo.reduced((1, 1)))[0, 0])]:
            places, depths = project(label_from_angles(*angles), face_model().points)
            depths = frame.size * camera_utils.DEFAULT_FOCAL / camera_utils.DEFAULT_RADIUS * depths
            landmarks = np.concatenate([frame.to_photo(places), depths[:, None]], axis=1)
            faces.append(Face(landmarks, view_of_landmarks(landmarks)))
        return sorted(faces, key=lambda face: -face.size)


class FakeSegmenter(Stand):
    def mask(self, picture):
        return Image.new("L", picture.size, 255)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(data_set, "FaceFinder", FakeFinder)
    monkeypatch.setattr(data_set, "PersonSegmenter", FakeSegmenter)


def make_photo(path, red, size=(400, 300)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)
    return path


def run(source, dest, *options):
    return CliRunner().invoke(
        dataset_tool_photo.main, ["--source", str(source), "--dest", str(dest), "--resolution", "64", *options]
    )


def assert_refused(result, dest, message, code=1):
    """One line gives the reason, and nothing is left behind."""
    assert result.exit_code == code, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0], result.output
    assert "Traceback" not in result.output and not dest.exists()


def test_one_photo_becomes_picture_mask_and_label(tmp_path):
    result = run(make_photo(tmp_path / "me.png", 10), tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "me: yaw 15.0, pitch 5.0" in result.output
    label = torch.tensor(read_labels(Archive(tmp_path / "out/img"))["me.png"])
    assert camera_utils.yaw_pitch_roll_degrees(label).numpy()[:2] == pytest.approx([15, 5], abs=0.1)
    assert Image.open(tmp_path / "out/img/me.png").size == (64, 64)
    mask = Image.open(tmp_path / "out/seg/me.png")
    assert mask.size == (64, 64) and mask.mode == "L"


def test_dataset_tool_seg_reads_the_result_as_it_is(tmp_path):
    make_photo(tmp_path / "in/a.png", 10)
    make_photo(tmp_path / "in/sub/b.png", 20)
    assert run(tmp_path / "in", tmp_path / "out").exit_code == 0
    places = {"img_source": "out/img", "seg_source": "out/seg", "img_dest": "set/img.zip", "seg_dest": "set/seg.zip"}
    arguments = [text for name, place in places.items() for text in (f"--{name}", str(tmp_path / place))]
    result = CliRunner().invoke(dataset_tool_seg.main, arguments)
    assert result.exit_code == 0 and "wrote 2 pairs of 64x64" in result.output, result.output


def test_which_faces(tmp_path):
    source = make_photo(tmp_path / "two.png", 20)
    largest = run(source, tmp_path / "largest")
    assert "2 faces; took the largest" in largest.output
    assert Archive(tmp_path / "largest/img").names == ["dataset.json", "two.png"]
    assert run(source, tmp_path / "all", "--face", "all").exit_code == 0
    assert Archive(tmp_path / "all/seg").names == ["two-1.png", "two-2.png"]
    assert run(source, tmp_path / "second", "--face", "2").exit_code == 0
    assert_refused(run(source, tmp_path / "third", "--face", "3"), tmp_path / "third", "only 2 found")


def test_no_head_takes_the_name_of_another(tmp_path):
    for name, red in (("two-1.png", 10), ("two.png", 20), ("a-png.bmp", 10), ("a.bmp", 10), ("a.png", 10)):
        make_photo(tmp_path / "in" / name, red)
    result = run(tmp_path / "in", tmp_path / "out", "--face", "all")
    assert "wrote 6 heads" in result.output, result.output
    names = ["a", "a-png", "a-png-2", "two-1", "two-1-2", "two-2"]
    assert Archive(tmp_path / "out/seg").names == sorted(f"{name}.png" for name in names)
    assert list(data_set.list_photos(tmp_path / "in")) == ["a-png", "a", "a-png-2", "two-1", "two"]


def test_crops_are_not_put_among_the_photos(tmp_path):
    make_photo(tmp_path / "me.png", 10)
    assert_refused(run(tmp_path, tmp_path / "out"), tmp_path / "out", "choose a place outside")


def test_each_rejected_photo_has_its_reason(tmp_path):
    for red in (10, 30, 40, 50):
        make_photo(tmp_path / f"in/{red}.png", red)
    (tmp_path / "in/60.jpg").write_text("no picture")
    (tmp_path / "in/notes.txt").write_text("no photo")
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.output
    left_out = {
        line.split(": ")[1].rpartition("/")[2]: line for line in result.output.splitlines() if line.startswith("left out")
    }
    assert sorted(left_out) == ["30.png", "40.png", "50.png", "60.jpg"]
    reasons = {"30.png": "no face found", "40.png": "pixels large", "50.png": "inside the photo", "60.jpg": "not a picture"}
    for name, reason in reasons.items():
        assert reason in left_out[name]
    assert "wrote 1 heads" in result.output


@pytest.mark.parametrize("red,message", [(30, "no face found"), (40, "--min-face"), (50, "inside the photo"), (60, "yaw of")])
def test_a_single_photo_that_cannot_be_used_is_an_error(tmp_path, red, message):
    assert_refused(run(make_photo(tmp_path / "me.png", red), tmp_path / "out"), tmp_path / "out", message)


def test_a_folder_without_any_usable_photo_is_an_error(tmp_path):
    for name in "ab":
        make_photo(tmp_path / f"in/{name}.png", 30)
    result = run(tmp_path / "in", tmp_path / "out")
    assert_refused(result, tmp_path / "out", "none of 2 photos")
    assert result.output.count("no face found") == 2
    (tmp_path / "empty").mkdir()
    assert_refused(run(tmp_path / "empty", tmp_path / "out"), tmp_path / "out", "no photos in")


def test_a_face_that_the_edge_cuts_is_taken_and_named(tmp_path):
    cut, whole = (run(make_photo(tmp_path / f"{red}.png", red), tmp_path / f"out{red}") for red in (55, 10))
    assert cut.exit_code == 0 and "of a face is inside the photo; the rest is filled in" in cut.output
    assert whole.exit_code == 0 and "filled in" not in whole.output


def test_small_faces_are_taken_when_asked_for(tmp_path):
    result = run(make_photo(tmp_path / "me.png", 40), tmp_path / "out", "--min-face", "20")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "place",
    [
        ("--box", "150,100,250,230"),
        ("--points", "230,150,180,150,205,190"),
        ("--points", "left-ear=150,160 right-ear=250,160 crown=200,80"),
    ],
)
def test_a_head_from_behind_is_shown_by_hand(tmp_path, place):
    result = run(make_photo(tmp_path / "back.png", 30), tmp_path / "out", "--pose", "170,10", *place)
    assert result.exit_code == 0, result.output
    label = torch.tensor(read_labels(Archive(tmp_path / "out/img"))["back.png"])
    assert camera_utils.yaw_pitch_roll_degrees(label).numpy() == pytest.approx([170, 10, 0], abs=0.01)


@pytest.mark.parametrize(
    "options,message",
    [
        (["--pose", "170"], "not of the form yaw,pitch,roll"),
        (["--pose", "170,0"], "one of --points and --box"),
        (["--pose", "170,0", "--box", "1,1,9,9", "--points", "1,1,2,2,3,3"], "one of --points and --box"),
        (["--box", "1,1,9,9"], "with --pose"),
        (["--pose", "200,0", "--box", "1,1,9,9"], "in degrees"),
        (["--pose", "0,0", "--box", "9,9,1,1"], "left,top,right,bottom"),
        (["--pose", "0,0", "--points", "1,1,2,2"], "2 points"),
        (["--pose", "0,0", "--points", "beak=1,1 crown=2,2"], "crown"),
        (["--pose", "0,0", "--points", "crown=1,1 crown=2,2"], "different points"),
        (["--pose", "0,0", "--points", "here"], "NAME=x,y"),
        (["--face", "0"], "largest, all"),
        (["--resolution", "100"], "power of two"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    result = run(make_photo(tmp_path / "me.png", 10), tmp_path / "out", *options)
    assert_refused(result, tmp_path / "out", message, code=2)


def test_a_head_shown_outside_the_photo_is_refused(tmp_path):
    result = run(make_photo(tmp_path / "me.png", 10), tmp_path / "out", "--pose", "180,0", "--box", "900,900,990,999")
    assert_refused(result, tmp_path / "out", "outside the photo")


def test_a_pose_is_for_one_photo(tmp_path):
    for name in "ab":
        make_photo(tmp_path / f"in/{name}.png", 10)
    result = run(tmp_path / "in", tmp_path / "out", "--pose", "180,0", "--box", "100,100,200,200")
    assert_refused(result, tmp_path / "out", "--pose is for one photo")


def test_a_destination_that_is_taken_stays_as_it_is(tmp_path):
    (tmp_path / "out/img").mkdir(parents=True)
    (tmp_path / "out/img/mine.txt").write_text("mine")
    result = run(make_photo(tmp_path / "me.png", 10), tmp_path / "out")
    assert result.exit_code == 1 and "not empty" in result.output
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["mine.txt"]


def test_the_debug_sheet_shows_photo_crop_mask_and_camera(tmp_path):
    assert run(make_photo(tmp_path / "me.png", 10), tmp_path / "out", "--debug", "true").exit_code == 0
    sheet = np.asarray(Image.open(tmp_path / "out/debug/me.png"))
    assert sheet.shape[1] > 3 * sheet.shape[0]
    yellow = (sheet[..., 0] > 200) & (sheet[..., 1] > 200) & (sheet[..., 2] < 60)
    assert yellow.any()


def test_names_that_differ_by_their_suffix_only_both_stay(tmp_path):
    make_photo(tmp_path / "in/a.png", 10)
    make_photo(tmp_path / "in/a.bmp", 10)
    assert run(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert Archive(tmp_path / "out/seg").names == ["a-png.png", "a.png"]


def test_a_model_file_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    model = models.ModelFile("landmarker", "https://example.org/model.task", "0" * 64, ())
    monkeypatch.setattr(models, "open_url", lambda url, max_bytes: open(__file__, "rb"))
    with pytest.raises(models.UserError, match="not the file that was published"):
        model.read()
    with pytest.raises(models.UserError, match="--landmarker not found"):
        model.read(tmp_path / "nowhere.task")
    (tmp_path / "own.task").write_bytes(b"own")
    assert model.read(tmp_path / "own.task") == b"own"


def test_labels_are_written_as_numbers_of_six_digits(tmp_path):
    run(make_photo(tmp_path / "me.png", 10), tmp_path / "out")
    ((name, numbers),) = json.loads((tmp_path / "out/img/dataset.json").read_text())["labels"]
    assert name == "me.png" and len(numbers) == camera_utils.LABEL_DIM
    assert all(number == round(number, 6) for number in numbers)
