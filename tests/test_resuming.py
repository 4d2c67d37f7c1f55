"""Runs that are stopped in every possible way, and continue to the result of an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_training import ROOT, command, invoke, only_run, run, snapshot, start

from training import checkpoint
from training.run_folder import OPTIONS_NAME

MACHINE = ("Timing/", "Throughput/", "Resources/")  # what a record says that is not the same each time
SHORT = "--batch 4 --mbstd-group 2 --tick 0.008 --snap 1"  # a tick and a save every two batches


def final_state(outdir):
    return checkpoint.load_state(only_run(outdir))


def losses(outdir):
    """The records in stats.jsonl of the only run in `outdir`, except for times and memory."""
    return losses_in(only_run(outdir))


def losses_in(run_dir):
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "/" in k and not k.startswith(MACHINE)} for line in lines]


def assert_equal_states(one, two):
    """Bit for bit, except for times."""
    assert one.keys() == two.keys()
    for key in one:
        if isinstance(one[key], dict):
            assert_equal_states(one[key], two[key])
        elif isinstance(one[key], torch.Tensor):
            assert torch.equal(one[key], two[key]), key
        elif isinstance(one[key], list):
            assert_equal_states(dict(enumerate(one[key])), dict(enumerate(two[key])))
        elif isinstance(key, str) and ("elapsed" in key or key == "outdir"):
            pass
        else:
            assert one[key] == two[key], key


def without_times(state):
    state["stats"]["moments"] = {k: v for k, v in state["stats"]["moments"].items() if not k.startswith(MACHINE)}
    return state


def assert_same_run(one, two):
    assert_equal_states(without_times(final_state(one)), without_times(final_state(two)))
    assert losses(one) == losses(two)


@pytest.fixture(scope="module")
def uninterrupted(head_data, tmp_path_factory):
    """A run of nine batches with augmentation and both kinds of regularisers, in one go."""
    outdir = tmp_path_factory.mktemp("uninterrupted")
    run(outdir, head_data, f"--gpus 1 --kimg 0.036 {SHORT} {OPTIONS}")
    return outdir


OPTIONS = "--aug ada --density_reg 0.25 --style_mixing_prob 0.5"


def wait_for(condition, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "nothing happened"
        time.sleep(0.05)


def test_the_same_command_goes_on_bit_for_bit(head_data, tmp_path, uninterrupted):
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.02 {SHORT} {OPTIONS}")
    output = run(tmp_path, head_data, f"--gpus 1 --kimg 0.036 {SHORT} {OPTIONS}")
    assert "going on at 0.02 kimg" in output
    assert_same_run(tmp_path, uninterrupted)
    mine, theirs = snapshot(only_run(tmp_path))["G_ema"].state_dict(), snapshot(only_run(uninterrupted))["G_ema"].state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_wherever_it_comes(head_data, tmp_path, uninterrupted, number):
    process = start(tmp_path, head_data, f"--gpus 1 --kimg 0.036 {SHORT} --snap 100 {OPTIONS}")
    wait_for(lambda: list(tmp_path.glob("*/stats.jsonl")))  # by then signals are caught
    time.sleep(0.5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in output
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.036 {SHORT} --snap 100 {OPTIONS}")
    state, expected = without_times(final_state(tmp_path)), without_times(final_state(uninterrupted))
    state["options"]["snap"] = expected["options"]["snap"]
    assert_equal_states(state, expected)
    assert losses(tmp_path) == losses(uninterrupted)


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_loses_nothing(head_data, tmp_path, uninterrupted, kills):
    generator = torch.Generator().manual_seed(kills)
    for _ in range(kills):
        process = start(tmp_path, head_data, f"--gpus 1 --kimg 0.036 {SHORT} {OPTIONS}")
        time.sleep(2 + 4 * float(torch.rand([], generator=generator)))
        process.kill()
        process.communicate()
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.036 {SHORT} {OPTIONS}")
    for run_dir in tmp_path.iterdir():
        if not (run_dir / OPTIONS_NAME).exists():  # killed while creating its folder, before it began
            assert not checkpoint.state_paths(run_dir)
            continue
        # Where it had finished before the last kill, the command has begun another run.
        assert_equal_states(without_times(checkpoint.load_state(run_dir)), without_times(final_state(uninterrupted)))
        assert losses_in(run_dir) == losses(uninterrupted)


def test_only_the_last_two_states_stay(uninterrupted):
    seen = [checkpoint.images_seen(path) for path in checkpoint.state_paths(only_run(uninterrupted))]
    assert seen == [28, 36]


def test_a_damaged_state_gives_way_to_the_one_before(head_data, tmp_path, uninterrupted):
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.02 {SHORT} {OPTIONS}")
    newest = checkpoint.state_paths(only_run(tmp_path))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    output = run(tmp_path, head_data, f"--gpus 1 --kimg 0.036 {SHORT} {OPTIONS}")
    assert f"Passing over {newest}" in output and "going on at 0.012 kimg" in output
    assert_same_run(tmp_path, uninterrupted)


def test_another_number_of_processes_keeps_data_order_and_counters(head_data, tmp_path, uninterrupted):
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.02 {SHORT} {OPTIONS}")
    run(tmp_path, head_data, f"--gpus 2 --kimg 0.036 {SHORT} {OPTIONS} --desc two")
    state, expected = final_state(tmp_path), final_state(uninterrupted)
    for name in ("nimg", "batches", "ticks", "tick_nimg"):
        assert state[name] == expected[name]
    # The real pictures that came are the same; what the discriminator says of them differs by the latents it met.
    assert [line["Loss/scores/real"]["num"] for line in losses(tmp_path)] == [
        line["Loss/scores/real"]["num"] for line in losses(uninterrupted)
    ]


def test_a_run_is_continued_by_its_folder_and_changes_are_listed(head_data, tmp_path):
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.004 {SHORT}")
    run_dir = only_run(tmp_path)
    arguments = command(tmp_path, head_data, f"--gpus 1 {SHORT} --resume {run_dir} --kimg 0.008 --gamma 2 --mirror 0")[2:]
    code, output = invoke(*arguments)
    assert code == 1 and "--gamma was 1.0, is 2.0" in output and "--mirror was True, is False" in output
    assert len(output.strip().splitlines()) == 1
    run(tmp_path / "elsewhere", head_data, f"--gpus 1 --kimg 0.008 {SHORT} --resume {run_dir}")
    assert checkpoint.images_seen(checkpoint.state_paths(run_dir)[-1]) == 8
    assert not (tmp_path / "elsewhere").exists()


def test_what_begins_a_new_run(head_data, tmp_path):
    """Other options, a finished run, and --restart."""
    base = f"--gpus 1 {SHORT} --kimg 0.004"
    for extra in ("", "", "--glr 0.001", "--restart"):
        run(tmp_path, head_data, f"{base} {extra}")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_is_no_run_is_refused(head_data, tmp_path):
    code, output = invoke(*command(tmp_path / "out", head_data, f"--gpus 1 {SHORT} --resume {tmp_path}")[2:])
    assert code == 1 and "is not the folder of a run" in output


def test_two_processes_do_not_write_in_one_folder(head_data, tmp_path):
    process = start(tmp_path, head_data, f"--gpus 1 --kimg 100 {SHORT}")
    wait_for(lambda: list(tmp_path.glob("*/training-state-*.pt")))
    (first,) = tmp_path.iterdir()
    code, output = invoke(*command(tmp_path, head_data, f"--gpus 1 --kimg 100 {SHORT} --resume {first}")[2:])
    process.terminate()
    process.communicate()
    assert code == 1 and "another process trains in" in output


def test_a_run_goes_on_under_torchrun(head_data, tmp_path):
    """Only rank 0 finds out which run to continue."""
    run(tmp_path, head_data, f"--gpus 2 --kimg 0.012 {SHORT} --desc first")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [*launcher, *command(tmp_path, head_data, f"--gpus 2 --kimg 0.02 {SHORT} --desc first")[1:]]
    result = subprocess.run(
        words, cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "going on at 0.012 kimg" in result.stdout
    assert final_state(tmp_path)["nimg"] == 20
