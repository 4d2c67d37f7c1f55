"""The debug sheet: what was found in a photo and what was made of it, side by side."""

import numpy as np
from PIL import Image, ImageDraw

from data_tools.contact_sheet import CAPTION_HEIGHT, CELL, draw_cell

from .photograph import Photo
from .prepare import PreparedHead

FRAME_COLOUR, BOX_COLOUR, POINT_COLOUR = "#ffe600", "#ff8000", "#40ff40"
PANEL = CELL + CAPTION_HEIGHT  # side of a panel in pixels


def draw_debug_sheet(photo: Photo, head: PreparedHead, name: str) -> np.ndarray:
    """Draw one row, uint8 [PANEL, W, 3]: the photo, the crop, the mask, and the crop as seen by its camera.

    The photo shows the frame, the bounding box of the face and its landmarks.  In the last cell, the axes x, y and z of the
    world are red, green and blue; the mask is outlined and the rest shaded.
    """
    cell = draw_cell(head.image, head.mask, head.label, name, is_faulty=False)
    mask = np.asarray(head.mask.convert("RGB").resize((CELL, PANEL - CAPTION_HEIGHT)))
    mask = np.pad(mask, ((0, CAPTION_HEIGHT), (0, 0), (0, 0)))
    return np.concatenate([_photo_panel(photo, head), _crop_panel(head), mask, cell], axis=1)


def _photo_panel(photo: Photo, head: PreparedHead) -> np.ndarray:
    width, height = photo.size
    scale = PANEL / max(photo.size)
    panel = Image.new("RGB", (PANEL, PANEL), "#303030")
    panel.paste(photo.reduced((max(1, round(width * scale)), max(1, round(height * scale)))))
    draw = ImageDraw.Draw(panel)
    corners = [tuple(corner * scale) for corner in head.view.frame.corners()]
    draw.polygon(corners, outline=FRAME_COLOUR, width=2)
    draw.line(corners[:2], fill="white", width=2)  # the upper side
    if head.face is not None:
        points = head.face.landmarks[:, :2] * scale
        draw.rectangle([*points.min(axis=0), *points.max(axis=0)], outline=BOX_COLOUR)
        for x, y in points:
            draw.point((x, y), fill=POINT_COLOUR)
    return np.asarray(panel)


def _crop_panel(head: PreparedHead) -> np.ndarray:
    panel = Image.new("RGB", (CELL, PANEL))
    panel.paste(head.image.resize((CELL, CELL), Image.Resampling.BILINEAR))
    draw = ImageDraw.Draw(panel)
    caption = "given by hand"
    if head.face is not None:
        for x, y in head.view.frame.from_photo(head.face.landmarks[:, :2]) * CELL:
            draw.point((x, y), fill=POINT_COLOUR)
        caption = f"face of {head.face.size:.0f} pixels"
    draw.text((4, CELL + 2), f"{caption}, misfit {head.view.misfit:.4f}", fill="white")
    draw.text((4, CELL + 15), f"frame of {head.view.frame.size:.0f} pixels", fill="white")
    return np.asarray(panel)
