"""Shapes: the lattice's axes, border and flip; the surface of a solid that is nowhere symmetric."""

import importlib
import json
import math
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from fill import fill

import camera_utils
from dnnlib import UserError
from dnnlib.util import construct_class_by_name
from inference import shapes, synthesis
from meshes import head_file, texture

CENTRE, RADIUS = (0.2, 0.1, -0.05), 0.12  # a ball off the origin: mirroring any axis, or swapping two, moves it


@pytest.fixture(scope="module")
def plain():
    """A generator whose colours are its first three features, squashed by a sigmoid."""
    kwargs = json.loads((Path(__file__).parents[1] / "golden" / "generator_small_kwargs.json").read_text())
    kwargs["rendering_kwargs"].update(decoder_activation="sigmoid", use_torgb_raw=False, use_background=False, trans_reg=0)
    return fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def torgb():
    """A generator with a learned colour layer."""
    kwargs = json.loads((Path(__file__).parents[1] / "golden" / "generator_small_kwargs.json").read_text())
    return fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)


def ball(grids, points, density_noise=0):
    """A field that is solid inside a ball, with a smooth border, and coloured by the position in the box."""
    distance = (points - torch.tensor(CENTRE)).norm(dim=-1, keepdim=True)
    return 1000 * (RADIUS - distance) + shapes.DEFAULT_LEVEL, (points + 0.5).repeat(1, 1, 11)[..., :32]


@pytest.fixture
def ball_face(plain, monkeypatch):
    """A generator whose field is the ball, and any face of it."""
    monkeypatch.setattr(plain, "query", ball)
    monkeypatch.setattr(plain, "density", lambda grids, points: ball(grids, points)[0])
    return plain, synthesis.prepare(plain, torch.zeros(1, plain.backbone.num_ws, plain.w_dim))


def test_lattice_holds_the_field_at_exact_places(ball_face):
    densities = shapes.density_grid(*ball_face, resolution=65)
    border = shapes.border_width(65)
    assert densities.shape == (65, 65, 65) and densities.dtype == np.float32 and border == 7
    for index in [(border, 20, 57), (32, 32, 32), (45, 39, 29)]:
        place = torch.tensor([[[i / 64 - 0.5 for i in index]]])
        assert densities[index] == pytest.approx(ball(None, place)[0].item(), rel=1e-5)


def test_border_is_empty_on_every_side(ball_face):
    densities = shapes.density_grid(*ball_face, resolution=64)
    filled = densities != shapes.EMPTY_DENSITY
    expected = np.zeros_like(filled)
    expected[7:57, 7:57, 7:57] = True  # int(30 * 64 / 256) = 7
    assert np.array_equal(filled, expected)


@pytest.mark.parametrize("resolution, width", [(8, 0), (64, 7), (256, 30), (512, 60)])
def test_border_width(resolution, width):
    assert shapes.border_width(resolution) == width


@pytest.mark.parametrize(
    ("free", "points"), [(0, 2**12), (2**20, 2**12), (100 * 2**20, 2**13), (250 * 2**20, 2**14), (2**40, 2**16)]
)
def test_fewer_points_at_a_time_where_memory_is_short(monkeypatch, free, points):
    monkeypatch.setattr(shapes, "free_memory", lambda device: free)
    assert shapes.points_at_a_time(torch.device("cpu")) == points


def test_only_the_kept_part_is_looked_up_and_nothing_is_made_anew(ball_face, monkeypatch):
    G, face = ball_face
    seen = []
    density = G.density
    monkeypatch.setattr(G, "density", lambda grids, points: seen.append(points) or density(grids, points))
    monkeypatch.setattr(G, "make_grids", None)
    shapes.density_grid(G, face, 64)
    points = torch.cat(seen, dim=1)
    assert points.shape[1] == 50**3 and points.abs().max() <= 0.5 * 49 / 63 + 1e-6


def test_lattice_does_not_depend_on_the_size_of_the_pieces(torgb, monkeypatch):
    face = synthesis.prepare(torgb, torch.zeros(1, torgb.backbone.num_ws, torgb.w_dim))
    whole = shapes.density_grid(torgb, face, 20)
    monkeypatch.setattr(shapes, "points_at_a_time", lambda device: 1000)
    np.testing.assert_allclose(shapes.density_grid(torgb, face, 20), whole, rtol=1e-5, atol=1e-5)
    assert whole[10, 12, 7] == pytest.approx(
        torgb.sample_mixed(torch.tensor([[[10 / 19, 12 / 19, 7 / 19]]]) - 0.5, None, face.ws, noise_mode="const")[
            "sigma"
        ].item(),
        1e-4,
    )


def test_volume_file_is_flipped_in_x(ball_face, tmp_path):
    head_file.save_shape(*ball_face, tmp_path / "a.mrc", 33, camera_utils.orbit_label(0, 0))
    with mrcfile.open(tmp_path / "a.mrc") as file:
        data = file.data.copy()
    assert data.dtype == np.float32 and data.shape == (33, 33, 33)
    densest = np.array(np.unravel_index(data.argmax(), data.shape)) / 32 - 0.5
    np.testing.assert_allclose(densest, np.array(CENTRE) * [-1, 1, 1], atol=0.02)
    assert (data[[0, 1, 2, -1]] == shapes.EMPTY_DENSITY).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]


