"""Whether depths of several views agree, on surfaces whose answer is known."""

import math

import pytest
import torch
from helpers import RADIUS, camera, hit_sphere, small_generator, sphere

import camera_utils
from metrics import heads
from metrics.consistency import Agreement, Surface, compare, compare_all, thin_out, z_from_ray_depth


@pytest.mark.parametrize("angle", [15, 45, 90])
def test_views_of_one_sphere_agree_where_both_see_it(angle):
    other = camera(20 + angle, 10)
    found = compare(sphere(camera(20)), sphere(other))
    assert found.contradicted == 0 and found.agreeing > 100
    distance, points = hit_sphere(camera(20), 64)
    outward = points[distance.isfinite()]
    faces_away = ((other[camera_utils.POSITION_ENTRIES] - outward) * outward).sum(dim=-1) < 0
    # At the outline the surface is steep within a pixel: a rim of it counts as hidden, or as agreeing, though it is not.
    assert found.hidden_share == pytest.approx(faces_away.float().mean().item(), abs=0.06)


def test_a_surface_that_the_other_view_looks_through_is_contradicted():
    found = compare(sphere(camera(0)), sphere(camera(15), radius=RADIUS - 0.05))
    assert found.contradicted > 0.8 * (found.agreeing + found.contradicted + found.hidden)
    nothing = Surface(torch.full([64, 64], torch.inf), camera(15))
    assert compare(sphere(camera(0)), nothing).share == 0


def test_a_surface_behind_what_the_other_view_sees_is_hidden():
    found = compare(sphere(camera(0)), sphere(camera(15), radius=RADIUS + 0.05))
    assert found.contradicted == 0 and found.hidden_share > 0.8


def test_the_tolerance_is_in_world_units():
    """A wall 2.5 away in one view and 2.515 away in another of the same camera."""
    near, far = (Surface(torch.full([16, 16], depth), camera(0)) for depth in (2.5, 2.515))
    assert compare(near, far, tolerance=0.02).share == 1
    assert compare(near, far, tolerance=0.01).share == 0
    assert compare(far, near, tolerance=0.01).hidden_share == 1


def test_points_outside_the_other_picture_are_not_counted():
    aside = camera_utils.shift_label(camera(0), torch.tensor([5.0, 0.0, 0.0]))
    found = compare(sphere(camera(0)), Surface(torch.full([64, 64], 2.7), aside))
    assert found == Agreement() and math.isnan(found.share)


def test_pairs_go_to_the_nearest_angle_both_ways():
    views = [sphere(camera(yaw), 32) for yaw in (0, 15, 45, 90)]
    found = compare_all(views, (15.0, 45.0, 90.0))
    once = compare(views[0], views[1]), compare(views[1], views[0])
    assert found[15.0] == once[0] + once[1]
    # 30 (15 to 45) and 75 (15 to 90) degrees are too far from any
    assert found[45.0] == sum((compare(views[i], views[j]) for i, j in ((0, 2), (2, 0), (2, 3), (3, 2))), Agreement())
    assert found[90.0].agreeing > 0


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_a_thinned_view_shows_the_same_surface(resolution):
    """Each pixel that is left has the very depth of the sphere along its own ray."""
    view = thin_out(sphere(camera(30, 10)), resolution)
    again = sphere(view.label, resolution)
    assert view.depth.isfinite().sum() > 20
    torch.testing.assert_close(view.depth, again.depth, atol=1e-5, rtol=0)


def test_thinning_needs_whole_steps():
    with pytest.raises(ValueError, match="64 pixels cannot be thinned out to 48"):
        thin_out(sphere(camera(0)), 48)


def test_depth_along_rays_becomes_depth_along_the_view():
    label = camera(70, -20)
    distance, points = hit_sphere(label, 32)
    depth = camera_utils.project_points(label[None], points[distance.isfinite()])[1][0]
    torch.testing.assert_close(z_from_ray_depth(distance, label)[distance.isfinite()], depth, atol=1e-5, rtol=0)


def test_the_surface_of_a_generator_is_where_its_density_is(monkeypatch):
    G = small_generator(8, triplane_size=32)

    def ball(grids, points, density_noise=0):
        inside = points.norm(dim=-1, keepdim=True) < RADIUS
        return torch.where(inside, 1e3, -1e3), points.new_zeros(*points.shape[:2], 32)

    monkeypatch.setattr(G, "query", ball)
    monkeypatch.setitem(G.rendering_kwargs, "depth_resolution", 64)
    monkeypatch.setitem(G.rendering_kwargs, "depth_resolution_importance", 64)
    head = heads.head_of(G, 0)
    seen = [heads.surface_of(G, head, camera(yaw), 32) for yaw in (0, 15)]
    exact = sphere(camera(0), 32).depth
    both = seen[0].depth.isfinite() & exact.isfinite()
    assert both.sum() > 0.9 * exact.isfinite().sum()
    assert (seen[0].depth - exact)[both].abs().median() < 0.01
    assert compare(*seen).share > 0.95
