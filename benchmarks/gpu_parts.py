"""Parts of ``python -m benchmarks.gpu_check`` that are not a command of their own: ``python -m benchmarks.gpu_parts NAME``."""

import contextlib
import copy
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest import mock

import click
import torch

import camera_utils
from benchmarks import measure
from benchmarks.cases import CASES, DATA, Setting, config
from dnnlib import cli
from dnnlib.util import atomic_path, construct_class_by_name
from torch_utils import doctor
from torch_utils.device import peak_memory_gb, select_device
from training.config import PRESETS
from training.training_loop import Trainer

MEASURED = ["picture", "view", "training", "pti", "grid", "planes"]  # cases of `benchmarks`, the most telling first
PHOTOS = {f"{kind}_data": str(DATA.parent / f"testdata_{kind}") for kind in ("img", "seg")}
STEPS = 3
ROWS = 25  # of a profile
# Norm of the difference to the CPU as a share of the norm.  Gradients jump where rounding moves an activation over a kink.
PICTURE_TOLERANCE, GRADIENT_TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2, 5e-2


def machine(setting: Setting, folder: Path) -> tuple[dict[str, Any], bool]:
    """Device, driver and versions."""
    facts: dict[str, Any] = dict(doctor.machine(), torch_cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used,power.limit", "--format=csv,noheader"]
    with contextlib.suppress(OSError):
        facts["nvidia-smi"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    return facts, True


def network(setting: Setting, folder: Path) -> tuple[dict[str, Any], bool]:
    """One picture of the 512 network, and the gradient of all its outputs to the weights, beside those of the CPU."""
    measure.all_bits_of_float32()
    torch.manual_seed(0)
    G = construct_class_by_name(**config(setting).generator_kwargs(setting[512, 128])).eval()
    z, c = torch.randn(1, G.z_dim), camera_utils.orbit_label(0.4, 0.1)
    expected = _pictures_and_gradient(G, z, c, force_fp32=True)
    figures, right = {}, True
    on_device = copy.deepcopy(G).to(setting.device)
    for title, options in (("float32", dict(force_fp32=True)), ("as configured", {})):
        found = _pictures_and_gradient(on_device, z.to(setting.device), c.to(setting.device), **options)
        figures[title] = {name: _difference(found[name].cpu(), other) for name, other in expected.items()}
        for name, difference in figures[title].items():
            limit = GRADIENT_TOLERANCE if name == "gradient" else PICTURE_TOLERANCE
            good = difference <= (limit if options else max(limit, HALF_TOLERANCE))
            right &= good
            print(f"{title}, {name}: differs from the CPU's by {difference:.1e}{'' if good else ', FAILED'}")
    figures["peak_gib"] = peak_memory_gb(setting.device)
    return figures, right


def _pictures_and_gradient(G: torch.nn.Module, z: torch.Tensor, c: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
    G.requires_grad_(True).zero_grad(set_to_none=True)
    with _middle_draws():
        seen = G(z, c, noise_mode="const", **options)
    sum(picture.square().mean() for name, picture in seen.items() if name != "image_depth").backward()
    gradients = [p.grad.flatten().cpu() for p in G.parameters() if p.grad is not None]
    return {**{name: picture.detach() for name, picture in seen.items()}, "gradient": torch.cat(gradients)}


@contextlib.contextmanager
def _middle_draws() -> Iterator[None]:
    """Inside, `torch.rand` gives 0.5: the generators of a GPU and of the CPU draw differently."""
    with mock.patch.object(torch, "rand", lambda *size, device=None: torch.full(_shape(size), 0.5, device=device)):
        yield


def _shape(size: tuple) -> Any:
    return size[0] if len(size) == 1 and not isinstance(size[0], int) else size


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm().clamp(min=1e-30)).nan_to_num(float("inf")).item()


class _Watched(Trainer):
    """Keeps how large the gradients of each phase are, before infinities are taken out of them."""

    def _average(self, phase, outcomes):
        gradients = [parameter.grad for parameter in phase.module.parameters() if parameter.grad is not None]
        self.norms[phase.name] = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
        super()._average(phase, outcomes)


def steps(setting: Setting, folder: Path) -> tuple[dict[str, Any], bool]:
    """Steps of the 512-pixel command of docs/training.md at batch 4: seconds, peak memory, gradients."""
    options = dict(batch=4, density_noise_fade_kimg=200, back_repeat=4)
    small = dict(PRESETS["cpu"], cbase=1024, cmax=16, depth_resolution=4, depth_resolution_importance=4, preset="cpu")
    changes = small if setting.quick else PHOTOS
    trainer = _Watched(config(Setting(setting.device), **options, **changes), setting.device)
    rows = []
    with tempfile.TemporaryDirectory() as run_dir:
        trainer.open(Path(run_dir))
        try:
            for _ in range(STEPS):
                trainer.norms = {}
                if setting.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(setting.device)
                start = time.perf_counter()
                trainer.step()
                measure.wait_for(setting.device)
                seconds = time.perf_counter() - start
                rows.append(dict(seconds=seconds, peak_gib=peak_memory_gb(setting.device), norms=trainer.norms))
                print(f"step {len(rows)}: {rows[-1]}", flush=True)
        finally:
            trainer.close()
    finite = all(norm < float("inf") for row in rows for norm in row["norms"].values())  # false for NaN too
    weights = [tensor for module in (trainer.G, trainer.D, trainer.G_ema) for tensor in module.state_dict().values()]
    finite &= all(bool(tensor.isfinite().all()) for tensor in weights if tensor.is_floating_point())
    print(f"gradients and weights are {'' if finite else 'NOT '}finite")
    return dict(steps=rows, finite=finite), finite


def profile(setting: Setting, folder: Path) -> tuple[dict[str, Any], bool]:
    """Where the time of the slowest benchmark goes, by kernel."""
    measure.all_bits_of_float32()
    name = _slowest(folder / "benchmarks.json")
    work = CASES[name](setting)
    work.fast()
    on_gpu = setting.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])
    with torch.profiler.profile(activities=activities) as found:
        work.fast()
        measure.wait_for(setting.device)
    kind = "cuda" if on_gpu else "cpu"
    table = found.key_averages().table(sort_by=f"self_{kind}_time_total", row_limit=ROWS, max_name_column_width=70)
    print(f"{work.title}\n{table}")
    return dict(case=name, table=table), True


def _slowest(benchmarks: Path) -> str:
    """The case whose fast way took longest, as far as cases were measured."""
    with contextlib.suppress(OSError, ValueError):
        cases = json.loads(benchmarks.read_text())["cases"]
        return max(cases, key=lambda name: sum(cases[name]["runs"]["fast"]) / len(cases[name]["runs"]["fast"]))
    return "planes"


PARTS: dict[str, Callable[[Setting, Path], tuple[dict[str, Any], bool]]] = dict(
    machine=machine, network=network, steps=steps, profile=profile
)


@cli.command(help=__doc__)
@click.argument("name", type=click.Choice(list(PARTS)))
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
@click.option("--folder", help="Where other parts left their figures", default=".", metavar="DIR")
@click.option("--out", help="File for the figures", required=True, metavar="FILE.json")
@click.option("--quick", help="Small networks", is_flag=True)
def main(name: str, device: str | None, folder: str, out: str, quick: bool) -> None:
    """Run one part; exit code 1 if what it found is not as it should be."""
    figures, right = PARTS[name](Setting(select_device(device), quick), Path(folder))
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
