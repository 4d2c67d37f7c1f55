"""The losses compared with records of the published arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import draw, fill

from dnnlib.util import construct_class_by_name
from torch_utils import training_stats
from training.loss import StyleGAN2Loss

GOLDEN = Path(__file__).parent / "golden"
PLAIN = dict(
    r1_gamma=1,
    r1_gamma_seg=1,
    blur_init_sigma=0,
    blur_fade_kimg=0,
    neural_rendering_resolution_initial=32,
    gpc_reg_prob=0.0,
    gpc_reg_fade_kimg=0,
    dual_discrimination=True,
    bcg_reg_prob=0,
    style_mixing_prob=0,
)
FADES = dict(
    PLAIN,
    r1_gamma=5,
    r1_gamma_seg=3,
    blur_init_sigma=10,
    blur_fade_kimg=100,
    neural_rendering_resolution_final=48,
    neural_rendering_resolution_fade_kimg=100,
    gpc_reg_prob=0.7,
    gpc_reg_fade_kimg=100,
    bcg_reg_prob=0.3,
    density_noise_fade_kimg=200,
)


def golden_network(name):
    kwargs = json.loads((GOLDEN / f"{name}_kwargs.json").read_text())
    return fill(construct_class_by_name(**kwargs)).train()


@pytest.mark.parametrize(
    "record, settings, nimg, phase",
    [("training_small", PLAIN, 1000, p) for p in ("Gmain", "Dmain", "Dreg")]
    + [("training_fades", FADES, 20000, p) for p in ("Gmain", "Dmain", "Dboth")],
)
def test_golden_phase(record, settings, nimg, phase):
    golden = np.load(GOLDEN / f"{record}.npz")
    G, D = golden_network("generator_small"), golden_network("discriminator_small")
    loss = StyleGAN2Loss(torch.device("cpu"), G=G, D=D, **settings)
    learner, other = (G, D) if phase.startswith("G") else (D, G)
    learner.requires_grad_(True)
    other.requires_grad_(False)
    collector = training_stats.Collector(keep_previous=False)
    c = torch.from_numpy(golden["c"])
    torch.manual_seed(11)
    loss.accumulate_gradients(
        phase=phase,
        real_img=torch.from_numpy(draw("image", (4, 3, 128, 128))).tanh(),
        real_seg=torch.from_numpy(draw("seg", (4, 1, 128, 128))).sigmoid(),
        real_c=c,
        gen_z=torch.from_numpy(draw("gen_z", (4, 512))),
        gen_c=c,
        gain=1,
        cur_nimg=nimg,
    )
    collector.update()
    expected = {key.split("/", 1)[1]: float(golden[key]) for key in golden if key.startswith(phase + "/")}
    norm = torch.stack([p.grad.square().sum() for p in learner.parameters() if p.grad is not None]).sum().sqrt()
    assert float(norm) == pytest.approx(expected.pop("grad_norm"), rel=1e-3)
    assert {name: collector[name] for name in collector.names()} == pytest.approx(expected, rel=1e-4)
    assert all(p.grad is None for p in other.parameters())


@pytest.mark.parametrize(
    "kind, names", [("l1", {"l1"}), ("monotonic-detach", {"monotonic", "l1"}), ("monotonic-fixed", {"monotonic", "l1"})]
)
def test_density_regularisers_teach_the_generator_alone(kind, names):
    G, D = golden_network("generator_small"), golden_network("discriminator_small")
    G.rendering_kwargs.update(density_reg=0.25, reg_type=kind)
    loss = StyleGAN2Loss(torch.device("cpu"), G=G, D=D, **dict(PLAIN, style_mixing_prob=1.0))
    collector = training_stats.Collector(keep_previous=False)
    D.requires_grad_(False)
    torch.manual_seed(0)
    z, c = torch.from_numpy(draw("gen_z", (4, 512))), torch.from_numpy(np.load(GOLDEN / "training_small.npz")["c"])
    outcome = loss.accumulate_gradients("Greg", None, None, None, gen_z=z, gen_c=c, gain=4, cur_nimg=0)
    collector.update()
    assert set(collector.names()) == {f"Loss/G/density_{name}" for name in names}
    assert float(outcome.loss) == pytest.approx(sum(collector[name] for name in collector.names()), rel=1e-5)
    assert G.decoder.net[0].weight.grad.abs().sum() > 0  # densities
    assert G.torgb.weight.grad is None and G.superresolution.block0.conv0.weight.grad is None  # colours
