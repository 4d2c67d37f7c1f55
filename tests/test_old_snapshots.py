"""Snapshots written by old projects of the family, loaded by plain pickle, which runs their source, and by the loader.

The snapshots come from tests/legacy, a small imitation of an old project that was written for these tests.
"""

import importlib
import math
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fill import draw, fill
from test_golden_networks import assert_close, assert_pictures_close, build

import camera_utils
import dnnlib
from torch_utils import misc, module_sources, persistence
from torch_utils.ops import bias_act, conv2d_gradfix, filtered_lrelu, fma, grid_sample_gradfix, upfirdn2d
from training import networks_stylegan3, triplane
from training.export import export_network
from training.loading import load_network
from training.volumetric_rendering import math_utils, ray_marcher, ray_sampler, renderer

TESTS = Path(__file__).parent
RECORDS = {"panohead": "generator_small", "eg3d": "eg3d_small"}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder with the snapshots; they are written by a process in which `training` is the old project's."""
    folder = tmp_path_factory.mktemp("old")
    path = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
    subprocess.run(
        [sys.executable, TESTS / "legacy" / "write_snapshots.py", folder], env=dict(os.environ, PYTHONPATH=path), check=True
    )
    return folder


@pytest.fixture
def plainly(old, monkeypatch):
    """Load a snapshot by plain pickle, as people do."""
    monkeypatch.setattr(persistence, "_import_hooks", [])  # the text adds one

    def load(name):
        with open(old / f"{name}.pkl", "rb") as file:
            return pickle.load(file)

    return load


@pytest.fixture
def through_the_loader(old, monkeypatch):
    """Load a network by the loader, where running the text of a module would fail."""

    def refuse(name, sources):
        raise AssertionError("a module's text was executed")

    monkeypatch.setattr(module_sources, "load", refuse)
    return lambda name, key="G_ema": load_network(old / f"{name}.pkl", key)


def is_from_text(network):
    return type(network).__module__.startswith("_stored_sources_")


def forward(G, name):
    record = np.load(TESTS / "golden" / f"{RECORDS[name]}.npz")
    torch.manual_seed(7)
    z, c = torch.from_numpy(draw("z", (2, 512))), torch.from_numpy(record["c"])
    return G(z, c, neural_rendering_resolution=32, noise_mode="const"), record


def judged(D):
    record = np.load(TESTS / "golden" / "training_small.npz")
    pictures = dict(
        image=torch.tanh(torch.from_numpy(draw("image", (4, 3, 128, 128)))),
        image_raw=torch.tanh(torch.from_numpy(draw("image_raw", (4, 3, 32, 32)))),
        image_mask=torch.sigmoid(torch.from_numpy(draw("image_mask", (4, 1, 32, 32)))),
    )
    return D(pictures, torch.from_numpy(record["c"])), torch.from_numpy(record["logits"])


# Plain pickle


@pytest.mark.parametrize("name", RECORDS)
def test_plain_pickle_runs_the_text(plainly, name):
    G = plainly(name)["G_ema"]
    assert all(map(is_from_text, (G, G.backbone, G.superresolution.block0, G.decoder.net[0])))
    result, record = forward(G, name)
    assert_pictures_close(result, record, "forward_")


def test_a_whole_snapshot(plainly):
    snapshot = plainly("panohead")
    assert list(snapshot) == ["training_set_kwargs", "augment_pipe", "G", "D", "G_ema"]
    kwargs = snapshot["training_set_kwargs"]
    assert type(kwargs) is dnnlib.EasyDict and kwargs.path == "heads.zip" and kwargs.resolution == 128
    assert is_from_text(snapshot["D"]) and snapshot["G"] is snapshot["G_ema"]
    logits, expected = judged(snapshot["D"])
    assert_close(logits, expected.numpy())


def test_what_the_text_can_do_besides(plainly):
    G = plainly("panohead")["G_ema"]
    assert G.trainable_size() == sum(tensor.numel() for tensor in G.state_dict().values())
    record = np.load(TESTS / "golden" / "generator_small.npz")
    xyz, ws = torch.from_numpy(record["xyz"]), torch.from_numpy(record["ws"])
    for network in (G, G.copied(), pickle.loads(pickle.dumps(G))):
        found = network.sample_mixed(xyz, torch.zeros_like(xyz), ws, noise_mode="const")
        assert_close(found["sigma"], record["sigma"])
        assert_close(found["rgb"], record["rgb"])
        assert type(network) is type(G)


# The loader


