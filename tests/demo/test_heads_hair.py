"""Hair grows where it should and nowhere else, on a head made of two ellipsoids (the real one needs an extra package)."""

from types import SimpleNamespace

import numpy as np
import pytest

from demo.heads.facial_hair import BEARDS, beard_cover, grow_beard, grow_brows, sample_facial_hair
from demo.heads.geometry import Mesh, catmull_clark, unit, vertex_normals
from demo.heads.hair import STYLES, grow_hair, sample_hair, scalp_density
from demo.heads.hair_growth import Site
from demo.heads.hair_strands import (
    MAX_SEGMENTS,
    Obstacle,
    Strands,
    curl,
    resample,
    shaded,
    share_inside,
    share_outside_frame,
)
from demo.heads.hair_styles import hairline_edge
from demo.heads.shape import WORLD_EYE_MIDDLE, Placement
from demo.heads.template import Roots, sample_roots

EYE = np.array([0.0, 0.7284, 0.1382])
GROWING = [name for name, style in STYLES.items() if style.count]


def ellipsoid(centre, axes, steps):
    """A closed mesh of quads on an ellipsoid: a subdivided and inflated cube."""
    vertices = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    faces = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    for _ in range(steps):
        matrix, faces = catmull_clark(faces, len(vertices))
        vertices = matrix @ vertices
    return np.array(centre) + unit(vertices) * axes, faces


def bust(steps):
    """A head and shoulders under it, not joined."""
    skull, skull_faces = ellipsoid([0, 0.738, 0.060], [0.072, 0.088, 0.076], steps)
    shoulders, shoulder_faces = ellipsoid([0, 0.53, 0.03], [0.23, 0.075, 0.07], steps)
    vertices = np.concatenate([skull, shoulders])
    faces = np.concatenate([skull_faces, shoulder_faces + len(skull)])
    return vertices, faces, vertex_normals(vertices, faces)


@pytest.fixture(scope="module")
def template():
    vertices, faces, _ = bust(5)
    azimuth = np.arctan2(vertices[:, 0], vertices[:, 2] - 0.05)
    hairline = vertices[:, 1] - EYE[1] - np.interp(np.abs(azimuth), [0, 1, 1.6, np.pi], [0.066, 0.04, 0.02, -0.06])
    rng = np.random.default_rng(0)
    scalp = sample_roots((hairline > -0.01) & (vertices[:, 1] > 0.64), 5_000, rng, vertices, faces)
    chin = (vertices[:, 1] < EYE[1] - 0.03) & (vertices[:, 1] > 0.64) & (vertices[:, 2] > 0.06)
    on_brows = (np.abs(vertices[:, 1] - EYE[1] - 0.02) < 0.004) & (np.abs(vertices[:, 0]) < 0.05) & (vertices[:, 2] > 0.09)
    return SimpleNamespace(
        mean_coarse=vertices,
        mean_fine=vertices,
        fine_faces=faces,
        eye_middle=EYE,
        azimuth=azimuth,
        hairline=hairline,
        scalp_roots=scalp,
        scalp_azimuth=scalp.at(azimuth),
        scalp_hairline=scalp.at(hairline),
        brow_roots=sample_roots(on_brows, 300, rng, vertices, faces),
        regions={"beard": chin.astype(float)},
    )


@pytest.fixture(scope="module")
def head():
    vertices, _, normals = bust(5)
    placement = Placement(2.41, EYE, WORLD_EYE_MIDDLE)
    return SimpleNamespace(
        coarse=vertices, coarse_normals=normals, fine=vertices, fine_normals=normals, eye_middle=EYE, placement=placement
    )


@pytest.fixture(scope="module")
def fine_body():
    """The same surface with four times the vertices, to measure with."""
    vertices, _, normals = bust(6)
    return Obstacle(vertices, normals)


def phenotype(gender=1.0, age=0.7, african=0.2, asian=0.3):
    return SimpleNamespace(gender=gender, age=age, african=african, asian=asian, caucasian=1 - african - asian)


def hair_of(style, seed=0, **who):
    return sample_hair(np.random.default_rng([seed, 1]), phenotype(**who), style)


def grown(template, head, style, cloth=None, seed=0):
    return grow_hair(template, head, hair_of(style, seed), cloth, np.random.default_rng([seed, 2]))


def all_points(strands):
    return np.concatenate([each.points.reshape(-1, 3) for each in strands])


