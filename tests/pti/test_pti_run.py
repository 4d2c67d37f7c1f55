"""The commands from start to end on a tiny network with few steps: files, resuming, mistakes."""

import json
import os
import pickle
import shutil
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

import camera_utils
from inference import synthesis
from pti import benchmark, run
from pti.rendering import Drawing
from pti.results import Results

ROOT = Path(__file__).parent.parent.parent
FEW = ("--num-steps", 3, "--num-steps-pti", 2, "--w-frames", 3, "--back-prior", 0)
SHAPES = ("--shapes", "true", "--shape-res", 24, "--shape-level", 1)
FILES = {
    "target.png",
    "proj.png",
    "projected_w.npz",
    "camera.json",
    "finetuned_generator.pkl",
    "proj.mp4",
    "PTI_render/pre.mp4",
    "PTI_render/post.mp4",
    "geometry.mrc",
    "head.glb",
    "options.json",
    ".lock",
}


def call(command, *args):
    """Run a command in this process: its exit code and everything it printed."""
    result = CliRunner().invoke(command, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def invert(network, photos, outdir, *args):
    code, output = call(run.main, "--network", network, "--target_img", photos, "--outdir", outdir, *FEW, *args)
    assert code == 0, output
    return output


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def frames_of(path):
    with imageio.get_reader(path) as video:
        return np.stack([frame for frame in video])  # noqa: C416 (list() would ask for its length, which is infinite)


@pytest.fixture(scope="module")
def done(network, photos, tmp_path_factory):
    """The folder of a whole inversion, and what was printed."""
    pytest.importorskip("trimesh")
    pytest.importorskip("skimage")
    outdir = tmp_path_factory.mktemp("done")
    output = invert(network, photos, outdir, *SHAPES)
    return outdir / "tiny" / "000", output


def test_everything_that_is_promised_is_there(done):
    folder, output = done
    assert files_in(folder) == FILES
    assert output.count("peak memory") == 2 and "s a step" in output
    stored = json.loads((folder / "options.json").read_text())
    assert stored["projection"]["mask"] and stored["tuning"]["mask"]  # since the photos have masks
    assert frames_of(folder / "proj.mp4").shape == (3, 128, 256, 3)
    for name in ("pre", "post"):
        assert frames_of(folder / "PTI_render" / f"{name}.mp4").shape == (3, 128, 128, 3)
    with mrcfile.open(folder / "geometry.mrc") as volume:
        assert volume.data.shape == (24, 24, 24)
    with PIL.Image.open(folder / "target.png") as ours, PIL.Image.open(folder / "proj.png") as projected:
        assert ours.size == projected.size == (128, 128)


def test_camera_and_latent_draw_the_projection(done, network):
    folder, _ = done
    (camera,) = json.loads((folder / "camera.json").read_text())["cameras"]
    with np.load(folder / "projected_w.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    label = torch.tensor([camera["label"]])
    torch.testing.assert_close(label, arrays["labels"])
    assert camera["focal"] == pytest.approx(camera_utils.DEFAULT_FOCAL, rel=1e-4)
    G = synthesis.load_generator(network, "cpu")
    G.rendering_kwargs.ray_start = 2.35
    with torch.no_grad():
        face = G.prepare(arrays["ws"], arrays["ws_bcg"], noise_mode="const")
    image = synthesis.render(G, face, label)["image"]
    with PIL.Image.open(folder / "proj.png") as projected:
        np.testing.assert_allclose(np.asarray(projected), (image[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255), atol=0.51)


def test_the_tuned_generator_is_a_snapshot_like_any(done, network):
    folder, _ = done
    tuned = pickle.loads((folder / "finetuned_generator.pkl").read_bytes())["G_ema"]
    before = synthesis.load_generator(network, "cpu")
    assert dict(tuned.rendering_kwargs) == dict(before.rendering_kwargs)
    assert not torch.equal(tuned.decoder.net[0].weight, before.decoder.net[0].weight)


@pytest.mark.parametrize(
    "lost, made_again",
    [
        (["PTI_render/post.mp4", "geometry.mrc", "head.glb"], []),
        (["finetuned_generator.pkl", "PTI_render/post.mp4"], ["tuning"]),
        (["projected_w.npz", "finetuned_generator.pkl"], ["projection", "tuning"]),
    ],
)
def test_a_killed_run_goes_on_after_its_last_stage(done, network, photos, tmp_path, lost, made_again):
    folder, _ = done
    shutil.copytree(folder, tmp_path / "tiny" / "000")
    latent = (folder / "projected_w.npz").read_bytes()
    for name in lost:
        (tmp_path / "tiny" / "000" / name).unlink()
    output = invert(network, photos, tmp_path, *SHAPES, "--mask", "true")
    assert [stage for stage in ("projection", "tuning") if f"{stage}: " in output and "steps," in output] == made_again
    assert files_in(tmp_path / "tiny" / "000") == FILES
    again = tmp_path / "tiny" / "000"
    with np.load(again / "projected_w.npz") as one, np.load(folder / "projected_w.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in other.files)  # the very same, made again or kept
    if "projected_w.npz" not in lost:
        assert (again / "projected_w.npz").read_bytes() == latent


def test_other_options_or_networks_are_refused_unless_begun_anew(done, network, photos, tmp_path):
    folder, _ = done
    shutil.copytree(folder, tmp_path / "tiny" / "000")
    args = ["--network", network, "--target_img", photos, "--outdir", tmp_path, *FEW, "--mask", "false"]
    code, output = call(run.main, *args)
    assert code == 1 and "with other options: projection was" in output and "--restart true" in output
    stored = json.loads((tmp_path / "tiny" / "000" / "options.json").read_text())
    (tmp_path / "tiny" / "000" / "options.json").write_text(json.dumps(dict(stored, resolution=512)))
    code, output = call(run.main, *args)
    assert code == 1 and "another network (512 pixels) than the one given now (128 pixels)" in output
    (tmp_path / "tiny" / "000" / "options.json").write_text(json.dumps(dict(stored, target="another")))
    code, output = call(run.main, *args)
    assert code == 1 and "belongs to another photo, mask or camera than those given now" in output
    code, output = call(run.main, *args, "--restart", "true", "--save-video", "false")
    assert code == 0, output
    assert "head.glb" not in files_in(tmp_path / "tiny" / "000")


def test_films_and_meshes_of_other_options_are_made_again(done, network, photos, tmp_path):
    folder, _ = done
    shutil.copytree(folder, tmp_path / "tiny" / "000")
    latent = (folder / "projected_w.npz").read_bytes()
    invert(network, photos, tmp_path, "--shapes", "true", "--shape-res", 20, "--shape-level", 1, "--fps", 10)
    again = tmp_path / "tiny" / "000"
    with mrcfile.open(again / "geometry.mrc") as volume:
        assert volume.data.shape == (20, 20, 20)
    with imageio.get_reader(again / "PTI_render" / "post.mp4") as video:
        assert video.get_meta_data()["fps"] == 10
    assert files_in(again) == FILES and (again / "projected_w.npz").read_bytes() == latent


def test_what_is_not_wanted_now_stays_and_what_is_wanted_is_of_these_options(done, network, photos, tmp_path):
    folder, _ = done
    again = tmp_path / "tiny" / "000"
    shutil.copytree(folder, again)
    made = {name: (again / name).stat().st_mtime_ns for name in ("head.glb", "geometry.mrc", "PTI_render/post.mp4")}
    invert(network, photos, tmp_path, "--save-video", "false", "--fps", 10)
    assert {name: (again / name).stat().st_mtime_ns for name in made} == made
    options = ("--shapes", "true", "--shape-level", 1, "--save-video", "false")
    invert(network, photos, tmp_path, *options, "--shape-res", 20, "--shape-format", ".ply")
    assert not (again / "head.glb").exists()  # of another resolution
    (again / "proj.mp4").unlink()
    output = invert(network, photos, tmp_path)
    assert "proj.mp4 can only be made during the projection; --restart true does both again" in output
    assert (again / "PTI_render/post.mp4").stat().st_mtime_ns == made["PTI_render/post.mp4"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_latent_is_one_line_and_without_it_all_is_done_anew(done, network, photos, tmp_path, content):
    folder, _ = done
    again = tmp_path / "tiny" / "000"
    shutil.copytree(folder, again)
    (again / "projected_w.npz").write_bytes(content)
    code, output = call(run.main, "--network", network, "--target_img", photos, "--outdir", tmp_path, *FEW, *SHAPES)
    assert code == 1 and "projected_w.npz cannot be read; remove it" in output
    (again / "projected_w.npz").unlink()
    output = invert(network, photos, tmp_path, *SHAPES)
    assert "projection: 3 steps" in output and "tuning: 2 steps" in output and files_in(again) == FILES


def test_two_runs_in_one_folder_do_not_collide(done, network, photos):
    """Not even --restart touches a folder that another process is using."""
    folder, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    args = ("--network", network, "--target_img", photos, "--outdir", folder.parent.parent, *FEW, "--restart", "true")
    with Results(folder).lock():
        code, output = call(run.main, *args)
    assert code == 1 and "another process works in" in output and "Traceback" not in output
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_photos_of_one_person_together(network, photos, tmp_path):
    output = invert(network, photos, tmp_path, "--idx", "0-1", "--together", "true", "--save-video", "false")
    folder = tmp_path / "tiny" / "000+1"
    assert "000+1: 2 photos" in output
    with PIL.Image.open(folder / "target.png") as image:
        assert image.size == (256, 128)
    assert len(json.loads((folder / "camera.json").read_text())["cameras"]) == 2


def test_out_of_memory_is_one_line(network, photos, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Drawing, "views", fail)
    args = ("--network", network, "--target_img", photos, "--outdir", tmp_path, *FEW, "--save-video", "false")
    code, output = call(run.main, *args)
    assert code == 1 and "Error: out of memory: say how much there is with --max-memory" in output
    assert not (tmp_path / "tiny" / "000" / "projected_w.npz").exists()


def test_a_raw_photo_is_told_where_to_go(network, photos, tmp_path):
    photo = photos / "img" / "00007" / "000.png"
    code, output = call(run.main, "--network", network, "--target_img", photo, "--outdir", tmp_path)
    assert code == 1 and "is a photo without a camera: give it to gen_pti_script.sh" in output


@pytest.mark.parametrize(
    "args, message",
    [
        (("--mask", "true", "--target_seg", "nowhere"), "no such folder or zip: nowhere"),
        (("--max-memory", 0.001), "this network needs about"),
        (("--precision", "mixed"), "--precision mixed needs a GPU"),
        (("--lpips-heads", "x.pth"), "needs --vgg too"),
        (("--idx", "5"), "--idx 5:"),
        (("--network", "nothing.pkl"), "file not found: nothing.pkl"),
    ],
)
def test_mistakes_are_one_line(network, photos, tmp_path, args, message):
    code, output = call(run.main, "--network", network, "--target_img", photos, "--outdir", tmp_path, *FEW, *args)
    assert code == 1 and message in output and "Traceback" not in output


def test_benchmark_measures_every_side_and_goes_on(network, photos, tmp_path, monkeypatch):
    args = ["--network", network, "--data", photos, "--outdir", tmp_path, "--num-steps", 2, "--num-steps-pti", 1]
    code, output = call(benchmark.main, *args, "--variants", "published,two-views")
    assert code == 0, output
    records = json.loads((tmp_path / "benchmark.json").read_text())["records"]
    assert set(records) == {"published/00007", "two-views/00007"}
    record = records["published/00007"]
    assert record["input"] == 0 and len(record["after"]["psnr"]) == 3
    assert "published, before" in output and "two-views, after" in output
    stamp = (tmp_path / "benchmark.json").stat().st_mtime_ns
    assert call(benchmark.main, *args, "--variants", "published")[0] == 0
    assert (tmp_path / "benchmark.json").stat().st_mtime_ns == stamp
    way = benchmark.Variant(tuning=dict(back_prior=0.0))
    monkeypatch.setitem(benchmark.VARIANTS, "published", way)  # as another version of this project may have it
    assert call(benchmark.main, *args, "--variants", "published")[0] == 0
    again = json.loads((tmp_path / "benchmark.json").read_text())["records"]
    assert again["two-views/00007"] == records["two-views/00007"] and again["published/00007"]["after"] != record["after"]
    code, output = call(benchmark.main, *args, "--seed", 1)
    assert code == 1 and "belongs to another network or other numbers of steps" in output


def test_a_perfect_view_has_perfect_scores():
    image, mask = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, 1, 32, 32)
    mask[..., 8:24] = 1
    found = benchmark.compare(dict(image=image, image_mask=mask), image, mask)
    assert found["psnr"] == pytest.approx(100, abs=0.1) and found["ssim"] == pytest.approx(1) and found["iou"] == 1
    half = torch.zeros_like(mask)
    half[..., 8:16] = 1
    shifted = benchmark.compare(dict(image=image + 0.2, image_mask=half), image, mask)
    assert shifted["iou"] == 0.5 and shifted["psnr"] < 20
    assert benchmark.compare(dict(image=image), image, mask)["psnr"] == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("yaw, column", [(30, "to 45"), (-90, "45-90"), (120, "90-135"), (180, "135-180")])
def test_sectors_of_the_table(yaw, column):
    assert benchmark.sector(yaw, False) == column and benchmark.sector(yaw, True) == "input"


# The script


def script(*args, **environment):
    environment = dict(os.environ, OMP_NUM_THREADS="1", **environment)
    return subprocess.run([ROOT / "gen_pti_script.sh", *map(str, args)], env=environment, capture_output=True, text=True)


@pytest.fixture
def echo(tmp_path):
    """A stand-in for Python that prints its arguments, one a line."""
    path = tmp_path / "echo.sh"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_script_passes_everything_on(echo, network, photos, tmp_path):
    outdir = tmp_path / "with space"
    done = script("--num-steps", 7, "--network", network, "--target", photos, "--outdir", outdir, "--vgg", "a b", PYTHON=echo)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("pti/run.py") and done.returncode == 0
    options = ["--network", network, "--target_img", str(photos), "--outdir", str(outdir), "--idx", "all", "--shapes", "true"]
    assert lines[1:] == [*options, "--num-steps", "7", "--vgg", "a b"]


@pytest.fixture
def echo_and_crop(tmp_path):
    """The same, and where the photo tool would make crops, a folder for them that must not be there yet."""
    path = tmp_path / "crop.sh"
    path.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@"\ncase $1 in *dataset_tool_photo.py) mkdir -p "$(dirname "$5")" && mkdir "$5" ;; esac\n'
    )
    path.chmod(0o755)
    return str(path)


def test_script_prepares_raw_photos_first_and_again_where_they_changed(echo_and_crop, network, tmp_path):
    def crops_made(target):
        done = script("--network", network, "--target", target, "--outdir", tmp_path / "out", PYTHON=echo_and_crop)
        lines = done.stdout.splitlines()
        assert done.returncode == 0 and lines[lines.index("--target_img") + 1] == crops, done.stderr
        if lines[0].endswith("dataset_tool_photo.py"):
            assert lines[1:5] == ["--source", str(target), "--dest", crops]
            return True
        return False

    photo, other, folder = tmp_path / "a" / "my photo.jpg", tmp_path / "b" / "my photo.jpg", tmp_path / "photos.1"
    for path in (photo, other, folder / "one.jpg"):
        path.parent.mkdir()
        path.write_text(str(path))
    crops = str(tmp_path / "out" / "crops" / "my photo.jpg")
    assert crops_made(photo) and not crops_made(photo)
    assert crops_made(other) and not crops_made(other)  # of the same name
    (Path(crops) / "photos.cksum").unlink()  # killed before the crops were whole
    assert crops_made(other)
    crops = str(tmp_path / "out" / "crops" / "photos.1")
    assert crops_made(folder) and not crops_made(folder)
    (folder / "two.jpg").symlink_to(photo)
    assert crops_made(folder)
    photo.write_text("changed")
    assert crops_made(folder)
    (tmp_path / "empty").mkdir()
    crops = str(tmp_path / "out" / "crops" / "empty")
    assert crops_made(tmp_path / "empty")  # by the tool, which says that there are no photos


def test_script_does_not_write_among_raw_photos(echo, network, tmp_path):
    (tmp_path / "photos").mkdir()
    done = script("--network", network, "--target", tmp_path / "photos", "--outdir", tmp_path / "photos" / "out", PYTHON=echo)
    assert done.returncode == 1 and "is inside" in done.stderr and not list((tmp_path / "photos").iterdir())


@pytest.mark.parametrize("place", ["dataset.json", "img/dataset.json", "img.zip"])
def test_script_takes_a_prepared_set_as_it_is(echo, network, tmp_path, place):
    (tmp_path / "set" / place).parent.mkdir(parents=True)
    (tmp_path / "set" / place).touch()
    lines = script("--network", network, "--target", tmp_path / "set", "--outdir", tmp_path, PYTHON=echo).stdout.splitlines()
    assert lines[0].endswith("pti/run.py")


@pytest.mark.parametrize(
    "args, message",
    [
        (["--network", "nothing.pkl"], "Error: no network nothing.pkl; give --network PKL"),
        (["--target"], "Error: --target needs a value"),
    ],
)
def test_script_says_what_is_missing(args, message):
    done = script(*args)
    assert done.returncode != 0 and message in done.stderr


def test_script_says_where_photos_were_looked_for(network):
    done = script("--network", network, "--target", "nowhere")
    assert done.returncode == 1 and "Error: no photos at nowhere" in done.stderr


@pytest.mark.slow
def test_script_runs_as_a_user_runs_it(network, photos, tmp_path):
    few = ("--num-steps", 2, "--num-steps-pti", 1, "--back-prior", 0, "--w-frames", 2, "--shape-res", 24, "--shape-level", 1)
    done = script("--network", network, "--target", photos, "--outdir", tmp_path, "--idx", 0, *few, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "tiny" / "000") == FILES
