"""Ground truth of a rendered head as files: depth pictures and the surface."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from demo.heads.geometry import Mesh, triangles

if TYPE_CHECKING:
    from demo.heads.scene import Scene

DEPTH_STEPS = 500  # per world unit; a step is under a millimetre of the head, and files are a third smaller than with 5000


def depth_image(depth: np.ndarray) -> Image.Image:
    """Encode depths [r, r] along the view in world units (0 for nothing) as a 16-bit grey picture of depth · DEPTH_STEPS."""
    return Image.fromarray(np.round(np.clip(depth * DEPTH_STEPS, 0, 65535)).astype(np.uint16))


def read_depth(image: Image.Image) -> np.ndarray:
    """Decode a picture made by `depth_image` to depths [r, r], float64 in world units."""
    return np.asarray(image).astype(np.float64) / DEPTH_STEPS


def surface(scene: "Scene") -> Mesh:
    """Skin, eyes, mouth and clothes as rendered, in world units.  Hair consists of strands and is not included.

    Parts that are mostly transparent, such as lashes and the edge of the cloth, are left out.
    """
    from demo.heads.variant import mitsuba

    vertices, faces, count = [], [], 0
    for shape in scene.content.shapes():
        if not shape.is_mesh():
            continue
        parameters = mitsuba.traverse(shape)
        corners = np.array(parameters["faces"]).reshape(-1, 3)
        if "vertex_opacity" in parameters:
            corners = corners[np.array(parameters["vertex_opacity"])[corners].mean(axis=1) > 0.5]
        faces.append(corners.astype(np.int64) + count)
        vertices.append(np.array(parameters["vertex_positions"]).reshape(-1, 3))
        count += len(vertices[-1])
    return Mesh(np.concatenate(vertices), np.concatenate(faces))


def ply_bytes(mesh: Mesh) -> bytes:
    """Encode the mesh as a binary .ply file: vertices (float32) and triangles."""
    corners = triangles(mesh.faces)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(mesh.vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(corners)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(corners), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, corners
    return header.encode() + np.ascontiguousarray(mesh.vertices, "<f4").tobytes() + rows.tobytes()