@pytest.mark.parametrize("style", GROWING)
def test_hair_stays_outside_the_body_and_inside_the_frame(template, head, fine_body, style):
    strands = grown(template, head, style)
    assert share_inside(strands, fine_body) < 0.005
    world = head.placement.to_world(all_points(strands))
    assert np.isfinite(world).all()
    assert share_outside_frame(world) == 0
    for each in strands:
        assert each.points.shape[:2] == each.radii.shape
        assert (each.radii > 0).all() and (each.radii < 0.001).all()
        assert (each.colour > 0).all() and (each.colour < 1).all()


@pytest.mark.parametrize("style", GROWING)
def test_same_seed_gives_the_same_bits(template, head, style):
    first, again = grown(template, head, style, seed=3), grown(template, head, style, seed=3)
    assert len(first) == len(again)
    for one, other in zip(first, again):
        assert np.array_equal(one.points, other.points) and np.array_equal(one.radii, other.radii)
    other_seed = grown(template, head, style, seed=4)
    assert not np.array_equal(first[0].points[:100], other_seed[0].points[:100])


@pytest.mark.parametrize("style", ["bob", "long", "wavy", "bangs", "tied", "slick"])
def test_the_face_stays_free(template, head, style):
    x, y, z = (all_points(grown(template, head, style)) - EYE).T
    before_face = (np.abs(x) < 0.03) & (y < 0) & (y > -0.06) & (z > -0.05)
    assert before_face.mean() < 0.001


def test_a_bald_head_has_no_strands(template, head):
    assert grown(template, head, "bald") == []


def test_long_hair_lies_on_the_cloth(template, head):
    vertices, faces = ellipsoid([0, 0.53, 0.03], np.array([0.23, 0.075, 0.07]) + 0.012, 5)
    cloth = Mesh(vertices, faces)
    assert share_inside(grown(template, head, "long", cloth), Obstacle.from_mesh(cloth)) < 0.005
    # Without the mesh room is left for one, and a mesh as thick as all the hair is long would be noticed.
    assert share_inside(grown(template, head, "long"), Obstacle.from_mesh(cloth)) < 0.02
    thick = Mesh(*ellipsoid([0, 0.53, 0.03], [0.26, 0.11, 0.12], 5))
    assert share_inside(grown(template, head, "long"), Obstacle.from_mesh(thick)) > 0.1


def test_hair_is_held_where_it_would_leave_the_frame(head):
    site = Site(head)
    towards = unit(np.random.default_rng(0).normal(0, 1, (2000, 3)) + [0, 0.3, 0])
    world = head.placement.to_world(site.hold_in_frame(EYE - [0, 0, 0.05] + 0.4 * towards))
    assert share_outside_frame(world) == 0
    near = EYE - [0, 0, 0.05] + 0.02 * towards
    assert np.allclose(site.hold_in_frame(near), near)


def test_measures_notice_what_they_measure():
    body = Obstacle(*bust(5)[::2])
    skull = bust(5)[0][:1000]
    strands = Strands(np.repeat((skull * [0.9, 1, 0.9])[:, None], 4, axis=1), np.full((1000, 4), 1e-4), np.full(3, 0.5))
    assert share_inside([strands], body) > 0.5
    assert share_inside([], body) == 0
    edge = 2.7 * 0.5 / 4.2647
    at_the_side = np.array([[0.99 * edge, 0, 0], [1.01 * edge, 0, 0]])
    assert share_outside_frame(at_the_side) == 0.5
    assert share_outside_frame(np.array([[0, 1.01 * edge, 0], [0, -1.01 * edge, 0]])) == 1  # the lower one does not count


def test_push_out_leaves_the_margin():
    vertices, faces = ellipsoid([0, 0, 0], [0.1, 0.1, 0.1], 5)
    ball = Obstacle(vertices, vertex_normals(vertices, faces))
    towards = unit(np.random.default_rng(0).normal(0, 1, (500, 3)))
    pushed, distances, _ = ball.push_out(0.095 * towards, 0.002)
    assert np.allclose(np.linalg.norm(pushed, axis=1), 0.102, atol=2e-4)
    assert np.allclose(distances, 0.002, atol=1e-9)
    assert np.array_equal(ball.push_out(0.2 * towards, 0.002)[0], 0.2 * towards)


