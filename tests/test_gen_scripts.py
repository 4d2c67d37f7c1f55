"""The three generation commands, end to end on a tiny network, and how each takes bad input."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import mrcfile
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from fill import fill

import gen_interpolation
import gen_samples
import gen_videos
from dnnlib.util import construct_class_by_name
from inference import synthesis, videos

ROOT = Path(__file__).parent.parent
COMMANDS = {module.__name__: module.main for module in (gen_samples, gen_videos, gen_interpolation)}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A snapshot that renders raw pictures of 16 pixels with 4 + 4 samples per ray, and pictures of 128."""
    kwargs = json.loads((ROOT / "tests" / "golden" / "generator_small_kwargs.json").read_text())
    kwargs["rendering_kwargs"].update(depth_resolution=4, depth_resolution_importance=4, triplane_size=32)
    G = fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)
    G.neural_rendering_resolution = 16
    path = tmp_path_factory.mktemp("networks") / "tiny.pkl"
    path.write_bytes(pickle.dumps(dict(G_ema=G)))
    return str(path)


def call(command, *args):
    """Run a command in this process: its exit code and everything it printed."""
    result = CliRunner().invoke(COMMANDS[command], [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def succeed(command, *args):
    code, output = call(command, *args)
    assert code == 0, output
    return output


def picture(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def frames_of(path):
    with imageio.get_reader(path) as video:
        return np.stack([frame for frame in video])  # noqa: C416 (list() would ask for its length, which is infinite)


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Samples


def test_samples_are_strips_of_five_views(network, tmp_path):
    succeed("gen_samples", "--network", network, "--seeds", "0-1,7", "--outdir", tmp_path)
    assert names_in(tmp_path) == ["tiny/seed0000.png", "tiny/seed0001.png", "tiny/seed0007.png"]
    strips = [picture(tmp_path / name) for name in names_in(tmp_path)]
    assert all(strip.shape == (128, 5 * 128, 3) for strip in strips)
    assert not np.array_equal(strips[0], strips[1])
    views = np.split(strips[0], 5, axis=1)
    assert all(not np.array_equal(views[0], view) for view in views[1:])


def test_samples_are_reproducible(network, tmp_path):
    for folder in ("a", "b"):
        succeed("gen_samples", "--network", network, "--seeds", "3", "--outdir", tmp_path / folder)
    assert (tmp_path / "a/tiny/seed0003.png").read_bytes() == (tmp_path / "b/tiny/seed0003.png").read_bytes()


@pytest.mark.parametrize(
    "option",
    [
        ("--trunc", 0.2),
        ("--trunc-cutoff", 2),
        ("--fov-deg", 18.0),  # a fraction matters: 18.837 is the default
        ("--pose_cond", 40),
        ("--sample_mult", 2),
        ("--nrr", 24),
        ("--image_mode", "image_raw"),
    ],
)
def test_each_option_changes_the_picture(network, tmp_path, option):
    succeed("gen_samples", "--network", network, "--seeds", "3", "--outdir", tmp_path / "a")
    succeed("gen_samples", "--network", network, "--seeds", "3", "--outdir", tmp_path / "b", *option)
    assert not np.array_equal(picture(tmp_path / "a/tiny/seed0003.png"), picture(tmp_path / "b/tiny/seed0003.png"))


def test_samples_with_volumes(network, tmp_path):
    succeed("gen_samples", "--network", network, "--seeds", "0", "--outdir", tmp_path, "--shapes", "true", "--shape-res", 32)
    with mrcfile.open(tmp_path / "tiny/seed0000.mrc") as file:
        assert (
            file.data.shape == (32, 32, 32) and (file.data[:3] == -1000).all() and (file.data[3:-3, 3:-3, 3:-3] > -1000).all()
        )


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_samples_with_meshes(network, tmp_path, suffix):
    trimesh = pytest.importorskip("trimesh")
    shape = ("--shapes", "true", "--shape-res", 24, "--shape-format", suffix, "--shape-level", 1)
    succeed("gen_samples", "--network", network, "--seeds", "0", "--outdir", tmp_path, *shape)
    assert names_in(tmp_path) == sorted(["tiny/seed0000.png", f"tiny/seed0000{suffix}"])
    mesh = trimesh.load(tmp_path / f"tiny/seed0000{suffix}", force="mesh", process=False)
    assert len(mesh.faces) > 10 and mesh.visual.kind == ("texture" if suffix == ".glb" else "vertex")
    colors = np.asarray(mesh.visual.material.baseColorTexture if suffix == ".glb" else mesh.visual.vertex_colors)
    assert len(np.unique(colors.reshape(-1, colors.shape[-1]), axis=0)) > 1


# Videos


def test_video_of_a_grid(network, tmp_path):
    grid = ("--seeds", "0-3", "--grid", "2x2", "--outdir", tmp_path, "--cfg", "Head", "--trunc", 0.7, "--w-frames", 6)
    succeed("gen_videos", "--network", network, *grid)
    assert names_in(tmp_path) == ["interpolation.mp4"]
    frames = frames_of(tmp_path / "interpolation.mp4")
    assert frames.shape == (6, 256, 256, 3)
    cells = [frames[0, y : y + 128, x : x + 128].astype(float) for y in (0, 128) for x in (0, 128)]
    assert min(np.abs(cells[0] - cell).mean() for cell in cells[1:]) > 5  # four faces
    assert np.abs(frames[0].astype(float) - frames[3]).mean() > 5  # front and back
    succeed("gen_samples", "--network", network, "--seeds", "2", "--outdir", tmp_path)
    assert names_in(tmp_path) == ["interpolation.mp4", "tiny/seed0002.png"]


def test_video_through_keyframes(network, tmp_path):
    output = tmp_path / "made" / "own.mp4"
    options = ("--seeds", "0-2", "--w-frames", 3, "--fps", 12, "--output", output, "--image_mode", "image_raw", "--nrr", 15)
    succeed("gen_videos", "--network", network, *options)
    assert names_in(tmp_path) == ["made/own.mp4"]
    assert frames_of(output).shape == (9, 16, 16, 3)  # 15 pixels and one more, since the format needs even sizes
    with imageio.get_reader(output) as video:
        assert video.get_meta_data()["fps"] == 12


@pytest.mark.parametrize("seeds, grid, faces", [("0-3", "2x2", 4), ("0-2", "1x1", 3 * 5)])
def test_a_face_is_prepared_only_when_it_changes(network, tmp_path, monkeypatch, seeds, grid, faces):
    prepared, prepare = [], synthesis.prepare
    monkeypatch.setattr(synthesis, "prepare", lambda G, ws: prepared.append(ws) or prepare(G, ws))
    options = ("--seeds", seeds, "--grid", grid, "--w-frames", 5, "--image_mode", "image_raw", "--output", tmp_path / "a.mp4")
    succeed("gen_videos", "--network", network, *options)
    assert len(prepared) == faces
    assert all(not torch.equal(one, other) for one, other in zip(prepared, prepared[1:], strict=False))


def test_one_video_for_each_seed(network, tmp_path):
    each = ("--seeds", "0,12", "--interpolate", "false", "--outdir", tmp_path, "--w-frames", 2, "--image_mode", "image_mask")
    succeed("gen_videos", "--network", network, *each)
    assert names_in(tmp_path) == ["seed0000.mp4", "seed0012.mp4"]
    assert frames_of(tmp_path / "seed0012.mp4").shape == (2, 16, 16, 3)


def test_video_with_shapes(network, tmp_path):
    shape = ("--shapes", "true", "--shape-res", 16, "--image_mode", "image_depth")
    succeed("gen_videos", "--network", network, "--seeds", "4", "--outdir", tmp_path, "--w-frames", 1, *shape)
    assert names_in(tmp_path) == ["interpolation.mp4", "seed0004.mrc"]


def test_shuffled_seeds_make_another_video(network, tmp_path):
    for name, extra in (("a", ()), ("b", ("--shuffle-seed", 1))):
        grid = ("--seeds", "0-3", "--grid", "4x1", "--w-frames", 1, "--image_mode", "image_raw", *extra)
        succeed("gen_videos", "--network", network, "--output", tmp_path / f"{name}.mp4", *grid)
    first, second = (frames_of(tmp_path / f"{name}.mp4")[0] for name in "ab")
    assert first.shape == second.shape == (16, 64, 3) and np.abs(first.astype(float) - second).mean() > 5


# Style mixing


def test_mixing_sheet(network, tmp_path):
    succeed("gen_interpolation", "--network", network, "--outdir", tmp_path)
    assert names_in(tmp_path) == ["seed0521-seed0329.png"]
    assert picture(tmp_path / "seed0521-seed0329.png").shape == (3 * 128, 6 * 128, 3)


def test_mixing_sheet_goes_from_the_second_face_to_the_first(network, tmp_path):
    options = ("--image_mode", "image_raw", "--views", "front,-90", "--trunc", 0.5)
    succeed("gen_interpolation", "--network", network, "--outdir", tmp_path, "--seeds", "1,2", "--layers", "0,4,8", *options)
    succeed("gen_interpolation", "--network", network, "--outdir", tmp_path, "--seeds", "2,1", "--layers", "8,4,0", *options)
    there, back = picture(tmp_path / "seed0001-seed0002.png"), picture(tmp_path / "seed0002-seed0001.png")
    assert there.shape == (2 * 16, 3 * 16, 3)
    (second, mixed, first), (same_second, _, same_first) = (np.split(sheet.astype(int), 3, axis=1) for sheet in (there, back))
    assert np.abs(second - same_second).max() <= 1 and np.abs(first - same_first).max() <= 1  # all layers of one seed
    assert np.abs(mixed - first).mean() > 5 and np.abs(mixed - second).mean() > 5


# Bad input


USAGE_ERRORS = {
    "a range that runs backwards": ("gen_samples", ("--seeds", "3-1", "--outdir", "out"), "runs backwards; write 1-3"),
    "a grid of one number": ("gen_videos", ("--seeds", "0-3", "--outdir", "out", "--grid", "2"), "such as 2x2"),
    "a class": ("gen_samples", ("--seeds", "0", "--outdir", "out", "--class", "1"), "conditioned on cameras, not on classes"),
    "no place for the video": ("gen_videos", ("--seeds", "0"), "give --outdir DIR or --output FILE.mp4"),
    "another kind of video": ("gen_videos", ("--seeds", "0", "--output", "a.gif"), "not the name of an .mp4 file"),
    "one file for two": (
        "gen_videos",
        ("--seeds", "0,1", "--output", "a.mp4", "--interpolate", "false"),
        "writes one per seed; use --outdir",
    ),
    "a grid without interpolation": (
        "gen_videos",
        ("--seeds", "0-3", "--grid", "2x2", "--outdir", "out", "--interpolate", "false"),
        "only work with --interpolate true",
    ),
    "an unknown camera path": ("gen_videos", ("--seeds", "0", "--outdir", "out", "--cfg", "Dogs"), "'FFHQ', 'Cats', 'Head'"),
    "a field of view that is not a number": ("gen_samples", ("--seeds", "0", "--outdir", "out", "--fov-deg", "nan"), "finite"),
}
ERRORS = {
    "seeds that do not fill the grid": (
        "gen_videos",
        ("--seeds", "0-2", "--grid", "2x2", "--outdir", "out"),
        "3 seeds do not fill a grid of 4 cells",
    ),
    "three faces to mix": ("gen_interpolation", ("--seeds", "1-3", "--outdir", "out"), "takes two seeds, A,B, but got 3"),
    "too few samples": (
        "gen_samples",
        ("--seeds", "0", "--outdir", "out", "--sample_mult", "0.9"),
        "makes 3 samples on a ray",
    ),
    "a layer that is not there": ("gen_interpolation", ("--layers", "99", "--outdir", "out"), "there is no layer 99"),
    "an unknown view": ("gen_interpolation", ("--views", "left", "--outdir", "out"), "front, side, back"),
    "a device that is not there": (
        "gen_samples",
        ("--seeds", "0", "--outdir", "out", "--device", "cuda:99"),
        "--device cuda:99",
    ),
    "a surface that is not there": (
        "gen_samples",
        (
            "--seeds",
            "0",
            "--outdir",
            "out",
            "--shapes",
            "1",
            "--shape-res",
            "16",
            "--shape-format",
            ".ply",
            "--shape-level",
            "99",
        ),
        "no surface at density 99",
    ),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_usage_errors_exit_with_2(network, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    command, args, message = USAGE_ERRORS[case]
    code, output = call(command, "--network", network, *args)
    assert code == 2 and message in output
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("case", ERRORS)
def test_mistakes_exit_with_1_and_one_line(network, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    command, args, message = ERRORS[case]
    code, output = call(command, "--network", network, *args)
    errors = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert code == 1 and len(errors) == 1 and message in errors[0], output
    assert not [name for name in names_in(tmp_path) if not name.endswith(".png")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [None, b"", b"no pickle at all"])
def test_a_network_that_cannot_be_read(tmp_path, command, content):
    path = tmp_path / "broken.pkl"
    if content is not None:
        path.write_bytes(content)
    seeds = ("--seeds", "1,2")
    code, output = call(command, "--network", path, *seeds, "--outdir", tmp_path / "out")
    assert code == 1 and output.count("Error: ") == 1 and "broken.pkl" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_folder_that_cannot_be_made(network, tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    code, output = call(command, "--network", network, "--seeds", "1,2", "--outdir", tmp_path / "file")
    assert code == 1 and "Error: cannot write in the folder" in output


def test_out_of_memory_says_what_to_lower(network, tmp_path, monkeypatch):
    def frames(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(videos, "orbit_frames", frames)
    code, output = call("gen_videos", "--network", network, "--seeds", "0", "--outdir", tmp_path)
    assert code == 1 and "Error: out of memory" in output and "--nrr" in output
    assert names_in(tmp_path) == []


def test_reload_modules_says_that_it_changes_nothing(network, tmp_path):
    output = succeed("gen_samples", "--network", network, "--seeds", "0", "--outdir", tmp_path, "--reload_modules", "true")
    assert output.count("--reload_modules: networks are always rebuilt from the installed code") == 1


# As a user runs them


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_from_the_shell(network, tmp_path, command):
    args = ["--network", network, "--outdir", tmp_path / "out", "--seeds", "1,2", "--image_mode", "image_raw"]
    args += ["--w-frames", "2"] if command == "gen_videos" else []
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, ROOT / f"{command}.py", *args], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Wrote" in done.stdout and names_in(tmp_path / "out")
