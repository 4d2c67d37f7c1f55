"""The command that renders heads: its folders, its options, and what happens to a run that is stopped or whose workers die."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import dataset_tool_seg
from demo import render_heads
from demo.heads import portrait, truth
from demo.heads.geometry import Mesh
from demo.heads.output import SetOptions
from demo.heads.portrait import Picture, Portrait
from demo.heads.views import ViewRanges
from dnnlib import UserError

REPOSITORY = Path(__file__).parents[2]
TRIANGLE = Mesh(np.eye(3), np.array([[0, 1, 2]]))


def nothing_to_prepare():
    pass


def fake_portray(sitting):
    """Discs whose colours come from the seed: quick, and different for every person and view."""
    rng = np.random.default_rng(sitting.person_seed)
    y, x = np.mgrid[: sitting.resolution, : sitting.resolution] / sitting.resolution - 0.5

    def pictures():
        for plan in sitting.views:
            disc = np.hypot(x - plan.shift[0], y) < 0.3
            image = np.where(disc[..., None], rng.integers(0, 256, 3), 90).astype(np.uint8)
            yield Picture(image, (255 * disc).astype(np.uint8), 2.7 * disc)

    return Portrait({"gender": np.float32(0.25), "colour": rng.random(3)}, pictures(), TRIANGLE)


def deadly_at_1(sitting):
    """As above, but the process dies at every second person's second view."""
    made = fake_portray(sitting)

    def pictures():
        for number, picture in enumerate(made.pictures):
            if number == 1 and sitting.person_seed % 2:
                os.kill(os.getpid(), signal.SIGSEGV)
            yield picture

    return Portrait(made.traits, pictures(), made.surface)


def deadly_once(sitting):
    """Dies the first time it is called; a file in the working directory records that."""
    try:
        Path("died-once").touch(exist_ok=False)
    except FileExistsError:
        return fake_portray(sitting)
    os.kill(os.getpid(), signal.SIGKILL)


def broken(sitting):
    raise ZeroDivisionError("a bug")


def slow_portray(sitting):
    made = fake_portray(sitting)

    def pictures():
        for picture in made.pictures:
            time.sleep(0.1)
            yield picture

    return Portrait(made.traits, pictures(), made.surface)


def options(identities=3, views=4, **others):
    defaults = dict(resolution=64, seed=5, spp=1, format="png", truth=False, style=None, ranges=ViewRanges())
    return SetOptions(identities, views, **{**defaults, **others})


def render(folder, set_options, processes=2, portray=fake_portray):
    render_heads.render_set(folder, set_options, processes, nothing_to_prepare, portray)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory):
    """Three people from four sides, with truth, in one go."""
    folder = tmp_path_factory.mktemp("heads") / "set"
    render(folder, options(truth=True))
    return folder


def test_the_data_set_tool_finds_no_fault(whole_set, tmp_path):
    sources = ["--img_source", str(whole_set / "img"), "--seg_source", str(whole_set / "seg")]
    result = CliRunner().invoke(dataset_tool_seg.main, ["--check", *sources, "--sheet", str(tmp_path / "check.png")])
    assert result.exit_code == 0, result.output
    assert "sound: no faults found" in result.output and "12 of 64x64" in result.output
    converted = ["--img_dest", str(tmp_path / "img.zip"), "--seg_dest", str(tmp_path / "seg.zip")]
    result = CliRunner().invoke(dataset_tool_seg.main, [*sources, *converted])
    assert result.exit_code == 0 and "wrote 12 pairs" in result.output and "left out 0" in result.output


def test_every_file_is_named_and_nothing_else_is_there(whole_set):
    files = set(contents(whole_set))
    expected = {name for number in range(3) for name in options(truth=True).files(number)}
    assert files == expected | {"options.json", "sheet.png", "img/dataset.json"}


def test_truth_is_written_with_its_scale(whole_set):
    with Image.open(whole_set / "truth/00001/002.png") as image:
        depth = truth.read_depth(image)
    assert np.unique(depth).tolist() == [0.0, 2.7]
    mask = np.asarray(Image.open(whole_set / "seg/00001/002.png"))
    assert ((depth > 0) == (mask > 0)).all()
    header, data = (whole_set / "truth/00001/head.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 3\n" in header and b"element face 1\n" in header
    assert (np.frombuffer(data[:36], "<f4").reshape(3, 3) == np.eye(3)).all()


def test_traits_and_cameras_are_told(whole_set):
    person = json.loads((whole_set / "people/00002.json").read_text())
    assert person["person_seed"] == 5_000_002 and person["traits"]["gender"] == 0.25
    labels = dict(json.loads((whole_set / "img/dataset.json").read_text())["labels"])
    plans = options().plan(2)
    for view, plan in zip(person["views"], plans, strict=True):
        assert labels[view["image"]] == view["label"] == list(plan.label)
        assert view["shift"] == list(plan.shift) and view["yaw"] == plan.yaw


def test_same_options_make_the_same_files_with_any_number_of_workers(whole_set, tmp_path):
    render(tmp_path / "again", options(truth=True), processes=1)
    assert contents(tmp_path / "again") == contents(whole_set)


def test_sets_of_other_seeds_share_nobody():
    seeds = [{options(seed=seed).person_seed(number) for number in (0, 1, 999_999)} for seed in (0, 1, 2)]
    assert len(set.union(*seeds)) == 9


def test_missing_packages_are_named_and_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(portrait, "PACKAGES", ("numpy", "no_such_renderer"))
    with pytest.raises(UserError, match="needs no_such_renderer: pip install"):
        render_heads.render_set(tmp_path, options(), 2)
    assert list(tmp_path.iterdir()) == []
    render(tmp_path, options(identities=1, views=2))


def test_a_set_may_grow_and_lost_files_are_made_again(whole_set, tmp_path):
    folder = tmp_path / "set"
    render(folder, options(identities=2, truth=True))
    (folder / "seg/00000/001.png").unlink()
    (folder / "people/00001.json").unlink()
    render(folder, options(identities=3, truth=True))
    assert contents(folder) == contents(whole_set)


def test_complete_people_are_not_rendered_again(tmp_path):
    render(tmp_path, options())
    render(tmp_path, options(), portray=broken)


def test_other_options_are_refused_and_named(tmp_path):
    render(tmp_path, options(identities=1))
    before = contents(tmp_path)
    with pytest.raises(UserError, match="views was 4, is 5; .*choose another --outdir"):
        render(tmp_path, options(identities=1, views=5))
    with pytest.raises(UserError, match="ranges was .* is None"):
        render(tmp_path, options(identities=1, ranges=None))
    assert contents(tmp_path) == before


def test_fewer_people_than_there_are_is_refused(tmp_path):
    render(tmp_path, options(identities=2))
    with pytest.raises(UserError, match="identities was 2, is 1"):
        render(tmp_path, options(identities=1))


@pytest.mark.parametrize("name", ["notes.txt", "sheet.png", "img/00000/000.png"])
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"files that are not part of this set .{name}"):
        render(tmp_path, options())
    assert contents(tmp_path) == {name: b"mine"}


