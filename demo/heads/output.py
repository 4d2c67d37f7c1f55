"""The output folder of a set of heads: its expected files, what is missing, and atomic completion of people.

    OUTDIR/options.json               the options that made it; written with the first person
    OUTDIR/img/00012/003.jpg          view 3 of person 12; img/dataset.json contains the labels of all
    OUTDIR/seg/00012/003.png          its soft mask
    OUTDIR/truth/00012/003.png        its depth (16 bits, see truth.py), and
    OUTDIR/truth/00012/head.ply       the person's surface in world units, both with --truth only
    OUTDIR/people/00012.json          the person's traits and cameras; written last, so it marks the person as complete
    OUTDIR/sheet.png                  some views of the first people

People are made in a hidden folder OUTDIR/.part-* and moved to their final place when they are complete.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.heads import truth
from demo.heads.portrait import Picture, Portrait, Sitting
from demo.heads.views import ViewPlan, ViewRanges, fixed_views, sample_views
from dnnlib import UserError
from dnnlib.archive import LABELS_NAME
from dnnlib.util import FileLock, atomic_path, make_output_dir
from training.images import save_image, tile

PART_PREFIX = ".part-"
JPEG_QUALITY = 90
MAX_IDENTITIES = 1_000_000  # a person's seed is seed · MAX_IDENTITIES + number, so sets with different seeds share nobody
CAMERA_STREAM = 100  # of the person's random numbers; the streams in person.py are smaller
OPTIONS_NAME, SHEET_NAME, PEOPLE_NAME, MESH_NAME = "options.json", "sheet.png", "people", "head.ply"
SHEET_PEOPLE, SHEET_VIEWS, SHEET_CELL = 8, 8, 192  # limits of rows, columns, and pixels of a cell
FOREIGN_SHOWN = 3


@dataclass(frozen=True)
class SetOptions:
    """Everything that determines the files of a set.  Only `identities` may grow later."""

    identities: int
    views: int
    resolution: int
    seed: int
    spp: int
    format: str  # of images: png or jpg
    truth: bool
    style: str | None
    ranges: ViewRanges | None  # None means fixed views

    def person_seed(self, number: int) -> int:
        """The seed of everything about person `number`."""
        return self.seed * MAX_IDENTITIES + number

    def plan(self, number: int) -> list[ViewPlan]:
        """The cameras of person `number`."""
        if self.ranges is None:
            return fixed_views(self.views)
        return sample_views(np.random.default_rng([self.person_seed(number), CAMERA_STREAM]), self.views, self.ranges)

    def view_names(self, number: int) -> list[str]:
        """``00012/003`` and so on: the names, without extension, of the person's views."""
        return [f"{number:05d}/{view:03d}" for view in range(self.views)]

    def files(self, number: int) -> list[str]:
        """The files of person `number`, relative to the set's folder."""
        names = self.view_names(number)
        files = [f"img/{name}.{self.format}" for name in names] + [f"seg/{name}.png" for name in names]
        if self.truth:
            files += [f"truth/{name}.png" for name in names] + [f"truth/{number:05d}/{MESH_NAME}"]
        return [*files, f"{PEOPLE_NAME}/{number:05d}.json"]

    @property
    def parts(self) -> list[str]:
        """The folders that contain one folder per person."""
        return ["img", "seg", *["truth"] * self.truth]

    def as_json(self) -> dict[str, Any]:
        """The content of options.json."""
        return json.loads(json.dumps(asdict(self)))  # tuples become lists


