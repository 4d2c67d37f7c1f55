"""Rays, grids, sampling and marching compared with closed-form results."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

import camera_utils
from training.rendering_settings import RenderingSettings
from training.volumetric_rendering import ray_sampler, renderer, sampling, trigrid
from training.volumetric_rendering.ray_marcher import march_rays, march_weights

NEAR, FAR = 2.25, 3.3
UNCUT = RenderingSettings(cut_margin=None)


def even_depths(samples, batch=1, rays=1, near=NEAR, far=FAR):
    return torch.linspace(near, far, samples).reshape(1, 1, -1, 1).repeat(batch, rays, 1, 1)


def frontal_rays(resolution=4):
    return ray_sampler.sample_rays(*camera_utils.unpack_label(camera_utils.orbit_label(0, 0)), resolution)


# Marching


@pytest.mark.parametrize("sigma", [-20.0, 0.0, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("samples", [2, 17])
def test_constant_density_has_the_opacity_of_a_uniform_fog(sigma, samples):
    depths = even_depths(samples)
    seen = march_rays(torch.full([1, 1, samples, 2], 0.7), torch.full_like(depths, sigma), depths)
    expected = 1 - math.exp(-math.log1p(math.exp(sigma - 1)) * (FAR - NEAR))
    assert seen.opacity.item() == pytest.approx(expected, abs=1e-5)
    assert seen.features[0, 0].tolist() == pytest.approx([0.7 * expected] * 2, abs=1e-5)


def test_depth_in_a_uniform_fog():
    depths, k = even_depths(4000), math.log1p(math.exp(1.0))
    seen = march_rays(torch.zeros([1, 1, 4000, 1]), torch.full_like(depths, 2.0), depths)
    length = FAR - NEAR
    expected = NEAR + 1 / k - length * math.exp(-k * length) / (1 - math.exp(-k * length))  # mean of a cut exponential
    assert seen.depth.item() == pytest.approx(expected, abs=1e-3)


def test_opaque_slab_is_seen_at_its_entry():
    depths = even_depths(200)
    densities = torch.where((depths > 2.6) & (depths < 2.9), 1e5, -1e3)
    features = (depths > 2.75).float()  # its far half has another colour
    seen = march_rays(features, densities, depths)
    step = (FAR - NEAR) / 199
    assert abs(seen.depth.item() - 2.6) <= step
    assert seen.opacity.item() == pytest.approx(1)
    assert seen.features.item() == pytest.approx(0, abs=1e-6)


def test_weights_are_transmittance_times_opacity():
    torch.manual_seed(0)
    depths = torch.rand([2, 3, 6, 1]).cumsum(dim=2)
    densities = torch.randn([2, 3, 6, 1]) * 2
    weights = march_weights(densities, depths)
    for n in range(2):
        for r in range(3):
            passed = 1.0
            for s in range(5):
                density = F.softplus((densities[n, r, s] + densities[n, r, s + 1]) / 2 - 1).item()
                alpha = 1 - math.exp(-density * (depths[n, r, s + 1] - depths[n, r, s]).item())
                assert weights[n, r, s, 0].item() == pytest.approx(passed * alpha, abs=1e-5)
                passed *= 1 - alpha


def test_empty_rays_have_the_largest_depth_of_the_batch():
    depths = torch.cat([even_depths(8), even_depths(8, far=5.0)], dim=1)
    seen = march_rays(torch.ones([1, 2, 8, 1]), torch.full_like(depths, -1e3), depths)
    assert seen.depth.flatten().tolist() == [5.0, 5.0]
    assert not seen.opacity.any() and not seen.features.any()


@pytest.mark.parametrize("sigma", [-1e3, 0.0, 1e4])
def test_white_back_fills_what_is_not_covered(sigma):
    depths = even_depths(16)
    features, densities = torch.full([1, 1, 16, 3], 0.2), torch.full_like(depths, sigma)
    plain, white = (march_rays(features, densities, depths, white_back) for white_back in (False, True))
    torch.testing.assert_close(white.features, plain.features + 1 - plain.opacity)
    assert torch.equal(white.depth, plain.depth) and torch.equal(white.opacity, plain.opacity)


# Rays and the box


def test_rays_go_through_pixel_centres_row_by_row():
    origins, directions = frontal_rays(2)
    tangent = 0.25 / camera_utils.DEFAULT_FOCAL  # a quarter of the picture from its middle
    down_right = torch.tensor([tangent, -tangent, -1])  # the frontal camera looks along -z, with y up
    expected = torch.stack([down_right * torch.tensor([x, y, 1.0]) for y in (-1, 1) for x in (-1, 1)])
    torch.testing.assert_close(directions[0], F.normalize(expected, dim=-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(origins, torch.tensor([0, 0, 2.7]).expand_as(origins), atol=1e-6, rtol=0)


def test_principal_point_and_skew_move_the_rays():
    pose = torch.eye(4)[None]
    intrinsics = torch.tensor([[[2.0, 0.5, 0.4], [0, 4, 0.6], [0, 0, 1]]])
    _, directions = ray_sampler.sample_rays(pose, intrinsics, 8)
    projected = directions @ intrinsics.mT
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    expected = (torch.stack([columns, rows], dim=-1).reshape(1, -1, 2) + 0.5) / 8
    torch.testing.assert_close(projected[..., :2] / projected[..., 2:], expected)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones([1, 64]))


@pytest.mark.parametrize(
    "origin, direction, expected",
    [
        ((0, 0, 2.7), (0, 0, -1), (2.2, 3.2)),  # straight through
        ((0.3, -0.4, 2.7), (0, 0, -1), (2.2, 3.2)),
        ((-2, -2, -2), (1, 1, 1), (1.5 * math.sqrt(3), 2.5 * math.sqrt(3))),  # along the diagonal
        ((0, 0, 0), (1, 0, 0), (0, 0.5)),  # from inside
        ((0.6, 0, 2.7), (0, 0, -1), None),  # beside it
        ((0, 0, 2.7), (0, 0, 1), None),  # away from it
        ((0, 2, 2), (0, 1, -1), None),
    ],
)
def test_box_limits(origin, direction, expected):
    direction = F.normalize(torch.tensor([[direction]], dtype=torch.float32), dim=-1)
    start, end, hit = ray_sampler.box_limits(torch.tensor([[origin]], dtype=torch.float32), direction, box_warp=1)
    assert hit.item() == (expected is not None)
    if expected is not None:
        assert (start.item(), end.item()) == pytest.approx(expected, abs=1e-5)


def test_box_limits_scale_with_the_box():
    start, end, _ = ray_sampler.box_limits(torch.tensor([[[0, 0, 2.7]]]), torch.tensor([[[0, 0, -1.0]]]), box_warp=2)
    assert (start.item(), end.item()) == pytest.approx((1.7, 3.7))


def test_limits_are_the_settings_numbers():
    start, end = renderer.ray_limits(*frontal_rays(), RenderingSettings(ray_start=1.5, ray_end=2.5))
    assert start.shape == end.shape == (1, 1, 1)
    assert (start.item(), end.item()) == (1.5, 2.5)


def test_auto_limits_of_rays_that_miss_span_those_of_the_others():
    origins = torch.tensor([[[0, 0, 2.7], [0, 0, 2.0], [5, 0, 2.7]]])
    directions = torch.tensor([0, 0, -1.0]).expand(1, 3, 3)
    start, end = renderer.ray_limits(origins, directions, RenderingSettings(ray_start="auto", ray_end="auto"))
    assert start.flatten().tolist() == pytest.approx([2.2, 1.5, 1.5])
    assert end.flatten().tolist() == pytest.approx([3.2, 2.5, 3.2])  # the largest end, not the largest start


def test_auto_limits_where_every_ray_misses():
    origins, directions = torch.tensor([[[5.0, 0, 2.7]]]), torch.tensor([[[0, 0, -1.0]]])
    start, end = renderer.ray_limits(origins, directions, RenderingSettings(ray_start="auto", ray_end="auto"))
    assert (start.item(), end.item()) == (0, 1)


# Depths


def test_stratified_depths_are_even_plus_a_share_of_a_step():
    start, end = torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[3.0], [5.0]]])
    jitter = torch.full([1, 2, 5, 1], 0.25)
    depths = sampling.stratified_depths(start, end, jitter)[0, :, :, 0]
    expected = [[2.0625, 2.3125, 2.5625, 2.8125, 3.0625], [1.25, 2.25, 3.25, 4.25, 5.25]]
    torch.testing.assert_close(depths, torch.tensor(expected))


def test_stratified_depths_take_limits_that_all_rays_share():
    torch.manual_seed(0)
    jitter = torch.rand([2, 3, 4, 1])
    shared = sampling.stratified_depths(torch.full([1, 1, 1], 2.0), torch.full([1, 1, 1], 3.0), jitter)
    apart = sampling.stratified_depths(torch.full([2, 3, 1], 2.0), torch.full([2, 3, 1], 3.0), jitter)
    assert shared.shape == (2, 3, 4, 1) and torch.equal(shared, apart)


def test_disparity_depths_are_even_in_the_inverse():
    start, end = torch.full([1, 1, 1], 2.0), torch.full([1, 1, 1], 4.0)
    depths = sampling.stratified_depths(start, end, torch.zeros([1, 1, 5, 1]), disparity=True)
    torch.testing.assert_close(1 / depths.flatten(), torch.tensor([0.5, 0.4375, 0.375, 0.3125, 0.25]))
    moved = sampling.stratified_depths(start, end, torch.full([1, 1, 5, 1], 0.5), disparity=True)
    torch.testing.assert_close(1 / moved.flatten(), torch.tensor([0.46875, 0.40625, 0.34375, 0.28125, 0.21875]))


def test_importance_depths_by_hand():
    depths = torch.arange(5.0).reshape(1, 1, 5, 1)
    weights = torch.tensor([0.0, 1, 0, 0]).reshape(1, 1, 4, 1)
    # Max-pooled 0 1 1 0 0, averaged 0.5 1 0.5 0, plus 0.01; of these the two in the middle, 1.01 and 0.51, each plus 1e-5,
    # share the way from the first mid-point, 0.5, over 1.5 to 2.5; the last mid-point, 3.5, is never reached.
    first = 1.01001 / (1.01001 + 0.51001)
    u = torch.tensor([[0.0, 0.25, 0.9, 1 - 1e-7]])
    expected = [0.5, 0.5 + 0.25 / first, 1.5 + (0.9 - first) / (1 - first), 2.5]
    result = sampling.importance_depths(depths, weights, u)
    assert result.shape == (1, 1, 4, 1)
    assert result.flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_importance_depths_gather_at_a_slab():
    depths = even_depths(48, rays=2)
    densities = torch.where((depths > 2.6) & (depths < 2.9), 1e5, -1e3)
    densities[:, 1] = -1e3  # the second ray sees nothing
    u = torch.linspace(0, 1 - 1e-6, 400).expand(2, -1)
    fine = sampling.importance_depths(depths, march_weights(densities, depths), u)[0, :, :, 0]
    step = (FAR - NEAR) / 47
    near_entry = (fine - 2.6).abs() < 2.5 * step
    # The weight of the entry is blurred to 0.5 1 0.5, against a floor of 0.01 in each of 46 bins: 2 of 2.46.
    assert near_entry[0].float().mean() > 0.75
    assert near_entry[1].float().mean() == pytest.approx(5 / 46, abs=0.03)  # nothing known: evenly


def test_importance_depths_have_no_gradient():
    depths = even_depths(8).requires_grad_()
    weights = torch.rand([1, 1, 7, 1], requires_grad=True)
    assert not sampling.importance_depths(depths, weights, torch.rand([1, 5])).requires_grad


# Grids


BOX = 1.6
SLOPES = torch.tensor([2.0, -3.0, 5.0])  # of the linear field, along (x, y, z)


def cell_centres(count):
    """Where the centres of `count` cells lie along a side of the box."""
    return ((2 * torch.arange(count) + 1) / count - 1) * BOX / 2


def linear_grid(axes, depth, height, width):
    """A grid [1, 1, D, H, W] that holds the linear field, `axes` being the coordinates along (W, H, D)."""
    z, y, x = torch.meshgrid(cell_centres(depth), cell_centres(height), cell_centres(width), indexing="ij")
    return (SLOPES[list(axes)] * torch.stack([x, y, z], dim=-1)).sum(dim=-1)[None, None]


@pytest.mark.parametrize("index, axes", [(0, (0, 1, 2)), (1, (0, 2, 1)), (2, (1, 2, 0))])
def test_each_grid_has_its_axes(index, axes):
    torch.manual_seed(0)
    depth, height, width = 3, 4, 5
    grids = torch.zeros([1, 3, 1, depth, height, width])
    grids[:, index] = linear_grid(axes, depth, height, width)
    # At the centres of cells the field itself is found, and in between it is linear.
    inside = BOX / 2 * (1 - 1 / depth)
    corners = torch.stack([cell_centres(n)[torch.randint(n, [20])] for n in (width, height, depth)], dim=-1)
    at_centres = torch.empty_like(corners)
    at_centres[:, list(axes)] = corners
    points = torch.cat([at_centres, (torch.rand([20, 3]) * 2 - 1) * inside])[None]
    found = trigrid.sample_grids(grids, points, BOX)
    torch.testing.assert_close(found, (points @ SLOPES)[..., None] / 3, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flat_axes, third", [(trigrid.TRIPLANE_AXES, (2, 0)), (trigrid.MENDED_TRIPLANE_AXES, (2, 1))])
@pytest.mark.parametrize("index", range(3))
def test_each_flat_plane_has_its_axes(index, flat_axes, third):
    axes = ((0, 1), (0, 2), third)[index]
    torch.manual_seed(0)
    height, width = 4, 5
    y, x = torch.meshgrid(cell_centres(height), cell_centres(width), indexing="ij")
    grids = torch.zeros([1, 3, 1, 1, height, width])
    grids[0, index, 0, 0] = SLOPES[axes[0]] * x + SLOPES[axes[1]] * y
    points = (torch.rand([1, 30, 3]) * 2 - 1) * BOX / 2 * 0.75
    found = trigrid.sample_grids(grids, points, BOX, flat_axes)[0, :, 0]
    torch.testing.assert_close(found, (SLOPES * points)[0][:, list(axes)].sum(dim=-1) / 3, atol=1e-5, rtol=1e-5)


def test_flat_planes_do_not_fade_along_their_normal():
    points = torch.zeros([1, 3, 3])
    points[0, :, 2] = torch.tensor([0, 0.5, 0.9]) * BOX
    only_xy = torch.zeros([1, 3, 1, 1, 4, 4])
    only_xy[:, 0] = 3
    assert trigrid.sample_grids(only_xy, points, BOX, trigrid.TRIPLANE_AXES).flatten().tolist() == pytest.approx([1, 1, 1])


def test_grids_are_empty_outside_the_box():
    grids = torch.ones([1, 3, 2, 3, 4, 4])
    points = torch.tensor([[[0.0, 0, 0], [2 * BOX, 0, 0], [0, -2 * BOX, 0], [0, 0, 2 * BOX]]])
    found = trigrid.sample_grids(grids, points, BOX)
    assert found[0, :, 0].tolist() == pytest.approx([1, 0, 0, 0])
    assert found.shape == (1, 4, 2)


def test_split_planes_puts_channels_before_layers():
    planes = torch.arange(3 * 32 * 2).reshape(1, -1, 1, 1).expand(-1, -1, 4, 4)
    grids = trigrid.split_planes(planes, depth=2)
    assert grids.shape == (1, 3, 32, 2, 4, 4)
    assert grids[0, 2, 5, 1, 0, 0] == 2 * 32 * 2 + 5 * 2 + 1


# The renderer


def test_cut_density_empties_the_sides_but_not_top_and_bottom():
    points = torch.tensor([[[0, 0, 0], [0.39, 0.49, -0.39], [0.41, 0, 0], [0, 0, -0.41], [-0.45, 0, 0.45], [0, 2.0, 0]]])
    densities = torch.full([1, 6, 1], 7.0)
    cut = renderer.cut_density(densities, points, RenderingSettings(box_warp=1, cut_margin=0.1))
    assert (cut.flatten() == 7).tolist() == [True, True, False, False, False, True]
    assert not F.softplus(cut.flatten()[2:5]).any()
    assert renderer.cut_density(densities, points, UNCUT) is densities


def test_density_noise_is_drawn_only_where_there_is_some():
    densities = torch.zeros([1, 1000, 1])
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(renderer.add_density_noise(densities, 0), densities)
    assert torch.equal(torch.get_rng_state(), before)
    noisy = renderer.add_density_noise(densities, 0.5)
    assert noisy.std().item() == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(torch.get_rng_state(), before)


def test_random_draws_come_in_the_documented_order():
    drawn = []
    origins, directions = frontal_rays()

    def field(points):
        drawn.append(points)
        return torch.zeros_like(points[..., :1]), points

    settings = dataclasses.replace(UNCUT, depth_resolution=6, depth_resolution_importance=5)
    torch.manual_seed(0)
    renderer.render_rays(field, origins, directions, settings, density_noise=0.5)
    after = torch.get_rng_state()

    torch.manual_seed(0)
    jitter = torch.rand([1, 16, 6, 1])
    noise = torch.randn([1, 16 * 6, 1]) * 0.5
    u = torch.rand([16, 5])
    torch.randn([1, 16 * 5, 1])
    assert torch.equal(torch.get_rng_state(), after)
    depths = sampling.stratified_depths(torch.full([1, 1, 1], NEAR), torch.full([1, 1, 1], FAR), jitter)
    fine = sampling.importance_depths(depths, march_weights(noise.reshape(depths.shape), depths), u)
    for points, at in zip(drawn, (depths, fine)):
        torch.testing.assert_close(points, (origins[:, :, None] + at * directions[:, :, None]).reshape(1, -1, 3))


def test_fine_samples_are_optional():
    calls = []
    origins, directions = frontal_rays()

    def field(points):
        calls.append(points.shape[1])
        return torch.zeros_like(points[..., :1]), points

    settings = dataclasses.replace(UNCUT, depth_resolution=6, depth_resolution_importance=0)
    assert renderer.render_rays(field, origins, directions, settings).weights.shape == (1, 16, 5, 1)
    assert calls == [16 * 6]


def ball(radius=0.3, density=1e4):
    """A field: a solid ball about the origin that is coloured by its place."""

    def field(points):
        inside = points.norm(dim=-1, keepdim=True) < radius
        return torch.where(inside, density, -1e3), points

    return field


@pytest.mark.parametrize("limits", [(NEAR, FAR), ("auto", "auto")])
def test_solid_ball_is_seen_at_its_front(limits):
    settings = RenderingSettings(depth_resolution=96, depth_resolution_importance=96, ray_start=limits[0], ray_end=limits[1])
    origins, directions = frontal_rays(16)
    torch.manual_seed(0)
    seen = renderer.render_rays(ball(), origins, directions, settings)
    # |o + t d| = r at t = -o.d - sqrt((o.d)² - o² + r²)
    along = (origins * directions).sum(dim=-1, keepdim=True)
    inner = along**2 - origins.square().sum(dim=-1, keepdim=True) + 0.3**2
    hit = inner > 0.01  # grazing rays are hit or miss
    expected = -along - inner.clamp(min=0).sqrt()
    assert hit.sum() > 50
    step = (FAR - NEAR) / 95 if limits[0] != "auto" else 1.1 / 95
    assert (seen.depth - expected)[hit].abs().max() < step  # of the coarse march; fine samples only lower it
    assert seen.opacity[hit].min() > 0.999 and seen.opacity[inner < -0.01].max() == 0
    surface = (origins + expected * directions)[hit[..., 0]]
    assert (seen.features[hit[..., 0]] - surface).abs().max() < 1.5 * step


def test_fine_samples_sharpen_the_depth():
    origins, directions = frontal_rays(16)
    along = (origins * directions).sum(dim=-1, keepdim=True)
    inner = along**2 - origins.square().sum(dim=-1, keepdim=True) + 0.3**2
    expected = -along - inner.clamp(min=0).sqrt()
    errors = []
    for fine in (0, 48):
        torch.manual_seed(0)
        settings = RenderingSettings(depth_resolution=24, depth_resolution_importance=fine)
        seen = renderer.render_rays(ball(), origins, directions, settings)
        errors.append((seen.depth - expected)[inner > 0.01].abs().mean())
    assert errors[1] < errors[0] / 2


def test_gradients_reach_densities_and_features():
    densities = torch.tensor(1.0, requires_grad=True)
    colour = torch.tensor(0.5, requires_grad=True)
    origins, directions = frontal_rays()

    def field(points):
        return densities.expand(1, points.shape[1], 1), colour.expand(1, points.shape[1], 3)

    seen = renderer.render_rays(field, origins, directions, dataclasses.replace(UNCUT, depth_resolution=8))
    seen.features.sum().backward()
    assert densities.grad > 0 and colour.grad > 0


def test_white_back_setting_reaches_the_march():
    origins, directions = frontal_rays()
    for white_back, expected in ((False, 0.0), (True, 1.0)):
        settings = dataclasses.replace(UNCUT, white_back=white_back)
        seen = renderer.render_rays(ball(radius=0), origins, directions, settings)
        assert torch.equal(seen.features, torch.full_like(seen.features, expected))


@pytest.mark.parametrize("depth", [1, 3])
def test_the_fast_lookup_agrees_with_the_reference_in_values_and_gradients(depth):
    torch.manual_seed(0)
    planes = torch.randn(2, 3 * 4 * depth, 6, 6, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(2, 50, 3, dtype=torch.float64) * 2.6 - 1.3).requires_grad_()  # some of them outside
    cotangent = torch.randn(2, 50, 4, dtype=torch.float64)
    results = []
    for lookup in (
        lambda g, p: trigrid.sample_grids(g, p, 2),
        lambda g, p: trigrid._mean_of_lookups(g, p, trigrid.TRIGRID_AXES),
    ):
        features = lookup(trigrid.split_planes(planes, depth), points)
        results.append((features, *torch.autograd.grad(features, [planes, points], cotangent)))
    for fast, reference in zip(*results):
        assert torch.allclose(fast, reference, rtol=0, atol=1e-12)
