"""What a figure depends on, and what is computed again when that changes; heads from all round."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from helpers import small_generator
from stand_ins import Colours, Faces, Painter, save_script, write_painted

from dnnlib import UserError
from dnnlib.archive import Archive
from metrics import heads, measuring, results
from metrics.digests import digest_of_generator, digest_of_pictures
from metrics.measuring import Measurer, Settings
from torch_utils import distributed
from training.dataset import HeadDataset, HeadPictures

CPU = torch.device("cpu")
YAWS = (10, -40, 80, 130, -170)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Painted pictures and a detector."""
    folder = tmp_path_factory.mktemp("files")
    return write_painted(folder / "img.zip", YAWS), save_script(Colours(), folder / "colours.pt")


@pytest.fixture
def settings(files, tmp_path):
    return Settings(("fid20_full",), detector=str(files[1]), cache=str(tmp_path / "cache"), batch=10)


def lines_of(settings, dataset, G=None):
    return list(Measurer(settings, dataset, CPU).measure(G or Painter(), {}))


def fingerprint(settings, dataset, G=None):
    (line,) = lines_of(settings, dataset, G)
    return line["fingerprint"]


def test_the_fingerprint_changes_with_each_of_its_parts(files, settings, tmp_path):
    images, _ = files
    first = fingerprint(settings, HeadPictures(str(images)))
    assert first == fingerprint(settings, HeadPictures(str(images))) and json.loads(json.dumps(first)) == first
    other = save_script(Colours(width=9), tmp_path / "other.pt")
    for change, part in (
        (dict(metrics=("fid30_full",)), "images"),
        (dict(metrics=("fid20_random",)), "camera_law.conditioning"),
        (dict(views=("front",)), "camera_law.view"),
        (dict(detector=str(other)), "detector.sha256"),
        (dict(truncation=0.7), "truncation"),
        (dict(seed=1), "seed"),
    ):
        assert part in results.differences(
            first, fingerprint(dataclasses.replace(settings, **change), HeadPictures(str(images)))
        )
    for law in (dict(mirror=True), dict(min_yaw=20), dict(max_yaw=100), dict(back_repeat=2)):
        (name,) = law
        found = results.differences(first, fingerprint(settings, HeadPictures(str(images), **law)))
        assert {f"camera_law.{name}", "camera_law.cameras"} <= set(found)
    repainted = write_painted(tmp_path / "img.zip", (11, *YAWS[1:]))
    assert {"data", "camera_law.cameras"} == set(
        results.differences(first, fingerprint(settings, HeadPictures(str(repainted))))
    )
    moved = Painter()
    moved.weight.data += 1
    assert fingerprint(settings, HeadPictures(str(images)), moved)["network"] != first["network"]


def test_versions_backgrounds_and_filters_are_in_the_fingerprint(files, settings, monkeypatch):
    dataset = HeadPictures(str(files[0]))
    first = fingerprint(settings, dataset)
    assert first["background"] == "own" and first["resize"] == "in the detector"
    monkeypatch.setattr(results, "version", lambda package: "0")
    assert "versions.torch" in results.differences(first, fingerprint(settings, dataset))


@pytest.mark.parametrize("name", ["depth_resolution", "neural_rendering_resolution"])
def test_how_a_generator_renders_is_part_of_it(name):
    G = small_generator(4)
    before = digest_of_generator(G)
    assert before == digest_of_generator(small_generator(4))
    if name == "depth_resolution":
        G.rendering_kwargs[name] += 1
    else:
        G.neural_rendering_resolution += 1
    assert digest_of_generator(G) != before


def test_a_folder_and_its_zip_are_the_same_data(files, tmp_path):
    shutil.unpack_archive(files[0], tmp_path / "img")
    assert digest_of_pictures(Archive(tmp_path / "img")) == digest_of_pictures(Archive(files[0]))
    picture = next((tmp_path / "img").glob("*.png"))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert digest_of_pictures(Archive(tmp_path / "img")) != digest_of_pictures(Archive(files[0]))


