"""Faults during a run, provoked on purpose: full disks, dead processes, losses that are not finite."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import children
from test_resuming import SHORT, assert_same_run, wait_for
from test_training import ROOT, assert_same_weights, command, only_run, run, snapshot, start

from dnnlib import UserError
from torch_utils.distributed import free_port
from training import checkpoint
from training.config import TrainingConfig
from training.options import PRESETS
from training.training_loop import SKIPPED_STEPS_LIMIT, Trainer


def test_a_full_disk_costs_neither_the_run_nor_what_was_saved(head_data, tmp_path):
    """From some moment on, limit files to 2 MB, as if the disk were full: snapshots and states are larger."""
    run(tmp_path, head_data, f"--gpus 1 --kimg 0.004 {SHORT}")
    before = {path.name: path.read_bytes() for path in only_run(tmp_path).glob("*.p*") if "reals" not in path.name}
    process = subprocess.Popen(
        command(tmp_path, head_data, f"--gpus 1 --kimg 0.020 {SHORT}"),
        cwd=ROOT,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Warning: a snapshot of the networks could not be written" in output
    assert "Warning: the state of training could not be written" in output
    after = {path.name: path.read_bytes() for path in only_run(tmp_path).iterdir() if path.name in before}
    assert {name: after[name] == data for name, data in before.items() if name.endswith((".pkl", ".pt"))} == {
        name: True for name in before if name.endswith((".pkl", ".pt"))
    }
    assert not [path for path in only_run(tmp_path).iterdir() if path.name.startswith(".")]
    snapshot(only_run(tmp_path))
    assert checkpoint.load_state(only_run(tmp_path))["nimg"] == 4


def test_a_worker_that_reads_data_is_replaced(head_data, tmp_path):
    process = start(tmp_path / "killed", head_data, f"--gpus 1 --kimg 0.06 {SHORT} --snap 100")
    wait_for(lambda: list(tmp_path.glob("killed/*/stats.jsonl")) and children(process.pid))
    time.sleep(1)
    os.kill(next(iter(children(process.pid))), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "A worker that reads data died; starting others" in output
    run(tmp_path / "whole", head_data, f"--gpus 1 --kimg 0.06 {SHORT} --snap 100")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_is_named_and_ends_the_others(head_data, tmp_path, rank):
    process = start(tmp_path, head_data, f"--gpus 2 --kimg 100 {SHORT}")
    wait_for(lambda: list(tmp_path.glob("*/training-state-*.pt")))
    ranks = [pid for pid, line in children(process.pid).items() if "spawn_main" in line]
    killed = time.time()
    os.kill(ranks[rank], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and time.time() - killed < 60
    assert re.search(rf"^Error: rank {rank} was killed by SIGKILL; the other processes were stopped", output, re.MULTILINE), (
        output
    )
    assert not [pid for pid in ranks if os.path.exists(f"/proc/{pid}")]


def tiny_trainer(head_data, device=torch.device("cpu"), **changes):
    options = dict(PRESETS["cpu"], cbase=1024, cmax=8, triplane_size=16, depth_resolution=4, depth_resolution_importance=4)
    options.update(
        outdir="", cfg="ffhq", img_data=str(head_data[0]), seg_data=str(head_data[1]), gpus=1, batch=4, gamma=1, gamma_seg=1
    )
    options.update(dict(neural_rendering_resolution_initial=8, density_reg=0, trans_reg=1.0) | changes)
    return Trainer(TrainingConfig(**options), device)


def test_a_step_without_a_finite_loss_moves_nothing(head_data, tmp_path):
    trainer = tiny_trainer(head_data)
    trainer.open(tmp_path)
    trainer.step()
    accumulate = trainer.loss.accumulate_gradients

    def broken(**kwargs):
        outcome = accumulate(**kwargs)
        return outcome._replace(loss=outcome.loss * float("nan"))

    before = {name: tensor.clone() for m in (trainer.G, trainer.D) for name, tensor in m.state_dict().items()}
    trainer.loss.accumulate_gradients = broken
    trainer.step()
    after = {name: tensor for m in (trainer.G, trainer.D) for name, tensor in m.state_dict().items()}
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-7) for name in before)
    trainer.loss.accumulate_gradients = accumulate
    trainer.step()
    assert not torch.equal(before["b4.out.bias"], trainer.D.b4.out.bias)
    trainer.tick()
    assert trainer.skipped_steps == 2  # Gboth and Dmain of one batch
    trainer.close()


def test_a_run_that_has_broken_down_stops_with_advice(head_data, tmp_path):
    trainer = tiny_trainer(head_data, kimg=1.0, tick=0.02, snap=100)
    trainer.open(tmp_path)
    accumulate = trainer.loss.accumulate_gradients
    trainer.loss.accumulate_gradients = lambda **kwargs: accumulate(**kwargs)._replace(loss=torch.tensor(float("inf")))
    with pytest.raises(UserError, match=r"broken down: \d+ steps .*--glr"):
        trainer.run(interrupt=False)
    assert trainer.skipped_steps > SKIPPED_STEPS_LIMIT
    assert trainer.nimg < 200
    trainer.close()


def torchrun(node, nodes, per_node, port, outdir, data, arguments):
    launcher = ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node_rank={node}", f"--nproc_per_node={per_node}"]
    launcher += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    words = [sys.executable, *launcher, *command(outdir, data, arguments)[1:]]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_nodes_train_as_one_process_does(head_data, tmp_path):
    """Two agents with two ranks each, compared with one process with four rounds."""
    extra = "--batch 8 --batch-gpu 2 --mbstd-group 2 --kimg 0.024 --tick 1"
    port = free_port()
    agents = [torchrun(node, 2, 2, port, tmp_path / "nodes", head_data, f"--gpus 4 {extra}") for node in range(2)]
    outputs = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    run(tmp_path / "one", head_data, f"--gpus 1 {extra}")
    assert_same_weights(only_run(tmp_path / "one"), only_run(tmp_path / "nodes"))
    stats = (only_run(tmp_path / "nodes") / "stats.jsonl").read_text()
    assert all(f"Throughput/rank{rank}_img_per_sec" in stats for rank in range(4))
