"""Reads photos of any kind and cuts square regions out of them."""

import io
import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from dnnlib import UserError
from training.decoding import decode_image

from .frame import Frame

MAX_FILE_BYTES = 1 << 29
MAX_MEGAPIXELS = 170  # slightly below the size that Pillow refuses as a decompression bomb
MIN_SIDE = 32
SPLINE_MARGIN = 8  # pixels around a cut that influence the splines in it
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # in the first bytes of iPhone photos
BLUR = 0.02  # blur of what is filled in, in sides of the frame: no detail, but the colours of the photo's edge
BLUR_RAMP = 0.04  # the blur grows from none to full over this distance from the photo's edge


class Photo:
    """An upright RGB photo with a pyramid of halved copies, so that large frames are cut quickly and without aliasing."""

    def __init__(self, image: Image.Image):
        self._levels = [image.convert("RGB")]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._levels[0].size

    def cut(self, frame: Frame, pixels: int) -> Image.Image:
        """Cut out the frame at `pixels` a side, with black outside the photo.  Fast, for the detectors."""
        image, corners = self._copy_for(frame, pixels)
        step_x, step_y = (corners[1] - corners[0]) / pixels, (corners[3] - corners[0]) / pixels
        affine = (step_x[0], step_y[0], corners[0][0], step_x[1], step_y[1], corners[0][1])
        return image.transform((pixels, pixels), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)

    def cut_filled(self, frame: Frame, pixels: int) -> Image.Image:
        """Cut out the frame at `pixels` a side.  Outside, the photo is mirrored at its edge and blurred.

        Uses cubic splines at twice the resolution, because Pillow's bicubic transform would bend straight ramps.
        """
        image, corners = self._copy_for(frame, 2 * pixels)
        low, high = (
            np.floor(corners.min(axis=0)).astype(int) - SPLINE_MARGIN,
            np.ceil(corners.max(axis=0)).astype(int) + SPLINE_MARGIN,
        )
        part = _mirrored(np.asarray(image), low, high)
        steps = (np.arange(2 * pixels) + 0.5) / (2 * pixels)
        across, down = (corners[1] - corners[0]) * steps[:, None], (corners[3] - corners[0]) * steps[:, None]
        places = across[None, :] + down[:, None] + corners[0] - low - 0.5
        samples = [ndimage.map_coordinates(part[..., c].astype(np.float32), (places[..., 1], places[..., 0])) for c in range(3)]
        fine = np.stack(samples, axis=-1).round().clip(0, 255).astype(np.uint8)
        sharp = Image.fromarray(fine).reduce(2)
        outside = self._distance_outside(frame, pixels)
        if not outside.any():
            return sharp
        picture = np.asarray(sharp, dtype=np.float32)
        blurred = ndimage.gaussian_filter(picture, (BLUR * pixels, BLUR * pixels, 0), mode="nearest")
        share = np.clip(outside / BLUR_RAMP, 0, 1)[..., None]
        return Image.fromarray((picture + (blurred - picture) * share).round().clip(0, 255).astype(np.uint8))

    def reduced(self, size: tuple[int, int]) -> Image.Image:
        """The whole photo, resized to the width and height in `size`."""
        return self._level(max(0, int(math.log2(max(self.size[0] / size[0], 1))))).resize(size, Image.Resampling.BILINEAR)

    def share_inside(self, frame: Frame) -> float:
        """Share of the frame's area that is inside the photo, in [0, 1]."""
        return float((self._distance_outside(frame, 64) == 0).mean())

    def share_covered(self, places: np.ndarray) -> float:
        """Share of the points [n, 2] (x and y in pixels) that are inside the photo, in [0, 1]."""
        return float(((places >= 0) & (places <= self.size)).all(axis=1).mean())

    def _distance_outside(self, frame: Frame, pixels: int) -> np.ndarray:
        """Distance [pixels, pixels] of each pixel of the cut frame from the photo, in sides of the frame; 0 inside."""
        steps = (np.arange(pixels) + 0.5) / pixels
        places = frame.to_photo(np.stack(np.meshgrid(steps, steps), axis=-1))
        beyond = np.maximum(np.maximum(-places, places - self.size), 0)
        return np.hypot(beyond[..., 0], beyond[..., 1]) / frame.size

    def _copy_for(self, frame: Frame, pixels: int) -> tuple[Image.Image, np.ndarray]:
        """The smallest copy with enough detail for a cut of `pixels` a side, and the frame's corners [4, 2] in its pixels."""
        image = self._level(max(0, int(math.log2(max(frame.size / pixels, 1)))))
        return image, frame.corners() * 0.5 ** self._levels.index(image)

    def _level(self, level: int) -> Image.Image:
        """The photo at 1/2^level of its size, or the smallest possible copy."""
        while len(self._levels) <= level and min(self._levels[-1].size) >= 2:
            self._levels.append(self._levels[-1].reduce(2))
        return self._levels[min(level, len(self._levels) - 1)]


def read_photo(path: Path) -> Photo:
    """Read the photo in a file.  Handles CMYK, 16-bit grey, transparency and EXIF orientation.

    Raises UserError with the reason if it cannot be used: not a picture, HEIC without a reader, animated, damaged, too small or
    too large.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB; save the photo at a smaller size")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"it cannot be read: {error.strerror}") from None
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        _register_heif_reader()
    _check_header(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_MEGAPIXELS is the limit here
        try:
            return Photo(decode_image(data))
        except UserError as error:
            raise UserError(f"it is damaged ({error}); get the file again, or save it as JPEG or PNG") from None


def _register_heif_reader() -> None:
    try:
        import pillow_heif
    except ImportError:
        raise UserError("HEIC photos need a reader: pip install pillow-heif, or save the photo as JPEG") from None
    pillow_heif.register_heif_opener()


def _check_header(data: bytes) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise UserError(f"it has more than {MAX_MEGAPIXELS} megapixels; make it smaller first") from None
    except Exception:  # decoders raise all kinds of exceptions for damaged files
        raise UserError("it is not a picture that can be read, or is damaged; save it as 8-bit JPEG or PNG") from None
    with file:
        if file.width * file.height > MAX_MEGAPIXELS * 1_000_000:
            megapixels = file.width * file.height / 1_000_000
            raise UserError(f"it has {megapixels:.0f} megapixels, over {MAX_MEGAPIXELS}; make it smaller first")
        if min(file.size) < MIN_SIDE:
            raise UserError(f"it is {file.width}x{file.height} pixels, too small for a face; use a larger photo")
        frames = getattr(file, "n_frames", 1)
        if frames > 1 and file.format != "MPO":  # phones store a second view in an MPO
            raise UserError(f"it is animated or has several pages ({frames}); save the one you want as JPEG or PNG")


def _mirrored(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part [high - low] of an infinite plane tiled with an image [H, W, 3] and its mirror images."""
    indices = []
    for axis, length in ((1, image.shape[0]), (0, image.shape[1])):
        places = np.arange(low[axis], high[axis]) % (2 * length)
        indices.append(np.where(places < length, places, 2 * length - 1 - places))
    return image[np.ix_(*indices)]
