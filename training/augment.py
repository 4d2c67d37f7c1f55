"""Adaptive discriminator augmentation for heads (Karras 2020, "Training GANs with limited data", appendices B and C).

The picture, the raw picture and the mask of a sample are augmented together.  Its geometry is drawn once, in normalised
coordinates, and applied to each at its own resolution.  Its colours change in both pictures and leave the mask alone.  If the
sample is mirrored, so is its camera label.

Two things differ from the paper.  Flips, quarter turns and whole-pixel shifts are separate lookups, so that they move pixels
without filtering them.  And anything outside the frame is filled by mirroring the coordinates at the frame's edge, at any
distance and at the same position in all resolutions, so that no padding is needed.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from camera_utils import flip_label
from torch_utils import persistence
from torch_utils.ops import grid_sample_gradfix, upfirdn2d

COLOUR_PICTURES = ("image", "image_raw")
PICTURES = (*COLOUR_PICTURES, "image_mask")

# The strengths given in appendix B of the paper.
XINT_MAX = 0.125  # of the picture's size
SCALE_STD = 0.2  # in powers of 2
ANISO_STD = 0.2  # in powers of 2
XFRAC_STD = 0.125  # of the picture's size
BRIGHTNESS_STD = 0.2  # for values in [-1, 1]
CONTRAST_STD = 0.5  # in powers of 2
SATURATION_STD = 1.0  # in powers of 2

# Half of a symmetric low-pass.  Up- and down-sampling by 2 with it cancel to 0.3% (Johnston 1980, filter 12B).
# The paper's sym6 cancels exactly but is off centre, so it would shift raw pictures relative to the large ones.
LOWPASS_HALF = (-0.003809699, 0.01885659, -0.002710326, -0.08469594, 0.08846992, 0.4843894)


def adjusted_p(p: torch.Tensor, sign_mean: float, target: float, num_images: int, kimg: float) -> torch.Tensor:
    """Update the augmentation probability `p` (a scalar) after `num_images` more real images (appendix C).

    `sign_mean` is the mean sign of D's logits of real images, in [-1, 1].  If it is above `target`, D overfits and p rises; if
    it is below, p falls.  At this speed p would take `kimg` thousand images from 0 to 1.  The result is in [0, 1].  For nan
    (nothing was measured), p is unchanged.
    """
    direction = (sign_mean > target) - (sign_mean < target)
    return (p + direction * num_images / (kimg * 1000)).clamp(0, 1)


class Affine(NamedTuple):
    """The map x -> matrix x + offset of each sample, with matrix [N, d, d] and offset [N, d]."""

    matrix: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def identity(cls, batch: int, dims: int, device: torch.device | str = "cpu") -> "Affine":
        return cls(torch.eye(dims, device=device).repeat(batch, 1, 1), torch.zeros([batch, dims], device=device))

    def after(self, matrix: torch.Tensor | None = None, offset: torch.Tensor | None = None) -> "Affine":
        """The map that first applies the given matrix and offset, then this one."""
        moved = self.offset if offset is None else self.offset + (self.matrix @ offset[:, :, None])[:, :, 0]
        return Affine(self.matrix if matrix is None else self.matrix @ matrix, moved)

    def then(self, matrix: torch.Tensor) -> "Affine":
        """The map that first applies this one, then the given matrix."""
        return Affine(matrix @ self.matrix, (matrix @ self.offset[:, :, None])[:, :, 0])

    def changes(self) -> torch.Tensor:
        """A mask [N, 1, 1, 1] of the samples for which this is not the identity."""
        eye = torch.eye(self.matrix.shape[-1], device=self.matrix.device)
        return ((self.matrix != eye).any(dim=2) | (self.offset != 0)).any(dim=1)[:, None, None, None]

    def mirrors(self) -> torch.Tensor:
        """A mask [N, 1] of the samples whose orientation this reverses.  For maps of the plane only."""
        (a, b), (c, d) = (row.unbind(dim=-1) for row in self.matrix.unbind(dim=-2))
        return (a * d < b * c)[:, None]


def move_pixels(x: torch.Tensor, source: Affine) -> torch.Tensor:
    """Replace each pixel of pictures [N, C, H, H] by the one nearest to where `source` maps its centre.

    `source` maps normalised coordinates (x right, y down, [-1, 1] across the frame) of the result to those of `x`.
    """
    size = x.shape[-1]
    column, row = ((_source_coordinates(source, size) + 1) * (size / 2)).long().clamp(0, size - 1).unbind(dim=-1)
    index = (row * size + column).reshape(len(x), 1, -1).expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, index).reshape(x.shape)


def warp(x: torch.Tensor, source: Affine, lowpass: torch.Tensor) -> torch.Tensor:
    """Sample pictures [N, C, H, H] where `source` maps the centres of pixels, as in `move_pixels`.

    To avoid aliasing, pictures are up-sampled by 2 with `lowpass` (symmetric, even length), sampled bilinearly at twice the
    resolution, and down-sampled again.  Values may overshoot slightly at sharp edges, even in masks.
    """
    size = x.shape[-1]
    margin = len(lowpass) // 2  # pixels that the filter needs around the frame, at either resolution
    around = torch.arange(-margin, size + margin, device=x.device)
    around = torch.minimum(around.remainder(2 * size), (-1 - around).remainder(2 * size))  # mirrored at the edges
    large = upfirdn2d.upsample2d(x.index_select(2, around).index_select(3, around), lowpass, padding=-2 * margin)
    # Beyond the outermost centres, bilinear lookup with mirroring is constant.
    limit = 1 - 1 / (2 * size)
    grid = _source_coordinates(source, 2 * size, margin).clamp(-limit, limit)
    large = grid_sample_gradfix.grid_sample(large, grid.to(x.dtype))
    return upfirdn2d.downsample2d(large, lowpass, padding=-margin)


def recolour(x: torch.Tensor, colour: Affine) -> torch.Tensor:
    """Apply `colour` to the RGB of every pixel of pictures [N, 3, H, W]."""
    return (colour.matrix.to(x.dtype) @ x.flatten(2) + colour.offset.to(x.dtype)[:, :, None]).reshape(x.shape)


def _source_coordinates(source: Affine, size: int, margin: int = 0) -> torch.Tensor:
    """Where `source` maps the centres of `size` pixels, and of `margin` more on each side: [N, h, h, 2] in [-1, 1].

    Coordinates outside the frame are mirrored at its edges as often as necessary.
    """
    centres = (2 * torch.arange(-margin, size + margin, device=source.matrix.device) + 1) / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    where = torch.stack([x, y], dim=-1)[None] @ source.matrix.mT[:, None] + source.offset[:, None, None]
    return 1 - ((where + 1).remainder(4) - 2).abs()


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [N, 2, 2] by `angle` [N] in radians, from x toward y."""
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).reshape(-1, 2, 2)


