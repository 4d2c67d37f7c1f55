"""What a run tells of its health: numbers for cases whose answer is known, and heads with planted faults."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_faults import tiny_trainer

from torch_utils import training_stats
from training import alarms, watching
from training.dataset import HeadDataset
from training.loading import load_network
from training.loss import Observed
from training.snapshots import read_stats

ROOT = Path(__file__).parent.parent
HEADS = ROOT / "dataset/heads-128"


@pytest.fixture()
def collector():
    found = training_stats.Collector(keep_previous=False)
    found.update()  # forget what other tests have reported
    return found


def test_values_that_are_not_finite_are_counted():
    values = torch.tensor([3.0, math.nan, 0.0, math.inf, -math.inf, 1e38, 1e-45, -0.0])
    assert watching.nonfinite_share(values) == 3 / 8


def test_faulty_gradients_are_recorded_and_the_norm_stays_finite(head_data, tmp_path):
    trainer = tiny_trainer(head_data)
    trainer.open(tmp_path)
    accumulate = trainer.loss.accumulate_gradients

    def faulty(**kwargs):
        outcome = accumulate(**kwargs)
        if kwargs["phase"] == "Dmain":
            trainer.D.b4.out.weight.grad.fill_(math.nan)
        return outcome

    trainer.loss.accumulate_gradients = faulty
    trainer.step()
    trainer.tick()
    trainer.close()
    (record,) = read_stats(tmp_path)
    faults = trainer.D.b4.out.weight.numel() / sum(p.numel() for p in trainer.D.parameters())
    assert record["Gradients/nonfinite/Dmain"]["mean"] == pytest.approx(faults)
    assert record["Gradients/nonfinite/Gboth"]["mean"] == 0 < record["Gradients/norm/Dmain"]["mean"] < math.inf


def test_the_mean_and_spread_of_shifts_and_the_margin_of_scores(collector):
    shift = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 2.0, 0.0]])
    watching.report_observed(Observed(shift, torch.tensor([0.2, 0.4]), torch.tensor([0.5])), shifts=True)
    training_stats.report("Loss/scores/real", torch.tensor([1.0, 3.0]))
    training_stats.report("Loss/scores/fake", torch.tensor([-1.0]))
    collector.update()
    assert [collector[f"Camera/shift/{axis}"] for axis in "xyz"] == [0, 1, 0]
    assert collector["Mask/coverage/fake"] == pytest.approx(0.3)
    found = watching.derived(collector)
    assert found["Camera/shift/spread"].mean == pytest.approx(2**0.5)  # both samples are that far from the mean
    assert found["Loss/scores/margin"].mean == pytest.approx(3)


def test_cameras_that_learn_no_shift_have_no_row(collector):
    watching.report_observed(Observed(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)), shifts=False)
    collector.update()
    assert "Camera/shift/x" not in collector.names() and "Camera/shift/spread" not in watching.derived(collector)


def test_a_tick_records_gradients_masks_and_shifts_of_every_phase(head_data, tmp_path):
    trainer = tiny_trainer(head_data)
    trainer.open(tmp_path)
    trainer.step()
    trainer.tick()
    trainer.close()
    (record,) = read_stats(tmp_path)
    for phase in ("Gboth", "Dmain", "Dreg"):
        assert record[f"Gradients/nonfinite/{phase}"]["mean"] == 0 < record[f"Gradients/norm/{phase}"]["mean"]
    assert record["Mask/coverage/real"]["mean"] == pytest.approx(math.pi * 0.3**2, abs=0.01)  # the data's discs
    assert record["Camera/shift/spread"]["mean"] < 0.05  # cameras start where the labels put them


def test_looking_changes_nothing_but_the_record(head_data, tmp_path, monkeypatch):
    states, names = [], []
    for every, folder in ((1, "often"), (10**9, "never")):
        monkeypatch.setattr(watching, "LOOK_EVERY", every)
        trainer = tiny_trainer(head_data, density_noise_fade_kimg=1, style_mixing_prob=0.5)
        (tmp_path / folder).mkdir()
        trainer.open(tmp_path / folder)
        for _ in range(2):
            trainer.step()
            trainer.tick()
        trainer.close()
        states.append(trainer.state_dict()["modules"])
        names.append({name for name in read_stats(tmp_path / folder)[-1] if name.startswith("Probe/")})
    assert names == [{f"Probe/{name}" for name in ("diversity", "diversity_real", "relief", "back_likeness")}, set()]
    for often, never in zip(*(state.values() for state in states)):
        assert all(torch.equal(often[name], never[name]) for name in often)


# Planted faults, in the shipped network


@pytest.fixture(scope="module")
def dataset():
    return HeadDataset(str(HEADS / "img.zip"), str(HEADS / "seg.zip"))


def looked_at(G, dataset):
    """A record of the look at G."""
    images = np.stack([dataset[i][0] for i in range(0, 96, 12)])
    collector = training_stats.Collector("Probe/.*", keep_previous=False)
    probe = watching.Probe(dataset, images, G, torch.device("cpu"), seed=0)
    probe.report(G, batch=4)
    collector.update()
    masks = probe._views(G, batch=4)[0]["image_mask"]
    coverages = {"Mask/coverage/fake": dict(mean=masks.mean().item()), "Mask/coverage/real": dict(mean=0.6)}
    return {**collector.as_dict(), **coverages}


def healthy(query, points):
    return query(points)


def mirrored(query, points):
    """Behind as in front."""
    return query(torch.cat([points[..., :2], points[..., 2:].abs()], dim=-1))


def turned(query, points):
    """The front half again behind, turned round the vertical axis."""
    sign = torch.where(points[..., 2:] < 0, -1.0, 1.0)
    return query(points * torch.cat([sign, torch.ones_like(sign), sign], dim=-1))


def cardboard(query, points):
    _, colour = query(torch.cat([points[..., :2], torch.full_like(points[..., 2:], 0.1)], dim=-1))
    inside = (points[..., 2:].abs() < 0.02) & (points[..., :2].norm(dim=-1, keepdim=True) < 0.3)
    return torch.where(inside, 100.0, -100.0), colour


def nothing(query, points):
    density, colour = query(points)
    return torch.full_like(density, -100), colour


def everything(query, points):
    density, colour = query(points)
    return torch.full_like(density, 100), colour


@pytest.mark.parametrize(
    "field, names",
    [
        (healthy, set()),
        (mirrored, {"second face"}),
        (turned, {"second face"}),
        (cardboard, {"flat depth"}),
        (nothing, {"empty mask"}),
        (everything, {"full mask"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_heads_with_a_planted_fault_raise_its_alarm_and_no_other(dataset, field, names):
    G = load_network(str(ROOT / "models/heads-128.pkl"), "G_ema").eval().requires_grad_(False)
    query = G.query
    G.query = lambda grids, points, noise=0: field(lambda p: query(grids, p, noise), points)
    record = looked_at(G, dataset)
    found = alarms.find([dict(record, nimg=1_000_000 + 4000 * i) for i in range(alarms.PATIENCE)])
    assert {alarm.name for alarm in found} == names, record


def test_seeds_that_make_one_head_raise_an_alarm(dataset):
    G = load_network(str(ROOT / "models/heads-128.pkl"), "G_ema").eval().requires_grad_(False)
    G.backbone.mapping.w_avg_beta = None
    mapping = G.mapping
    G.mapping = lambda z, c: mapping(torch.ones_like(z) + 0.02 * z, c)
    record = looked_at(G, dataset)
    found = alarms.find([dict(record, nimg=1_000_000 + 4000 * i) for i in range(alarms.PATIENCE)])
    assert {alarm.name for alarm in found} == {"collapse"}, record
