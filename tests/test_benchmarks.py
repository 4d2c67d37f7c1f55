"""The benchmarks: the published arithmetic gives the same numbers, and the command measures both ways."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from fill import fill

import benchmarks.__main__ as command
from benchmarks import cases, measure
from benchmarks.published import published
from camera_utils import orbit_label
from dnnlib.util import construct_class_by_name
from torch_utils import custom_ops
from training import discriminator_blocks, synthesis_network
from training.volumetric_rendering import trigrid

CPU = cases.Setting(torch.device("cpu"), quick=True)


@pytest.fixture(scope="module")
def generator():
    kwargs = json.loads((Path(__file__).parent / "golden" / "generator_small_kwargs.json").read_text())
    return fill(construct_class_by_name(**kwargs))


def numbers(G, training):
    """Two faces' pictures, and the gradient of their sum to the weights."""
    torch.manual_seed(0)
    G.train(training).zero_grad(set_to_none=True)
    c = torch.cat([orbit_label(0.4, 0.1), orbit_label(-1.0, 0.0)])
    seen = G(torch.randn(2, G.z_dim), c, noise_mode="const")
    seen["image"].square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in G.named_parameters() if parameter.grad is not None}
    return {**{name: picture.detach() for name, picture in seen.items()}, **gradients}


@pytest.mark.parametrize("training", [False, True])
def test_published_arithmetic_gives_the_same_pictures_and_gradients(generator, training):
    fast = numbers(generator, training)
    with published(training):
        plain = numbers(generator, training)
    assert fast.keys() == plain.keys()
    scale = max(tensor.norm() for tensor in fast.values())
    for name, tensor in fast.items():
        assert (tensor - plain[name]).norm() <= 1e-3 * tensor.norm() + 1e-7 * scale, name


def test_published_arithmetic_is_plain(generator, monkeypatch):
    lookups, groups = [], []
    grid_sample, conv2d = F.grid_sample, F.conv2d
    monkeypatch.setattr(F, "grid_sample", lambda x, *a, **k: lookups.append(x) or grid_sample(x, *a, **k))
    monkeypatch.setattr(F, "conv2d", lambda *a, groups=1, **k: counted(groups, *a, **k))

    def counted(number, *args, **kwargs):
        groups.append(number)
        return conv2d(*args, groups=number, **kwargs)

    with published():
        assert custom_ops.mode() == "ref"
        numbers(generator, training=False)
    assert lookups and all(x.ndim == 5 and x.stride(-1) == 1 for x in lookups)
    assert 2 in groups  # styles in the weights of two samples
    lookups.clear()
    numbers(generator, training=False)
    assert not lookups


PATCHED = (trigrid, synthesis_network, discriminator_blocks)


def test_everything_is_put_back():
    before = custom_ops.mode(), [dict(vars(module)) for module in PATCHED]
    with pytest.raises(ZeroDivisionError), published():
        for module, names in zip(PATCHED, before[1]):
            assert dict(vars(module)) != names, module
        raise ZeroDivisionError
    assert before == (custom_ops.mode(), [dict(vars(module)) for module in PATCHED])


def work(**changes):
    one = [torch.ones(3)]
    return cases.Work(**{**dict(title="ones", fast=lambda: one, published=lambda: one, parts=4), **changes})


def test_results_that_differ_are_no_measurement():
    for other in (torch.full([3], 1.01), torch.full([3], float("nan"))):
        with pytest.raises(measure.Disagreement, match="result 0 differs"):
            measure.seconds_of(work(published=lambda: [other]), CPU, budget=1)


def test_published_seconds_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(measure, "_timed", lambda run, keep, device: (2.0, run()))
    assert measure.seconds_of(work(), CPU, budget=10) == {"fast": [2.0], "published": [8.0]}


def test_paths_take_turns_and_the_first_round_does_not_count():
    order = []

    def note(name):
        order.append(name)
        return [torch.ones(1)]

    full = cases.Setting(torch.device("cpu"))
    found = measure.seconds_of(work(fast=lambda: note("fast"), published=lambda: note("published")), full, budget=60)
    assert len(found["fast"]) == len(found["published"]) == measure.ROUNDS
    assert order == ["fast", "published"] * (measure.ROUNDS + 1)


def test_a_long_rehearsal_counts(monkeypatch):
    monkeypatch.setattr(measure, "LONG", 0)
    found = measure.seconds_of(work(), cases.Setting(torch.device("cpu")), budget=0)
    assert len(found["fast"]) == 1


def test_flop_are_counted_forward_and_backward():
    a = torch.rand(4, 5, requires_grad=True)
    b = torch.rand(5, 6)
    assert measure.flop_of(lambda: a @ b) == 2 * 4 * 5 * 6
    assert measure.flop_of(lambda: torch.autograd.grad((a @ b).sum(), a)) == 2 * 2 * 4 * 5 * 6


def test_unknown_names_are_refused():
    result = CliRunner().invoke(command.main, ["--only", "pictures"])
    assert result.exit_code == 2 and "turntable" in result.output


def test_the_fast_path_must_be_there(monkeypatch):
    monkeypatch.setenv(custom_ops.SWITCH, "ref")
    result = CliRunner().invoke(command.main, ["--quick"])
    assert result.exit_code == 1


@pytest.mark.slow
def test_the_command_measures_time_memory_and_rate(tmp_path):
    out = tmp_path / "figures.json"
    result = CliRunner().invoke(
        command.main, ["--quick", "--device", "cpu", "--only", "planes,loader", "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0 and "images per second" in result.output
    figures = json.loads(out.read_text())
    row = figures["cases"]["planes"]
    assert figures["quick"] and torch.__version__ in figures["machine"]["PyTorch"]
    assert row["speedup"] == pytest.approx(row["seconds"]["published"] / row["seconds"]["fast"])
    assert row["flop"] == pytest.approx(100_000 * 2 * (32 * 64 + 64 * 1)) and row["memory_gib"]["fast"] > 0.1
