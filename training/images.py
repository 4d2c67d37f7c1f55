"""Writes tensors as pictures.  Rounding, grids, depth colours and file writing are defined only here."""

import os

import numpy as np
import PIL.Image
import torch

from dnnlib import UserError
from dnnlib.util import atomic_path

IMAGE_MODES = ("image", "image_raw", "image_depth", "image_mask")  # the pictures that a generator returns
JPEG_QUALITY = 95


def to_uint8(images: torch.Tensor, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Convert pictures [N, C, H, W] (C is 1 or 3) with values in [low, high] to a uint8 array [N, H, W, 3].

    `low` becomes 0 and `high` 255, rounded to the nearest level (halves up).  Values outside are clamped, and nan becomes 0.  A
    single channel is repeated to give grey.
    """
    scaled = (images.detach().to(torch.float32) - low) * (255 / (high - low)) + 0.5
    levels = torch.nan_to_num(scaled, nan=0.0).clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_uint8(levels: torch.Tensor, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    """Convert levels of any shape to float32 values, such that 0 becomes `low` and 255 `high`."""
    return levels.to(torch.float32) / (255 / (high - low)) + low


def colorize_depth(depth: torch.Tensor, near: float | None = None, far: float | None = None) -> np.ndarray:
    """Convert depths [N, 1, H, W] in world units to a grey uint8 array [N, H, W, 3]: `near` is white, `far` is black.

    The limits default to the smallest and largest finite depth of the batch.  Give both if several batches must be comparable,
    as in a video.
    """
    if near is None or far is None:
        finite = depth[torch.isfinite(depth)]
        least, most = (finite.min().item(), finite.max().item()) if finite.numel() else (0.0, 1.0)
        near, far = least if near is None else near, most if far is None else far
    return to_uint8(-depth, -max(far, near + 1e-8), -near)


def picture(views: dict[str, torch.Tensor], mode: str, depth_range: tuple[float, float] | None = None) -> np.ndarray:
    """Convert the pictures called `mode` in a generator's output to a uint8 array [N, H, W, 3].

    `depth_range` is (near, far) for `image_depth`.  Raises UserError if the generator makes no such picture.
    """
    if mode not in views:
        raise UserError(f"this network makes no {mode}; choose from: {', '.join(m for m in IMAGE_MODES if m in views)}")
    if mode == "image_depth":
        return colorize_depth(views[mode], *(depth_range or (None, None)))
    return to_uint8(views[mode], low=0.0) if mode == "image_mask" else to_uint8(views[mode])


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange pictures [N, H, W, C] in one picture, row by row with `columns` per row.  Unused cells are black."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.zeros([rows * columns, height, width, channels], dtype=images.dtype)
    cells[:count] = images
    cells = cells.reshape(rows, columns, height, width, channels)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def save_image(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write a uint8 picture [H, W, 3] or [H, W] as PNG or JPEG, by the suffix of `path`.  It appears only when complete."""
    with atomic_path(path) as temporary:
        options = {"quality": JPEG_QUALITY} if temporary.suffix.lower() in (".jpg", ".jpeg") else {}
        PIL.Image.fromarray(image).save(temporary, **options)