@pytest.mark.parametrize("name", RECORDS)
def test_the_loader_gives_the_same_pictures_and_runs_nothing(through_the_loader, name):
    G = through_the_loader(name)
    assert type(G) is triplane.TriPlaneGenerator
    result, record = forward(G, name)
    assert_pictures_close(result, record, "forward_")
    ours, _ = forward(fill(build(RECORDS[name])).eval().requires_grad_(False), name)
    assert all(torch.equal(result[key], ours[key]) for key in ours)


def test_the_loader_gives_the_same_logits(through_the_loader):
    logits, expected = judged(through_the_loader("panohead", "D"))
    assert_close(logits, expected.numpy())


def test_both_ways_agree_on_what_scripts_call_and_change(old, plainly):
    record = np.load(TESTS / "golden" / "eg3d_small.npz")
    z, xyz, c = (torch.from_numpy(x) for x in (draw("z", (2, 512)), record["xyz"], record["c"]))
    for G in (plainly("eg3d")["G_ema"], load_network(old / "eg3d.pkl")):
        found = G.sample(xyz, torch.zeros_like(xyz), z, c, noise_mode="const")
        assert_close(found["sigma"], record["sigma"])
        assert_close(found["rgb"], record["rgb"])
    results = []
    for G in (plainly("panohead")["G_ema"], load_network(old / "panohead.pkl")):
        G.rendering_kwargs.update(ray_start="auto", ray_end="auto", depth_resolution=12, density_noise=0.5)
        G.neural_rendering_resolution = 16
        torch.manual_seed(3)
        results.append(G(z, c, truncation_psi=0.7, truncation_cutoff=4, noise_mode="const"))
    assert results[0]["image_raw"].shape == (2, 3, 16, 16)
    for key in results[0]:
        assert_close(results[0][key], results[1][key].numpy())


def test_planes_of_later_eg3d_code_are_looked_up_as_they_were_trained(plainly, tmp_path):
    G = plainly("eg3d")["G_ema"]
    G.renderer.plane_axes[2] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    path = tmp_path / "later.pkl"
    path.write_bytes(pickle.dumps(dict(G_ema=G)))
    record = np.load(TESTS / "golden" / "eg3d_small.npz")
    z, xyz = torch.from_numpy(draw("z", (2, 512))), torch.from_numpy(record["xyz"])
    c = torch.from_numpy(record["c"])
    loaded = load_network(path)
    built_anew = type(loaded)(*loaded.init_args, **loaded.init_kwargs).eval().requires_grad_(False)
    misc.copy_params_and_buffers(loaded, built_anew, require_all=True)
    exported = tmp_path / "later-exported.pkl"
    export_network(loaded, exported)
    ways = (loaded, built_anew, load_network(exported), pickle.loads(path.read_bytes())["G_ema"].requires_grad_(False))
    first, *others = [G.sample(xyz, torch.zeros_like(xyz), z, c, noise_mode="const") for G in ways]
    for found in others:
        for name in ("sigma", "rgb"):
            assert_close(found[name], first[name].numpy())
    assert (first["sigma"] - torch.from_numpy(record["sigma"])).norm() > 0.01 * first["sigma"].norm()


# Stored by name


def test_dictionaries():
    for module in (b"dnnlib.util", b"dnnlib"):
        # As old versions of Python wrote a subclass of dict: the class, no arguments, then its items.
        stored = pickle.loads(b"\x80\x02c" + module + b"\nEasyDict\nq\x00)\x81q\x01X\x01\x00\x00\x00aK\x01s.")
        assert type(stored) is dnnlib.EasyDict and stored.a == stored["a"] == 1


def test_ray_sampler():
    camera = camera_utils.unpack_label(camera_utils.orbit_label(0.3, 0.1))
    for found, plain in zip(ray_sampler.RaySampler()(*camera, 4), ray_sampler.sample_rays(*camera, 4)):
        assert found.shape == (1, 16, 3) and torch.equal(found, plain)


@pytest.fixture(scope="module", params=RECORDS.values())
def G(request):
    return fill(build(request.param)).eval().requires_grad_(False)


def marched(G):
    """Raw features and their depth and opacity, by this project's functions and by `ImportanceRenderer`."""
    c = camera_utils.orbit_label(0.3, 0.1)
    ws = G.mapping(torch.from_numpy(draw("z", (1, 512))), c)
    torch.manual_seed(1)
    plain = G.march(G.make_grids(ws, noise_mode="const"), c, 8)
    planes = G.backbone.synthesis(ws, noise_mode="const")
    rays = ray_sampler.RaySampler()(*camera_utils.unpack_label(c), 8)
    torch.manual_seed(1)
    planes = planes.reshape(1, 3, -1, *planes.shape[2:])
    return plain, renderer.ImportanceRenderer()(planes, G.decoder, *rays, G.rendering_kwargs)


