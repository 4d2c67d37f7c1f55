"""Decodes pictures and masks from files of any kind to 8 bits of RGB and of coverage."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from dnnlib import UserError


def decode_image(data: bytes) -> Image.Image:
    """Decode a picture file of any kind to RGB, upright by its EXIF orientation, with black where it is transparent.

    Raises UserError if it cannot be decoded.
    """
    return _decode(data, _to_rgb)


def decode_mask(data: bytes) -> Image.Image:
    """Decode a mask file of any kind to L, 255 for the head: its alpha, or its luminance if alpha is constant or absent.

    Raises UserError if it cannot be decoded.
    """
    return _decode(data, _to_coverage)


def _decode(data: bytes, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as file:
            picture = convert(_eight_bits(ImageOps.exif_transpose(file)))
    except MemoryError:
        raise
    except Exception as error:  # the many decoders raise all kinds of exceptions for damaged files
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise UserError(reason or type(error).__name__) from None
    picture.info.clear()  # colour profiles and comments of the source do not apply to what will be written
    return picture


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow would clip.  Other modes are returned unchanged."""
    if picture.mode == "F":
        raise ValueError("its pixels are floats of unknown range; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    levels = np.asarray(picture).astype(np.float64) / 257
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info


def _to_rgb(picture: Image.Image) -> Image.Image:
    if not _has_alpha(picture):
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture).convert("RGB")


def _to_coverage(picture: Image.Image) -> Image.Image:
    if _has_alpha(picture):
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        least, most = alpha.getextrema()
        if least < most:
            return alpha
    return picture.convert("RGB").convert("L")  # going through RGB removes palettes and alpha, and keeps grey as it is
