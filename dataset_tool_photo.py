"""Crop anyone's photos as the training data is cropped, with the camera and the mask of each head."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
import numpy as np
from PIL import Image

from dnnlib import UserError, cli
from dnnlib.archive import LABELS_NAME, Archive, ArchiveWriter
from dnnlib.util import is_power_of_two
from photo.faces import FaceFinder
from photo.head_model import HEAD_POINTS
from photo.person_mask import PersonSegmenter
from photo.photograph import read_photo
from photo.prepare import ALL, LARGEST, MIN_FACE, HandPose, PreparedHead, prepare_photo
from photo.sheet import draw_debug_sheet

HEIF_SUFFIXES = (".heic", ".heif")  # photos too, though Pillow alone does not read them
PLAIN_POINTS = ("right-eye", "left-eye", "mouth")  # what points without names are
NUMBER = r"[-+]?\d+(?:\.\d+)?"
ONE_POINT = rf"(?:[a-z-]+=)?{NUMBER},{NUMBER}"


class Numbers(click.ParamType):
    """``a,b,c`` as a tuple of floats: at least `least` of them and at most as many as there are `names`."""

    def __init__(self, *names: str, least: int | None = None):
        self.name = ",".join(names)
        self._least, self._most = least or len(names), len(names)

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not self._least <= len(parts) <= self._most or not all(re.fullmatch(NUMBER, part) for part in parts):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return tuple(map(float, parts))


class Points(click.ParamType):
    """``NAME=x,y`` several times, or x,y of the three PLAIN_POINTS, as a dictionary by name."""

    name = "x,y,x,y,x,y"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, tuple[float, float]]:
        if isinstance(value, dict):
            return value
        if not re.fullmatch(rf"\s*{ONE_POINT}(?:[\s,;]+{ONE_POINT})*\s*", value):
            self.fail(f"{value!r} is not of the form x,y,x,y,x,y or NAME=x,y NAME=x,y", param, ctx)
        parts = [re.split("[=,]", text) for text in re.findall(ONE_POINT, value)]
        found = [(part[0] if len(part) == 3 else None, (float(part[-2]), float(part[-1]))) for part in parts]
        if all(name is None for name, _ in found):
            if len(found) != len(PLAIN_POINTS):
                self.fail(f"{len(found)} points; without names there are three: {', '.join(PLAIN_POINTS)}", param, ctx)
            return dict(zip(PLAIN_POINTS, (place for _, place in found)))
        points = dict(found)
        if len(points) < max(2, len(found)) or not points.keys() <= HEAD_POINTS.keys():
            self.fail(f"{value!r}: give two or more different points of {', '.join(HEAD_POINTS)}, each as NAME=x,y", param, ctx)
        return points


class WhichFace(click.ParamType):
    """LARGEST, ALL, or a number from 1."""

    name = "largest|all|N"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int:
        if value in (LARGEST, ALL) or isinstance(value, int):
            return value
        if not re.fullmatch(r"[1-9]\d{0,5}", value):
            self.fail(f"{value!r} is none of largest, all, and a number from 1 (the largest)", param, ctx)
        return int(value)


def list_photos(source: Path) -> dict[str, Path]:
    """Name in the data set, without extension -> file, for one photo or all those in a folder and its folders."""
    if source.is_file():
        return {source.stem: source}
    archive = Archive(source)
    heif = [name for name in archive.names if PurePosixPath(name).suffix.lower() in HEIF_SUFFIXES]
    photos: dict[str, Path] = {}
    for file in sorted({*archive.image_names(), *heif}):
        name = PurePosixPath(file)
        stem = str(name.with_suffix(""))
        photos[stem if stem not in photos else f"{stem}-{name.suffix[1:]}"] = source / file
    if not photos:
        raise UserError(f"no photos in {source}; give a photo or a folder of them")
    return photos


class DataSetWriter:
    """Writes heads to DEST/img (with their labels), DEST/seg and, if wanted, DEST/debug; all or nothing."""

    def __init__(self, dest: Path, debug: bool):
        self._dest, self._debug = dest, debug
        self._stack = contextlib.ExitStack()
        self.labels: list[tuple[str, list[float]]] = []

    def __enter__(self) -> "DataSetWriter":
        with self._stack:
            self._images, self._masks = (self._stack.enter_context(ArchiveWriter(self._dest / part)) for part in ("img", "seg"))
            self._sheets = self._stack.enter_context(ArchiveWriter(self._dest / "debug")) if self._debug else None
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> bool | None:
        if exc_info[0] is None:
            self._images.write(LABELS_NAME, json.dumps({"labels": self.labels}).encode())
        return self._stack.__exit__(*exc_info)

    def write(self, name: str, head: PreparedHead, sheet: np.ndarray | None) -> None:
        """Add a head; `sheet` is its debug sheet, [H, W, 3]."""
        self._images.write(f"{name}.png", _png(head.image))
        self._masks.write(f"{name}.png", _png(head.mask))
        if self._sheets is not None and sheet is not None:
            self._sheets.write(f"{name}.png", _png(Image.fromarray(sheet)))
        self.labels.append((f"{name}.png", [round(number, 6) for number in head.label.tolist()]))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def prepare_all(
    photos: dict[str, Path],
    pose: HandPose | None,
    models: dict[str, Path | None],
    writer: DataSetWriter,
    debug: bool,
    **options: Any,
) -> Iterator[str]:
    """Prepare photo by photo; yields a line for each head that is written, and for each photo or face that is not.

    UserError if none is, with the reason where there was one photo.
    """
    rejected: list[str] = []
    with contextlib.ExitStack() as stack:
        segmenter = stack.enter_context(PersonSegmenter(models["segmenter"]))
        finder = None if pose else stack.enter_context(FaceFinder(models["landmarker"]))
        for name, path in photos.items():
            try:
                photo = read_photo(path)
                result = prepare_photo(photo, segmenter, finder, pose, **options)
            except UserError as error:
                rejected.append(f"{path}: {error}")
            else:
                rejected += [f"{path}: {reason}" for reason in result.rejected]
                yield from (f"{path}: {note}" for note in result.notes)
                for number, head in enumerate(result.heads, start=1):
                    head_name = name if len(result.heads) == 1 else f"{name}-{number}"
                    writer.write(head_name, head, draw_debug_sheet(photo, head, head_name) if debug else None)
                    yield "{}: yaw {:.1f}, pitch {:.1f}, roll {:.1f}".format(head_name, *head.view.angles)
            yield ""
    if not writer.labels and len(rejected) == 1:
        raise UserError(rejected[0])
    yield from (f"left out: {reason}" for reason in rejected)
    if not writer.labels:
        raise UserError(f"none of {len(photos)} photos could be used; nothing was written")


def _check_resolution(ctx: click.Context, param: click.Parameter, value: int) -> int:
    if not is_power_of_two(value):
        raise click.BadParameter(f"{value} is not a power of two, such as 256 or 512")
    return value


def _hand_pose(pose: tuple[float, ...] | None, points: dict | None, box: tuple[float, ...] | None) -> HandPose | None:
    if pose is None:
        if points or box:
            raise click.UsageError("--points and --box are of use with --pose yaw,pitch only")
        return None
    if (points is None) == (box is None):
        raise click.UsageError("--pose says how the head is turned; one of --points and --box must say where it is")
    yaw, pitch, roll = (*pose, 0.0)[:3]
    if abs(yaw) > 180 or abs(pitch) > 89 or abs(roll) > 180:
        raise click.UsageError("--pose is in degrees: yaw from -180 to 180, pitch from -89 to 89, roll from -180 to 180")
    if box and (box[2] <= box[0] or box[3] <= box[1]):
        raise click.UsageError("--box is left,top,right,bottom in pixels: the right and lower edge lie beyond the others")
    return HandPose((yaw, pitch, roll), points, box)


@cli.command()
@click.option(
    "--source", required=True, type=click.Path(exists=True, path_type=Path), metavar="PHOTO|DIR", help="What to crop."
)
@click.option("--dest", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where img/ and seg/ are made.")
@click.option(
    "--resolution", type=click.IntRange(32, 4096), callback=_check_resolution, default=512, help="Side of the pictures."
)
@click.option("--face", type=WhichFace(), default=LARGEST, help="Which faces of a photo; 2 is the second largest.")
@click.option("--min-face", type=click.IntRange(min=1), default=MIN_FACE, help="Leave out faces of fewer pixels.")
@click.option(
    "--landmarker", type=click.Path(path_type=Path), metavar="PATH", help="face_landmarker.task.  [default: found or fetched]"
)
@click.option(
    "--segmenter", type=click.Path(path_type=Path), metavar="PATH", help="selfie_segmenter.tflite.  [default: the same]"
)
@click.option(
    "--pose", type=Numbers("yaw", "pitch", "roll", least=2), help="How the head is turned, in degrees, where no face is seen."
)
@click.option("--points", type=Points(), help="With --pose: right eye, left eye and mouth in pixels; or named points.")
@click.option("--box", type=Numbers("left", "top", "right", "bottom"), help="With --pose: box round head and hair, in pixels.")
@click.option("--debug", type=bool, default=False, help="Draw what was found and made, in debug/.")
def main(
    source: Path,
    dest: Path,
    resolution: int,
    face: str | int,
    min_face: int,
    landmarker: Path | None,
    segmenter: Path | None,
    pose: tuple[float, ...] | None,
    points: dict[str, tuple[float, float]] | None,
    box: tuple[float, ...] | None,
    debug: bool,
) -> None:
    """Make a data set of anyone's photos: find the face, estimate its camera, crop, and cut out the person.

    DEST/img gets pictures and dataset.json, DEST/seg the masks; dataset_tool_seg.py, train.py and the inversion read them as
    they are.  Where the crop leaves the photo, the photo is mirrored and blurred.  Needs the package mediapipe.

    A head from behind or far from the side is shown by hand: --pose with --box (from the chin to the top of the hair), or with
    --points.  Without names the points are the person's right eye, left eye and mouth, or where they would be behind the head.
    Named ones are two or more of right-eye, left-eye, nose, mouth, chin, right-ear, left-ear, crown (the person's right and
    left).  Positive yaw: the face points to the left of the picture.

    \b
      python dataset_tool_photo.py --source me.jpg --dest me --debug true
      python dataset_tool_photo.py --source back.jpg --dest back --pose 170,0 --box 310,120,560,420
      python dataset_tool_photo.py --source back.jpg --dest back --pose 170,0 \\
          --points "left-ear=320,300 right-ear=540,296 crown=430,130"
    """
    hand_pose = _hand_pose(pose, points, box)
    photos = list_photos(source)
    if hand_pose and len(photos) > 1:
        raise UserError(f"--pose is for one photo, and {source} has {len(photos)}; give the photo itself")
    models = {"landmarker": landmarker, "segmenter": segmenter}
    options = {"which": face, "resolution": resolution, "min_face": min_face}
    with DataSetWriter(dest, debug) as writer, cli.progress(total=len(photos), unit="photo", leave=False) as bar:
        for line in prepare_all(photos, hand_pose, models, writer, debug, **options):
            if line:
                bar.write(line)
            else:
                bar.update()
    click.echo(f"wrote {len(writer.labels)} heads of {resolution}x{resolution} to {dest / 'img'} and {dest / 'seg'}")


if __name__ == "__main__":
    main()