def test_renderer(G):
    plain, (features, depth, opacity) = marched(G)
    # EG3D's renderer maps colours to [-1, 1], PanoHead's leaves that to the generator.
    torch.testing.assert_close(features, plain.features * 2 - 1 if G.grid_model.flat_axes else plain.features)
    torch.testing.assert_close(depth, plain.depth)
    torch.testing.assert_close(opacity, plain.opacity)


def test_renderer_with_density_noise(G):
    planes = torch.randn(2, 3, 32 * G.grid_model.triplane_depth, 8, 8)
    points, directions = torch.rand(2, 50, 3) - 0.5, torch.zeros(2, 50, 3)
    model = renderer.ImportanceRenderer()
    plain = model.run_model(planes, G.decoder, points, directions, G.rendering_kwargs)
    noisy = model.run_model(planes, G.decoder, points, directions, dict(G.rendering_kwargs, density_noise=0.5))
    assert plain["sigma"].shape == (2, 50, 1) and torch.equal(plain["rgb"], noisy["rgb"])
    assert 0.3 < (noisy["sigma"] - plain["sigma"]).std() < 0.7


def test_ray_marcher():
    colors, densities = torch.rand(2, 5, 7, 3), 5 * torch.randn(2, 5, 7, 1)
    depths = torch.linspace(2, 3, 7)[:, None].expand(2, 5, 7, 1)
    march = ray_marcher.MipRayMarcher2()
    for white_back in (False, True):
        plain = ray_marcher.march_rays(colors, densities, depths, white_back)
        for options, expected in ((dict(), plain.features * 2 - 1), (dict(triplane_depth=3), plain.features)):
            features, depth, weights = march(colors, densities, depths, dict(options, white_back=white_back))
            assert weights.shape == (2, 5, 6, 1) and torch.equal(features, expected)
            assert torch.equal(depth, plain.depth) and torch.equal(weights, plain.weights)


# Other names that the text calls


def test_rays_and_the_box():
    origins = torch.tensor([[0.0, 0, 3], [0, 2, 3], [3, 3, 3]])
    directions = F.normalize(torch.tensor([[0.0, 0, -1], [0, 0, -1], [-1, -1, -1]]), dim=-1)
    start, end = math_utils.get_ray_limits_box(origins, directions, box_side_length=2)
    assert torch.allclose(start, torch.tensor([[2], [-1], [2 * math.sqrt(3)]]))
    assert torch.allclose(end, torch.tensor([[4], [-2], [4 * math.sqrt(3)]]))
    assert math_utils.get_ray_limits_box(origins[None, None], directions[None, None], 2)[0].shape == (1, 1, 3, 1)


def test_linspace():
    start, stop = torch.rand(2, 5, 1), torch.rand(2, 5, 1) + 1
    expected = np.linspace(start.numpy(), stop.numpy(), 9)
    torch.testing.assert_close(math_utils.linspace(start, stop, 9), torch.from_numpy(expected))


def test_constant():
    assert torch.equal(misc.constant([1, 2], shape=[3, 2]), torch.tensor([[1.0, 2]] * 3))
    assert misc.constant(np.float64(0.5)).dtype == torch.get_default_dtype() and misc.constant(2, dtype=torch.int64) == 2
    first = misc.constant(0, shape=[2])
    first += 1
    assert torch.equal(misc.constant(0, shape=[2]), torch.zeros(2))


def test_profiled_function():
    @misc.profiled_function
    def some_name(x):
        """Doc."""
        return x + 1

    with torch.autograd.profiler.profile() as profile:
        assert some_name(1) == 2
    assert some_name.__doc__ == "Doc." and "some_name" in {event.name for event in profile.function_events}


def test_tracer_warnings():
    def traced(quiet):
        def function(x):
            if not quiet:
                return x * int(x.sum())
            with misc.suppress_tracer_warnings():
                return x * int(x.sum())

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.jit.trace(function, torch.ones(2), check_trace=False)
        return [w for w in caught if w.category is torch.jit.TracerWarning]

    assert traced(quiet=False) and not traced(quiet=True)


