"""Teach a generator rendered heads whose depths are known: from nothing to a network that train.py --resume goes on with.

\b
1. fit:       grids of each person as free numbers, and one decoder and super-resolution behind them
2. distil:    a StyleGAN2 backbone learns to make those grids, each person being a latent; no picture is rendered
3. pictures:  the whole generator learns from the pictures again

Run it again and it goes on from where it stopped.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

if not __package__:  # run as a script: Python looks for modules in this folder, but they are in the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demo.teaching.course import SNAPSHOT, Course  # noqa: E402
from demo.teaching.fit import Fit  # noqa: E402
from demo.teaching.people import load_people  # noqa: E402
from dnnlib import cli  # noqa: E402
from dnnlib.util import InterruptFlag, existing_path, make_output_dir  # noqa: E402
from torch_utils.device import select_device  # noqa: E402
from training.checkpoint import load_state, save_state, state_paths  # noqa: E402
from training.config import TrainingConfig  # noqa: E402
from training.options import PRESETS, SCENES  # noqa: E402

SECONDS_BETWEEN_SAVES = 600


@cli.command(help=__doc__)
@click.option("--outdir", help="Folder for network, sheets and state", metavar="DIR", required=True)
@click.option("--data", help="Made by demo/render_heads.py --truth true --jitter 0", metavar="DIR", required=True)
@click.option("--people", help="Learn the first so many only", type=click.IntRange(min=2))
@click.option("--effort", help="Length of the lessons: 0.5 is half", type=cli.FiniteFloat(min=0, min_open=True), default=1)
@click.option("--minutes", help="Stop after so many; run again to go on", type=cli.FiniteFloat(min=0, min_open=True))
@click.option("--cfg", help="As for train.py", type=click.Choice(SCENES), default="ffhq")
@click.option("--preset", help="As for train.py", type=click.Choice(PRESETS), default="heads")
@click.option("--seed", help="Seed of all that is random", type=click.IntRange(0, cli.MAX_SEED), default=0)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME", default="auto")
def main(outdir: str, data: str, people: int | None, effort: float, minutes: float | None, **options: Any) -> None:
    loaded = load_people(existing_path(data, "--data"), people)
    course = Course(generator_config(**options), loaded, effort, select_device(options["device"]))
    folder = make_output_dir(outdir)
    if state_paths(folder):
        course.load_state_dict(load_state(folder))
    print(f"{len(loaded)} people, {loaded.views} views of each, {loaded.resolution} pixels")
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    with InterruptFlag() as interrupt:
        while course.lesson and not interrupt and time.monotonic() < deadline:
            attend(course, folder, interrupt, deadline)
    if course.lesson:
        print(f"Stopped in the lesson {course.lesson.name}; run the same command to go on.")
    else:
        print(f"Wrote {folder / SNAPSHOT}; to let a discriminator join: train.py --resume {folder / SNAPSHOT}")


def generator_config(cfg: str, preset: str, seed: int, device: str) -> TrainingConfig:
    """The settings of a generator of that preset; those of training do not matter here."""
    recipe = dict(PRESETS[preset], mirror=False, blur_fade_kimg=0)
    paths = dict(outdir="", img_data="", seg_data="")
    training = dict(gpus=1, batch=2, gamma=1, gamma_seg=1)
    return TrainingConfig(cfg=cfg, preset=preset, seed=seed, device=device, **paths, **training, **recipe)


def attend(course: Course, folder: Path, interrupt: InterruptFlag, deadline: float) -> None:
    """Take the present lesson until it ends, or until `interrupt` or `deadline`; write as it goes."""
    lesson, seen, written = course.lesson, [], time.monotonic()
    with cli.progress(total=lesson.total, initial=lesson.nimg, unit="img", desc=lesson.name) as bar:
        while True:
            before = lesson.nimg
            seen.append(lesson.step())
            bar.update(lesson.nimg - before)
            now = time.monotonic()
            over = lesson.nimg >= lesson.total or interrupt or now > deadline
            if over or now - written > SECONDS_BETWEEN_SAVES:
                write(course, folder, seen)
                seen, written = [], now
            if over:
                return


def write(course: Course, folder: Path, seen: list[dict[str, float]]) -> None:
    """Write the means of the terms since the last time, a sheet, a snapshot where there is a generator, and the state."""
    lesson = course.lesson
    means = {name: float(np.mean([terms[name] for terms in seen])) for name in seen[0]}
    with open(folder / "stats.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(dict(lesson=lesson.name, nimg=lesson.nimg, **means)) + "\n")
    course.save_pictures(folder)
    if not isinstance(lesson, Fit):
        course.save_snapshot(folder)
    if lesson.nimg >= lesson.total:
        course.advance()
    save_state(folder, course.nimg, course.state_dict())


if __name__ == "__main__":
    main()
