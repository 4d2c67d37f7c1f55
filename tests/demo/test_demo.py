"""The demo: the commands it runs, the sheet that compares, and all of it with few frames."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import camera_utils
from demo import comparison, demo
from dnnlib import UserError
from training.dataset import HeadDataset
from training.images import tile


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Lets `demo.run` find its commands in a folder; returns a function that puts one there."""
    monkeypatch.setattr(demo, "ROOT", tmp_path)

    def write(text):
        (tmp_path / "script.py").write_text(text)
        return ["script.py", str(tmp_path / "written")]

    return write


def test_a_command_that_fails_is_told_in_one_line(scripts):
    with pytest.raises(UserError, match="script.py failed"):
        demo.run(scripts("raise SystemExit(3)"))


def test_no_network_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="--minutes"):
        demo.newest_snapshot(tmp_path)


def test_the_sheet_goes_round_the_head(head_data):
    dataset = HeadDataset(*map(str, head_data))
    items = comparison.round_the_head(dataset)
    labels = torch.from_numpy(np.stack([dataset.label(item) for item in items]))
    yaws = camera_utils.yaw_pitch_roll_degrees(labels)[:, 0].round()
    # Steps of 45 degrees from 0; the data has views at 0, 30, -60, 100, -140 and 180.
    assert yaws.abs().tolist() == [0, 30, 100, 100, 180, 140, 60, 60]


def test_the_first_row_of_the_sheet_is_the_data(head_data, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison.synthesis, "load_generator", lambda *_: None)
    monkeypatch.setattr(comparison, "draw", lambda G, seed, label: np.full([1, 128, 128, 3], 10 * seed, dtype=np.uint8))
    comparison.save_comparison(tmp_path / "sheet.png", [Path("a"), Path("b")], *head_data, torch.device("cpu"))
    sheet = np.asarray(PIL.Image.open(tmp_path / "sheet.png"))
    dataset = HeadDataset(*map(str, head_data))
    reals = np.stack([dataset[item][0] for item in comparison.round_the_head(dataset)]).transpose(0, 2, 3, 1)
    assert sheet.shape == (3 * 128, 8 * 128, 3)
    assert np.array_equal(sheet[:128], tile(reals, 8))
    assert (sheet[128:, 7 * 128 :] == 70).all()


@pytest.mark.slow
def test_the_whole_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SEEDS", "0-3")
    monkeypatch.setattr(demo, "FRAMES", 3)
    monkeypatch.setattr(demo, "SHAPE", ["--shapes=true", "--shape-res=32", "--shape-format=.ply"])
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(demo.main, ["--minutes=0.25", "--device=cpu"])
    assert outcome.exit_code == 0, outcome.output
    folder = tmp_path / "demo-out"
    trained = demo.newest_snapshot(folder / "runs")
    networks = [*[demo.SHIPPED_MODEL] * demo.SHIPPED_MODEL.exists(), trained]
    if demo.SHIPPED_MODEL.exists():  # what a newcomer sees first
        assert outcome.output.index("The network that comes") < outcome.output.index("A new network")
    for network in networks:
        made = {path.name for path in (folder / network.stem).iterdir()}
        assert made == {"turning.mp4"} | {f"seed{seed:04d}.{kind}" for seed in range(4) for kind in ("png", "ply")}
    assert PIL.Image.open(folder / "sheet.png").size == (8 * 128, (1 + len(networks)) * 128)
