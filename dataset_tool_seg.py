"""Makes a data set for training from photos and head masks, or checks one."""

import io
import json
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click
from PIL import Image

from camera_utils import LABEL_DIM, is_in_pixels, pixels_to_widths
from data_tools import report
from data_tools.pairs import Pair, Tally, Unusable, load_pair, map_in_order, mask_classes, pair_by_name
from dnnlib import UserError, cli
from dnnlib.archive import LABELS_NAME, Archive, ArchiveWriter, read_labels
from dnnlib.util import is_power_of_two
from training.images import JPEG_QUALITY

MIN_SIZE, MAX_SIZE = 4, 4096  # side in pixels: the networks start at 4, and training reads whole pictures
TRANSFORMS = ("center-crop", "center-crop-wide")
CHECK_OPTIONS = {"check", "img_source", "seg_source", "sheet"}
PICTURES_PER_FOLDER = 1000
CLASSES_SHOWN = 12  # numbers of a class map that an error lists


@dataclass(frozen=True)
class Framing:
    """The part of a photo to keep, and its size in pixels.  With `size` None, square photos are kept as they are."""

    size: tuple[int, int] | None = None
    crop: bool = False  # crop to the proportions of `size`; otherwise the whole photo is squeezed into it

    def apply(self, image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
        """Crop the image (RGB) and its mask (L, of any size) alike, resize both to `size`, and put them on a black square.

        The image is resized with Lanczos, the mask with a triangle filter, whose weights are positive so that it cannot ring.
        """
        size = self.size or image.size
        box = _centred_box(image.size, size) if self.crop else (0, 0, *image.size)
        scale = (mask.width / image.width, mask.height / image.height) * 2
        left, top, right, bottom = (edge * factor for edge, factor in zip(box, scale))
        framed_image = image.resize(size, Image.Resampling.LANCZOS, box)
        framed_mask = mask.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))
        return _on_black_square(framed_image), _on_black_square(framed_mask)


@dataclass(frozen=True)
class Output:
    """How the pictures are written."""

    ext: str  # of images; masks are always PNG, because JPEG blurs their edges
    use_basename: bool

    def stem(self, index: int, source_name: str) -> str:
        """The name without extension that an image and its mask share."""
        if self.use_basename:
            return PurePosixPath(source_name).stem
        return f"{index // PICTURES_PER_FOLDER:05d}/img{index:08d}"


def convert(
    images: Archive,
    masks: Archive,
    img_dest: Path,
    seg_dest: Path,
    framing: Framing,
    output: Output,
    max_images: int | None = None,
) -> list[str]:
    """Write the pairs of the two sources with the labels of the first, and return the lines of a report.

    Pairs that cannot be used are left out and counted.  Raises UserError if none remain; then nothing is written.
    """
    left_out, mended = Tally(), Tally()
    labels = read_labels(images)
    pairs = _usable_pairs(images, masks, labels, left_out)
    if output.use_basename:
        _refuse_clashes(pairs)
    written: list[tuple[str, str]] = []  # (new name, source name)
    with ArchiveWriter(img_dest) as img_writer, ArchiveWriter(seg_dest) as seg_writer:
        for ready in _ready_pairs(images, masks, pairs, framing, output.ext, left_out, mended, max_images):
            name = output.stem(len(written), ready.pair.image)
            img_writer.write(f"{name}.{output.ext}", ready.image)
            seg_writer.write(f"{name}.png", ready.mask)
            written.append((f"{name}.{output.ext}", ready.pair.image))
            if labels is not None:
                labels[ready.pair.image] = _in_picture_widths(labels[ready.pair.image], ready, mended)
            size = ready.size
        if not written:
            raise UserError("nothing to write: " + ("; ".join(left_out.lines()) or f"no pictures in {images.path}"))
        entries = None if labels is None else [[name, labels[source]] for name, source in written]
        img_writer.write(LABELS_NAME, json.dumps({"labels": entries}).encode())
    kept = "without labels, which training needs" if labels is None else "with their labels"
    report = [f"wrote {len(written)} pairs of {size[0]}x{size[1]} to {img_dest} and {seg_dest}, {kept}"]
    report += [f"fixed {line}" for line in mended.lines()]
    return report + [f"left out {left_out.total}"] + [f"  {line}" for line in left_out.lines()]


def _usable_pairs(images: Archive, masks: Archive, labels: dict[str, list[float]] | None, left_out: Tally) -> list[Pair]:
    for archive in (images, masks):
        for name in sorted({*archive.names} - {*archive.image_names(), LABELS_NAME}):
            left_out.add("file that is not a picture", name)
    pairs = pair_by_name(images, masks, left_out)
    if labels is None:
        return pairs
    for name in sorted(labels.keys() - {*images.image_names()}):
        left_out.add("label without an image", name)
    usable = []
    for pair in pairs:
        label = labels.get(pair.image)
        if label is None:
            left_out.add("image without a label", pair.image)
        elif len(label) != LABEL_DIM:
            left_out.add(f"image whose label is not {LABEL_DIM} numbers", pair.image)
        elif not all(map(math.isfinite, label)):
            left_out.add("image whose label holds NaN or infinity", pair.image)
        else:
            usable.append(pair)
    return usable


