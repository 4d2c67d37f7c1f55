"""Tests that need a GPU: compiled ops, no waiting inside a step, half precision, and the same pictures as on the CPU.

`python -m pytest -m gpu` runs them all; put `compute-sanitizer --tool memcheck` (or racecheck) before it to check the kernels.
"""

import pytest
import torch
from fill import fill
from test_faults import tiny_trainer
from test_loss import golden_network

from camera_utils import orbit_label
from dnnlib.util import construct_class_by_name
from torch_utils import custom_ops
from torch_utils.ops import bias_act, composite, grid_lookup, grid_mlp, softplus_mlp, upfirdn2d
from training.config import TrainingConfig
from training.volumetric_rendering.trigrid import TRIGRID_AXES

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# Relative errors of ops: a few roundings of their type; sums are kept in float32.
PRECISION = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}


@pytest.fixture
def compiled():
    if custom_ops.cuda_ops() is None:
        pytest.skip("no compiled CUDA ops here")


@pytest.fixture
def check(monkeypatch):
    """Compares a function of tensors, on the GPU in `dtype`, and its gradients with plain PyTorch in float64 on the CPU."""

    def with_gradients(function, tensors, dtype):
        out = function(*tensors)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(dtype)  # the same both times
        return [out, *torch.autograd.grad(out, tensors, weights.to(out))]

    def check(function, tensors, dtype):
        rounded = [tensor.to(dtype) for tensor in tensors]
        fast = with_gradients(function, [tensor.to(CUDA).requires_grad_() for tensor in rounded], dtype)
        with monkeypatch.context() as patch:
            patch.setenv(custom_ops.SWITCH, "ref")
            exact = with_gradients(function, [tensor.double().requires_grad_() for tensor in rounded], dtype)
        for found, expected in zip(fast, exact, strict=True):
            assert found.dtype == dtype and found.device.type == CUDA.type
            assert (found.cpu().double() - expected).norm() <= PRECISION[dtype] * expected.norm()

    return check


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 64, 33, 31), (4, 512, 16, 16), (1, 3, 256, 256), (2, 130, 65, 64)])
def test_bias_act(compiled, check, shape, layout, dtype):
    batch, channels, *size = shape
    tensors = [torch.randn(shape).to(memory_format=layout), torch.randn(channels), torch.randn(batch, channels)]
    tensors.append(torch.randn(batch, 1, *size))

    def function(x, b, scale, noise):
        return bias_act.bias_act(x, b, act="lrelu", clamp=8, scale=scale, noise=noise)

    check(function, tensors, dtype)


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("up, down, taps", [(2, 1, 4), (1, 2, 4), (1, 1, 4), (1, 1, 25), (3, 2, 6)])
@pytest.mark.parametrize("shape", [(2, 64, 33, 31), (3, 3, 128, 128)])
def test_upfirdn2d(compiled, check, shape, up, down, taps, layout, dtype):
    f = upfirdn2d.setup_filter([1, 3, 3, 1] if taps == 4 else range(1, taps + 1))
    x = torch.randn(shape).to(memory_format=layout)

    def function(x):
        # Taps are rounded to the type of the picture, in both.
        return upfirdn2d.upfirdn2d(x, f.to(dtype).to(x), up=up, down=down, padding=taps)

    check(function, [x], dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_gradients(compiled, layout):
    x = torch.randn(2, 8, 5, 6, device=CUDA, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    b, f = (
        torch.randn(8, device=CUDA, dtype=torch.float64, requires_grad=True),
        upfirdn2d.setup_filter([1, 3, 3, 1], device=CUDA),
    )

    def function(x, b):
        return upfirdn2d.upfirdn2d(bias_act.bias_act(x, b, act="lrelu") ** 2, f, up=2, padding=2)

    assert torch.autograd.gradcheck(function, (x, b), nondet_tol=0)
    assert torch.autograd.gradgradcheck(function, (x, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels, count", [(32, 50000), (5, 3001), (32, 0)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_grid_lookup(compiled, check, channels, count, dtype, deterministic):
    size = (4, 33, 35)
    table, points = torch.randn(2, 3, *size, channels), (torch.rand(2, count, 3) * 2 - 1) * 1.2
    # Between cells the gradient jumps, and a rounding decides on which side a point is.
    places = torch.stack([points * (length / 2) + (length - 1) / 2 for length in size])
    near = ((places - places.round()).abs() < 1e-3).any(dim=0).any(dim=-1, keepdim=True)
    points = torch.where(near, 0.0123, points)

    def function(table, points):
        return grid_lookup.grid_lookup(table, points, TRIGRID_AXES)

    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        check(function, [table, points], dtype)
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_gradients_have_the_same_bits(compiled):
    table, points = torch.randn(1, 3, 2, 4, 4, 32, device=CUDA, requires_grad=True), torch.rand(1, 100000, 3, device=CUDA)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        sums = [torch.autograd.grad(grid_lookup.grid_lookup(table, points, TRIGRID_AXES).sin().sum(), table) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(sums[0][0], sums[1][0])


@pytest.mark.parametrize("outputs", [1, 33])
@pytest.mark.parametrize("count", [1, 70001])
def test_lookup_and_decoder_in_one(compiled, count, outputs):
    table, points = torch.randn(2, 3, 4, 64, 64, 32), (torch.rand(2, count, 3) * 2 - 1) * 1.2
    layers = [torch.randn(64, 32) / 4, torch.randn(64), torch.randn(outputs, 64) / 8, torch.randn(outputs)]
    found = grid_mlp.grid_mlp(table.to(CUDA), points.to(CUDA), TRIGRID_AXES, *(layer.to(CUDA) for layer in layers))
    features = grid_lookup._reference(table.double(), points.double(), TRIGRID_AXES)
    expected = softplus_mlp._reference(features, *(layer.double() for layer in layers))
    assert (found.cpu() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rays, samples, channels", [(4096, 96, 32), (33, 7, 5), (1, 1, 32), (0, 5, 32)])
def test_composite(compiled, check, rays, samples, channels, dtype):
    order = torch.rand(2, rays, samples, 1).argsort(dim=2)

    def function(weights, features):
        return composite.composite(weights, features, order.to(weights.device))

    check(function, [torch.rand(2, rays, samples - 1, 1), torch.randn(2, rays, samples, channels)], dtype)


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
