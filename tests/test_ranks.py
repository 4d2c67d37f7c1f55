"""Processes that train together: what they compute is what one does, and none of them is waited for in vain."""

import os
import signal

import pytest
import torch

from dnnlib import UserError
from torch_utils import custom_ops, distributed

EVERYTHING = dict(density_reg=0.25, trans_reg=1.0, gen_pose_cond=True, gpc_reg_prob=0.7, bcg_reg_prob=0.5, mirror=True)
EVERYTHING |= dict(style_mixing_prob=0.5, density_noise_fade_kimg=200, disc_c_noise=0.1, aug="fixed", p=0.5, use_torgb_raw=True)
PARTS = 4  # micro-batches of an iteration
# Each addition rounds by half of float32's precision.  A gradient is a sum of eight parts at most: of fakes and of reals in
# each micro-batch.  Seen were 2.6.
ROUNDINGS, ROUNDING = 4, torch.finfo(torch.float32).eps


def iterate(_, data, folder):
    """One iteration of eight samples, two at a time, with every loss there is; rank 0 stores what came out.

    Rates are zero, so that all phases see the same networks: Adam would make much of a rounding.  `sizes` are the sums of the
    magnitudes of what a gradient is the sum of.
    """
    from test_faults import tiny_trainer

    shares = distributed.get_world_size()
    trainer = tiny_trainer(data, **EVERYTHING, gpus=shares, batch=8, batch_gpu=2, mbstd_group=2, glr=0.0, dlr=0.0)
    trainer.open(folder)
    gradients, sizes = {}, {}
    accumulate, average = trainer.loss.accumulate_gradients, trainer._average

    def accumulate_and_measure(phase, **kwargs):
        learner = dict((trainer.G if phase.startswith("G") else trainer.D).named_parameters())
        before = {name: p.grad.clone() for name, p in learner.items() if p.grad is not None}
        outcome = accumulate(phase=phase, **kwargs)
        for name, parameter in learner.items():
            if parameter.grad is not None:
                part = (parameter.grad - before.get(name, 0)).abs()
                sizes[phase, name] = sizes.get((phase, name), 0) + part
        return outcome

    def average_and_keep(phase, outcomes):
        average(phase, outcomes)
        found = {(phase.name, name): p.grad.clone() for name, p in phase.module.named_parameters() if p.grad is not None}
        gradients.update(found)

    trainer.loss.accumulate_gradients, trainer._average = accumulate_and_measure, average_and_keep
    trainer.step()
    trainer.stats.update()
    trainer.close()
    if distributed.get_rank() == 0:
        buffers = {name: tensor for name, tensor in trainer.G.state_dict().items() if name.endswith("w_avg")}
        stats = {name: trainer.stats[name] for name in trainer.stats.names() if name.startswith("Loss/")}
        torch.save(dict(gradients=gradients, sizes=sizes, buffers=buffers, stats=stats), folder / "found.pt")


@pytest.mark.slow
def test_four_and_two_processes_find_the_gradients_of_one(head_data, tmp_path):
    """They are means of the same parts, added in another order.

    All losses and regularisers: adversarial, R1 on pictures and masks, densities, translation, swapped cameras and backgrounds,
    mixed styles, noise on densities and labels, augmentation.
    """
    found = {}
    for processes in (1, 2, 4):
        folder = tmp_path / str(processes)
        folder.mkdir()
        distributed.launch(iterate, (head_data, folder), processes, backend="gloo")
        found[processes] = torch.load(folder / "found.pt")
    one = found[1]
    assert {phase for phase, _ in one["gradients"]} == {"Gmain", "Greg", "Dmain", "Dreg"}
    terms = {"Loss/G/loss", "Loss/G/trans_reg_loss", "Loss/G/density_l1", "Loss/D/loss", "Loss/D/reg", "Loss/r1_penalty_seg"}
    assert terms <= set(one["stats"])
    for other in (found[2], found[4]):
        assert other["gradients"].keys() == one["gradients"].keys()
        for key, gradient in one["gradients"].items():
            limit = ROUNDINGS * ROUNDING * one["sizes"][key] / PARTS
            assert ((other["gradients"][key] - gradient).abs() <= limit).all(), key
        for name, tensor in one["buffers"].items():
            assert (other["buffers"][name] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), name
        assert {name: one["stats"][name] for name in other["stats"]} == pytest.approx(other["stats"], rel=1e-6)


def fail(_, rank, how):
    """The process `rank` ends as `how` says while the others wait for it."""
    if distributed.get_rank() == rank:
        if how == "mistake":
            raise UserError("picture 3 is damaged")
        if how == "bug":
            raise ZeroDivisionError("a bug")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    distributed.sum_over_ranks(torch.zeros(3))


@pytest.mark.parametrize(
    "rank, how, message",
    [
        (0, "mistake", "picture 3 is damaged"),
        (1, "bug", "rank 1 ended with exit code 1; the other processes were stopped"),
        (1, "killed", "rank 1 was killed by SIGKILL; the other processes were stopped"),
    ],
)
def test_a_rank_that_fails_ends_all_and_only_its_error_is_told(rank, how, message, capfd):
    with pytest.raises(UserError) as error:
        distributed.launch(fail, (rank, how), 2, backend="gloo")
    assert str(error.value) == message
    printed = capfd.readouterr().err.strip()
    if how == "bug":
        assert printed.splitlines()[0].startswith("Traceback") and printed.endswith("ZeroDivisionError: a bug")
        assert printed.count("Traceback") == 1
    else:
        assert printed == ""


def started(*code):
    """Processes that run pieces of Python, their number as name, and pipes through which no mistake comes."""
    context = torch.multiprocessing.get_context("fork")
    workers, pipes = [], []
    for rank, text in enumerate(code):
        receiver, sender = context.Pipe(duplex=False)
        workers.append(context.Process(target=exec, args=[text, {}], name=f"rank {rank}"))
        workers[-1].start()
        sender.close()
        pipes.append(receiver)
    return workers, pipes


LEFT_ALONE = f"import os; os._exit({distributed._LOST_PEER})"


@pytest.mark.parametrize(
    "other, message",
    [
        ("import os, time; time.sleep(0.5); os._exit(3)", "rank 1 ended with exit code 3"),  # slow to end, but the cause
        ("import time; time.sleep(600)", "rank 0 lost its connection"),
        (LEFT_ALONE, "lost its connection"),
    ],
)
def test_who_was_left_alone_is_not_blamed_unless_nobody_else_ends(other, message, monkeypatch):
    monkeypatch.setattr(distributed, "GRACE_SECONDS", 3)
    workers, pipes = started(LEFT_ALONE, other)
    try:
        assert message in distributed._first_failure(workers, pipes)
    finally:
        distributed._end(workers)


def test_processes_that_end_well_are_no_failure():
    assert distributed._first_failure(*started("pass", "import time; time.sleep(0.3)")) is None


def test_a_slow_batch_or_build_is_waited_for():
    """Longer than NCCL would by itself, and than another process may take to build ops."""
    limits = []

    def look(_):
        for group in (torch.distributed.group.WORLD, distributed._control_group):
            limits.append(group._get_backend(torch.device("cpu")).options._timeout)

    distributed._run(f"tcp://127.0.0.1:{distributed.free_port()}", 0, 1, 0, "gloo", look, ())
    assert limits == [distributed.TIMEOUT] * 2
    assert distributed.TIMEOUT.total_seconds() > custom_ops.BUILD_PATIENCE