def test_surface_has_the_right_place_size_and_orientation(ball_face):
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("skimage")
    vertices, faces, _ = shapes.surface(shapes.density_grid(*ball_face, resolution=80), 1.0)
    np.testing.assert_allclose(np.linalg.norm(vertices - CENTRE, axis=1), RADIUS, atol=5e-4)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.01)  # negative if faces were turned inward


def test_surface_is_where_the_camera_sees_it(ball_face):
    """The middle of the mesh, projected into a picture from the side, is the middle of the mask drawn there."""
    pytest.importorskip("skimage")
    G, face = ball_face
    middle = shapes.surface(shapes.density_grid(G, face, 64), 1.0).vertices.mean(axis=0)
    label = synthesis.orbit(G)(synthesis.View(yaw=0.6, pitch=-0.3))
    mask = synthesis.render(G, face, label)["image_mask"][0, 0]
    cam2world, intrinsics = camera_utils.unpack_label(label[0])
    seen = intrinsics @ (cam2world.inverse() @ torch.tensor([*middle, 1.0], dtype=torch.float32))[:3]
    pixel = (seen[:2] / seen[2] * len(mask)).numpy()
    rows, columns = (torch.arange(len(mask)) + 0.5,) * 2
    found = [(mask.sum(0) * columns).sum() / mask.sum(), (mask.sum(1) * rows).sum() / mask.sum()]
    np.testing.assert_allclose(pixel, found, atol=0.3)
    assert np.abs(pixel - len(mask) / 2).min() > 3  # or the comparison would prove nothing


def test_no_surface_is_one_clear_line(ball_face):
    pytest.importorskip("skimage")
    with pytest.raises(UserError, match=r"no surface at density 500: .* between -\d+.* and 1\d\d.*--shape-level"):
        shapes.surface(shapes.density_grid(*ball_face, resolution=32), 1.0, level=500)
    with pytest.raises(UserError, match="no surface at density 10"):
        shapes.surface(np.full([16, 16, 16], np.nan, dtype=np.float32), 1.0, shapes.DEFAULT_LEVEL)


def test_a_face_that_nowhere_reaches_the_usual_level_ends_where_it_is_half_as_opaque(capsys):
    assert shapes.usual_level(np.array([-5.0, 10.5])) == shapes.DEFAULT_LEVEL
    assert capsys.readouterr().out == ""
    for highest in (7.0, 0.5, -3.0):
        level = shapes.usual_level(np.array([-5.0, highest]))
        assert np.log1p(np.exp(level - 1)) == pytest.approx(np.log1p(np.exp(highest - 1)) / 2)
    assert "reach 7, not 10" in capsys.readouterr().out


def test_what_floats_about_the_head_is_left_out(ball_face):
    """A second, smaller ball in a corner."""
    pytest.importorskip("skimage")
    densities = shapes.density_grid(*ball_face, resolution=48)
    alone = shapes.surface(densities, 1.0)
    densities[8:11, 8:11, 8:11] = 100
    again = shapes.surface(densities, 1.0)
    np.testing.assert_allclose(again.vertices, alone.vertices)
    assert np.array_equal(again.faces, alone.faces)
    outward = (alone.vertices - CENTRE) / np.linalg.norm(alone.vertices - CENTRE, axis=1, keepdims=True)
    assert (outward * alone.normals).sum(axis=1).min() > 0.98


def test_colours_are_those_of_the_raw_picture(torgb):
    """Where the head is opaque and has a uniform colour, the picture shows the colour of a vertex there."""
    face = synthesis.prepare(torgb, torch.full([1, torgb.backbone.num_ws, torgb.w_dim], 0.1))
    features = torch.linspace(-0.2, 0.2, 32)

    def solid(grids, points, density_noise=0):
        return torch.full_like(points[..., :1], 1000.0), features.expand(*points.shape[:2], 32)

    original, torgb.query = torgb.query, solid
    try:
        color = texture.vertex_colors(torgb, face, np.zeros([5, 3]))
        seen = synthesis.render(torgb, face, synthesis.orbit(torgb)(synthesis.View(0.0)))["image_raw"]
    finally:
        torgb.query = original
    middle = seen[0, :, 32, 32].clamp(-1, 1) * 127.5 + 127.5
    np.testing.assert_allclose(color, middle.round().expand(5, 3), atol=1)


@pytest.mark.parametrize("missing", ["skimage.measure", "trimesh"])
def test_missing_packages_name_the_command(monkeypatch, missing):
    def import_module(name):
        if name == missing:
            raise ModuleNotFoundError(name)
        return __import__(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(UserError, match="pip install scikit-image trimesh"):
        shapes.check_format(".ply")
    shapes.check_format(".mrc")