def test_strands_are_cut_and_curled():
    line = np.linspace([0, 0, 0], [0, -0.1, 0], 11)[None]
    half = resample(line, np.array([5.0]), 21)
    assert half.shape == (1, 21, 3) and np.allclose(half[0, -1], [0, -0.05, 0])
    wound = curl(np.linspace([0, 0, 0], [0, -0.1, 0], 201)[None], np.array([0.004]), np.array([0.02]), np.zeros(1))
    assert np.allclose(np.hypot(wound[0, 60:, 0], wound[0, 60:, 2]), 0.004, atol=1e-6)
    assert np.allclose(wound[0, 0], 0)


def test_shades_keep_all_strands_and_shapes_small():
    rng = np.random.default_rng(0)
    points, radii = rng.normal(0, 1, (9000, 40, 3)), np.full((9000, 40), 1e-4)
    groups = shaded(points, radii, np.array([0.1, 0.05, 0.02]), rng, grey=0.3)
    assert sum(len(group.points) for group in groups) == 9000
    assert max(group.radii.size for group in groups) < 1.05 * MAX_SEGMENTS
    assert len({tuple(group.colour) for group in groups}) == len(groups)
    assert abs(len(groups[-1].points) / 9000 - 0.3) < 0.03


def test_recession_and_thinning_bare_the_scalp(template):
    young = hair_of("crop", gender=0.0)
    bare = SimpleNamespace(recession=1.0, thinning=1.0)
    full = SimpleNamespace(recession=0.0, thinning=0.0)
    height = template.mean_fine[:, 1] - EYE[1]
    at = (template.hairline, template.azimuth, height)
    crown = (height > 0.091) & (template.hairline > 0.02)
    sides = (height < 0.03) & (np.abs(template.azimuth) > 2) & (template.hairline > 0.02)
    assert scalp_density(*at, full)[crown].min() > 0.9
    assert scalp_density(*at, bare)[crown].max() < 0.1
    assert scalp_density(*at, bare)[sides].min() > 0.9
    assert (hairline_edge(template.hairline, template.azimuth, bare) <= template.hairline).all()
    assert 0 <= young.recession <= 1


def test_hair_is_drawn_by_who_it_is():
    men = [hair_of(None, seed, gender=0.0, age=0.97) for seed in range(200)]
    women = [hair_of(None, seed, gender=1.0, age=0.6) for seed in range(200)]
    assert set(STYLES) - {"bangs"} <= {hair.style for hair in men + women}
    assert max(hair.recession for hair in men) > 0.5
    assert max(hair.recession for hair in women) == 0
    assert sum(hair.colour_name in ("grey", "white") for hair in men) > 40
    assert not any(hair.colour_name in ("grey", "white") or hair.grey for hair in women)
    dark = [hair_of("crop", seed, african=1.0, asian=0.0) for seed in range(100)]
    assert np.mean([hair.colour_name in ("black", "dark brown") for hair in dark]) > 0.85
    assert hair_of("bob", 5) == hair_of("bob", 5)


def test_brows_and_beards(template, head):
    hair = hair_of("bald", gender=0.0)
    drawn = [sample_facial_hair(np.random.default_rng(seed), phenotype(gender=0.0)) for seed in range(200)]
    assert {traits.beard for traits in drawn} == set(BEARDS)
    by_kind = {traits.beard: traits for traits in drawn}
    assert sample_facial_hair(np.random.default_rng(0), phenotype(gender=1.0)).beard == "none"
    for kind in ("none", "shadow"):
        assert grow_beard(template, head, by_kind[kind], hair, np.random.default_rng(0)) is None
    full = grow_beard(template, head, by_kind["full"], hair, np.random.default_rng(0))
    lengths = np.linalg.norm(np.diff(full.points, axis=1), axis=2).sum(axis=1)
    assert 0.003 < np.median(lengths) < 0.02
    assert beard_cover(template, by_kind["goatee"]).sum() < 0.7 * beard_cover(template, by_kind["full"]).sum()
    brows = grow_brows(template, head, by_kind["none"], hair, np.random.default_rng(0))
    again = grow_brows(template, head, by_kind["none"], hair, np.random.default_rng(0))
    assert np.array_equal(brows.points, again.points)
    assert (np.abs(brows.points[..., 1] - EYE[1] - 0.02) < 0.015).all()
    assert isinstance(template.brow_roots, Roots)
