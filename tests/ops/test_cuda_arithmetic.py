"""The CUDA kernels and bindings, run on the CPU with a header that imitates CUDA, compared with plain PyTorch."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from test_compiled_pictures import LAYOUTS, assert_same, draw, with_gradients

from torch_utils import custom_ops
from torch_utils.ops import bias_act, composite, grid_lookup, grid_mlp, softplus_mlp, upfirdn2d

STAND_IN = Path(__file__).parent / "cuda_on_cpu"
AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
# Relative: a rounding, and in float32 that of the sums too.
PRECISION = {torch.float32: 2**-22, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@pytest.fixture(scope="session")
def kernels():
    """The CUDA ops, on the CPU."""
    from torch.utils import cpp_extension

    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        pytest.skip("no C++ compiler")
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    folder = root / "multi_pose_cuda_on_cpu"
    folder.mkdir(parents=True, exist_ok=True)
    with custom_ops._file_lock(folder / "multi_pose.lock"), custom_ops._ninja_on_path():
        (folder / "lock").unlink(missing_ok=True)  # what a build that was stopped has left
        cpp_extension.load(
            "multi_pose_cuda_on_cpu",
            [str(custom_ops.CUDA.folder / "bindings.cpp"), str(STAND_IN / "kernels.cpp")],
            extra_cflags=["-O1"],
            extra_include_paths=[str(STAND_IN), str(custom_ops.CUDA.folder)],
            build_directory=str(folder),
            is_python_module=False,
        )
    return torch.ops.multi_pose_cuda


@pytest.fixture(autouse=True)
def dispatch(kernels, monkeypatch):
    """Lets the ops treat CPU tensors as GPU tensors; "ref" still selects plain PyTorch."""

    def compiled(*tensors, half=False):
        dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
        known = custom_ops.FULL_PRECISION + (custom_ops.HALF_PRECISION if half else ())
        return kernels if len(dtypes) == 1 and dtypes <= {*known} and custom_ops.mode() != "ref" else None

    monkeypatch.setattr(custom_ops, "compiled", compiled)
    monkeypatch.setattr(bias_act, "_WORTHWHILE", 0)
    monkeypatch.delenv(custom_ops.SWITCH, raising=False)


@pytest.fixture(params=["forwards", "backwards"])
def order(request, monkeypatch):
    """Both orders of threads: a missing barrier shows in one of them."""
    if request.param == "backwards":
        monkeypatch.setenv("FIBERS_BACKWARDS", "1")


def compare(monkeypatch, function, tensors, tolerance=1e-9):
    fast = with_gradients(function, tensors)
    with monkeypatch.context() as patch:
        patch.setenv(custom_ops.SWITCH, "ref")
        plain = with_gradients(function, tensors)
    assert_same(fast, plain, tolerance)


# Pictures


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 70, 17, 24), (1, 1, 1, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise_samples", [1, 2])
def test_bias_act_with_scale_and_noise(monkeypatch, order, shape, layout, noise_samples):
    torch.manual_seed(0)
    batch, channels, *size = shape
    noise = draw(min(noise_samples, batch), 1, *size)
    tensors = [draw(*shape, layout=layout), draw(channels), draw(batch, channels), noise]

    def function(x, b, scale, noise):
        return bias_act.bias_act(x, b, act="lrelu", clamp=0.7, gain=1.3, scale=scale, noise=noise)

    compare(monkeypatch, function, tensors)


@pytest.mark.parametrize("given", ["b", "scale", "noise", None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bias_act_with_one_operand(monkeypatch, given, layout):
    shapes = {"b": [8], "scale": [2, 8], "noise": [2, 1, 9, 8]}
    tensors = [draw(2, 8, 9, 8, layout=layout)] + ([draw(*shapes[given])] if given else [])
    compare(monkeypatch, lambda x, *o: bias_act.bias_act(x, act="relu", **dict(zip([given], o))), tensors)


@pytest.mark.parametrize("shape", [(40, 6), (3, 6, 11), (0, 4), (0, 4, 5, 5)])
def test_bias_act_of_rows_and_of_nothing(monkeypatch, shape):
    compare(monkeypatch, lambda x, b: bias_act.bias_act(x, b, act="lrelu", clamp=0.4), [draw(*shape), draw(shape[1])])


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", PRECISION)
def test_precision_of_pictures(dtype, layout, start):
    """Sums are kept in float32: results are as near as their own type has room for.  Wide reads need a suitable start."""
    torch.manual_seed(0)
    x = torch.randn(start + 2 * 16 * 8 * 24, dtype=dtype)[start:].reshape(2, 8, 24, 16).movedim(-1, 1)
    x = x.contiguous(memory_format=layout) if start == 0 or layout == torch.contiguous_format else x
    b, scale = torch.randn(16, dtype=dtype), torch.randn(2, 16, dtype=dtype)
    taps = upfirdn2d.setup_filter([1, 3, 3, 1])

    def results(x, b, scale):
        x, b, scale = (tensor.clone().requires_grad_() if start == 0 else tensor.requires_grad_() for tensor in (x, b, scale))
        activated = bias_act.bias_act(x, b, act="lrelu", scale=scale)
        gradients = torch.autograd.grad(activated, (x, b, scale), torch.ones_like(activated))
        return activated, *gradients, upfirdn2d.upfirdn2d(x, taps, up=2, padding=1), upfirdn2d.upfirdn2d(x, taps, down=2)

    fast = results(x, b, scale)
    assert fast[0].dtype == fast[2].dtype == dtype
    for one, exact in zip(fast, results(*(tensor.detach().double() for tensor in (x, b, scale)))):
        assert (one - exact).norm() <= PRECISION[dtype] * exact.norm()


@pytest.mark.parametrize("channels, layout", [(1, LAYOUTS[1]), (3, LAYOUTS[0]), (16, LAYOUTS[1]), (9, LAYOUTS[1])])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), ((2, 3), (3, 1)), (3, 2)])
@pytest.mark.parametrize("padding", [0, (3, -1, -2, 4)])
@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [[1, 2, -3], [4, 5, 7]]])
def test_upfirdn2d(monkeypatch, channels, layout, up, down, padding, taps):
    f, x = upfirdn2d.setup_filter(taps), draw(2, channels, 6, 9, layout=layout)
    compare(monkeypatch, lambda x: upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=padding, gain=1.5), [x])


def test_upfirdn2d_with_a_separable_filter(monkeypatch):
    f, x = upfirdn2d.setup_filter([1, 2, 3, -1, 5], separable=True), draw(2, 8, 9, 9, layout=torch.channels_last)
    compare(monkeypatch, lambda x: upfirdn2d.upfirdn2d(x, f, up=2, padding=3, flip_filter=True), [x])


# Grids and rays


def grids(batch=2, count=50, channels=32, dtype=torch.float64, size=(2, 5, 7)):
    """A table and points, some of them outside."""
    torch.manual_seed(0)
    table = torch.randn(batch, 3, *size, channels, dtype=dtype, requires_grad=True)
    return table, ((torch.rand(batch, count, 3, dtype=dtype) * 2 - 1) * 1.3).requires_grad_()


def looked_up(function, table, points):
    features = function(table, points, AXES)
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).reshape(features.shape)
    return features, *torch.autograd.grad((features * weights).sum(), (table, points))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    "kwargs", [{}, dict(channels=5), dict(channels=80), dict(count=0), dict(batch=0), dict(size=(1, 1, 1))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_lookup(kwargs, dtype, deterministic):
    table, points = grids(dtype=dtype, **kwargs)
    torch.use_deterministic_algorithms(deterministic)
    try:
        fast = looked_up(grid_lookup.grid_lookup, table, points)
    finally:
        torch.use_deterministic_algorithms(False)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    for one, other in zip(fast, looked_up(grid_lookup._reference, table, points)):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_far_away_is_zero():
    table, _ = grids()
    points = torch.tensor([1e30, -1e30, float("inf"), float("nan")]).double().reshape(1, 4, 1).expand(2, 4, 3)
    assert not grid_lookup.grid_lookup(table, points, AXES).any()


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, float("inf"), float("nan")])
def test_whole_numbers_hold_gradients_of_any_size(kernels, value):
    """All points in one cell are the largest sum there is."""
    points, shape = torch.zeros(1, 4000, 3), (1, 1, 1, 1, 1, 1)
    torch.use_deterministic_algorithms(True)
    try:
        found = kernels.grid_lookup_grad_table(torch.full([1, 4000, 1], value), points, shape, [0, 1, 2]).item()
    finally:
        torch.use_deterministic_algorithms(False)
    assert found == pytest.approx(4000 * value, rel=1e-6) if value < float("inf") else found != found


@pytest.mark.parametrize("outputs", [1, 33])
@pytest.mark.parametrize("count", [0, 3, 700])
def test_grid_mlp(kernels, order, outputs, count):
    table, points = (tensor.detach() for tensor in grids(count=count))
    layers = [torch.randn(shape, dtype=torch.float64) for shape in ([64, 32], [64], [outputs, 64], [outputs])]
    features = grid_lookup._reference(table, points, AXES)
    expected = softplus_mlp._reference(features, *layers)
    found = grid_mlp.grid_mlp(table.float(), points.float(), AXES, *(layer.float() for layer in layers))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_grid_mlp_that_is_trained_has_gradients():
    table, points = grids(dtype=torch.float32)
    layers = [torch.randn(shape, requires_grad=True) for shape in ([64, 32], [64], [33, 64], [33])]
    grid_mlp.grid_mlp(table, points, AXES, *layers).sum().backward()
    assert all(tensor.grad.any() for tensor in (table, points, *layers))


@pytest.mark.parametrize("kwargs", [{}, dict(channels=5), dict(samples=1), dict(rays=0), dict(samples=4), dict(channels=80)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_composite(kwargs, dtype):
    torch.manual_seed(0)
    shape = dict(dict(rays=5, samples=7, channels=32), **kwargs)
    rays, samples, channels = shape.values()
    weights = torch.rand(2, rays, samples - 1, 1, dtype=dtype, requires_grad=True)
    features = torch.randn(2, rays, samples, channels, dtype=dtype, requires_grad=True)
    by_depth = torch.rand(2, rays, samples, 1).argsort(dim=2)
    results = []
    for function in (composite.composite, composite._reference):
        out = function(weights, features, by_depth)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (weights, features))])
    for fast, plain in zip(*results):
        torch.testing.assert_close(fast, plain)
