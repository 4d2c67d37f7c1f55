"""Training measures its snapshots as the command does, by the same law."""

import pytest
from click.testing import CliRunner
from stand_ins import Colours, save_script
from test_training import command, only_run, run

import calc_metrics
import train
from metrics import results
from metrics.store import Stopped

FIGURES = ["fid8_colours", "fid8_colours_back"]


@pytest.mark.slow
def test_a_run_measures_every_snapshot_and_the_command_finds_nothing_to_add(head_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MULTI_POSE_CACHE", str(tmp_path / "cache"))
    detector = save_script(Colours(), tmp_path / "colours.pt")
    asked = f"--metrics fid8_full --metric_views all,back --detector {detector}"
    output = run(tmp_path / "runs", head_data, f"--gpus 1 --batch 4 --kimg 0.008 --tick 0.004 --snap 1 {asked}")
    assert "Metrics:     fid8_full, of all, back" in output and "not with published ones" in output
    run_dir = only_run(tmp_path / "runs")
    lines = results.read(run_dir / "metrics.jsonl")
    assert [(line["images_seen"], *line["figures"]) for line in lines] == [(n, name) for n in (4, 8) for name in FIGURES]
    assert lines[0]["fingerprint"]["network"] != lines[2]["fingerprint"]["network"]
    options = ["--network", str(run_dir / "network-snapshot-000000.pkl"), "--metrics", "fid8_full", "--views", "all,back"]
    found = CliRunner().invoke(calc_metrics.main, [*options, "--detector", str(detector), "--device", "cpu"])
    assert found.exit_code == 0 and "Nothing to do" in found.output, found.output
    assert len(results.read(run_dir / "metrics.jsonl")) == 4


@pytest.mark.slow
def test_metrics_that_are_stopped_leave_the_run_whole(head_data, tmp_path, monkeypatch):
    """As by Ctrl-C between two files of rows."""
    monkeypatch.setenv("MULTI_POSE_CACHE", str(tmp_path / "cache"))
    words = command(tmp_path / "runs", head_data, "--gpus 1 --batch 4 --kimg 1 --tick 0.004 --snap 1 --metrics coverage")

    def measure(self, G, about, known, stop):
        raise Stopped
        yield

    monkeypatch.setattr("metrics.measuring.Measurer.measure", measure)
    result = CliRunner().invoke(train.main, words[2:])
    assert result.exit_code == 0, result.output
    assert "were left unfinished: calc_metrics.py" in result.output and "Stopped at 0.004 kimg" in result.output
    assert (only_run(tmp_path / "runs") / "network-snapshot-000000.pkl").exists()