def test_features_of_real_pictures_are_kept_until_the_data_change(files, settings, tmp_path, monkeypatch):
    read = []
    real = measuring.pictures.RealPictures
    keep = real._read
    monkeypatch.setattr(real, "_read", lambda self, numbers: read.extend(numbers.tolist()) or keep(self, numbers))
    images = str(files[0])
    first = lines_of(settings, HeadPictures(images))
    assert sorted(read) == [0, 2, 4, 6, 8]
    again = lines_of(dataclasses.replace(settings, seed=5), HeadPictures(images, min_yaw=20))
    assert len(read) == 5 and again[0]["figures"] != first[0]["figures"]  # a filter chooses among what is known
    lines_of(settings, HeadPictures(images, mirror=True))
    assert sorted(read[5:]) == [1, 3, 5, 7, 9]  # only the mirrored ones are new
    repainted = write_painted(tmp_path / "img.zip", (11, *YAWS[1:]))
    changed = lines_of(settings, HeadPictures(str(repainted)))
    assert len(read) == 15 and changed[0]["figures"] != first[0]["figures"]


def test_what_was_measured_is_not_measured_again(files, settings):
    measurer = Measurer(dataclasses.replace(settings, views=("all", "back")), HeadPictures(str(files[0])), CPU)
    lines = list(measurer.measure(Painter(), {}))
    assert [line["view"] for line in lines] == ["all", "back"]
    stored = json.loads(json.dumps(lines))
    assert list(measurer.measure(Painter(), {}, stored)) == []
    assert [line["view"] for line in measurer.measure(Painter(), {}, stored[:1])] == ["back"]


def test_published_features_name_figures_as_published(files, settings, tmp_path):
    inception = save_script(Colours(2048, 1008), tmp_path / "inception.pt")
    settings = dataclasses.replace(settings, metrics=("kid20_full", "is20", "kid20_random"), views=("front",))
    dataset = HeadPictures(str(files[0]))
    names = [list(line["figures"]) for line in lines_of(dataclasses.replace(settings, detector=str(inception)), dataset)]
    assert names == [["kid20_full_front"], ["is20_front_mean", "is20_front_std"], ["kid20_random_front"]]
    names = [list(line["figures"])[0] for line in lines_of(settings, dataset)]
    assert names == ["kid20_colours_front", "is20_colours_front_mean", "kid20_colours_random_front"]


def test_heads_alone_are_compared_by_their_masks(head_data, settings):
    dataset = HeadDataset(*map(str, head_data))
    white = measuring.pictures.RealPictures(dataset).read(np.array([0, 2]), "white")
    own, masks = measuring.pictures.RealPictures(dataset).read_whole(np.array([0, 2]))
    assert (white[0] == np.where(masks[0] > 0.5, own[0], 255)).all()
    with pytest.raises(UserError, match="give --seg_data"):
        measuring.pictures.RealPictures(HeadPictures(str(head_data[0]))).require("white")
    made = measuring.pictures.Made(np.zeros([1, 3, 4, 4], np.uint8), np.full([1, 1, 4, 4], 0.2, np.float32))
    assert (measuring.pictures.with_background(made, "white") == 204).all()


# Processes


def filled_by_seed(G, head):
    """As if a head's shape were its seed."""
    return np.arange(heads.LATTICE**3) < 100 * (1 + head % 5)


def measure_alone_or_not(local_rank, settings, images, out):
    """What each process of `test_one_and_two_processes_agree` does: three files of rows, of pictures and of heads."""
    measuring.PICTURES_CHUNK, measuring.HEADS_CHUNK = 8, 3
    heads.head_of, heads.filled = (lambda G, seed, psi: seed), filled_by_seed
    for line in Measurer(settings, HeadPictures(images, mirror=True), CPU).measure(Painter(), {}):
        results.append(out, line)


@pytest.mark.slow
def test_one_and_two_processes_agree(files, settings, tmp_path, monkeypatch):
    for place, name in ((measuring, "PICTURES_CHUNK"), (measuring, "HEADS_CHUNK"), (heads, "head_of"), (heads, "filled")):
        monkeypatch.setattr(place, name, getattr(place, name))  # one process runs here: put back what it changes
    settings = dataclasses.replace(settings, metrics=("fid20_full", "kid20_full", "is20", "coverage"), num_images=7, batch=4)
    found = []
    for processes in (1, 2):
        own = dataclasses.replace(settings, cache=str(tmp_path / f"cache{processes}"))
        out = tmp_path / f"{processes}.jsonl"
        distributed.launch(measure_alone_or_not, (own, str(files[0]), out), processes, "gloo")
        found.append(results.read(out))
    for one, two in zip(*found, strict=True):
        assert one["fingerprint"] == two["fingerprint"] and one["figures"] == pytest.approx(two["figures"], rel=1e-4)
    assert len(found[0]) == 4


