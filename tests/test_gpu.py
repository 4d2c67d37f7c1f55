"""What only a GPU can show: no waiting in a step, half precision, and the same pictures as on the CPU."""

import pytest
import torch
from fill import fill
from test_faults import tiny_trainer
from test_loss import golden_network

from camera_utils import orbit_label
from dnnlib.util import construct_class_by_name
from training.config import TrainingConfig

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def test_pictures_are_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda size, device=None: torch.full(size, 0.5, device=device))  # generators differ
    G = golden_network("generator_small").eval()
    z, c = torch.zeros(1, G.z_dim) + 0.1, orbit_label(0.4, 0.1)
    expected = G(z, c, noise_mode="const")
    found = G.to(CUDA)(z.to(CUDA), c.to(CUDA), noise_mode="const")
    for name, picture in expected.items():
        assert (found[name].cpu() - picture).norm() <= 1e-3 * picture.norm(), name


def test_half_precision_stays_near_single_and_finite():
    config = TrainingConfig(outdir="", cfg="ffhq", img_data="", seg_data="", gpus=1, batch=4, gamma=1, gamma_seg=1, cbase=4096)
    D = fill(construct_class_by_name(**config.discriminator_kwargs(128))).to(CUDA)
    images = {
        "image": torch.rand(4, 3, 128, 128, device=CUDA, requires_grad=True),
        "image_raw": torch.rand(4, 3, 64, 64, device=CUDA),
        "image_mask": torch.rand(4, 1, 64, 64, device=CUDA),
    }
    c = orbit_label(0.1, 0.0).to(CUDA).expand(4, -1)
    half, single = D(images, c), D(images, c, force_fp32=True)
    assert (half - single).norm() <= 0.02 * single.norm()
    (gradient,) = torch.autograd.grad(half.sum(), [images["image"]], create_graph=True)
    gradient.square().sum().backward()  # R1
    assert all(p.grad.isfinite().all() for p in D.parameters() if p.grad is not None)


def test_a_step_never_waits_for_the_gpu(head_data, tmp_path):
    trainer = tiny_trainer(head_data, device=CUDA)
    trainer.open(tmp_path)
    trainer.step()  # allocates, and lets cuDNN choose
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.close()
