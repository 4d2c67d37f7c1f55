"""Runs everything that needs a GPU, one part after the other, in a given number of minutes.

\b
  python -m benchmarks.gpu_check --outdir gpu-check --minutes 10

Each part is a process with a time limit.  Its result is written to report.md and report.json as soon as it ends, and the next
part starts whatever the result was.  The remaining time is used to continue training from the shipped network.  Nothing is
installed or downloaded.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from benchmarks.gpu_parts import MEASURED
from dnnlib import UserError, cli
from dnnlib.util import atomic_path
from torch_utils import custom_ops
from torch_utils.device import select_device

ROOT = Path(__file__).parent.parent
RESERVE = 0.1  # share of the time reserved for training
START_AND_END = 40.0  # seconds of that training that are spent on starting and ending
GRACE = 10.0  # seconds between asking a process to end and killing it
SHOWN = 30  # last lines of a part's output that the report shows
OPS_TESTS = "bias_act or upfirdn2d or grid_lookup or decoder or composite"


@dataclass
class Plan:
    """Where and how long to run: the input of the parts' commands."""

    outdir: Path
    device: str
    minutes: float
    quick: bool
    start: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds."""
        return self.start + 60 * self.minutes - time.monotonic()


class Part(NamedTuple):
    """`command` returns the arguments of the process, or a text that says why there is none; `share` is that of the time."""

    title: str
    share: float
    command: Callable[[Plan], list[str] | str]


def _python(*arguments: Any) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def _own(name: str) -> Callable[[Plan], list[str]]:
    """A part of `benchmarks.gpu_parts`."""

    def command(plan: Plan) -> list[str]:
        options = ["--device", plan.device, "--folder", plan.outdir, "--out", plan.outdir / f"{name}.json"]
        return _python("-m", "benchmarks.gpu_parts", name, *options, *(["--quick"] if plan.quick else []))

    return command


def _pytest(*arguments: Any) -> list[str]:
    return _python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "--continue-on-collection-errors", *arguments)


def _tests(plan: Plan) -> list[str] | str:
    """Only runs files that contain such tests, because the others may need packages that are missing."""
    marked = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    return _pytest(*marked) if _has_pytest() else "pytest is missing"


def _has_pytest() -> bool:
    return subprocess.run(_python("-c", "import pytest"), capture_output=True).returncode == 0


def _benchmarks(plan: Plan) -> list[str]:
    names = ["planes"] if plan.quick else MEASURED
    options = ["--device", plan.device, "--only", ",".join(names), "--out", plan.outdir / "benchmarks.json"]
    return _python("-m", "benchmarks", *options, *(["--quick"] if plan.quick else []))


def _sanitizer(plan: Plan) -> list[str] | str:
    home = custom_ops.cuda_home()
    tool = shutil.which("compute-sanitizer") or (home and shutil.which("compute-sanitizer", path=home / "bin"))
    if not tool or not plan.device.startswith("cuda"):
        return "there is no compute-sanitizer, or no GPU"
    if not _has_pytest():
        return "pytest is missing"
    options = ["--tool", "memcheck", "--error-exitcode", "9"]
    return [tool, *options, *_pytest("-x", "-k", f"({OPS_TESTS}) and not gradients", ROOT / "tests" / "test_gpu.py")]


def _train_on(plan: Plan) -> list[str] | str:
    minutes = 0.02 if plan.quick else (plan.left() - START_AND_END) / 60
    if minutes <= 0:
        return "no time is left"
    data = ROOT / "dataset" / "heads-128"
    options = dict(outdir=plan.outdir / "heads", cfg="ffhq", img_data=data / "img.zip", seg_data=data / "seg.zip", gpus=1)
    options |= dict(preset="heads", resume=ROOT / "models" / "heads-128.pkl", batch=4 if plan.quick else 32)
    options |= dict(gamma=1, gamma_seg=1)
    options |= dict(gen_pose_cond=True, device=plan.device, minutes=f"{minutes:.3f}", tick=2, snap=5)
    return _python("train.py", "--restart", *(f"--{name}={value}" for name, value in options.items()))


CHECKS = {
    "machine": Part("Device and versions", 0.05, _own("machine")),
    "ops": Part("Ops compared with plain PyTorch", 0.25, lambda plan: _python("-m", "torch_utils.doctor")),
    "tests": Part("Tests that need a GPU", 0.25, _tests),
    "network": Part("One picture at 512 and its gradients compared with the CPU's", 0.15, _own("network")),
    "steps": Part("Three training steps at 512", 0.2, _own("steps")),
    "benchmarks": Part("Benchmarks", 0.25, _benchmarks),
    "profile": Part("Profile of the slowest", 0.1, _own("profile")),
    "sanitizer": Part("compute-sanitizer on the ops", 0.1, _sanitizer),
    "heads": Part("Training continued from the shipped network", 1.0, _train_on),
}


@cli.command(help=__doc__)
@click.option("--outdir", help="Folder for reports, logs and trained networks", default="gpu-check", metavar="DIR")
@click.option("--minutes", help="Time for all parts together", type=cli.FiniteFloat(min=0, min_open=True), default=10)
@click.option("--device", help="cuda, cuda:N or cpu", default="cuda", metavar="NAME")
@click.option("--only", help="Comma-separated names of parts: " + ", ".join(CHECKS), type=cli.Names(CHECKS), default="")
@click.option("--quick", help="Small networks, which only shows that everything works", is_flag=True)
def main(outdir: str, minutes: float, device: str, only: list[str], quick: bool) -> None:
    """Run the parts and write a report after each."""
    plan = Plan(Path(outdir).resolve(), str(select_device(device)), minutes, quick)
    plan.outdir.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name in only or CHECKS:
        print(f"{CHECKS[name].title} ...", flush=True)
        results[name] = run_part(name, CHECKS[name], plan)
        print(f"  {results[name]['outcome']}, {results[name]['seconds']:.0f} s", flush=True)
        write_report(plan, results)
    print(f"\nWrote {plan.outdir / 'report.md'}")
    failed = [name for name, result in results.items() if result["outcome"] == "failed"]
    if failed:
        raise UserError(f"these parts failed: {', '.join(failed)}")


def run_part(name: str, part: Part, plan: Plan) -> dict[str, Any]:
    """Run one part until it ends or its time is up.  Returns title, outcome, seconds, last lines, and its figures."""
    start = time.monotonic()
    figures = plan.outdir / f"{name}.json"
    figures.unlink(missing_ok=True)  # left by an earlier run
    limit = plan.left() if part.share == 1 else min(part.share * 60 * plan.minutes, plan.left() - RESERVE * 60 * plan.minutes)
    command = part.command(plan) if limit > 0 else "no time is left"
    result = dict(title=part.title, outcome="left out", seconds=0.0, output=command)
    if isinstance(command, str):
        return result
    log = plan.outdir / f"{name}.log"
    code = run_within(command, limit, log)
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    result.update(
        outcome={0: "ok", None: "out of time"}.get(code, "failed"),
        seconds=time.monotonic() - start,
        output="\n".join(line.rstrip() for line in lines[-SHOWN:]),
        exit_code=code,
    )
    with contextlib.suppress(OSError, ValueError):
        result["figures"] = json.loads(figures.read_text())
    return result


def run_within(command: list[str], limit: float, log: Path) -> int | None:
    """The exit code of `command`, whose output goes to `log`.  After `limit` seconds it is ended with its children: None."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    environment |= dict(TQDM_DISABLE="1", PYTHONUNBUFFERED="1")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_all_of(process)


def _end_all_of(process: subprocess.Popen) -> None:
    """End the process, and any processes that it started and left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_report(plan: Plan, results: dict[str, dict[str, Any]]) -> None:
    """Write all results so far, for people and for programs."""
    record = dict(device=plan.device, minutes=plan.minutes, quick=plan.quick, torch=torch.__version__, parts=results)
    with atomic_path(plan.outdir / "report.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    rows = [f"| {result['title']} | {result['outcome']} | {result['seconds']:.0f} |" for result in results.values()]
    lines = ["# What the GPU did", "", f"Device {plan.device}, torch {torch.__version__}, {plan.minutes:g} minutes.", ""]
    lines += ["| part | outcome | seconds |", "| --- | --- | --- |", *rows]
    for result in results.values():
        lines += ["", f"## {result['title']}: {result['outcome']}", "", "```", result["output"], "```"]
    with atomic_path(plan.outdir / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