def _in_picture_widths(label: list[float], ready: "_Ready", mended: Tally) -> list[float]:
    """Convert intrinsics from pixels of the source to picture widths.  Raises UserError if the photo is not square."""
    if not is_in_pixels(label):
        return label
    width, height = ready.source_size
    if width != height:
        raise UserError(
            f"the label of {ready.pair.image} has intrinsics in pixels (focal length {label[16]:g}) and the photo is "
            f"{width}x{height}: crop photos to squares and give intrinsics in picture widths"
        )
    mended.add("intrinsics in pixels, divided by the picture's width", ready.pair.image)
    return pixels_to_widths(label, width)


def _refuse_clashes(pairs: list[Pair]) -> None:
    owner: dict[str, str] = {}
    for pair in pairs:
        other = owner.setdefault(PurePosixPath(pair.image).stem, pair.image)
        if other != pair.image:
            raise UserError(f"{other} and {pair.image} would get the same name; leave --use_basename out")


@dataclass(frozen=True)
class _Ready:
    """A pair in the form in which it will be written."""

    pair: Pair
    source_size: tuple[int, int]  # pixels
    size: tuple[int, int]
    image: bytes
    mask: bytes
    scaled: bool  # the mask contained 0 and 1 instead of 0 and 255


def _ready_pairs(
    images: Archive,
    masks: Archive,
    pairs: list[Pair],
    framing: Framing,
    ext: str,
    left_out: Tally,
    mended: Tally,
    max_images: int | None,
) -> Iterator[_Ready]:
    """Yield at most `max_images` resized and encoded pairs, all of one size.  The others are counted in `left_out`.

    Masks of 0 and 1 are scaled and counted in `mended`.  Raises UserError for maps of other classes.
    """

    def prepare(pair: Pair) -> _Ready | Unusable:
        try:
            image, mask = load_pair(images, masks, pair)
        except Unusable as reason:
            return reason
        if framing.size is None:
            _check_size(pair.image, image.size)
        classes = mask_classes(mask)
        if classes and classes[-1] > 1:
            raise UserError(
                f"{pair.mask} is a map of classes ({_shortened(classes)}), not a mask: "
                "write 255 where the head is, and 0 elsewhere"
            )
        if classes:
            mask = mask.point(lambda level: 255 * level)
        source_size = image.size
        image, mask = framing.apply(image, mask)
        return _Ready(pair, source_size, image.size, _encode(image, ext), _encode(mask, "png"), bool(classes))

    count, first = 0, None
    with cli.progress(total=min(len(pairs), max_images or len(pairs)), unit="image") as bar:
        for seen, ready in enumerate(map_in_order(prepare, pairs), start=1):
            if isinstance(ready, Unusable):
                left_out.add(ready.kind, ready.example)
                bar.total = min(bar.total, len(pairs) - (seen - count))
                continue
            first = first or ready
            if ready.size != first.size:
                widths = f"{ready.pair.image} is {ready.size[0]} pixels wide and {first.pair.image} {first.size[0]}"
                raise UserError(f"{widths}; give --resolution to make them alike")
            if ready.scaled:
                mended.add("mask of 0 and 1, scaled to 0 and 255", ready.pair.mask)
            yield ready
            bar.update()
            count += 1
            if count == max_images:
                left_out.add("pair beyond --max-images", count=len(pairs) - seen)
                break


def _shortened(classes: list[int]) -> str:
    shown = ", ".join(map(str, classes[:CLASSES_SHOWN]))
    return f"{shown}, ... up to {classes[-1]}" if len(classes) > CLASSES_SHOWN else shown


def _check_size(name: str, size: tuple[int, int]) -> None:
    if size[0] != size[1] or not _is_allowed_size(size[0]):
        raise UserError(f"{name} is {size[0]}x{size[1]}, not a square power of two; give --resolution, such as 512x512")


def _is_allowed_size(pixels: int) -> bool:
    return MIN_SIZE <= pixels <= MAX_SIZE and is_power_of_two(pixels)


