"""Draws what the labels of a data set say onto its pictures, so that a wrong camera or mask is easy to spot."""

import os

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

import camera_utils
from training.images import save_image, tile

COLUMNS = 8
CELL = 256  # side of a picture in pixels
CAPTION_HEIGHT = 30
AXIS_LENGTH = 0.12  # world units, about a third of a head's width
AXIS_COLOURS = ("#ff4040", "#40ff40", "#5080ff")  # x, y, z
OUTLINE_COLOUR = (255, 230, 0)
SHADE_COLOUR = (40, 20, 90)  # for everything outside the mask
FAULT_COLOUR = "#ff2020"
MAP_RADIUS = 24  # radius in pixels of the orbit as seen from above


def draw_cell(image: Image.Image, mask: Image.Image, label: torch.Tensor | None, name: str, is_faulty: bool) -> np.ndarray:
    """Draw one picture (RGB, mask L) as a uint8 array [CELL + CAPTION_HEIGHT, CELL, 3].

    The mask is outlined and the rest shaded.  The axes x, y and z of the world are drawn from the origin in red, green and
    blue, as seen by the camera `label` [25].  A map in the corner shows the camera from above (the face looks down), and the
    caption gives name and angles.  `is_faulty` adds a red frame.
    """
    picture = _shade(_fit(image), _fit(mask))
    cell = Image.new("RGB", (CELL, CELL + CAPTION_HEIGHT))
    cell.paste(picture)
    draw = ImageDraw.Draw(cell)
    caption = "no usable label"
    if label is not None:
        _draw_axes(draw, label)
        _draw_map(draw, label)
        caption = "yaw {:.1f}  pitch {:.1f}  roll {:.1f}".format(*camera_utils.yaw_pitch_roll_degrees(label).tolist())
    draw.rectangle([0, CELL, CELL, CELL + CAPTION_HEIGHT], fill="black")
    draw.text((4, CELL + 2), name[-40:].encode("ascii", "replace").decode(), fill="white")
    draw.text((4, CELL + 15), caption, fill="white")
    if is_faulty or label is None:
        draw.rectangle([0, 0, CELL - 1, CELL + CAPTION_HEIGHT - 1], outline=FAULT_COLOUR, width=4)
    return np.asarray(cell)


def draw_sheet(cells: list[np.ndarray], path: str | os.PathLike) -> None:
    """Write cells made by `draw_cell` into one picture file."""
    save_image(tile(np.stack(cells), min(COLUMNS, len(cells))), path)


def _fit(picture: Image.Image) -> Image.Image:
    """Resize to a square, as labels see pictures: their coordinates are in widths and heights of the picture."""
    return picture.resize((CELL, CELL), Image.Resampling.BILINEAR)


def _shade(image: Image.Image, mask: Image.Image) -> Image.Image:
    shaded = Image.composite(image, Image.blend(image, Image.new("RGB", image.size, SHADE_COLOUR), 0.6), mask)
    head = mask.point(lambda level: 255 if level >= 128 else 0)
    edge = np.asarray(head.filter(ImageFilter.MaxFilter(3))) != np.asarray(head)
    pixels = np.array(shaded)
    pixels[edge] = OUTLINE_COLOUR
    return Image.fromarray(pixels)


def _draw_axes(draw: ImageDraw.ImageDraw, label: torch.Tensor) -> None:
    points = torch.cat([torch.zeros(1, 3), AXIS_LENGTH * torch.eye(3)]).to(label.dtype)
    places, depth = camera_utils.project_points(label[None], points)
    if (depth <= 0).any() or (places.abs() > 10).any():
        return  # behind the camera or far outside, which the report mentions
    (origin, *tips), depths = [tuple(place) for place in (places[0] * CELL).tolist()], depth[0].tolist()
    for axis in sorted(range(3), key=lambda axis: -depths[axis + 1]):  # the nearest axis is drawn last
        tip = tips[axis]
        draw.line([origin, tip], fill=AXIS_COLOURS[axis], width=3)
        draw.text((tip[0] + 3, tip[1] - 5), "xyz"[axis], fill=AXIS_COLOURS[axis])
    draw.ellipse([origin[0] - 3, origin[1] - 3, origin[0] + 3, origin[1] + 3], fill="white")


def _draw_map(draw: ImageDraw.ImageDraw, label: torch.Tensor) -> None:
    """Draw the orbit from above: head in the middle, z (where the face looks) down, the camera and its line of sight."""
    middle_x, middle_y = CELL - MAP_RADIUS - 8, MAP_RADIUS + 8
    cam2world = camera_utils.unpack_label(label)[0]
    scale = MAP_RADIUS / camera_utils.DEFAULT_RADIUS
    x, y = (middle_x + scale * cam2world[0, 3].item(), middle_y + scale * cam2world[2, 3].item())
    ahead = (x + MAP_RADIUS * cam2world[0, 2].item(), y + MAP_RADIUS * cam2world[2, 2].item())
    draw.ellipse([middle_x - MAP_RADIUS, middle_y - MAP_RADIUS, middle_x + MAP_RADIUS, middle_y + MAP_RADIUS], outline="white")
    draw.ellipse([middle_x - 5, middle_y - 5, middle_x + 5, middle_y + 5], fill="white")
    draw.line([(middle_x, middle_y), (middle_x, middle_y + 9)], fill="white", width=3)  # the nose
    draw.line([(x, y), ahead], fill="cyan", width=2)
    draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill="cyan")
