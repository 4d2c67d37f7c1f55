"""The GPU check: all of it on the CPU with small networks, and its handling of parts that fail or take too long."""

import json
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_check
from torch_utils import custom_ops
from training.volumetric_rendering import ray_marcher


def part(code, share=0.5):
    return gpu_check.Part(code, share, lambda plan: [sys.executable, "-c", code])


@pytest.fixture
def plan(tmp_path):
    return gpu_check.Plan(tmp_path, "cpu", minutes=1.0, quick=True)


def test_a_part_that_fails_or_hangs_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch):
    checks = dict(bad=part("1 / 0"), slow=part("import time; time.sleep(60)", 0.01), good=part("print(7)"))
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    result = CliRunner().invoke(gpu_check.main, ["--outdir", str(tmp_path), "--device", "cpu", "--minutes", "1"])
    assert result.exit_code == 1 and "bad" in result.output
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert [found["outcome"] for found in parts.values()] == ["failed", "out of time", "ok"]
    assert "ZeroDivisionError" in parts["bad"]["output"] and parts["good"]["output"] == "7"
    assert parts["slow"]["seconds"] < 15
    assert "ZeroDivisionError" in (tmp_path / "report.md").read_text()


def test_what_a_part_started_ends_with_it(tmp_path):
    mark = tmp_path / "mark"
    child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(mark)!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    assert gpu_check.run_within([sys.executable, "-c", code], 1.5, tmp_path / "log") is None
    time.sleep(4)
    assert not mark.exists()


def test_time_is_kept_for_training_on(plan, monkeypatch):
    monkeypatch.setattr(plan, "minutes", 0.0)
    assert gpu_check.run_part("good", part("print(7)"), plan)["outcome"] == "left out"


def test_missing_packages_stop_nothing():
    code = """
import sys
for name in ("mrcfile", "imageio", "imageio_ffmpeg", "trimesh", "tensorboard"):
    sys.modules[name] = None
import benchmarks.cases, benchmarks.gpu_parts, benchmarks.__main__, train
"""
    assert gpu_check.subprocess.run([sys.executable, "-c", code], cwd=gpu_check.ROOT).returncode == 0


@pytest.mark.slow
def test_the_whole_check_on_the_cpu(tmp_path):
    result = CliRunner().invoke(gpu_check.main, ["--outdir", str(tmp_path), "--device", "cpu", "--quick"])
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    expected = dict(dict.fromkeys(gpu_check.CHECKS, "ok"), sanitizer="left out")
    assert {name: found["outcome"] for name, found in parts.items()} == expected
    assert result.exit_code == 0
    assert parts["steps"]["figures"]["finite"] and len(parts["steps"]["figures"]["steps"]) == 3
    assert parts["network"]["figures"]["float32"]["gradient"] == 0
    (run,) = (tmp_path / "heads").iterdir()
    assert {path.suffix for path in run.iterdir()} >= {".pkl", ".json"} and list(run.glob("fakes*"))


# What GPUs showed


def test_gradients_of_products_are_those_of_cumprod():
    x = (torch.rand(2, 3, 7, 1, dtype=torch.float64) + 1e-3).requires_grad_()
    weights = torch.randn(2, 3, 7, 1, dtype=torch.float64)
    products, expected = ray_marcher._Products.apply(x), torch.cumprod(x, dim=2)
    assert torch.equal(products, expected)
    for one, other in zip(torch.autograd.grad(products, x, weights), torch.autograd.grad(expected, x, weights)):
        assert torch.allclose(one, other, rtol=1e-10)
    assert torch.autograd.gradgradcheck(ray_marcher._Products.apply, (x,))


@pytest.mark.parametrize(
    "cuda, names",
    [("11.8", "70 80 86 90"), ("12.6", "70 80 86 90"), ("12.8", "70 80 86 90 100"), ("13.0", "80 86 90 100")],
)
def test_without_a_gpu_there_are_architectures_to_build_for(cuda, names, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert custom_ops._cuda_targets() == [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names.split()]
    assert "TORCH_CUDA_ARCH_LIST" in capsys.readouterr().err
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert custom_ops._cuda_targets() == [] and not capsys.readouterr().err
