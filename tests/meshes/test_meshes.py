"""Meshes: rasterised triangles, pieces without overlap, colours in the right places, and a .glb that other tools open."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import fill

import camera_utils
from dnnlib import UserError
from dnnlib.util import construct_class_by_name
from inference import shapes, synthesis
from inference.shapes import Surface
from meshes import atlas, head_file, raster, texture
from meshes.texture import Shot

RADIUS = 0.25
CENTRE, SEMI_AXES = (0.0, 0.02, -0.04), (0.18, 0.27, 0.21)  # a head's, in world units, about where crops have it


def lattice(resolution=40, ear=True):
    """Densities of a ball in the box of side 1, with a thin flap beside it that hides a part of it from the side."""
    axis = np.linspace(-0.5, 0.5, resolution)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    densities = 400 * (RADIUS - np.sqrt(x**2 + y**2 + z**2))
    if ear:
        flap = 400 * (0.03 - np.maximum(np.abs(x - 0.31), np.maximum(np.abs(y) - 0.05, np.abs(z) - 0.05)))
        bridge = 400 * (0.03 - np.maximum(np.abs(x - 0.28), np.maximum(np.abs(y) - 0.0, np.abs(z - 0.05) - 0.0)))
        densities = np.maximum(densities, np.maximum(flap, bridge))
    return (densities + shapes.DEFAULT_LEVEL).astype(np.float32)


@pytest.fixture(scope="module")
def surface():
    pytest.importorskip("skimage")
    return shapes.surface(lattice(), 1.0)


def all_hits(corners, height, width, **kwargs):
    parts = [np.concatenate(part) for part in zip(*raster.rasterize(np.asarray(corners, float), height, width, **kwargs))]
    return raster.Hits(*parts)


# Raster


def test_pixel_centres_inside_a_triangle():
    hits = all_hits([[[0, 0], [4, 0], [0, 4]]], 5, 5)
    found = set(zip(hits.rows.tolist(), hits.columns.tolist()))
    assert found == {(row, column) for row in range(4) for column in range(4) if row + column + 1 <= 4}
    places = (np.array([[0, 0], [4, 0], [0, 4]])[None] * hits.weights[..., None]).sum(axis=1)
    np.testing.assert_allclose(places, np.stack([hits.columns, hits.rows], axis=1) + 0.5, atol=1e-9)


def test_triangles_off_the_raster_and_without_area_are_left_out():
    corners = [[[-9, -9], [-5, -9], [-9, -5]], [[1, 1], [2, 2], [3, 3]], [[7, 7], [9, 7], [7, 9]], [[2, 2], [9, 2], [2, 9]]]
    hits = all_hits(corners, 4, 4)
    assert set(hits.faces.tolist()) == {3} and len(hits.rows) == 4


def test_parts_of_a_raster_make_the_whole(monkeypatch):
    corners = np.random.RandomState(0).uniform(0, 20, [30, 3, 2])
    whole = all_hits(corners, 20, 20)
    monkeypatch.setattr(raster, "CHUNK", 50)
    parts = all_hits(corners, 20, 20)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts))


def test_depth_is_that_of_a_slanted_plane():
    label = camera_utils.orbit_label(0.0, 0.0)
    vertices = np.array([[-1, -1, 0.4], [1, -1, -0.4], [1, 1, -0.4], [-1, 1, 0.4]])  # z = -0.4 x
    buffer = raster.depth_buffer(label, vertices, np.array([[0, 1, 2], [0, 2, 3]]), 32)
    slope = ((np.arange(32) + 0.5) / 32 - 0.5) / camera_utils.DEFAULT_FOCAL  # x over depth
    np.testing.assert_allclose(buffer[16], 2.7 / (1 - 0.4 * slope), rtol=1e-4)


def test_the_nearer_triangle_hides_the_farther():
    label = camera_utils.orbit_label(0.0, 0.0)
    square = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], dtype=float)
    vertices = np.concatenate([square + [0, 0, 0.2], square - [0, 0, 0.2]])
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        assert raster.depth_buffer(label, vertices, np.array(faces), 9)[4, 4] == pytest.approx(2.5, abs=1e-4)


# Atlas


def test_no_two_faces_share_a_texel_and_none_is_mirrored_away(surface):
    size = 256
    unfolded = atlas.unfold(surface.vertices, surface.faces, size)
    hits = all_hits(unfolded.corners, size, size, edge=atlas.INSIDE)
    assert len(np.unique(hits.rows * size + hits.columns)) == len(hits.rows)
    assert unfolded.corners.min() >= atlas.PADDING - 1e-6 and unfolded.corners.max() <= size - atlas.PADDING + 1e-6
    # Pieces are flat projections of one scale: no edge grows, and on the whole little is lost.
    edges = np.linalg.norm(np.diff(surface.vertices[surface.faces][:, [0, 1, 2, 0]], axis=1), axis=2)
    flat = np.linalg.norm(np.diff(unfolded.corners[:, [0, 1, 2, 0]], axis=1), axis=2)
    scale = (flat / edges).max()
    assert flat.sum() > 0.75 * scale * edges.sum()
    assert len(np.unique(unfolded.pieces)) < 60


def test_pieces_that_cannot_fit_are_refused():
    with pytest.raises(UserError, match="9 pieces, too many for a texture of 8x8: lower --shape-res"):
        atlas._pack(np.full([9, 2], 0.1), 8)


# Colours


@pytest.fixture
def painted(monkeypatch):
    """A stand-in for generator and face: views show flat grey, the field is black."""
    monkeypatch.setattr(texture, "_generated", lambda G, face: [])
    monkeypatch.setattr(texture, "vertex_colors", lambda G, face, points: np.zeros([len(points), 3], dtype=np.uint8))


def test_a_photo_colours_what_it_sees_and_no_more(surface, painted):
    """A photo that shows each pixel's place: texels get the colours of their projections in front, the field's behind."""
    size = 64
    ramp = torch.linspace(-1, 1, size)
    image = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.ones(size, size)])[None]
    label = camera_utils.orbit_label(0.0, 0.0)
    shot = Shot(image, torch.ones(1, 1, size, size), label, is_photo=True)
    unfolded = atlas.unfold(surface.vertices, surface.faces, 128)
    picture = texture.texture(None, None, surface, unfolded, [shot])
    hits = all_hits(unfolded.corners, 128, 128)
    points = (surface.vertices[surface.faces[hits.faces]] * hits.weights[..., None]).sum(axis=1)
    colors = picture[hits.rows, hits.columns].astype(float)
    front, back = points[:, 2] > 0.2, points[:, 2] < -0.05
    places, _ = raster.project(label, points)
    expected = (places * size - 0.5) / (size - 1) * 255
    np.testing.assert_allclose(colors[front][:, :2], expected[front], atol=3)
    assert (colors[front][:, 2] == 255).all() and (colors[back] == 0).all()


def test_what_is_hidden_is_not_coloured_by_the_photo(painted):
    """A ball behind a plate that covers it."""
    pytest.importorskip("skimage")
    ball = shapes.surface(lattice(ear=False), 1.0)
    plate = np.array([[-1, -1, 0.4], [1, -1, 0.4], [1, 1, 0.4], [-1, 1, 0.4]], dtype=float)
    both = Surface(
        np.concatenate([ball.vertices, plate]),
        np.concatenate([ball.faces, np.array([[0, 1, 2], [0, 2, 3]]) + len(ball.vertices)]),
        np.concatenate([ball.normals, np.tile([0.0, 0.0, 1.0], [4, 1])]),
    )
    label = camera_utils.orbit_label(0.0, 0.0)
    shot = Shot(torch.ones(1, 3, 32, 32), torch.ones(1, 1, 32, 32), label, is_photo=True)
    _, weight = texture._from_camera(shot, both, both.vertices, both.normals)
    assert (weight[: len(ball.vertices)] == 0).all()
    _, weight = texture._from_camera(shot, ball, ball.vertices, ball.normals)
    assert (weight > 0).any()


# Files


@pytest.fixture(scope="module")
def generator():
    """A generator whose field is a head-sized ellipsoid, coloured by the place in the box, with few and coarse views."""
    kwargs = json.loads((Path(__file__).parents[1] / "golden" / "generator_small_kwargs.json").read_text())
    kwargs["rendering_kwargs"].update(triplane_size=32, use_background=False, trans_reg=0)
    kwargs["rendering_kwargs"].update(decoder_activation="sigmoid", use_torgb_raw=False)
    kwargs["rendering_kwargs"].update(depth_resolution=24, depth_resolution_importance=24)
    G = fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)
    G.neural_rendering_resolution = 32

    def query(grids, points, density_noise=0):
        off = ((points - torch.tensor(CENTRE)) / torch.tensor(SEMI_AXES)).norm(dim=-1, keepdim=True)
        return 200 * (1 - off) + shapes.DEFAULT_LEVEL, (points + 0.5).repeat(1, 1, 11)[..., :32]

    G.query = query
    G.density = lambda grids, points: query(grids, points)[0]
    return G


@pytest.fixture(scope="module")
def face(generator):
    return synthesis.prepare(generator, torch.zeros(1, generator.backbone.num_ws, generator.w_dim))


@pytest.fixture(scope="module")
def heads(generator, face, tmp_path_factory):
    """The head in a file of every format, by suffix."""
    pytest.importorskip("skimage")
    pytest.importorskip("trimesh")
    folder = tmp_path_factory.mktemp("heads")
    camera = camera_utils.orbit_label(0.3, -0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_file, "TEXELS_PER_PIXEL", 1)
        for suffix in shapes.MESH_FORMATS:
            head_file.save_shape(generator, face, folder / f"head{suffix}", 48, camera)
    assert {path.name for path in folder.iterdir()} == {f"head{suffix}" for suffix in shapes.MESH_FORMATS}
    return {suffix: folder / f"head{suffix}" for suffix in shapes.MESH_FORMATS}


def read_glb(path):
    data = path.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])


def closed(mesh):
    """The mesh with the vertices merged that its texture duplicates."""
    mesh = mesh.copy()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_a_head_has_the_size_of_a_head_in_metres_whatever_the_format(heads, suffix):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.load(heads[suffix], force="mesh", process=False)
    assert 0.2 < mesh.extents[1] < 0.35 and mesh.extents.argmax() == 1  # y is up
    expected = (np.array(CENTRE) + [[-1], [1]] * np.array(SEMI_AXES)) * head_file.METRES
    np.testing.assert_allclose(mesh.bounds, expected, atol=0.001)
    assert closed(mesh).is_watertight and closed(mesh).volume > 0


@pytest.mark.parametrize("scale", [1, 0.25])
def test_a_head_to_print_is_closed_in_millimetres_and_z_up(generator, face, tmp_path, scale):
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / "head.stl"
    head_file.save_shape(generator, face, path, 48, camera_utils.orbit_label(0.3, -0.1), scale=scale)
    mesh = trimesh.load(path)
    bounds = (np.array(CENTRE) + [[-1], [1]] * np.array(SEMI_AXES)) * (head_file.METRES * 1000 * scale)
    (left, low, back), (right, high, front) = bounds
    np.testing.assert_allclose(mesh.bounds, [[left, -front, low], [right, -back, high]], atol=scale)
    assert mesh.is_watertight and mesh.volume > 0


def test_what_is_not_closed_is_not_printed(tmp_path):
    pytest.importorskip("trimesh")
    corners = np.eye(3, dtype=np.float32)
    open_surface = shapes.Surface(corners, np.array([[0, 1, 2]]), corners)
    with pytest.raises(UserError, match="no closed piece"):
        head_file.save_printable(open_surface, tmp_path / "head.stl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_vertices_have_the_colours_of_the_field(heads, suffix):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.load(heads[suffix], force="mesh", process=False)
    expected = (np.asarray(mesh.vertices) / head_file.METRES + 0.5) * 255
    np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3], expected, atol=1.0)


def test_texture_has_what_cameras_see(generator, face, heads):
    """In front, colours are those of the front view at the projected place; the mean with other views blurs them a little."""
    trimesh = pytest.importorskip("trimesh")
    (mesh,) = trimesh.load(heads[".glb"]).geometry.values()
    painted = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).astype(float)
    label = camera_utils.orbit_label(0.0, 0.0)
    image = synthesis.render(generator, face, label)["image"]
    in_front = mesh.vertex_normals[:, 2] > 0.9
    column, row = (np.asarray(mesh.visual.uv)[in_front] * [1, -1] + [0, 1]).T * len(painted)
    places, _ = raster.project(label, mesh.vertices[in_front] / head_file.METRES)
    expected = texture._look_up(image, places) * 127.5 + 127.5
    found = painted[row.astype(int), column.astype(int)]
    assert in_front.sum() > 50 and expected.std(axis=0).max() > 10
    for channel in range(3):
        off = np.abs(found - expected.clip(0, 255))[:, channel]
        assert off.mean() < 0.3 * max(20, expected[:, channel].std()), (channel, off.mean(), expected[:, channel].std())


def test_camera_of_the_file_is_the_one_given(heads):
    label = camera_utils.orbit_label(0.3, -0.1)
    content = read_glb(heads[".glb"])
    (camera,) = [node for node in content["nodes"] if "camera" in node]
    focal = 0.5 / math.tan(content["cameras"][0]["perspective"]["yfov"] / 2)
    assert focal == pytest.approx(camera_utils.DEFAULT_FOCAL, rel=1e-4)
    pose = np.array(camera["matrix"]).reshape(4, 4).T
    np.testing.assert_allclose(pose[:3, 3], label[0, camera_utils.POSITION_ENTRIES] * head_file.METRES, atol=1e-6)


@pytest.mark.parametrize("yaw", [0.0, 1.1, 3.0])
def test_silhouette_of_the_file_is_the_mask(generator, face, heads, yaw):
    trimesh = pytest.importorskip("trimesh")
    label = camera_utils.orbit_label(yaw, -0.2)
    mask = synthesis.render(generator, face, label)["image_mask"][0, 0].numpy() > 0.5
    mesh = trimesh.load(heads[".glb"], force="mesh", process=False)
    silhouette = np.isfinite(raster.depth_buffer(label, mesh.vertices / head_file.METRES, mesh.faces, len(mask)))
    assert (mask & silhouette).sum() / (mask | silhouette).sum() > 0.95
    assert 0.1 < mask.mean() < 0.7


def test_glb_opens_in_metres_with_texture_and_camera(surface, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    label = camera_utils.orbit_label(0.5, -0.2)
    unfolded = atlas.unfold(surface.vertices, surface.faces, 64)
    picture = np.random.RandomState(0).randint(0, 255, [64, 64, 3]).astype(np.uint8)
    head_file.save_glb(surface, unfolded, picture, label, tmp_path / "head.glb")
    scene = trimesh.load(tmp_path / "head.glb")
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(
        mesh.bounds, [f(surface.vertices, axis=0) * head_file.METRES for f in (np.min, np.max)], atol=1e-6
    )
    assert np.array_equal(np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")), picture)
    assert len(mesh.faces) == len(surface.faces)
    assert closed(mesh).is_watertight
    content = read_glb(tmp_path / "head.glb")
    (camera,) = [node for node in content["nodes"] if "camera" in node]
    perspective = content["cameras"][0]["perspective"]
    assert 0.5 / math.tan(perspective["yfov"] / 2) == pytest.approx(camera_utils.DEFAULT_FOCAL, rel=1e-4)
    pose = np.array(camera["matrix"]).reshape(4, 4).T
    np.testing.assert_allclose(pose[:3, 3], label[0, camera_utils.POSITION_ENTRIES] * head_file.METRES, atol=1e-6)
    np.testing.assert_allclose(pose[:3, :3] @ [0, 0, -1], -pose[:3, 3] / np.linalg.norm(pose[:3, 3]), atol=1e-5)


def test_a_corner_finds_its_texel_in_the_file(surface, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    unfolded = atlas.unfold(surface.vertices, surface.faces, 64)
    head_file.save_glb(surface, unfolded, np.zeros([64, 64, 3], np.uint8), camera_utils.orbit_label(0, 0), tmp_path / "a.glb")
    (mesh,) = trimesh.load(tmp_path / "a.glb").geometry.values()
    uv = np.asarray(mesh.visual.uv)[mesh.faces]
    expected = unfolded.corners / 64
    np.testing.assert_allclose(np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1), expected, atol=1e-5)