@persistence.persistent_class
class AugmentPipe(torch.nn.Module):
    """Random augmentations of the discriminator's input, each with probability `p` (a buffer, initially 1) times a multiplier.

    The multipliers are probabilities, where 0 disables a transform: `xflip`, `rotate90`, `xint` (shifts by whole pixels);
    `scale`, `rotate`, `aniso`, `xfrac` (arbitrary shifts); `brightness`, `contrast`, `lumaflip`, `hue`, `saturation`.
    Pictures can be differentiated twice.  `forward` never waits for a GPU, and returns its input unchanged for p = 0.

    The defaults are those used in training: the paper's 'bgc' (blits, geometry, colour).

    Mirroring is the only transform that also changes the label.  A mirrored head with its old label is a plausible picture of a
    wrong pose, which could leak unnoticed into a generator that ignores its camera.  With the mirrored label it is what
    `--mirror` would show.  Rotations, zooms and shifts could also be expressed in a label, as roll, focal length and principal
    point, but need not be.  With the old label, their pictures are not what a camera of the data set sees; and by the paper's
    argument they do not leak while p is well below 1, since the unchanged picture remains the most likely one.  Mirroring comes
    first, so that everything after it is the same for both kinds of samples.
    """

    def __init__(
        self,
        xflip: float = 1,
        rotate90: float = 1,
        xint: float = 1,
        scale: float = 1,
        rotate: float = 1,
        aniso: float = 1,
        xfrac: float = 1,
        brightness: float = 1,
        contrast: float = 1,
        lumaflip: float = 1,
        hue: float = 1,
        saturation: float = 1,
    ):
        super().__init__()
        self.xflip, self.rotate90, self.xint = xflip, rotate90, xint
        self.scale, self.rotate, self.aniso, self.xfrac = scale, rotate, aniso, xfrac
        self.brightness, self.contrast, self.lumaflip = brightness, contrast, lumaflip
        self.hue, self.saturation = hue, saturation
        self.has_blits = any((xflip, rotate90, xint))
        self.has_geometry = any((scale, rotate, aniso, xfrac))
        self.has_colour = any((brightness, contrast, lumaflip, hue, saturation))
        self.register_buffer("p", torch.ones([]))
        self.register_buffer("lowpass", upfirdn2d.setup_filter([*LOWPASS_HALF, *reversed(LOWPASS_HALF)]))

    def forward(
        self, pictures: Mapping[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Augment `image` [N, 3, H, H], `image_raw` [N, 3, h, h] and `image_mask` [N, 1, h, h] alike.  Each may be absent.

        Returns the pictures and their labels [N, 25], mirrored where the pictures are.  Other entries, such as a depth, would
        no longer match the pictures and are left out.
        """
        pictures = {name: pictures[name] for name in PICTURES if name in pictures}
        batch = len(labels)
        coarsest = min(x.shape[-1] for x in pictures.values())
        blit, geometry, colour = self.draw_blit(batch, coarsest), self.draw_geometry(batch), self.draw_colour(batch)
        for name, x in pictures.items():
            if self.has_blits:
                x = torch.where(blit.changes(), move_pixels(x, blit), x)
            if self.has_geometry:
                x = torch.where(geometry.changes(), warp(x, geometry, self.lowpass), x)
            if self.has_colour and name in COLOUR_PICTURES:
                x = torch.where(colour.changes(), recolour(x, colour), x)
            pictures[name] = x
        return pictures, torch.where(blit.mirrors(), flip_label(labels), labels)

    # Random draws.  Those of geometry compose the map from a pixel of the result back to its source, so each further transform
    # of the picture is inverted first.

    def draw_blit(self, batch: int, size: int) -> Affine:
        """Flips, quarter turns and whole-pixel shifts of pictures of `size`, for `move_pixels`."""
        source = Affine.identity(batch, 2, self.p.device)
        if self.xflip:
            flip = self._choose(self._uniform(batch).mul(2).floor(), self.p * self.xflip, neutral=0)
            source = source.after(torch.stack([1 - 2 * flip, torch.ones_like(flip)], dim=-1).diag_embed())
        if self.rotate90:
            turns = self._choose(self._uniform(batch).mul(4).floor(), self.p * self.rotate90, neutral=0)
            source = source.after(_rotation(turns * (math.pi / 2)).round())
        if self.xint:
            pixels = ((self._uniform(batch, 2) * 2 - 1) * (XINT_MAX * size)).round()
            source = source.after(offset=-2 / size * self._choose(pixels, self.p * self.xint, neutral=0))
        return source

    def draw_geometry(self, batch: int) -> Affine:
        """Scaling, rotation, stretching and shifts, for `warp`."""
        source = Affine.identity(batch, 2, self.p.device)
        # There are two rotations, before and after stretching.  The probability that at least one happens must be p.
        probability = 1 - (1 - self.p * self.rotate).sqrt()

        def rotate(source: Affine) -> Affine:
            angle = (self._uniform(batch) * 2 - 1) * math.pi
            return source.after(_rotation(self._choose(-angle, probability, neutral=0)))

        if self.scale:
            factor = self._choose(torch.exp2(self._normal(batch) * SCALE_STD), self.p * self.scale, neutral=1)
            source = source.after(torch.stack([1 / factor, 1 / factor], dim=-1).diag_embed())
        if self.rotate:
            source = rotate(source)
        if self.aniso:
            factor = self._choose(torch.exp2(self._normal(batch) * ANISO_STD), self.p * self.aniso, neutral=1)
            source = source.after(torch.stack([1 / factor, factor], dim=-1).diag_embed())
        if self.rotate:
            source = rotate(source)
        if self.xfrac:
            shift = self._choose(self._normal(batch, 2) * XFRAC_STD, self.p * self.xfrac, neutral=0)
            source = source.after(offset=-2 * shift)  # the frame is 2 wide
        return source

    def draw_colour(self, batch: int) -> Affine:
        """Brightness, contrast, inverted luma, hue and saturation, for `recolour`."""
        device = self.p.device
        colour = Affine.identity(batch, 3, device)
        eye = torch.eye(3, device=device)
        grey = torch.full([3, 3], 1 / math.sqrt(3), device=device)  # the unit vector of luma, three times
        luma = grey.square()  # the projection onto it
        turn = torch.linalg.cross(grey, eye)  # the rotation about it (the cross product in Rodrigues' formula)
        if self.brightness:
            shift = self._choose(self._normal(batch) * BRIGHTNESS_STD, self.p * self.brightness, neutral=0)
            colour = colour._replace(offset=colour.offset + shift[:, None])
        if self.contrast:
            factor = self._choose(torch.exp2(self._normal(batch) * CONTRAST_STD), self.p * self.contrast, neutral=1)
            colour = colour.then(factor[:, None, None] * eye)
        if self.lumaflip:
            flip = self._choose(self._uniform(batch).mul(2).floor(), self.p * self.lumaflip, neutral=0)[:, None, None]
            colour = colour.then(eye - 2 * flip * luma)
        if self.hue:
            angle = self._choose((self._uniform(batch) * 2 - 1) * math.pi, self.p * self.hue, neutral=0)[:, None, None]
            colour = colour.then(angle.cos() * eye + (1 - angle.cos()) * luma + angle.sin() * turn)
        if self.saturation:
            factor = self._choose(torch.exp2(self._normal(batch) * SATURATION_STD), self.p * self.saturation, neutral=1)
            factor = factor[:, None, None]
            colour = colour.then(factor * eye + (1 - factor) * luma)
        return colour

    def _choose(self, values: torch.Tensor, probability: torch.Tensor, neutral: float) -> torch.Tensor:
        """Take `values` [N, ...] in a random share `probability` of the samples, and `neutral` in the others."""
        chosen = self._uniform(len(values)) < probability
        return torch.where(chosen.reshape(-1, *[1] * (values.ndim - 1)), values, torch.full_like(values, neutral))

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, device=self.p.device)

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.p.device)
