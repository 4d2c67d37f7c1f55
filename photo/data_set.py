"""Makes a data set from photos: pictures, masks, labels and debug sheets, and a line of output for each photo."""

import contextlib
import io
import itertools
import json
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from dnnlib import UserError
from dnnlib.archive import LABELS_NAME, Archive, ArchiveWriter

from .faces import FaceFinder
from .person_mask import PersonSegmenter
from .photograph import read_photo
from .prepare import HandPose, PreparedHead, prepare_photo
from .sheet import draw_debug_sheet

HEIF_SUFFIXES = (".heic", ".heif")  # these are photos too, although Pillow alone cannot read them


def list_photos(source: Path) -> dict[str, Path]:
    """Photos by their name in the data set (without extension): one file, or all files in a folder and its subfolders."""
    if source.is_file():
        return {source.stem: source}
    archive = Archive(source)
    heif = [name for name in archive.names if PurePosixPath(name).suffix.lower() in HEIF_SUFFIXES]
    photos: dict[str, Path] = {}
    for file in sorted({*archive.image_names(), *heif}):
        name = PurePosixPath(file)
        stem = str(name.with_suffix(""))
        photos[stem if stem not in photos else _free(f"{stem}-{name.suffix[1:]}", photos)] = source / file
    if not photos:
        raise UserError(f"no photos in {source}; give a photo or a folder of them")
    return photos


class DataSetWriter:
    """Writes heads to DEST/img (with their labels), DEST/seg and, with `debug`, DEST/debug.  Writes everything or nothing."""

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
        """Add a head.  `sheet` is its debug sheet [H, W, 3]."""
        self._images.write(f"{name}.png", _png(head.image))
        self._masks.write(f"{name}.png", _png(head.mask))
        if self._sheets is not None and sheet is not None:
            self._sheets.write(f"{name}.png", _png(Image.fromarray(sheet)))
        self.labels.append((f"{name}.png", [round(number, 6) for number in head.label.tolist()]))


def prepare_all(
    photos: dict[str, Path],
    pose: HandPose | None,
    models: dict[str, Path | None],
    writer: DataSetWriter,
    debug: bool,
    **options: Any,
) -> Iterator[str]:
    """Process the photos one by one.  Yields a line for each head written, and for each photo or face left out.

    Raises UserError if no photo could be used; for a single photo, the error gives the reason.
    """
    rejected: list[str] = []
    names = set(photos)
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
                    head_name = name if len(result.heads) == 1 else _free(f"{name}-{number}", names)
                    names.add(head_name)
                    writer.write(head_name, head, draw_debug_sheet(photo, head, head_name) if debug else None)
                    yield "{}: yaw {:.1f}, pitch {:.1f}, roll {:.1f}".format(head_name, *head.view.angles)
            yield ""
    if not writer.labels and len(rejected) == 1:
        raise UserError(rejected[0])
    yield from (f"left out: {reason}" for reason in rejected)
    if not writer.labels:
        raise UserError(f"none of {len(photos)} photos could be used; nothing was written")


def _free(name: str, taken: Container[str]) -> str:
    """`name`, with a number appended if it is already taken."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