class HeadSet:
    """The folder of a set, locked while the block runs.  It must be new, empty, or made with the same options.

    Raises UserError if it was made with other options, contains files that do not belong to the set, or is in use by another
    process.
    """

    def __init__(self, folder: Path, options: SetOptions):
        self.folder, self.options = folder, options

    def __enter__(self) -> "HeadSet":
        self.folder = make_output_dir(self.folder)
        busy = f"another process renders to {self.folder}; wait for it, or choose another --outdir"
        with contextlib.ExitStack() as held:
            held.enter_context(FileLock(self.folder, busy))
            self._claim()
            self._held = held.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._held:
            shutil.rmtree(self.staging, ignore_errors=True)

    def is_complete(self, number: int) -> bool:
        """Whether all files of the person are in place."""
        return all((self.folder / name).is_file() for name in self.options.files(number))

    def missing(self) -> list[int]:
        """The people that have not been made yet."""
        return [number for number in range(self.options.identities) if not self.is_complete(number)]

    def adopt(self, number: int) -> None:
        """Move the files that `make_person` wrote for person `number` to their final place."""
        # options.json is written with the first person, so that other options can be chosen until then.
        _write_json(self.folder / OPTIONS_NAME, self.options.as_json())
        made = self.staging / f"{number:05d}"
        for part in self.options.parts:
            (self.folder / part).mkdir(exist_ok=True)
            (made / part).rename(self.folder / part / f"{number:05d}")
        (self.folder / PEOPLE_NAME).mkdir(exist_ok=True)
        (made / f"{PEOPLE_NAME}.json").rename(self.folder / PEOPLE_NAME / f"{number:05d}.json")
        made.rmdir()

    def finish(self) -> None:
        """Write dataset.json and the sheet for the complete people, and remove the files of all others."""
        self._discard_incomplete()
        people = [number for number in range(self.options.identities) if self.is_complete(number)]
        if people:
            labels = [entry for number in people for entry in self._labels(number)]
            _write_json(self.folder / "img" / LABELS_NAME, {"labels": labels})
            self._write_sheet(people[:SHEET_PEOPLE])

    def _claim(self) -> None:
        self._check_options()
        self._check_files()
        for left_over in self.folder.glob(f"{PART_PREFIX}*"):  # left by a run that was killed
            shutil.rmtree(left_over)
        self._discard_incomplete()
        # A new name each time, because processes of a killed run may still be writing to the old one.
        self.staging = Path(tempfile.mkdtemp(prefix=PART_PREFIX, dir=self.folder))

    def _discard_incomplete(self) -> None:
        for number in self.missing():
            (self.folder / PEOPLE_NAME / f"{number:05d}.json").unlink(missing_ok=True)
            for part in self.options.parts:
                shutil.rmtree(self.folder / part / f"{number:05d}", ignore_errors=True)

    def _check_options(self) -> None:
        path = self.folder / OPTIONS_NAME
        if not path.exists():
            return
        try:
            stored = dict(json.loads(path.read_text()))
            fits = stored.keys() == self.options.as_json().keys()
        except (OSError, ValueError, TypeError):
            fits = False
        if not fits:
            raise UserError(f"{path} does not describe a set of heads; choose a new or empty --outdir")
        changed = {name: (stored[name], new) for name, new in self.options.as_json().items() if stored[name] != new}
        if "identities" in changed and changed["identities"][0] < changed["identities"][1]:
            del changed["identities"]
        if changed:
            changes = "; ".join(f"{name} was {old}, is {new}" for name, (old, new) in changed.items())
            raise UserError(f"cannot continue in {self.folder} with other options: {changes}; choose another --outdir")

    def _check_files(self) -> None:
        """Refuse unknown files, because a set is passed on as a folder and its options must describe all of it."""
        expected = set()
        if (self.folder / OPTIONS_NAME).exists():
            expected = {OPTIONS_NAME, SHEET_NAME, f"img/{LABELS_NAME}"}
            expected.update(name for number in range(self.options.identities) for name in self.options.files(number))
        foreign = []
        for parent, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(parent).relative_to(self.folder)
            names = ((inside / name).as_posix() for name in sorted(files) if not name.startswith("."))
            foreign += [name for name in names if name not in expected]
        if foreign:
            named = ", ".join(foreign[:FOREIGN_SHOWN]) + ", ..." * (len(foreign) > FOREIGN_SHOWN)
            raise UserError(f"{self.folder} contains files that are not part of this set ({named}); choose an empty --outdir")

    def _labels(self, number: int) -> list[list[Any]]:
        views = json.loads((self.folder / PEOPLE_NAME / f"{number:05d}.json").read_text())["views"]
        return [[view["image"], view["label"]] for view in views]

    def _write_sheet(self, people: list[int]) -> None:
        views = np.unique(np.linspace(0, self.options.views - 1, min(SHEET_VIEWS, self.options.views)).round().astype(int))
        side = min(SHEET_CELL, self.options.resolution)
        cells = []
        for number in people:
            names = self.options.view_names(number)
            for view in views:
                with Image.open(self.folder / "img" / f"{names[view]}.{self.options.format}") as image:
                    cells.append(np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)))
        save_image(tile(np.stack(cells), len(views)), self.folder / SHEET_NAME)


def make_person(
    portray: Callable[[Sitting], Portrait], staging: Path, options: SetOptions, number: int, step: Callable[[], None]
) -> None:
    """Write the files of person `number` to `staging`, for `adopt` to move.  `step` is called after each view."""
    views = options.plan(number)
    portrait = portray(Sitting(options.person_seed(number), tuple(views), options.resolution, options.spp, options.style))
    made = staging / f"{number:05d}"
    shutil.rmtree(made, ignore_errors=True)  # left by a process that died
    for part in options.parts:
        (made / part).mkdir(parents=True)
    for view, picture in enumerate(portrait.pictures):
        _write_view(made, f"{view:03d}", options, picture)
        step()
    if options.truth:
        (made / "truth" / MESH_NAME).write_bytes(truth.ply_bytes(portrait.surface))
    cameras = [{"image": f"{name}.{options.format}", **asdict(plan)} for name, plan in zip(options.view_names(number), views)]
    person = {"person_seed": options.person_seed(number), "traits": _plain(portrait.traits), "views": cameras}
    _write_json(made / f"{PEOPLE_NAME}.json", person)


def _write_view(made: Path, name: str, options: SetOptions, picture: Picture) -> None:
    encoding = {"quality": JPEG_QUALITY} if options.format == "jpg" else {}
    Image.fromarray(picture.image).save(made / "img" / f"{name}.{options.format}", **encoding)
    Image.fromarray(picture.mask).save(made / "seg" / f"{name}.png", optimize=True)
    if options.truth:
        truth.depth_image(picture.depth).save(made / "truth" / f"{name}.png", optimize=True)


def _write_json(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")))


def _plain(value: Any) -> Any:
    """Convert traits to JSON: no arrays, and five digits, which is more than anyone can see."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}")
    return value.item() if isinstance(value, np.generic) else value