# Heads


class Finder:
    """Stands for the landmarker: a face is what is bright at its first pixel."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def shows_face(self, picture):
        return bool(picture[0, 0, 0] > 128)


def test_faces_are_looked_for_on_both_sides(files, tmp_path, monkeypatch):
    sides = {yaw: side for side, yaws in heads.SIDES.items() for yaw in yaws}
    light = {-30.0: 255, 0.0: 255, 30.0: 0, 150.0: 0, 180.0: 255, -150.0: 0}

    def pictures_from(G, head, yaws):
        return [np.full([8, 8, 3], light[yaw], np.uint8) for yaw in yaws]

    monkeypatch.setattr(heads, "pictures_from", pictures_from)
    monkeypatch.setattr(measuring.heads, "head_of", lambda G, seed, psi: None)
    monkeypatch.setattr("metrics.tools.FaceFinder", lambda path: Finder())
    monkeypatch.setattr("photo.models.ModelFile.read", lambda self, path=None: b"model")
    settings = Settings(("two_faces",), num_images=3, cache=str(tmp_path))
    (line,) = lines_of(settings, HeadPictures(str(files[0])))
    assert len(sides) == 6 and line["figures"]["two_faces"] == pytest.approx(100 / 3)
    assert line["figures"]["faces_in_front"] == pytest.approx(200 / 3)
    assert "data" not in line["fingerprint"] and line["fingerprint"]["detector"]["name"] == "face landmarker"


def test_heads_that_are_all_the_same_cover_one_shape(files, tmp_path, monkeypatch):
    def filled(G, head):
        points = np.zeros(heads.LATTICE**3, dtype=bool)
        points[: 100 * (1 + head % kinds)] = True
        return points

    monkeypatch.setattr(heads, "filled", filled)
    monkeypatch.setattr(heads, "head_of", lambda G, seed, psi: seed)
    found = []
    for kinds in (1, 2, 8):
        settings = Settings(("coverage",), num_images=8, cache=str(tmp_path / str(kinds)))
        found.append(lines_of(settings, HeadPictures(str(files[0])))[0]["figures"])
    assert found[0]["coverage"] == pytest.approx(1) and found[0]["coverage_distance"] == 0
    assert 1 < found[1]["coverage"] < 2 < found[2]["coverage"] < 8
    # Of 8 × 7 ordered pairs 8 × 4 are of two kinds, and share half.
    assert found[1]["coverage_distance"] == pytest.approx(50 * 32 / 56)


def test_shapes_overlap_by_what_they_share():
    shared = heads.overlaps(np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool))
    np.testing.assert_allclose(shared, [[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_heads_of_a_generator_are_measured_from_all_round(head_data, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "DEPTH_RESOLUTION", 16)
    embedder = save_script(Faces(), tmp_path / "faces.pt")
    settings = Settings(("consistency", "coverage", "id"), num_images=3, embedder=str(embedder), cache=str(tmp_path / "cache"))
    lines = lines_of(settings, HeadPictures(str(head_data[0])), small_generator(4))
    figures = {name: value for line in lines for name, value in line["figures"].items()}
    assert all(0 <= figures[f"consistency_{angle:g}"] <= 100 for angle in heads.ANGLES)
    assert 1 <= figures["coverage"] <= 3 and 0 < figures["id"] <= 1 and figures["id_others"] < 1
    assert not list((tmp_path / "cache").iterdir())  # nothing of this generator is kept


def test_views_that_the_data_lack_are_refused_at_once(files, settings):
    dataset = HeadPictures(str(files[0]), max_yaw=90, mirror=True)
    with pytest.raises(UserError, match="no pictures from the back"):
        dataclasses.replace(settings, views=("all", "back")).check(dataset)
    with pytest.raises(UserError, match="the data has 3 pictures, too few"):
        settings.check(HeadPictures(str(files[0]), max_yaw=90))
    told = settings.check(dataset)
    assert told == ["fid20_full, of all", "features of colours: figures compare with others of it, not with published ones"]
    assert Settings(("coverage",)).check(dataset) == ["coverage"]
    with pytest.raises(UserError, match="coverage looks at heads from all round: no view can be chosen"):
        Settings(("coverage",), views=("back",)).check(dataset)
