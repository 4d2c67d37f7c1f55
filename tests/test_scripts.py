"""Scripts written for EG3D or PanoHead: every name in docs/scripts.md exists, and does what they expect."""

import copy
import importlib
import io
import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.interpolate
import torch
from test_loss import golden_network

import dnnlib
import legacy
from camera_utils import (
    FOV_to_intrinsics,
    GaussianCameraPoseSampler,
    LookAtPoseSampler,
    UniformCameraPoseSampler,
    create_cam2world_matrix,
    orbit_label,
    unpack_label,
)
from dnnlib import UserError, download
from torch_utils import misc
from training.dataset import HeadDataset, ImageFolderDataset, MaskLabeledDataset
from training.rendering_settings import RenderingSettings
from training.triplane import TriPlaneGenerator
from training.volumetric_rendering import math_utils, ray_sampler, renderer, sampling, trigrid

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models" / "heads-128.pkl"
SETTINGS = dict(ray_start="auto", ray_end="auto", depth_resolution=5, depth_resolution_importance=0, box_warp=1)
NAMES = re.findall(r"^\| `([\w.]+)", (ROOT / "docs" / "scripts.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def shipped():
    with dnnlib.util.open_url(str(SHIPPED)) as f:
        return legacy.load_network_pkl(f)["G_ema"]


@pytest.fixture(scope="module")
def unpickled():
    """The shipped network with the code stored in its file."""
    with open(SHIPPED, "rb") as f:
        return pickle.load(f)["G_ema"]


@pytest.fixture
def fresh():
    return golden_network("generator_small").eval().requires_grad_(False)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_page_is_there(name, shipped, unpickled):
    if name.startswith("G."):
        assert hasattr(shipped, name[2:]) and hasattr(unpickled, name[2:])
        return
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_the_page_lists_names():
    assert len(NAMES) > 25


def test_a_film_by_splines_in_w(shipped):
    c = torch.cat([LookAtPoseSampler.sample(1.57, 1.57, radius=2.7).reshape(1, 16), FOV_to_intrinsics(18.837).reshape(1, 9)], 1)
    ws = shipped.mapping(torch.randn(3, shipped.z_dim), c.repeat(3, 1), truncation_psi=0.7, truncation_cutoff=14)
    spline = scipy.interpolate.interp1d(np.arange(3), ws.numpy(), kind="quadratic", axis=0)
    w = torch.from_numpy(spline(0.4))[None]
    assert w.dtype == torch.float64
    kwargs = dict(noise_mode="const", neural_rendering_resolution=16)
    torch.manual_seed(0)
    found = shipped.synthesis(w, c.double(), **kwargs)["image"]
    torch.manual_seed(0)
    assert torch.equal(found, shipped.synthesis(w.float(), c, **kwargs)["image"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_any_floating_type_gives_the_picture_of_float32(fresh, dtype):
    z, c = torch.randn(1, fresh.z_dim).to(dtype), orbit_label(0.3, 0.1).to(dtype)
    points = torch.rand(1, 7, 3).to(dtype) - 0.5
    results = []
    for cast in (torch.Tensor.float, lambda tensor: tensor):
        torch.manual_seed(0)
        picture = fresh(cast(z), cast(c), noise_mode="const")["image"]
        sigma = fresh.sample(cast(points), torch.zeros_like(points), cast(z), cast(c), noise_mode="const")["sigma"]
        results.append((picture, sigma))
    for expected, found in zip(*results, strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_a_kept_backbone_is_used_again(fresh):
    c = orbit_label(0.2, 0.0)
    first, other = (fresh.mapping(torch.randn(1, fresh.z_dim), c) for _ in range(2))

    def depth(ws, **kwargs):
        torch.manual_seed(0)
        return fresh.synthesis(ws, c, noise_mode="const", update_emas=False, **kwargs)["image_depth"]

    expected = depth(first, cache_backbone=True)
    assert torch.equal(depth(other, use_cached_backbone=True), expected)
    assert not torch.equal(depth(other), expected)
    z = torch.randn(1, fresh.z_dim)
    seen = fresh.apply_delta_c(z, c)[0]
    torch.manual_seed(0)
    whole = fresh(z, c, noise_mode="const", use_cached_backbone=True)["image_depth"]
    torch.manual_seed(0)
    assert torch.equal(whole, fresh.synthesis(first, seen, noise_mode="const")["image_depth"])


def test_the_code_in_the_shipped_file_knows_these_calls(shipped, unpickled):
    c, kwargs = orbit_label(0.2, 0.1), dict(noise_mode="const", update_emas=False)
    z, points = torch.randn(1, shipped.z_dim), torch.rand(1, 20, 3, dtype=torch.float64) - 0.5
    results = []
    for G in (shipped, unpickled):
        ws = G.mapping(z.double(), c, truncation_psi=0.7, truncation_cutoff=14).double()
        sigma = G.sample_mixed(points, points, ws, truncation_psi=0.7, truncation_cutoff=14, **kwargs)["sigma"]
        torch.manual_seed(0)
        picture = G.synthesis(ws, c, neural_rendering_resolution=16, cache_backbone=True, **kwargs)["image"]
        torch.manual_seed(0)
        again = G.synthesis(ws, c, neural_rendering_resolution=16, use_cached_backbone=True, **kwargs)["image"]
        assert torch.equal(again, picture)
        results.append((sigma, picture))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def test_kept_grids_are_not_stored(fresh):
    size = len(pickle.dumps(fresh))
    fresh.synthesis(fresh.mapping(torch.randn(1, fresh.z_dim), orbit_label(0, 0)), orbit_label(0, 0), cache_backbone=True)
    assert len(pickle.dumps(fresh)) == size


def test_shapes_by_chunks(shipped):
    points, z, c = torch.rand(1, 100, 3) - 0.5, torch.randn(1, shipped.z_dim), orbit_label(0, 0)
    ws = shipped.mapping(z, c, truncation_psi=0.7, truncation_cutoff=14)
    kwargs = dict(truncation_psi=0.7, truncation_cutoff=14, update_emas=False, noise_mode="const")
    chunks = [shipped.sample(part, torch.zeros_like(part), z, c, **kwargs)["sigma"] for part in points.split(40, dim=1)]
    whole = shipped.sample_mixed(points, torch.zeros_like(points), ws, **kwargs)["sigma"]
    assert torch.allclose(torch.cat(chunks, dim=1), whole, atol=1e-5)


@pytest.mark.parametrize("which", ["shipped", "unpickled", "fresh"])
def test_a_renderer_called_by_hand(which, request):
    G = request.getfixturevalue(which)
    c, size = orbit_label(0.4, 0.1), 12
    ws = G.mapping(torch.randn(1, G.z_dim), c)
    origins, directions = G.ray_sampler(c[:, :16].view(-1, 4, 4), c[:, 16:].view(-1, 3, 3), size)
    planes = G.backbone.synthesis(ws, noise_mode="const")
    planes = planes.view(len(planes), 3, -1, *planes.shape[-2:])
    torch.manual_seed(0)
    features, depth, weights = G.renderer(planes, G.decoder, origins, directions, G.rendering_kwargs)
    torch.manual_seed(0)
    expected = G.synthesis(ws, c, neural_rendering_resolution=size, noise_mode="const")["image_depth"]
    assert features.shape == (1, size**2, 32) and weights.shape == (1, size**2, 1)
    assert torch.allclose(depth.view_as(expected), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_renderer_called_by_hand_takes_any_floating_type(fresh, dtype):
    c = orbit_label(0.4, 0.1).to(dtype)
    planes = fresh.backbone.synthesis(fresh.mapping(torch.randn(1, fresh.z_dim), c), noise_mode="const").unflatten(1, (3, -1))
    results = []
    for cast in (torch.Tensor.float, lambda tensor: tensor):
        rays = fresh.ray_sampler(cast(c)[:, :16].view(-1, 4, 4), cast(c)[:, 16:].view(-1, 3, 3), 6)
        torch.manual_seed(0)
        seen = fresh.renderer(planes, fresh.decoder, *rays, fresh.rendering_kwargs)
        # Rays that a caller made, in values that every type can hold.
        origins, directions = (cast((ray * 64).round().div(64).to(dtype)) for ray in rays)
        torch.manual_seed(0)
        own = fresh.renderer(planes, fresh.decoder, origins, directions, fresh.rendering_kwargs)
        points = fresh.renderer.run_model(planes, fresh.decoder, origins / 8, directions, fresh.rendering_kwargs)
        results.append((*rays, *seen, *own, points["sigma"], points["rgb"]))
    for expected, found in zip(*results, strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_a_projector_with_noise_buffers_and_w_avg(shipped):
    G = copy.deepcopy(shipped)
    c = orbit_label(0.0, 0.0)
    samples = G.mapping(torch.randn(100, G.z_dim), c.expand(100, -1))[:, :1]
    w_std = float((samples - G.backbone.mapping.w_avg).square().sum() / 100) ** 0.5
    noises = {name: buffer for name, buffer in G.backbone.synthesis.named_buffers() if "noise_const" in name}
    w = G.backbone.mapping.w_avg.detach()[None, None].clone().requires_grad_()
    for buffer in noises.values():
        buffer.copy_(torch.randn_like(buffer))
        buffer.requires_grad_(True)
    ws_of_target = G.mapping(torch.randn(1, G.z_dim), c)
    target = shipped.synthesis(ws_of_target, c, neural_rendering_resolution=16, noise_mode="const")["image"]
    optimizer = torch.optim.Adam([w, *noises.values()], lr=0.02)
    losses = []
    for _ in range(8):
        ws = (w + torch.randn_like(w) * w_std * 1e-3).repeat(1, G.backbone.mapping.num_ws, 1)
        image = G.synthesis(ws, c, neural_rendering_resolution=16, noise_mode="const")["image"]
        loss = (image - target).square().mean() + 1e-3 * sum(buffer.mean() ** 2 for buffer in noises.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        assert all(buffer.grad.isfinite().all() for buffer in noises.values())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_latent_edit_of_some_layers(shipped):
    c = orbit_label(0.0, 0.0)
    ws = shipped.mapping(torch.randn(2, shipped.z_dim), c.expand(2, -1), truncation_psi=0.7)
    direction = torch.pca_lowrank(shipped.mapping(torch.randn(50, shipped.z_dim), c.expand(50, -1))[:, 0], q=2)[2][:, 0]
    edited = ws.clone()
    edited[:, :4] += 2 * direction
    images = []
    for w in (ws, edited):
        torch.manual_seed(0)
        images.append(shipped.synthesis(w, c.expand(2, -1), neural_rendering_resolution=16, noise_mode="const")["image"])
    assert images[0].shape == images[1].shape == (2, 3, 128, 128)
    assert (images[0] - images[1]).abs().mean() > 1e-3


def test_a_generator_built_anew_and_edited(fresh):
    new = TriPlaneGenerator(*fresh.init_args, **fresh.init_kwargs).eval().requires_grad_(False)
    misc.copy_params_and_buffers(fresh, new, require_all=True)
    new.neural_rendering_resolution = fresh.neural_rendering_resolution = 8
    new.rendering_kwargs["depth_resolution"] = fresh.rendering_kwargs["depth_resolution"] = 7
    z, c = torch.randn(1, fresh.z_dim), orbit_label(0, 0)
    pictures = []
    for G in (fresh, new):
        torch.manual_seed(0)
        pictures.append(G(z, c, noise_mode="const"))
    assert torch.equal(pictures[0]["image"], pictures[1]["image"])
    assert pictures[0]["image_raw"].shape[-1] == 8


def test_truncation_reaches_the_camera_shift(fresh):
    assert fresh.grid_model.self_adaptive_camera
    torch.nn.init.normal_(fresh.t_mapping.fc0.weight)
    last = getattr(fresh.t_mapping, f"fc{fresh.t_mapping.num_layers - 1}")
    torch.nn.init.normal_(last.weight)
    z, c = torch.randn(1, fresh.z_dim), orbit_label(0, 0)
    full, half = (fresh.apply_delta_c(z, c, truncation_psi=psi)[1] for psi in (1, 0.5))
    assert not torch.allclose(full, half)
    torch.manual_seed(0)
    found = fresh(z, c, truncation_psi=0.5, noise_mode="const")["image"]
    torch.manual_seed(0)
    ws, label = fresh.mapping(z, c, truncation_psi=0.5), fresh.apply_delta_c(z, c, truncation_psi=0.5)[0]
    assert torch.equal(found, fresh.synthesis(ws, label, noise_mode="const")["image"])


def test_auto_rays_draw_their_jitter_sample_by_sample(monkeypatch):
    """Jitter in the memory order [S, N, R, 1], as published: the record of the draws is this project's own."""
    settings = RenderingSettings.from_kwargs(SETTINGS)
    c = orbit_label(0.2, 0.1).repeat(2, 1)
    origins, directions = ray_sampler.sample_rays(*unpack_label(c), 3)
    seen = []

    def field(points):
        seen.append(points)
        return points[..., :1], points

    torch.manual_seed(3)
    renderer.render_rays(field, origins, directions, settings)
    torch.manual_seed(3)
    jitter = torch.rand(5, 2, 9, 1).permute(1, 2, 0, 3)
    start, end = renderer.ray_limits(origins, directions, settings)
    depths = sampling.stratified_depths(start, end, jitter)
    expected = origins[:, :, None] + depths * directions[:, :, None]
    assert torch.equal(seen[0], expected.reshape(2, -1, 3))


def test_cameras_on_a_sphere():
    pose = GaussianCameraPoseSampler.sample(1.2, 1.4, radius=2.7, batch_size=2)
    assert torch.allclose(pose, LookAtPoseSampler.sample(1.2, 1.4, radius=2.7, batch_size=2))
    assert torch.allclose(UniformCameraPoseSampler.sample(1.2, 1.4, radius=2.7), pose[:1])
    spread = UniformCameraPoseSampler.sample(1.57, 1.57, 0.3, 0.1, radius=2.0, batch_size=500)[:, :3, 3]
    assert torch.allclose(spread.norm(dim=1), torch.full([500], 2.0))
    azimuth = torch.atan2(spread[:, 0], spread[:, 2])
    assert 0.28 < azimuth.abs().max() <= 0.302
    origin = torch.randn(4, 3)
    forward = math_utils.normalize_vecs(-origin)
    pose = create_cam2world_matrix(forward, origin)
    assert torch.allclose(pose[:, :3, 2], forward, atol=1e-6) and torch.equal(pose[:, :3, 3], origin)
    assert torch.allclose(math_utils.torch_dot(pose[:, :3, 0], forward), torch.zeros(4), atol=1e-6)
    turned = math_utils.transform_vectors(pose[0], torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert torch.allclose(turned[0, :3], forward[0], atol=1e-6)


@pytest.mark.parametrize("depth", [None, 3])
def test_planes_by_hand(depth):
    features, points = torch.randn(2, 3, 4 * (depth or 1), 9, 9), torch.rand(2, 50, 3) - 0.5
    flat_axes = trigrid.MENDED_TRIPLANE_AXES if depth is None else None
    axes = renderer.generate_planes(flat_axes)
    found = renderer.sample_from_planes(axes, features, points, box_warp=1.0, triplane_depth=depth)
    assert found.shape == (2, 3, 50, 4)
    grids = trigrid.split_planes(features.flatten(1, 2), depth or 1)
    expected = trigrid.sample_grids(grids, points, 1.0, flat_axes)
    assert torch.allclose(found.mean(dim=1), expected, atol=1e-6)


def test_load_network_pkl(fresh):
    data = legacy.load_network_pkl(io.BytesIO(pickle.dumps(dict(G_ema=fresh, training_set_kwargs={"resolution": 128}))))
    assert set(data) == {"G_ema", "training_set_kwargs", "augment_pipe"}
    assert data["training_set_kwargs"] == {"resolution": 128} and data["augment_pipe"] is None
    for name, tensor in misc.named_params_and_buffers(fresh):
        assert torch.equal(tensor, dict(misc.named_params_and_buffers(data["G_ema"]))[name])
    half = legacy.load_network_pkl(io.BytesIO(pickle.dumps(dict(G_ema=fresh))), force_fp16=True)["G_ema"]
    assert half.init_kwargs["num_fp16_res"] == 4 and half.init_kwargs["sr_num_fp16_res"] == 4


def test_a_tensorflow_pickle_is_refused_in_one_line():
    with pytest.raises(UserError, match="TensorFlow"):
        legacy.load_network_pkl(io.BytesIO(b"\x80\x03cdnnlib.tflib.network\nNetwork\n."))


def test_open_url_tries_again(monkeypatch, tmp_path):
    path, tries = tmp_path / "network.pkl", []
    path.write_bytes(b"content")

    def unreliable(url, cache_dir, show_progress):
        tries.append(show_progress)
        if len(tries) < 3:
            raise download.Unreachable("no connection")
        return open(path, "rb")

    monkeypatch.setattr(download, "open_url", unreliable)
    assert dnnlib.util.open_url("https://example.org/network.pkl", return_filename=True, verbose=False) == str(path)
    assert tries == [False] * 3
    tries.clear()
    with pytest.raises(UserError, match="no connection"):
        dnnlib.util.open_url("https://example.org/network.pkl", num_attempts=2)
    with pytest.raises(ValueError, match="cache"):
        dnnlib.util.open_url("https://example.org/network.pkl", cache=False, return_filename=True)


def test_data_sets_by_their_published_names():
    folders = dict(path=str(ROOT / "dataset" / "testdata_img"), use_labels=True)
    plain = dnnlib.util.construct_class_by_name(class_name="training.dataset.ImageFolderDataset", **folders)
    image, label = plain[2]
    assert image.shape == tuple(plain.image_shape) == (3, 512, 512) and image.dtype == np.uint8
    assert label.shape == (25,) and plain.has_labels and plain.label_dim == 25 and plain.resolution == 512
    assert np.array_equal(label, plain._get_raw_labels()[2]) and len(plain._image_fnames) == len(plain)
    flipped = ImageFolderDataset(**folders, xflip=True)
    assert np.array_equal(flipped[len(plain) + 2][0], image[:, :, ::-1])
    heads = HeadDataset(folders["path"], str(ROOT / "dataset" / "testdata_seg"), mirror=True)
    masked = MaskLabeledDataset(heads.images.path, heads.masks.path, use_labels=True, xflip=True)
    for index in (1, len(plain) + 1):
        for found, expected in zip(masked[index], heads[index], strict=True):
            assert np.array_equal(found, expected)
    few = [ImageFolderDataset(**folders, max_size=3, random_seed=seed) for seed in (1, 1)]
    assert len(few[0]) == 3 and np.array_equal(few[0][1][0], few[1][1][0])
    without = ImageFolderDataset(folders["path"])
    assert without.label_dim == 0 and not without.has_labels and without[0][1].shape == (0,)
    with pytest.raises(UserError, match="512 pixels wide, not 256"):
        ImageFolderDataset(folders["path"], resolution=256)


def test_a_sampler_without_end():
    shares = [itertools.islice(misc.InfiniteSampler(range(20), rank, 2, seed=3), 100) for rank in range(2)]
    order = [index for pair in zip(*shares, strict=True) for index in pair]
    assert set(order) == set(range(20))
    last = {}
    for position, index in enumerate(order):
        assert position - last.get(index, -100) > 10  # the half of the queue that is behind the window
        last[index] = position
    assert order == list(itertools.islice(misc.InfiniteSampler(range(20), seed=3), 200))
    assert list(itertools.islice(misc.InfiniteSampler(range(3), shuffle=False), 7)) == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(ValueError, match="empty"):
        misc.InfiniteSampler([])


def test_processes_that_differ_are_found(tmp_path):
    for same in (True, False):
        torch.multiprocessing.spawn(_check_process, (str(tmp_path / str(same)), same), nprocs=2)


def _check_process(rank, rendezvous, same):
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    module = torch.nn.BatchNorm1d(3)
    module.running_mean.fill_(float("nan"))
    if not same:
        module.num_batches_tracked.fill_(rank)  # the last: the other process has nothing left to send
    found = None
    try:
        misc.check_ddp_consistency(module, ignore_regex=".*weight")
    except RuntimeError as error:
        found = str(error)
    assert (found is None) == (same or rank == 0)
    torch.distributed.destroy_process_group()


def test_misc(capsys):
    module = torch.nn.BatchNorm1d(3)
    assert len(misc.params_and_buffers(module)) == len(list(module.parameters())) + len(list(module.buffers()))
    assert misc.print_module_summary(module, [torch.randn(4, 3)]).shape == (4, 3)
    assert "total" in capsys.readouterr().out
    with misc.ddp_sync(module, sync=False):
        pass
