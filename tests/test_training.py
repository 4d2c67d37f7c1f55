"""The training command end to end on tiny networks, and what it promises about processes, interruption and resuming."""

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from click.testing import CliRunner
from helpers import children, write_data_set

import train
from camera_utils import orbit_label
from training.config import PRESETS

ROOT = Path(__file__).parent.parent
# The second command of docs/training.md, with networks that take a second per step.
TINY = (
    "--cfg=ffhq --gamma=1 --gamma_seg=1 --gen_pose_cond=True --mirror=1 --use_torgb_raw=1 --decoder_activation=none "
    "--disc_module MaskDualDiscriminatorV2 --bcg_reg_prob 0.2 --triplane_depth 2 --density_noise_fade_kimg 200 --density_reg 0 "
    "--back_repeat 2 --trans_reg 10 --gpc_reg_prob 0.7 --preset cpu --cbase 1024 --cmax 8 --triplane_size 16 "
    "--depth_resolution 4 --depth_resolution_importance 4 --neural_rendering_resolution_initial 8 --workers 1 "
)


def command(outdir, data, arguments):
    images, masks = data
    text = f"train.py --outdir {outdir} --img_data {images} --seg_data {masks} {TINY} {arguments}"
    return [sys.executable, *shlex.split(text)]


def start(outdir, data, arguments):
    env = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen(
        command(outdir, data, arguments), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(outdir, data, arguments):
    process = start(outdir, data, arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def only_run(outdir):
    (run_dir,) = Path(outdir).iterdir()
    return run_dir


def snapshot(run_dir, name="network-snapshot-000000.pkl"):
    with open(run_dir / name, "rb") as file:
        return pickle.load(file)


def assert_same_weights(one_dir, other_dir, steps=3, rate=0.0025):
    """The networks of two runs agree but for the order of additions, after `steps` of Adam at `rate`.

    Adam divides a gradient by its own size, and with it the rounding of a scalar's gradient, the sum of a million terms that
    cancel.  So the measure is how far a tensor can have moved: other draws differ by about as much, rounding by a thousandth.
    """
    one, other = snapshot(one_dir), snapshot(other_dir)
    for network in ("G", "D", "G_ema"):
        mine, theirs = one[network].state_dict(), other[network].state_dict()
        for name, tensor in mine.items():
            farthest = steps * rate * tensor.numel() ** 0.5
            assert (tensor - theirs[name]).norm() <= 1e-5 * tensor.norm() + 1e-3 * farthest, (network, name)


def invoke(*arguments):
    """Run the command in this process; returns exit code and output."""
    result = CliRunner().invoke(train.main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def trained(head_data, tmp_path_factory):
    """A finished run of two batches."""
    outdir = tmp_path_factory.mktemp("runs")
    output = run(outdir, head_data, "--gpus 1 --batch 4 --kimg 0.008 --tick 0.004 --snap 1 --desc first")
    return only_run(outdir), output


def test_a_run_folder_holds_what_people_look_for(trained):
    run_dir, output = trained
    assert run_dir.name == "00000-ffhq-heads_img-gpus1-batch4-gamma1-first"
    options = json.loads((run_dir / "training_options.json").read_text())
    assert options["batch"] == 4 and options["generator_kwargs"]["rendering_kwargs"]["triplane_depth"] == 2
    assert "Finished at 0.008 kimg" in (run_dir / "log.txt").read_text() and "Finished" in output
    assert list(run_dir.glob("events.out.tfevents.*"))
    for name in ("reals", "reals_mask", "fakes000000"):
        assert imageio.imread(run_dir / f"{name}.png").shape == (256, 512, 3)
    for name in ("fakes000000_raw", "fakes000000_depth", "fakes000000_mask"):
        assert imageio.imread(run_dir / f"{name}.png").shape == (16, 32, 3)
    assert not [path.name for path in run_dir.iterdir() if path.name.startswith(".")]  # no temporary files


def test_stats_have_a_line_per_tick_and_every_loss(trained):
    lines = [json.loads(line) for line in (trained[0] / "stats.jsonl").read_text().splitlines()]
    assert [line["Progress/kimg"]["mean"] for line in lines] == pytest.approx([0.004, 0.008])
    for name in (
        "Loss/G/loss",
        "Loss/G/trans_reg_loss",
        "Loss/D/loss",
        "Loss/D/reg",
        "Loss/r1_penalty_seg",
        "Timing/sec_per_kimg",
    ):
        assert name in lines[0]


def test_the_snapshot_is_used_as_readers_are_told(trained):
    content = snapshot(trained[0])
    assert {"G", "D", "G_ema", "training_set_kwargs", "augment_pipe"} <= set(content)
    G = content["G_ema"]
    assert not G.training and not any(p.requires_grad for p in G.parameters())
    assert {p.device.type for p in G.parameters()} == {"cpu"}
    pictures = G(torch.randn(1, G.z_dim), orbit_label(0.0, 0.0))
    assert pictures["image"].shape == (1, 3, 128, 128) and pictures["image_raw"].shape == (1, 3, 8, 8)
    assert pictures["image_depth"].shape == pictures["image_mask"].shape == (1, 1, 8, 8)
    assert content["G"].backbone.mapping.w_avg.abs().sum() > 0


def test_both_networks_learn(trained):
    content = snapshot(trained[0])
    assert not torch.equal(content["G"].torgb.weight, content["G_ema"].torgb.weight)
    assert content["G"].backbone.synthesis.b8.conv0.noise_strength != 0  # starts at zero
    assert content["D"].b4.out.bias.abs().sum() > 0
    assert content["G"].t_mapping.fc1.weight.abs().sum() > 0


def test_resuming_starts_from_the_networks_and_counts_on(trained, head_data, tmp_path):
    source = trained[0] / "network-snapshot-000000.pkl"
    output = run(
        tmp_path,
        head_data,
        f"--gpus 1 --batch 4 --resume={source} --neural_rendering_resolution_final=16 --resume_kimg 1000 "
        "--kimg 1000.004 --glr 0 --dlr 0",
    )
    run_dir = only_run(tmp_path)
    assert "find none of their shape" not in output
    before, after = snapshot(trained[0]), snapshot(run_dir, "network-snapshot-001000.pkl")
    assert torch.equal(before["G"].torgb.weight, after["G"].torgb.weight)
    assert torch.equal(before["D"].b4.out.weight, after["D"].b4.out.weight)
    assert after["G_ema"].neural_rendering_resolution == 16
    options = json.loads((run_dir / "training_options.json").read_text())["loss_kwargs"]
    assert (options["blur_init_sigma"], options["gpc_reg_fade_kimg"]) == (0, 0)


def test_processes_and_accumulation_rounds_are_interchangeable(head_data, tmp_path):
    """Two gloo processes and one process with two rounds add the same gradients in another order, no more.

    Of two batches: from a third on, rounding may put an activation of D on the other side of a kink, where its gradient jumps.
    """
    extra = "--batch 8 --batch-gpu 4 --kimg 0.016 --tick 1 --style_mixing_prob 0.5 --aug fixed --density_reg 0.25"
    run(tmp_path / "one", head_data, f"--gpus 1 {extra}")
    run(tmp_path / "two", head_data, f"--gpus 2 {extra}")
    assert_same_weights(only_run(tmp_path / "one"), only_run(tmp_path / "two"), steps=2)


def test_under_torchrun_the_ranks_are_those_it_gives(head_data, tmp_path):
    arguments = command(tmp_path, head_data, "--gpus 2 --batch 4 --mbstd-group 2 --kimg 0.004")[1:]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*launcher, *arguments],
        cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "2 process(es), 1 x 2 samples" in result.stdout
    assert (only_run(tmp_path) / "network-snapshot-000000.pkl").exists()


@pytest.mark.parametrize("gpus", [1, 2])
def test_ctrl_c_finishes_the_step_and_saves(head_data, tmp_path, gpus):
    process = start(tmp_path, head_data, f"--gpus {gpus} --batch 4 --mbstd-group 2 --kimg 100 --tick 100")
    deadline = time.time() + 120
    while not list(tmp_path.glob("*/network-snapshot-000000.pkl")) and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    written = next(tmp_path.glob("*/network-snapshot-000000.pkl"))
    first = written.stat().st_mtime_ns
    for pid in (process.pid, *children(process.pid)):  # as a terminal does, to all at once
        os.kill(pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert re.search(r"Stopped at .* kimg; the last snapshot is .*network-snapshot-000000.pkl", output)
    assert written.stat().st_mtime_ns > first
    assert "Traceback" not in output


def test_a_run_stops_when_its_time_is_up_and_goes_on(head_data, tmp_path):
    options = "--gpus 1 --batch 4 --mbstd-group 2 --kimg 100 --tick 100 --minutes"
    for minutes in (0.02, 0.03):
        process = start(tmp_path, head_data, f"{options} {minutes}")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert re.search(r"Stopped at .* kimg; the last snapshot is .*pkl", output)
    assert f"Run folder:  {only_run(tmp_path)}, going on at" in output


DOCUMENTED_TRAINING = (
    "--cfg=ffhq --batch=32 --gpus 8 --gamma=1 --gamma_seg=1 --gen_pose_cond=True --mirror=1 --use_torgb_raw=1 "
    '--decoder_activation="none" --disc_module MaskDualDiscriminatorV2 --bcg_reg_prob 0.2 --triplane_depth 3 '
    "--density_noise_fade_kimg 200 --density_reg 0 --min_yaw 0 --max_yaw 180 --back_repeat 4 --trans_reg 10 --gpc_reg_prob 0.7"
)


def write_512(folder):
    return write_data_set(folder, [0, 120], resolution=512)


@pytest.mark.parametrize(
    "extra",
    ["--outdir training-runs", "--outdir results --resume=some.pkl --neural_rendering_resolution_final=128 --resume_kimg 1000"],
)
def test_the_published_commands_are_understood_word_for_word(extra, tmp_path, monkeypatch):
    folder = tmp_path / "dataset"
    folder.mkdir()
    images, masks = write_512(folder)
    shutil.move(images, folder / "testdata_img.zip")
    shutil.move(masks, folder / "testdata_seg.zip")
    monkeypatch.chdir(tmp_path)
    data = "--img_data dataset/testdata_img.zip --seg_data dataset/testdata_seg.zip"
    code, output = invoke(*shlex.split(f"{extra} {data} {DOCUMENTED_TRAINING}"), "--dry-run")
    assert code == 0, output
    options = json.loads(output[: output.rindex("}") + 1])
    assert (options["batch"], options["gpus"], options["decoder_activation"], options["back_repeat"]) == (32, 8, "none", 4)
    assert not (tmp_path / "training-runs").exists()
    golden = json.loads((ROOT / "tests/golden/generator_ffhq512_kwargs.json").read_text())
    built = options["generator_kwargs"]
    assert built["rendering_kwargs"] == golden["rendering_kwargs"]
    for name in set(golden) - {"rendering_kwargs", "sr_num_fp16_res", "conv_clamp"}:  # the record was made in float32
        assert built[name] == golden[name]


def test_underscores_and_dashes_are_the_same(head_data):
    data = ["--img-data", head_data[0], "--seg-data", head_data[1], "--outdir", "x", "-n"]
    rest = shlex.split(
        "--cfg ffhq --gpus 1 --batch 8 --gamma 1 --gamma-seg 1 --batch_gpu 4 --sr_module SuperresolutionHybrid2X"
    )
    code, output = invoke(*data, *rest)
    assert code == 0 and json.loads(output[: output.rindex("}") + 1])["batch_gpu"] == 4


def test_a_preset_gives_way_to_what_is_typed(head_data):
    base = ["--img_data", head_data[0], "--seg_data", head_data[1], "--outdir", "x", "-n"]
    rest = shlex.split("--cfg ffhq --gpus 1 --batch 4 --gamma 1 --gamma_seg 1 --preset cpu --cmax 77")
    options = json.loads(invoke(*base, *rest)[1].rpartition("}")[0] + "}")
    assert (options["cmax"], options["cbase"], options["triplane_size"]) == (77, 2048, 64)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_sets_is_no_mistake_after_resume(head_data, preset):
    """Though it has no effect there: nobody typed it."""
    base = ["--img_data", head_data[0], "--seg_data", head_data[1], "--outdir", "x", "-n", "--resume", "x.pkl"]
    code, output = invoke(*base, *shlex.split("--cfg ffhq --gpus 1 --batch 4 --gamma 1 --gamma_seg 1 --preset"), preset)
    assert code == 0, output


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ("--batch 6 --gpus 4", 1, "multiple of --gpus"),
        ("--batch 8 --batch-gpu 3", 1, "--batch-gpu 3"),
        ("--batch 6 --mbstd-group 4", 1, "--mbstd-group 4 must divide"),
        ("--batch 4 --batch-gpu 1 --disc_c_noise 0.1", 1, "--batch-gpu 2"),
        ("--resume x.pkl --resume_kimg 1 --kimg 0.004", 1, "leaves nothing to do"),
        ("--resume x.pkl --blur_fade_kimg 7", 1, "--resume_blur"),
        ("--seg_resolution 2048 --cbase 1024", 1, "leaves no channels"),
        ("--seed 4294967296", 2, "4294967296"),
        ("--desc a/b", 1, "slash"),
        ("--gpus 2 --device cuda:1", 1, "CUDA_VISIBLE_DEVICES"),
        ("--triplane_size 100", 1, "power of two"),
        ("--c_noise 0.5", 1, "no effect"),
        ("--sr_first_cutoff 3", 1, "no effect"),
        ("--reg_type l1-alt", 1, "does nothing there"),
        ("--reg_type total-variation", 1, "does nothing there"),
        ("--cond false", 1, "nothing to render"),
        ("--p 0.5", 1, "--aug fixed"),
        ("--gpc_reg_prob 0.7", 1, "--gen_pose_cond"),
        ("--sr-module SuperresolutionHybrid4X", 1, "does not make 128"),
        ("--sr-module Nothing", 1, "SuperresolutionHybrid2X"),
        ("--metrics fid50k_full", 2, "not available"),
        ("--gamma -1", 2, "-1"),
        ("--gamma nan", 2, "nan"),
        ("--batch 0", 2, "--batch"),
        ("--resume nothing.pkl --kimg 0.004", 1, "nothing.pkl"),
        ("--img_data nothing.zip", 1, "nothing.zip"),
        ("--ray_start 4", 1, "--ray_end"),
        ("--device cuda:99", 1, "--device cuda:99"),
        ("--outdir /proc/nothing", 1, "/proc/nothing"),
    ],
)
def test_mistakes_get_one_line(head_data, tmp_path, arguments, code, message):
    base = dict(
        outdir=tmp_path / "out", img_data=head_data[0], seg_data=head_data[1], cfg="ffhq", gpus=1, batch=4, gamma=1, gamma_seg=1
    )
    words = [f"--{name}={value}" for name, value in base.items()] + shlex.split(arguments)
    got, output = invoke(*words)
    assert got == code and message in output, output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1 or code == 2  # click adds how to use the command
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_damaged_picture_ends_training_in_one_line(head_data, tmp_path):
    shutil.unpack_archive(head_data[0], tmp_path / "img")
    (tmp_path / "img/00000/img00000003.png").write_bytes(b"not a picture")
    process = start(tmp_path / "out", (tmp_path / "img", head_data[1]), "--gpus 1 --batch 4 --kimg 1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in output
    assert re.search(r"^Error: .*img00000003.png.*not a picture", output, re.MULTILINE)