def test_fma_and_convolutions():
    a, b, c = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 1, 1), torch.randn(4, 4)
    torch.testing.assert_close(fma.fma(a, b, c), a * b + c)
    x, w, bias = torch.randn(2, 4, 5, 5), torch.randn(6, 2, 3, 3), torch.randn(6)
    with conv2d_gradfix.no_weight_gradients(), conv2d_gradfix.no_weight_gradients(disable=False):
        y = conv2d_gradfix.conv2d(input=x, weight=w, bias=bias, stride=2, padding=1, dilation=1, groups=2)
    torch.testing.assert_close(y, F.conv2d(x, w, bias, 2, 1, 1, 2))
    y = conv2d_gradfix.conv_transpose2d(x, w.transpose(0, 1)[:, :3].repeat(2, 1, 1, 1), stride=2, groups=2)
    assert y.shape == (2, 6, 11, 11)


def test_filtered_lrelu():
    x, b = torch.randn(1, 2, 4, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    nothing = filtered_lrelu.filtered_lrelu(x, b=b, gain=3, slope=0.1, clamp=2)
    torch.testing.assert_close(nothing, (F.leaky_relu(x + b[:, None, None], 0.1) * 3).clamp(-2, 2))
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    up = upfirdn2d.upsample2d(x + b[:, None, None], f)
    expected = upfirdn2d.downsample2d(F.leaky_relu(up, 0.2) * math.sqrt(2), f)
    # Both filters take 3 pixels: the padding of upsample2d (2, 1) and of downsample2d (1, 1), which meets zeros here, inside.
    result = filtered_lrelu.filtered_lrelu(x, f, f, b, up=2, down=2, padding=(3, 2, 3, 2), impl="ref")
    assert result.shape == expected.shape
    torch.testing.assert_close(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("impl", ["ref", "cuda"])
def test_ops_take_an_implementation(impl):
    x, f = torch.randn(1, 2, 4, 4), upfirdn2d.setup_filter([1, 3, 3, 1])
    assert torch.equal(bias_act.bias_act(x, None, 1, "lrelu", None, None, None, impl), bias_act.bias_act(x, act="lrelu"))
    for function in (upfirdn2d.upfirdn2d, upfirdn2d.filter2d, upfirdn2d.upsample2d, upfirdn2d.downsample2d):
        assert torch.equal(function(x, f, impl=impl), function(x, f))


def test_volumes_can_be_looked_up():
    x, grid = torch.randn(2, 3, 4, 5, 6), (torch.rand(2, 1, 1, 9, 3) * 2.4 - 1.2).requires_grad_()
    found = grid_sample_gradfix.grid_sample(x, grid)
    torch.testing.assert_close(found, F.grid_sample(x, grid, align_corners=False))
    assert torch.autograd.grad(found.sum(), grid)[0].abs().sum() > 0


def test_stylegan3_layers_say_that_they_are_not_here():
    with pytest.raises(NotImplementedError, match="StyleGAN3"):
        networks_stylegan3.SynthesisLayer(w_dim=4)


NAMES = {
    "dnnlib": "EasyDict util",
    "dnnlib.util": "EasyDict construct_class_by_name",
    "torch_utils.persistence": "persistent_class import_hook",
    "torch_utils.misc": "assert_shape profiled_function suppress_tracer_warnings constant copy_params_and_buffers "
    "named_params_and_buffers",
    "torch_utils.ops.bias_act": "bias_act activation_funcs",
    "torch_utils.ops.upfirdn2d": "setup_filter upfirdn2d filter2d upsample2d downsample2d",
    "torch_utils.ops.conv2d_resample": "conv2d_resample",
    "torch_utils.ops.fma": "fma",
    "torch_utils.ops.conv2d_gradfix": "conv2d no_weight_gradients",
    "torch_utils.ops.grid_sample_gradfix": "grid_sample",
    "torch_utils.ops.filtered_lrelu": "filtered_lrelu",
    "training.networks_stylegan2": "Generator MappingNetwork SynthesisNetwork SynthesisBlock SynthesisLayer ToRGBLayer "
    "Conv2dLayer FullyConnectedLayer DiscriminatorBlock DiscriminatorEpilogue",
    "training.networks_stylegan3": "SynthesisLayer",
    "training.triplane": "TriPlaneGenerator OSGDecoder",
    "training.volumetric_rendering.renderer": "ImportanceRenderer",
    "training.volumetric_rendering.ray_sampler": "RaySampler",
    "training.volumetric_rendering.ray_marcher": "MipRayMarcher2",
    "training.volumetric_rendering.math_utils": "get_ray_limits_box linspace",
    "training.dual_discriminator": "filtered_resizing",
}


@pytest.mark.parametrize("module", NAMES)
def test_every_name_that_published_text_imports_is_there(module):
    assert [name for name in NAMES[module].split() if not hasattr(importlib.import_module(module), name)] == []