def _centred_box(size: tuple[int, int], proportions: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred box (left, top, right, bottom) of these proportions, in whole pixels."""
    width = min(size[0], max(1, round(size[1] * proportions[0] / proportions[1])))
    height = min(size[1], max(1, round(size[0] * proportions[1] / proportions[0])))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _on_black_square(picture: Image.Image) -> Image.Image:
    if picture.width == picture.height:
        return picture
    square = Image.new(picture.mode, (picture.width, picture.width))
    square.paste(picture, (0, (picture.width - picture.height) // 2))
    return square


def _encode(picture: Image.Image, ext: str) -> bytes:
    buffer = io.BytesIO()
    if ext == "jpg":
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        picture.save(buffer, "PNG", compress_level=1)  # fast to write and to read, and half the size of level 0
    return buffer.getvalue()


def _framing(resolution: tuple[int, int] | None, transform: str | None) -> Framing:
    if resolution is None:
        if transform is not None:
            raise click.UsageError(f"--transform {transform} needs --resolution")
        return Framing()
    width, height = resolution
    wide = transform == "center-crop-wide"
    if not _is_allowed_size(width) or (height > width if wide else height != width):
        height_rule = "at most the width" if wide else "the same"
        rule = f"the width must be a power of two from {MIN_SIZE} to {MAX_SIZE}, the height {height_rule}"
        raise click.UsageError(f"--resolution {width}x{height}: {rule}")
    return Framing(resolution, crop=transform is not None)


def _destinations(ctx: click.Context) -> tuple[Path, Path]:
    """Check --img_dest and --seg_dest: both must be given, and they must not overlap each other or the sources."""
    for name in ("img_dest", "seg_dest"):
        if ctx.params[name] is None:
            raise click.UsageError(f"--{name} is missing (or --check, to look at a data set without writing one)")
    img_dest, seg_dest = ctx.params["img_dest"], ctx.params["seg_dest"]
    img, seg = img_dest.resolve(), seg_dest.resolve()
    if img.is_relative_to(seg) or seg.is_relative_to(img):
        raise click.UsageError("--img_dest and --seg_dest must be two places, neither inside the other")
    if {img, seg} & {ctx.params[name].resolve() for name in ("img_source", "seg_source")}:
        raise click.UsageError("a destination must not be a source; choose another name")
    return img_dest, seg_dest


def _check_command(ctx: click.Context, images: Archive, masks: Archive, sheet: Path | None) -> None:
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    extra = sorted(f"--{name}" for name in given - CHECK_OPTIONS)
    if extra:
        raise click.UsageError(f"--check writes no data set; leave out {', '.join(extra)}")
    sheet = sheet or Path(f"{images.path.resolve().stem}_check.png")
    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise click.UsageError(f"--sheet {sheet}: the name must end in .png or .jpg")
    lines, sound = report.check(images, masks, sheet)
    click.echo("\n".join(lines))
    if not sound:
        sys.exit(1)


PLACE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "DIR|ZIP"}


@cli.command()
@click.option("--img_source", required=True, help="Photos, with their labels in dataset.json.", **PLACE)
@click.option("--seg_source", required=True, help="Masks with the same names; extensions may differ.", **PLACE)
@click.option("--img_dest", help="Where to write images and labels; zips are not compressed.", **PLACE)
@click.option("--seg_dest", help="Where to write masks.", **PLACE)
@click.option("--resolution", type=cli.Pair(), help="Size of all pictures.  [default: as they are, if all have one size]")
@click.option("--transform", type=click.Choice(TRANSFORMS), metavar="|".join(TRANSFORMS), help="What to keep.  [default: all]")
@click.option("--max-images", type=click.IntRange(min=1), help="Write at most this many pairs.")
@click.option("--use_basename", type=bool, default=False, help="Keep names instead of 00000/img00000000.")
@click.option("--ext", type=click.Choice(["png", "jpg"]), default="png", help="Format of images; masks are always png.")
@click.option("--check", is_flag=True, help="Check a data set for faults instead of writing one.")
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Contact sheet of --check.  [default: IMG_SOURCE_check.png here]"
)
@click.pass_context
def main(
    ctx: click.Context,
    img_source: Path,
    seg_source: Path,
    img_dest: Path | None,
    seg_dest: Path | None,
    resolution: tuple[int, int] | None,
    transform: str | None,
    max_images: int | None,
    use_basename: bool,
    ext: str,
    check: bool,
    sheet: Path | None,
) -> None:
    """Make a data set for training from photos and head masks, or check one.

    Images and masks are paired by name.  Images become RGB, with black where they are transparent.  Masks become grey, with 255
    for the head: from their alpha, or else their luminance; masks of 0 and 1 are scaled.  Labels are kept unchanged, so they
    must be valid for the pictures that are written; only intrinsics in pixels of square photos are divided by the picture's
    width.  Images and masks that lack a counterpart or a label, or cannot be read, are left out and counted.

    --transform center-crop keeps the central square.  center-crop-wide keeps the central part with the proportions of
    --resolution, with black above and below.

    --check prints a report, draws a contact sheet that shows every camera, and exits with code 1 if it finds faults.

    \b
      python dataset_tool_seg.py --img_source photos/img --seg_source photos/seg \\
          --img_dest dataset/img.zip --seg_dest dataset/seg.zip --resolution 512x512
      python dataset_tool_seg.py --check --img_source dataset/img.zip --seg_source dataset/seg.zip
    """
    if img_source.resolve() == seg_source.resolve():
        raise click.UsageError("--img_source and --seg_source are the same")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photos are fine; the limit at twice the size stays
    with Archive(img_source) as images, Archive(seg_source) as masks:
        if check:
            _check_command(ctx, images, masks, sheet)
            return
        if sheet is not None:
            raise click.UsageError("--sheet only works together with --check")
        framing = _framing(resolution, transform)
        img_dest, seg_dest = _destinations(ctx)
        report = convert(images, masks, img_dest, seg_dest, framing, Output(ext, use_basename), max_images)
    click.echo("\n".join(report))


if __name__ == "__main__":
    main()