def test_a_foreign_file_in_a_set_is_refused(tmp_path):
    render(tmp_path, options(identities=1))
    (tmp_path / "img/00000/004.png").write_bytes(b"")
    with pytest.raises(UserError, match="img/00000/004.png"):
        render(tmp_path, options(identities=2))


def test_options_of_something_else_are_refused(tmp_path):
    (tmp_path / "options.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="does not describe a set of heads"):
        render(tmp_path, options())


def test_a_person_whose_worker_dies_once_is_made_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    render(tmp_path / "set", options(identities=2), processes=1, portray=deadly_once)
    render(tmp_path / "straight", options(identities=2))
    assert contents(tmp_path / "set") == contents(tmp_path / "straight")
    assert "tried again" in capsys.readouterr().err


def test_a_person_that_always_kills_the_renderer_is_left_out_and_named(tmp_path, capsys):
    folder = tmp_path / "set"
    with pytest.raises(UserError, match="died 3 times at each of these people: 1; run again"):
        render(folder, options(), portray=deadly_at_1)
    assert capsys.readouterr().err.count("person 1: the renderer died") == 3
    names = [name for name, _ in json.loads((folder / "img/dataset.json").read_text())["labels"]]
    assert {name[:5] for name in names} == {"00000", "00002"} and len(names) == 8
    assert not (folder / "img/00001").exists() and not list(folder.glob(".*"))
    render(folder, options())
    assert len(json.loads((folder / "img/dataset.json").read_text())["labels"]) == 12


def test_a_bug_in_the_renderer_is_shown_whole(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)at [01]:.*ZeroDivisionError: a bug"):
        render(tmp_path, options(), portray=broken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_torn_and_goes_on(tmp_path, number):
    folder = tmp_path / "set"
    script = (
        "import signal; import test_render_heads as t; from pathlib import Path; from dnnlib import cli\n"
        # Tests that were started in the background of a shell hand down that Ctrl-C is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if __name__ == '__main__':\n"
        f"    cli.one_line_errors(t.render)(Path({str(folder)!r}), t.options(identities=8), 2, t.slow_portray)"
    )
    (tmp_path / "run.py").write_text(script)
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py"], env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: list((folder / "people").glob("*.json")) if (folder / "people").exists() else False)
    process.send_signal(number)
    stderr = process.communicate(timeout=30)[1]
    people = {path.stem for path in (folder / "people").glob("*.json")}
    assert 0 < len(people) < 8
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Error: interrupted" in stderr and "Traceback" not in stderr
        assert {name[:5] for name, _ in json.loads((folder / "img/dataset.json").read_text())["labels"]} == people
        assert {path.name for path in (folder / "img").iterdir()} == people | {"dataset.json"}
        assert not list(folder.glob(".*"))
    render(folder, options(identities=8))
    render(tmp_path / "straight", options(identities=8))
    assert contents(folder) == contents(tmp_path / "straight")


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with render_heads.HeadSet(tmp_path, options()):
        with pytest.raises(UserError, match="another process renders"):
            render(tmp_path, options())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--resolution", "100"], "100 is not a power of two"),
        (["--resolution", "16"], "not in the range"),
        (["--views", "0"], "not in the range"),
        (["--yaw", "30"], "not of the form LO,HI"),
        (["--yaw", "30,-30"], "give the lower angle first"),
        (["--pitch", "-70,0"], "both from -60 to 60"),
        (["--jitter", "nan"], "not a finite number"),
        (["--fixed-views", "true", "--pitch", "0,10"], "leave out --pitch"),
        (["--style", "mohawk"], "is not one of"),
        (["--format", "gif"], "is not one of"),
    ],
)
def test_impossible_options_get_one_line(tmp_path, arguments, message):
    required = ["--outdir", str(tmp_path / "set"), "--identities", "1"] + ["--views", "1"] * ("--views" not in arguments)
    result = CliRunner().invoke(render_heads.main, required + arguments)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "set").exists()


def test_runs_as_a_script_from_anywhere(tmp_path):
    command = [sys.executable, REPOSITORY / "demo/render_heads.py", "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "--fixed-views" in result.stdout
