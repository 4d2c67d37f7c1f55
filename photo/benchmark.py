"""Measures how far estimated cameras are from the labels of a data set: ``python -m photo.benchmark``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

import camera_utils
from dnnlib import UserError, cli
from dnnlib.archive import Archive, read_labels
from training.decoding import decode_image

from .faces import Face, FaceFinder
from .photograph import Photo

YAW_EDGES = (0, 15, 30, 45, 60, 75)  # degrees; the limits of the table's rows


@dataclass(frozen=True)
class Seen:
    """A picture of a data set with its label [25], and the face that was found in it."""

    name: str
    label: torch.Tensor
    face: Face | None
    pixels: int  # a side of the picture


def look_at_data_set(archive: Archive, finder: FaceFinder, max_yaw: float, max_pictures: int | None = None) -> Iterator[Seen]:
    """Yield the labelled pictures of a data set with at most this |yaw| in degrees.  Raises UserError if there are none."""
    labels = {name: torch.tensor(numbers) for name, numbers in (read_labels(archive) or {}).items()}
    chosen = [name for name, label in labels.items() if abs(camera_utils.yaw_pitch_roll_degrees(label)[0]) <= max_yaw]
    if not chosen:
        raise UserError(f"{archive.path} has no labels with a yaw of up to {max_yaw:g} degrees")
    for name in cli.progress(chosen[:max_pictures], unit="picture", leave=False):
        photo = Photo(decode_image(archive.read(name)))
        yield Seen(name, labels[name], next(iter(finder.find(photo)), None), photo.size[0])


def errors_of(seen: Seen) -> np.ndarray:
    """Estimate minus label for a face that was found: yaw, pitch, roll (degrees), and x, y and size of the frame (percent)."""
    if seen.face is None:
        raise ValueError(f"no face was found in {seen.name}")
    view = seen.face.view
    turn = (np.array(view.angles) - camera_utils.yaw_pitch_roll_degrees(seen.label).numpy() + 180) % 360 - 180
    turn[2] -= np.degrees(view.frame.angle)  # a frame that is rotated in the picture removes that much roll from its label
    place = np.array(view.frame.centre) / seen.pixels - 0.5
    return np.array([*turn, *(100 * place), 100 * (view.frame.size / seen.pixels - 1)])


def table(pictures: list[Seen]) -> list[str]:
    """Lines of a table by yaw: numbers of pictures and of those without a face, errors, and the share within 4 degrees.

    Errors are given as signed means and as means of absolute values.  The share counts pictures whose yaw and pitch are both
    within 4 degrees.
    """
    lines = ["  yaw     number  no face | mean: yaw  pitch  size % | absolute: yaw  pitch  within 4 degrees"]
    yaws = np.array([abs(camera_utils.yaw_pitch_roll_degrees(seen.label)[0].item()) for seen in pictures])
    for low, high in zip(YAW_EDGES, YAW_EDGES[1:]):
        here = [seen for seen, yaw in zip(pictures, yaws) if low <= yaw < high]
        found = np.array([errors_of(seen) for seen in here if seen.face is not None])
        if len(found):
            mean, absolute = found.mean(axis=0), np.abs(found).mean(axis=0)
            within = (np.abs(found[:, :2]) <= 4).all(axis=1).mean()
            signed = f"{mean[0]:+5.1f}  {mean[1]:+5.1f}  {mean[5]:+6.1f}"
            numbers = f"{signed} |      {absolute[0]:8.1f}  {absolute[1]:5.1f}  {within:16.0%}"
            lines.append(f"{low:3d}-{high:<3d}  {len(here):7d}  {len(here) - len(found):7d} |     {numbers}")
    return lines


@cli.command()
@click.option("--source", required=True, type=click.Path(path_type=Path), metavar="DIR|ZIP", help="Pictures with dataset.json.")
@click.option("--landmarker", type=click.Path(path_type=Path), metavar="PATH", help="face_landmarker.task.")
@click.option("--max-yaw", type=click.IntRange(1, 75), default=75, help="Leave out views beyond this yaw, in degrees.")
@click.option("--max-pictures", type=click.IntRange(min=1), help="Use at most this many pictures.")
def main(source: Path, landmarker: Path | None, max_yaw: int, max_pictures: int | None) -> None:
    """Estimate the cameras of labelled pictures and print how far they are from the labels, by yaw."""
    with Archive(source) as archive, FaceFinder(landmarker) as finder:
        pictures = list(look_at_data_set(archive, finder, max_yaw, max_pictures))
    click.echo("\n".join(table(pictures)))


if __name__ == "__main__":
    main()
