"""Everything that runs on a GPU, on tensors without data that say they are on one: no tensor is made on another device.

A process of its own does it, `python tests/test_fake_gpu.py`, since what it preloads must not be there in others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from click.testing import CliRunner

from benchmarks import fake_gpu
from camera_utils import orbit_label
from training.config import TrainingConfig
from training.options import PRESETS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
RESOLUTION = {"paper": 512, "small": 512, "cpu": 128, "heads": 128}
EVERYTHING = dict(density_reg=0.25, trans_reg=10, gen_pose_cond=True, bcg_reg_prob=0.2, style_mixing_prob=0.5)
EVERYTHING |= dict(density_noise_fade_kimg=200, disc_c_noise=0.1, use_torgb_raw=True, g_num_fp16_res=4)
# For what is the same at any size: the same code, fewer layers.
REPORTED = ["Gboth", "Dmain", "Dreg", "pictures"]
SMALL = dict(PRESETS["cpu"], preset="cpu", cbase=1024, triplane_size=16, light_sr=True)


def config(preset="paper", **changes):
    base = dict(outdir="", cfg="ffhq", img_data="", seg_data="", gpus=1, batch=2, gamma=1, gamma_seg=1, preset=preset)
    return TrainingConfig(**{**base, **PRESETS[preset], **changes})


def pictures(preset, compiled):
    """forward, render, sample and D, as training and as commands call them."""
    with fake_gpu.fake_gpu(compiled), torch.no_grad():
        G, D, _ = fake_gpu.networks(config(preset), RESOLUTION[preset])
        z, c = torch.zeros(2, G.z_dim, device="cuda"), orbit_label(0.3, 0.1).to("cuda").expand(2, -1)
        D(G(z, c), c)
        G.eval()
        face = G.prepare(G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=14), noise_mode="const")
        points = torch.zeros(2, 100, 3, device="cuda")
        found = [*G.render(face, c).values(), *G.sample(points, points, z, c).values(), G.density(face.grids, points)]
        assert {tensor.device for tensor in found} == {torch.device("cuda:0")}


def phases(compiled, names=("Gmain", "Greg", "Dmain", "Dreg"), **changes):
    """Losses and their gradients, and gradients of gradients, in the midst of all fades."""
    with fake_gpu.fake_gpu(compiled):
        _, _, loss = fake_gpu.networks(config(**{**SMALL, **EVERYTHING, **changes}), 128)
        for name in names:
            fake_gpu.run_phase(loss, name, batch=2, nimg=1000)


def counts():
    with fake_gpu.fake_gpu(), fake_gpu.Held() as held:
        one = torch.zeros(1024, device="cuda")
        view, other = one.view(32, 32), one + 1
        assert (held.bytes, held.peak) == (8192, 8192)
        del one, view
        little, elsewhere = torch.zeros(1, device="cuda"), torch.zeros(1024)
        assert (held.bytes, held.peak) == (4096 + 512, 8192)
        assert sum(held.at_peak.values()) == 8192 and len({other, little, elsewhere}) == 3


def report():
    result = CliRunner().invoke(fake_gpu.main, ["--preset=cpu", "--resolution=128", "--batch=1"])
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.output.splitlines() if "at most" in line] == REPORTED


def planted(target, name, replacement, run):
    with mock.patch.object(target, name, replacement):
        run()


def on_the_cpu(function):
    return lambda *args, device=None, **kwargs: function(*args, **kwargs)


GOOD = {f"pictures of {preset}": lambda preset=preset: pictures(preset, compiled=True) for preset in PRESETS}
GOOD |= {
    "pictures without compiled ops": lambda: pictures("heads", compiled=False),
    "training": lambda: phases(compiled=True),
    "training without compiled ops": lambda: phases(compiled=False, names=("Gmain", "Dmain")),
    "training, monotonic densities, masks with a branch": lambda: phases(
        compiled=True, reg_type="monotonic-detach", disc_module="MaskDualDiscriminator", names=("Greg", "Dmain")
    ),
    "what is held is counted until it is freed": counts,
    "the report of what is held": report,
}
PLANTED = {
    "the jitter of rays": lambda: planted(torch, "rand", on_the_cpu(torch.rand), lambda: pictures("heads", compiled=True)),
    "the taps of a blur": lambda: planted(
        torch, "arange", on_the_cpu(torch.arange), lambda: phases(compiled=True, names=("Dmain",))
    ),
    "a gradient": lambda: planted(
        torch, "ones_like", lambda x, **_: torch.ones(x.shape), lambda: phases(compiled=True, names=("Dreg",))
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Name of a case -> the error that it ended in, or nothing."""
    try:
        environment = fake_gpu.environment(tmp_path_factory.mktemp("guard"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler: {error}")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.run([sys.executable, __file__], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", GOOD)
def test_all_is_made_on_the_gpu(outcomes, name):
    assert outcomes[name] == ""


@pytest.mark.parametrize("name", PLANTED)
def test_a_tensor_made_on_the_cpu_is_found(outcomes, name):
    assert "FakeTensorDeviceMismatchError" in outcomes[name]


def outcome(case):
    try:
        case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    print(json.dumps({name: outcome(case) for name, case in (GOOD | PLANTED).items()}))
