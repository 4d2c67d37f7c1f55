"""The command on a tiny network: files, processes, taking up again, comparing, and mistakes."""

import json
import pickle

import imageio.v3 as imageio
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import small_generator
from stand_ins import Colours, save_script

import calc_metrics
from metrics import comparison, results


@pytest.fixture(scope="module")
def network(head_data, tmp_path_factory):
    """A snapshot that tells what it learned from, in the folder of a run."""
    folder = tmp_path_factory.mktemp("run")
    images, masks = map(str, head_data)
    data = dict(class_name="training.dataset.HeadDataset", img_data=images, seg_data=masks, mirror=True, back_repeat=2)
    path = folder / "network-snapshot-000012.pkl"
    path.write_bytes(pickle.dumps(dict(G_ema=small_generator(4, triplane_size=16), training_set_kwargs=data)))
    (folder / "training_options.json").write_text("{}")
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return save_script(Colours(), tmp_path_factory.mktemp("detector") / "colours.pt")


def call(*args):
    result = CliRunner().invoke(calc_metrics.main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def figures_in(path):
    return {name: value for line in results.read(path) for name, value in line["figures"].items()}


def test_a_run_gets_its_figures_once(network, detector, tmp_path):
    options = ("--network", network, "--detector", detector, "--cache", tmp_path, "--views", "all,back")
    metrics = "fid20_full,kid20_full,pr203_full,is20"
    code, output = call(*options, "--metrics", metrics)
    assert code == 0, output
    path = network.parent / "metrics.jsonl"
    lines = results.read(path)
    assert [(line["metric"], line["view"]) for line in lines] == [(m, v) for m in metrics.split(",") for v in ("all", "back")]
    assert {line["images_seen"] for line in lines} == {12000}
    law = lines[0]["fingerprint"]["camera_law"]
    assert law["mirror"] is True and law["back_repeat"] == 2  # as it was trained
    figures = figures_in(path)
    assert figures["fid20_colours"] > 0 and 0 <= figures["pr203_colours_back_recall"] <= 1
    assert all(name in output for name in figures)
    code, output = call(*options, "--metrics", f"{metrics},kid10_full")
    assert code == 0 and [line["metric"] for line in results.read(path)[8:]] == ["kid10_full"] * 2
    code, output = call(*options, "--metrics", metrics)
    assert code == 0 and "Nothing to do" in output and len(results.read(path)) == 10


def test_without_a_file_the_line_is_printed(network, detector, head_data, tmp_path, monkeypatch):
    alone = tmp_path / "own.pkl"
    alone.write_bytes(pickle.dumps(dict(G_ema=small_generator(4, triplane_size=16))))
    options = ("--network", alone, "--detector", detector, "--cache", tmp_path / "cache", "--metrics", "kid10_full")
    code, output = call(*options, "--img_data", head_data[0], "--seg_data", head_data[1], "--background", "white")
    assert code == 0, output
    line = json.loads(next(text for text in output.splitlines() if text.startswith("{")))
    assert line["images_seen"] is None and line["fingerprint"]["background"] == "white"
    code, output = call(*options)
    assert code == 1 and "does not tell what it learned from: give --img_data" in output


@pytest.mark.parametrize(
    "args, code, text",
    [
        (("--metrics", "fid7"), 1, "no metric is called 'fid7'"),
        (("--metrics", "none"), 2, "--metrics is empty"),
        (("--views", "left"), 2, "'left' is not available"),
        (("--metrics", "id"), 1, "id wants a network that knows faces"),
        (("--detector", "missing.pt"), 1, "file not found: missing.pt"),
        (("--img_data", "missing.zip"), 1, "missing.zip"),
        (("--metrics", "fid20_full", "--max_yaw", "90", "--views", "back"), 1, "no pictures from the back"),
        (("--num-images", "20"), 1, "--num-images would have no effect"),
        (("--plot", "x.png"), 2, "go with --compare"),
        (("--compare",), 2, "--compare takes files of results"),
        (("--device", "cuda:99"), 1, "--device cuda:99"),
    ],
)
def test_bad_input_gets_one_line(network, tmp_path, monkeypatch, args, code, text):
    monkeypatch.chdir(tmp_path)
    got, output = call("--network", network, *args)
    assert got == code and text in output and "Traceback" not in output, output
    assert not list(tmp_path.iterdir())


def test_pictures_of_another_size_are_refused(network, detector, tmp_path):
    from helpers import write_data_set

    images, masks = write_data_set(tmp_path, [0, 90], resolution=64)
    code, output = call("--network", network, "--detector", detector, "--img_data", images, "--seg_data", masks)
    assert code == 1 and "pictures of 64 pixels and the network makes 128" in output


# Results side by side


def line(value, seen, metric="fid2k_full", name="fid2k_efflite0", **fingerprint):
    kept = dict(network=f"n{seen}", seed=0, detector=dict(sha256="a"))
    network = f"runs/network-snapshot-{seen // 1000:06d}.pkl"
    return dict(
        metric=metric, view="all", figures={name: value}, network=network, images_seen=seen, fingerprint=kept | fingerprint
    )


@pytest.fixture
def runs(tmp_path):
    """Two runs, of which the second was measured with another detector once; the first once more, with a line cut off."""
    for name, lines in (
        ("first", [line(50, 1000), line(40, 2000), line(39, 2000), line(0.5, 2000, name="id")]),
        ("second", [line(60, 1000), line(45, 3000, detector=dict(sha256="b"))]),
    ):
        (tmp_path / name).mkdir()
        for one in lines:
            results.append(tmp_path / name / "metrics.jsonl", one)
    with open(tmp_path / "first" / "metrics.jsonl", "a") as file:
        file.write('{"metric": "fid2k_f')
    return [tmp_path / name / "metrics.jsonl" for name in ("first", "second")]


def test_results_are_put_side_by_side(runs, tmp_path):
    code, output = call("--compare", *runs, "--plot", tmp_path / "plot.png")
    assert code == 0, output
    rows = [text.split() for text in output.splitlines()]
    assert ["first:", "network-snapshot-000002.pkl", "2", "kimg", "39"] in rows  # the last one counts
    (other,) = [text for text in output.splitlines() if "45" in text]
    assert other.endswith("not comparable: differs in detector.sha256") and output.count("not comparable") == 1
    image = imageio.imread(tmp_path / "plot.png")
    assert image.shape == (comparison.PANEL[1], 2 * comparison.PANEL[0], 3)
    for colour in comparison.COLOURS[:2]:
        assert (image == np.array(colour)).all(axis=-1).sum() > 50


def test_marks_are_where_the_figures_are(runs):
    figures = comparison.collect(runs)
    points = [point._replace(differs=()) for point in figures["fid2k_efflite0"] if point.source == "first"]
    image = comparison.draw({"fid2k_efflite0": points})
    rows, columns = np.nonzero((image == np.array(comparison.COLOURS[0])).all(axis=-1)[50:320])
    left, right = rows[columns < columns.mean()].mean(), rows[columns > columns.mean()].mean()
    assert left < right  # 50 is above 39


def test_a_line_after_half_a_line_is_whole(runs):
    results.append(runs[0], line(30, 4000))
    assert results.read(runs[0])[-1]["images_seen"] == 4000 and len(results.read(runs[0])) == 5


def test_files_without_results_are_refused(runs, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    assert call("--compare", tmp_path / "empty.jsonl")[1].count("holds no results") == 1
    assert results.known(tmp_path / "empty.jsonl") == results.known(tmp_path / "none.jsonl") == results.known(None) == []
    assert "results not found" in call("--compare", tmp_path / "none.jsonl")[1]
    results.append(tmp_path / "own.jsonl", dict(line(3, 1000), images_seen=None))
    code, output = call("--compare", tmp_path / "own.jsonl", "--plot", tmp_path / "plot.png")
    assert code == 1 and "nothing to plot" in output and not (tmp_path / "plot.png").exists()
