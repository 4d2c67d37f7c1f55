"""Builds the mitsuba scene of one person: surfaces, strands, materials, light and exposure."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .clothes import cloth_mesh
from .eyes import eye_mesh
from .facial_hair import grow_beard, grow_brows
from .geometry import Mesh, triangles, vertex_normals
from .hair import grow_hair
from .hair_strands import Strands
from .light import LUMINANCE, environment_map, irradiance, upright_normals
from .shape import Head, Placement, build_head
from .skin import skin_colours
from .template import Template
from .variant import mitsuba as mi
from .variant import select_variant

if TYPE_CHECKING:
    from .person import Person

__all__ = ["Scene", "build_scene", "select_variant"]

TEETH = (0.62, 0.57, 0.48)
TONGUE = (0.35, 0.10, 0.09)

# Streams of the person's random numbers for details; those of person.py and portrait.py are smaller.
_SKIN_STREAM, _CLOTH_STREAM, _LEFT_EYE_STREAM, _RIGHT_EYE_STREAM = 201, 202, 203, 204
_HAIR_STREAM, _BROW_STREAM, _BEARD_STREAM = 205, 206, 207

# Scenes with the same number of shapes, loaded in the same order, share compiled kernels, whose compilation takes longer than a
# picture.  Hardly any head has more groups of strands than this.
_STRAND_SHAPES = 16
_NO_STRANDS = Strands(np.zeros((0, 3, 3)), np.zeros((0, 3)), np.full(3, 0.1))

_SKIN_BRIGHTNESS = 0.46  # linear value in the picture of skin whose albedo is _MIDDLE_ALBEDO
_MIDDLE_ALBEDO = 0.5
_TONE_EXPONENT = 0.75  # a camera's exposure makes dark skin lighter than it is, but still dark
_FACE_WEIGHT = 0.65  # how much the exposure depends on the light on the face; the rest is the light from all sides


@dataclass(frozen=True)
class Scene:
    """The input of `picture.render_view`: mitsuba's scene in world units, the head in it, and the factor on radiance."""

    content: Any
    head: Head
    exposure: float


def build_scene(template: Template, person: "Person") -> Scene:
    """Build the scene of one person.  Takes 1–3 s, and about 100 MB for long hair.  The same person gives the same scene."""
    head = build_head(template, person.phenotype, person.local_changes, person.expression)
    place = head.placement
    cloth = cloth_mesh(template, head, person.clothes, _stream(person, _CLOTH_STREAM))
    environment = environment_map(person.light)
    scene = {"type": "scene", "light": {"type": "envmap", "bitmap": mi.Bitmap(environment)}}
    colours = skin_colours(template, person.skin, person.hair, person.facial_hair, _stream(person, _SKIN_STREAM))
    skin = Mesh(head.fine, template.fine_faces, colours)
    scene["skin"] = _surface("skin", skin, place, _skin_material(person.skin.roughness))
    scene["cloth"] = _surface("cloth", cloth, place, _thin(sheen=0.5))
    scene |= _eyes_and_mouth(template, head, person)
    strands = grow_hair(template, head, person.hair, cloth, _stream(person, _HAIR_STREAM))
    strands += _facial_hair(template, head, person)
    strands += [_NO_STRANDS] * (_STRAND_SHAPES - len(strands))
    for number, group in enumerate(strands):
        scene[f"strands{number:02}"] = _curves(group, place)
    return Scene(mi.load_dict(scene, parallel=False), head, exposure(environment, np.array(person.skin.tone)))


def exposure(environment: np.ndarray, tone: np.ndarray) -> float:
    """The factor from radiance to linear values in the picture, based on the light and the albedo [3] of the skin."""
    albedo = float(tone @ LUMINANCE)
    around = irradiance(environment, upright_normals()) @ LUMINANCE
    light = around[0] ** _FACE_WEIGHT * around.mean() ** (1 - _FACE_WEIGHT)
    return _SKIN_BRIGHTNESS * (albedo / _MIDDLE_ALBEDO) ** _TONE_EXPONENT / (albedo * light)


def _stream(person: "Person", number: int) -> np.random.Generator:
    return np.random.default_rng([person.seed, number])


def _eyes_and_mouth(template: Template, head: Head, person: "Person") -> dict[str, Any]:
    """Eyeballs, lashes, teeth and tongue."""
    shapes = {}
    for side, stream in (("left", _LEFT_EYE_STREAM), ("right", _RIGHT_EYE_STREAM)):
        eye = eye_mesh(template, head, person.eyes, side, _stream(person, stream))
        shapes[f"{side}_eye"] = _surface(f"{side}_eye", eye, head.placement, _glossy(_VERTEX_COLOUR, 0.12))
        lashes = _part(template, head, f"{side}_lashes", np.array(person.hair.colour) * 0.4, person.eyes.lashes)
        shapes[f"{side}_lashes"] = _surface(f"{side}_lashes", lashes, head.placement, _thin(sheen=0.0))
    for part, colour in (("upper_teeth", TEETH), ("lower_teeth", TEETH), ("tongue", TONGUE)):
        mesh = _part(template, head, part, np.array(colour))
        shapes[part] = _surface(part, mesh, head.placement, _glossy(_VERTEX_COLOUR, 0.25))
    return shapes


