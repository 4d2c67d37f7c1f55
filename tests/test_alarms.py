"""Alarms: each goes off for its fault, once, in time, and a run in good health hears none."""

import math

import pytest
from test_faults import tiny_trainer

from training import alarms, watching
from training.alarms import PATIENCE, RULES, find

HEALTHY = {  # the shipped network's look, and the middle of the range of a run's scores
    "Loss/D/loss": 0.9,
    "Loss/scores/real": 0.6,
    "Loss/scores/fake": -0.7,
    "Mask/coverage/fake": 0.63,
    "Mask/coverage/real": 0.6,
    "Probe/diversity": 0.2,
    "Probe/diversity_real": 0.26,
    "Probe/relief": 0.067,
    "Probe/back_likeness": 0.06,
}
FAULTS = {
    "empty mask": {"Mask/coverage/fake": 0.01},
    "full mask": {"Mask/coverage/fake": 0.99},
    "saturated discriminator": {"Loss/D/loss": 0.01, "Loss/scores/real": 15.0, "Loss/scores/fake": -20.0},
    "collapse": {"Probe/diversity": 0.01},
    "flat depth": {"Probe/relief": 0.005},
    "second face": {"Probe/back_likeness": 0.95},
}


def run(values, start=1_000_000, ticks=PATIENCE):
    """The records of `ticks` ticks, HEALTHY but for `values`."""
    record = {name: dict(num=8, mean=mean, std=0.0) for name, mean in {**HEALTHY, **values}.items()}
    return [dict(record, nimg=start + 4000 * tick) for tick in range(ticks)]


def test_every_rule_has_a_planted_fault():
    assert {rule.name for rule in RULES} == FAULTS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_its_alarm_once_and_no_other(name):
    (alarm,) = find(run({}) + run(FAULTS[name], 2_000_000) + run({}, 3_000_000) + run(FAULTS[name], 4_000_000, 10))
    assert alarm.name == name and alarm.nimg == 2_000_000 + 4000 * (PATIENCE - 1)
    assert "--" in alarm.line and "\n" not in alarm.line  # an option to change, in one line


def test_a_healthy_run_hears_nothing():
    assert find(run({}, start=4, ticks=500)) == []


@pytest.mark.parametrize("name", FAULTS)
def test_what_passes_or_belongs_to_the_beginning_raises_nothing(name):
    (rule,) = (rule for rule in RULES if rule.name == name)
    early = run(FAULTS[name], start=4, ticks=math.ceil(rule.after_kimg / 4))
    passing = sum((run(FAULTS[name], 10**6 * k, PATIENCE - 1) + run({}, 10**6 * k + 50_000) for k in range(2, 6)), [])
    assert find(early + passing) == []


def test_records_without_numbers_are_passed_over():
    blank = [{"nimg": 10**6 + 4000 * i, **{name: dict(num=0, mean=None, std=None) for name in HEALTHY}} for i in range(9)]
    assert find([*blank, *[{"nimg": 2 * 10**6 + 4000 * i} for i in range(9)]]) == []


def test_ticks_between_two_looks_do_not_count():
    """They repeat what the last look found."""
    (record,) = run(FAULTS["collapse"], ticks=1)
    assert find([dict(record, nimg=10**6 + i) for i in range(PATIENCE * 10)]) == []


def test_training_prints_an_alarm_once_even_when_it_is_taken_up_again(head_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watching, "LOOK_EVERY", 1)
    monkeypatch.setattr(alarms, "LOOK_EVERY", 1)
    always = alarms.Rule("planted", 0, ("Mask/coverage/real",), lambda real: real > 0, "planted: use --gamma {0:.3f}")
    monkeypatch.setattr(alarms, "RULES", (always,))
    state = None
    for _ in range(2):
        trainer = tiny_trainer(head_data)
        if state is not None:
            trainer._load_state_dict(state)
        trainer.open(tmp_path)
        for _ in range(PATIENCE):
            trainer.step()
            trainer.tick()
        trainer.close()
        state = dict(trainer.state_dict(), nimg=trainer.nimg)
    assert capsys.readouterr().out.count("Alarm: planted: use --gamma 0.2") == 1
