"""Files that leave the viewer: they are valid, show what was asked, and can be given up."""

import contextlib
import io
import shlex
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import PIL.Image
import pytest
from browser import until
from click.testing import CliRunner
from helpers import small_generator

import visualizer
from dnnlib import UserError
from viz import outputs, picture
from viz.jobs import Job
from viz.picture import Network
from viz.states import State, command_line

NOW = contextlib.nullcontext


@pytest.fixture(scope="module")
def tiny():
    """A network that draws in an instant; its heads are noise."""
    return Network(small_generator(4, triplane_size=32), "tiny.pkl")


@pytest.mark.parametrize("background, channels", [("own", 3), ("none", 4)])
def test_a_picture_file_is_the_picture(tiny, background, channels):
    state = State(background=background, yaw=20)
    stored = np.asarray(PIL.Image.open(io.BytesIO(outputs.png(state, tiny, NOW))))
    np.testing.assert_array_equal(stored, picture.picture(state, tiny))
    assert stored.shape == (128, 128, channels)


def test_the_command_line_writes_the_same_picture(network, tmp_path):
    state = State(seed=7, yaw=33, pitch=-12, distance=2.4, mix=(2, 5), directions=(1.0,), background="white")
    words = shlex.split(command_line(state, network.name, str(tmp_path / "view.png")))
    result = CliRunner().invoke(visualizer.main, [*words[2:], "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "view.png")), picture.picture(state, network))


@pytest.mark.parametrize(
    "words, text", [(["--out", "x.gif"], ".png or .jpg"), (["--out", "x.png", "--seed", "-3"], "--seed -3")]
)
def test_a_picture_that_cannot_be_is_refused_in_a_line(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(visualizer.main, words)
    assert result.exit_code != 0 and text in result.output and not list(tmp_path.iterdir())


def test_a_turntable_goes_all_round_from_where_the_camera_is():
    views = outputs.turntable(State(yaw=300, pitch=10), 4)
    assert [view.yaw for view in views] == [300, 30, 120, 210] and {view.pitch for view in views} == {10}


def test_a_path_goes_through_its_views_the_short_way(tiny):
    keys = [State(yaw=350), State(yaw=20, pitch=30, distance=2.0), State(yaw=40, target=(0.1, 0, 0))]
    views = outputs.fly(State(seed=3), keys, 5)
    for view, key in zip((views[0], views[2], views[4]), keys, strict=True):
        assert (view.yaw, view.pitch, view.distance) == pytest.approx((key.yaw, key.pitch, key.distance))
        assert view.target == pytest.approx(key.target)
    assert 350 < views[1].yaw < 360 or views[1].yaw < 20
    assert {view.seed for view in views} == {3}


def test_a_film_has_its_frames(tiny, tmp_path):
    shares = []
    views = outputs.turntable(State(background="none"), 5)
    outputs.film(views, tiny, tmp_path / "turn.mp4", 10, NOW, shares.append)
    frames = imageio.mimread(tmp_path / "turn.mp4", format="FFMPEG")
    assert len(frames) == 5 and frames[0].shape == (128, 128, 3)
    assert shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert np.abs(frames[0].astype(float) - frames[2]).mean() > 2


def test_a_film_that_is_given_up_leaves_no_file(tiny, tmp_path):
    def step(share):
        if share > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        outputs.film(outputs.turntable(State(), 9), tiny, tmp_path / "turn.mp4", 10, NOW, step)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".stl"])
def test_a_mesh_can_be_read(network, tmp_path, suffix):
    trimesh = pytest.importorskip("trimesh")
    outputs.mesh(State(seed=1), network, tmp_path / f"head{suffix}", 48, NOW, lambda share: None)
    mesh = trimesh.load(tmp_path / f"head{suffix}", force="mesh")
    assert len(mesh.faces) > 500
    height = mesh.extents[2 if suffix == ".stl" else 1] / (1000 if suffix == ".stl" else 1)
    assert 0.1 < height < 0.5  # metres, of a head


def test_a_mesh_does_not_depend_on_the_view_but_for_its_camera(network, tmp_path):
    files = [tmp_path / f"{yaw}.ply" for yaw in (0, 90)]
    for yaw, file in zip((0, 90), files):
        outputs.mesh(replace(State(), yaw=yaw), network, file, 32, NOW, lambda share: None)
    assert files[0].read_bytes() == files[1].read_bytes()


class Told:
    """What a job says."""

    def __init__(self):
        self.shares, self.ends = [], []

    def job(self, work):
        return Job(work, self.shares.append, self.ends.append)


def test_a_job_tells_how_far_it_is_and_that_it_is_done():
    told = Told()
    told.job(lambda job: (job.step(0.5), job.step(1.0))).wait()
    assert told.shares == [0.5, 1.0] and told.ends == [None]


def test_a_cancelled_job_stops_at_its_next_step():
    told = Told()

    def work(job):
        until(lambda: job.is_cancelled)
        job.step(0.5)
        raise AssertionError("it went on")

    job = told.job(work)
    job.cancel()
    job.wait()
    assert told.shares == [] and told.ends == ["cancelled"] and not job.is_running


@pytest.mark.parametrize("error, text", [(UserError("no"), "no"), (OSError("full\ndisk"), "OSError: full")])
def test_a_failed_job_says_why(error, text, capsys):
    told = Told()

    def work(job):
        raise error

    told.job(work).wait()
    assert told.ends == [text]


def test_names_of_files_are_those_of_the_network_and_the_seed(tmp_path):
    from types import SimpleNamespace

    from viz.file_panels import _stem

    tab = SimpleNamespace(state=State(seed=7), network=SimpleNamespace(name=str(Path("a") / "b.pkl")))
    assert _stem(tab) == "b-seed0007"
