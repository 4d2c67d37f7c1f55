"""Records a run for its user: grids of pictures, a line and a record per tick, and TensorBoard events."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib.util import atomic_path
from training.dataset import HeadDataset
from training.images import IMAGE_MODES, picture, save_image, tile

STATS_NAME = "stats.jsonl"
GRID_COLUMNS = 4
GRID_ROWS = {"cuda": 6, "cpu": 2}  # on either device, a grid takes as long as a few steps


class Grids:
    """Grids of pictures that always show the same faces and cameras: those of the first pictures of a shuffled data set."""

    def __init__(self, dataset: HeadDataset, z_dim: int, device: torch.device, seed: int):
        count = GRID_COLUMNS * GRID_ROWS[device.type]
        rng = np.random.RandomState(seed)
        order = rng.permutation(len(dataset))
        items = [dataset[int(order[i % len(order)])] for i in range(count)]
        self.images, self.masks, labels = (np.stack(parts) for parts in zip(*items))
        self.z = torch.from_numpy(rng.randn(count, z_dim).astype(np.float32)).to(device)
        self.c = torch.from_numpy(labels).to(device)

    def save_reals(self, run_dir: Path) -> None:
        """Write reals.png and reals_mask.png."""
        save_image(tile(self.images.transpose(0, 2, 3, 1), GRID_COLUMNS), run_dir / "reals.png")
        save_image(tile(self.masks.transpose(0, 2, 3, 1).repeat(3, axis=-1), GRID_COLUMNS), run_dir / "reals_mask.png")

    @torch.no_grad()
    def save_fakes(self, run_dir: Path, name: str, G: torch.nn.Module, batch: int) -> None:
        """Render with `G`, `batch` faces at a time, and write NAME.png, NAME_raw.png, NAME_depth.png and NAME_mask.png."""
        with _without_trials():
            parts = [G(z, c, noise_mode="const") for z, c in zip(self.z.split(batch), self.c.split(batch))]
        views = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        for mode in IMAGE_MODES:
            path = run_dir / f"{name}{mode.removeprefix('image')}.png"
            save_image(tile(picture(views, mode), GRID_COLUMNS), path)


@contextlib.contextmanager
def _without_trials() -> Iterator[None]:
    """Inside, cuDNN takes the convolutions that it thinks best, and does not try them all out.

    A trial takes whatever memory is free, and a sheet of pictures is too rare to be worth it: its convolutions are grouped, and
    no step of training has such.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class StatsWriter:
    """Writes stats.jsonl, with a line per tick, and TensorBoard events if that package is installed.

    Records that an earlier process wrote after `nimg` images are dropped, because they will be written again.
    """

    def __init__(self, run_dir: Path, nimg: int):
        _drop_later_records(run_dir, nimg)
        self._file = open(run_dir / STATS_NAME, "a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._events = None
            print("No TensorBoard events: the package is not installed (pip install tensorboard)")
        else:
            self._events = SummaryWriter(run_dir, purge_step=nimg // 1000 + 1 if nimg else None)

    def write(self, stats: dict[str, Any], nimg: int) -> None:
        """Add `stats`, name -> {num, mean, std}, for `nimg` images.  Values that are not finite become null.

        Raises OSError if the files cannot be written.
        """
        record = {
            name: {key: number if math.isfinite(number) else None for key, number in s.items()} for name, s in stats.items()
        }
        self._file.write(json.dumps(dict(record, nimg=nimg, timestamp=time.time())) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in stats.items():
                self._events.add_scalar(name, value["mean"], global_step=nimg // 1000)
            self._events.flush()

    def close(self) -> None:
        """Close both files."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()


def read_stats(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's stats.jsonl, name -> {num, mean, std}, `nimg` and `timestamp`; none where there is no file.

    They end at a damaged line: the last may be half a line, of a process that was killed or is writing.
    """
    path, records = run_dir / STATS_NAME, []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            record["nimg"]
        except (ValueError, KeyError, TypeError):
            break
        records.append(record)
    return records


def _drop_later_records(run_dir: Path, nimg: int) -> None:
    """Keep the records up to `nimg` images."""
    if not (run_dir / STATS_NAME).exists():
        return
    kept = [json.dumps(record) + "\n" for record in read_stats(run_dir) if record["nimg"] <= nimg]
    with atomic_path(run_dir / STATS_NAME) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
