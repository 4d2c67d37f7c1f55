"""Rows of numbers, one for each picture or head: computed by several processes, kept on disk, and taken up again.

What is computed for a number does not depend on who computes it or what was there before.
"""

import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dnnlib.cli import progress
from dnnlib.download import default_cache_dir
from dnnlib.util import atomic_path, make_output_dir
from torch_utils import distributed

Rows = dict[str, np.ndarray]  # name -> [N, ...], a row for each number


class Stopped(Exception):
    """Somebody wants the process to end; what was computed is kept, and the same call goes on there."""


def default_folder() -> Path:
    """Where rows are kept: a part of the folder of downloads."""
    return default_cache_dir() / "metrics"


class Store:
    """Rows in a folder, in a file for each run of `chunk` numbers.  All processes must make the same calls; the first keeps.

    `temporary` rows are to be removed by `clear` when what they were for is done.  Once ``stop()`` is true in any process,
    `rows` raises Stopped in all.
    """

    def __init__(self, folder: Path, chunk: int, temporary: bool = False, stop: Callable[[], bool] = lambda: False):
        self.folder = folder
        self.chunk = chunk
        self.temporary = temporary
        self.stop = stop

    def rows(self, numbers: np.ndarray, compute: Callable[[np.ndarray], Rows], names: Sequence[str], desc: str) -> Rows | None:
        """The rows called `names` of `numbers`, in their order, in the first process; None in others.

        ``compute(numbers)`` gives them all for a few numbers at a time, where they are not there yet.
        """
        leader = distributed.get_rank() == 0
        known = self._read(numbers, names) if leader else {}
        missing = distributed.broadcast_object(self._missing(numbers, known) if leader else None)
        shares = distributed.get_world_size()
        total = sum(map(len, missing))
        with progress(total=total, unit="row", desc=desc, disable=not leader or not total, leave=False) as bar:
            for start in range(0, len(missing), shares):
                if distributed.any_rank(self.stop()):
                    raise Stopped
                mine = missing[start + distributed.get_rank()] if start + distributed.get_rank() < len(missing) else None
                made = distributed.gather_objects(None if mine is None else (mine, compute(mine)))
                if not leader:
                    continue
                for part, rows in filter(None, made):
                    self._add(part, rows, known)
                    bar.update(len(part))
        if not leader:
            return None
        found = [known[int(number) // self.chunk] for number in numbers]
        return {
            name: np.stack([rows[name][rows["places"][int(number)]] for number, rows in zip(numbers, found)]) for name in names
        }

    def clear(self) -> None:
        """Remove what is temporary."""
        if self.temporary and distributed.get_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _missing(self, numbers: np.ndarray, known: dict) -> list[np.ndarray]:
        """Numbers that have no rows yet, in parts that belong to one file each."""
        numbers = np.unique(numbers)
        missing = np.array([n for n in numbers if int(n) not in known.get(int(n) // self.chunk, {}).get("places", {})], int)
        return np.split(missing, np.flatnonzero(np.diff(missing // self.chunk)) + 1) if len(missing) else []

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:08d}.npz"

    def _read(self, numbers: np.ndarray, names: Sequence[str]) -> dict[int, dict]:
        """What is kept, by the number of the file; files that lack a name or are damaged are as if they were not there."""
        known = {}
        for index in np.unique(np.asarray(numbers) // self.chunk):
            try:
                with np.load(self._path(index), allow_pickle=False) as stored:
                    rows = {name: stored[name] for name in ("numbers", *names)}
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
                continue
            known[int(index)] = dict(rows, places={int(n): place for place, n in enumerate(rows["numbers"])})
        return known

    def _add(self, numbers: np.ndarray, rows: Rows, known: dict[int, dict]) -> None:
        """Keep the rows of numbers of one file, beside those that it has."""
        index = int(numbers[0]) // self.chunk
        rows = dict(rows, numbers=numbers)
        if index in known:
            rows = {name: np.concatenate([known[index][name], rows[name]]) for name in rows}
        make_output_dir(self.folder)
        with atomic_path(self._path(index)) as temporary:
            np.savez(temporary, **rows)
        known[index] = dict(rows, places={int(n): place for place, n in enumerate(rows["numbers"])})