def _part(template: Template, head: Head, name: str, colour: np.ndarray, opacity: float | None = None) -> Mesh:
    n = len(head.base)
    return Mesh(head.base, template.parts[name], np.tile(colour, (n, 1)), None if opacity is None else np.full(n, opacity))


def _facial_hair(template: Template, head: Head, person: "Person") -> list[Strands]:
    brows = grow_brows(template, head, person.facial_hair, person.hair, _stream(person, _BROW_STREAM))
    beard = grow_beard(template, head, person.facial_hair, person.hair, _stream(person, _BEARD_STREAM))
    return [brows] if beard is None else [brows, beard]


_VERTEX_COLOUR = {"type": "mesh_attribute", "name": "vertex_color"}


def _skin_material(roughness: float) -> dict[str, Any]:
    return {
        "type": "principled",
        "base_color": _VERTEX_COLOUR,
        "roughness": roughness,
        "specular": 0.28,
        "flatness": 0.4,  # approximates subsurface scattering, which makes skin look soft
        "sheen": 0.03,
    }


def _glossy(colour: dict[str, Any], roughness: float) -> dict[str, Any]:
    return {"type": "principled", "base_color": colour, "roughness": roughness, "specular": 0.3}


def _thin(sheen: float) -> dict[str, Any]:
    """Cloth or lashes: rough, two-sided, and as transparent as the mesh says."""
    surface = {"type": "principled", "base_color": _VERTEX_COLOUR, "roughness": 0.85, "specular": 0.2, "sheen": sheen}
    opacity = {"type": "mesh_attribute", "name": "vertex_opacity"}
    return {"type": "mask", "opacity": opacity, "bsdf": {"type": "twosided", "bsdf": surface}}


def _hair_material(colour: np.ndarray) -> dict[str, Any]:
    reflectance = {"type": "rgb", "value": [float(value) for value in colour]}
    return {"type": "principled", "base_color": reflectance, "roughness": 0.38, "specular": 0.55, "spec_tint": 0.3}


def _surface(name: str, mesh: Mesh, place: Placement, material: dict[str, Any]) -> Any:
    """A mitsuba mesh with only the vertices that the faces use."""
    properties = mi.Properties()
    properties["material"] = mi.load_dict(material)
    used, corners = np.unique(triangles(mesh.faces), return_inverse=True)
    shape = mi.Mesh(name, len(used), corners.size // 3, has_vertex_normals=True, props=properties)
    shape.add_attribute("vertex_color", 3, _flat(mesh.colours[used]))
    if mesh.opacity is not None:
        shape.add_attribute("vertex_opacity", 1, _flat(mesh.opacity[used]))
    parameters = mi.traverse(shape)
    vertices = place.to_world(mesh.vertices)
    parameters["vertex_positions"] = _flat(vertices[used])
    parameters["faces"] = corners.astype(np.uint32).ravel()
    parameters["vertex_normals"] = _flat(vertex_normals(vertices, mesh.faces)[used])
    parameters.update()
    return shape


def _flat(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).ravel()


def _curves(strands: Strands, place: Placement) -> Any:
    """Strands as connected cones, which look like smooth curves at this size, and load and render faster."""
    points = np.concatenate([place.to_world(strands.points), strands.radii[..., None] * place.scale], axis=2)
    points = np.concatenate([points.astype(np.float32), _hidden_strand(points.shape[1])])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strands.txt"
        shown = points if mi.variant() == "scalar_rgb" else points[:1]
        path.write_text("\n\n".join("\n".join(f"{x:.7g} {y:.7g} {z:.7g} {r:.7g}" for x, y, z, r in strand) for strand in shown))
        shape = mi.load_dict({"type": "linearcurve", "filename": str(path), "bsdf": _hair_material(strands.colour)})
    if mi.variant() != "scalar_rgb":
        count, k = points.shape[:2]
        parameters = mi.traverse(shape)
        parameters["control_points"] = mi.Float(_flat(points))
        parameters["segment_indices"] = mi.UInt32((np.arange(count)[:, None] * k + np.arange(k - 1)).astype(np.uint32).ravel())
        parameters["control_point_count"] = count * k
        parameters.update()
    return shape


def _hidden_strand(k: int) -> np.ndarray:
    """One more strand [1, k, 4], hidden inside the head.  By rounding, the tip of a shape's last strand may count as past its
    end, which would abort the process; no ray reaches the tip of this one."""
    strand = np.zeros((1, k, 4), np.float32)
    strand[..., 1] = -0.02 + 0.001 * np.arange(k)
    strand[..., 2], strand[..., 3] = -0.05, 1e-5
    return strand
