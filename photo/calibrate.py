"""Recomputes `landmarks.csv` from data sets with known cameras: ``python -m photo.calibrate``."""

from pathlib import Path

import click
import numpy as np
import torch

import camera_utils
from dnnlib import UserError, cli
from dnnlib.archive import Archive
from dnnlib.util import atomic_path

from .benchmark import Seen, look_at_data_set
from .faces import FaceFinder
from .head_model import LANDMARKS_PATH, face_model

MAX_YAW = 50  # degrees; beyond this, landmarks on the far side are guesses
LEAST_PICTURES = 2  # it takes two views to triangulate a point


def triangulate(labels: torch.Tensor, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Triangulate points [P, 3] by weighted least squares: those that are nearest to their lines of sight.

    `labels` [N, 25] are the cameras, `places` [N, P, 2] the points in their pictures (in widths and heights), and `weights` [N]
    the weights of the cameras.
    """
    cam2world, intrinsics = (part.to(torch.float64).numpy() for part in camera_utils.unpack_label(labels))
    homogeneous = np.concatenate([places, np.ones_like(places[..., :1])], axis=-1)
    rays = homogeneous @ np.linalg.inv(intrinsics).transpose(0, 2, 1) @ cam2world[:, :3, :3].transpose(0, 2, 1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    across = weights[:, None, None, None] * (np.eye(3) - rays[..., :, None] * rays[..., None, :])  # drops the part on the line
    target = (across @ cam2world[:, None, :3, 3, None]).sum(axis=0)
    return np.linalg.solve(across.sum(axis=0), target)[..., 0]


def symmetrical(points: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Average points [P, 3] with the mirror images of their partners [P] on the other side of the face."""
    return (points + points[partners] * [-1, 1, 1]) / 2


def mirror_partners() -> np.ndarray:
    """For each of the 478 landmarks, the one on the other side of the face according to the current table."""
    points = face_model().points
    return np.abs(points[:, None] - points[None] * [-1, 1, 1]).sum(axis=2).argmin(axis=1)


def landmark_places(seen: Seen) -> np.ndarray:
    """The positions [478, 2] of the landmarks in a picture, in widths and heights."""
    if seen.face is None:
        raise ValueError(f"no face was found in {seen.name}")
    return seen.face.landmarks[:, :2] / seen.pixels


@cli.command()
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    type=(click.Path(path_type=Path), click.FloatRange(min=0, min_open=True)),
    metavar="DIR|ZIP WEIGHT",
    help="Pictures with dataset.json, and the total weight of all of them; repeatable.",
)
@click.option("--landmarker", type=click.Path(path_type=Path), metavar="PATH", help="face_landmarker.task.")
@click.option("--out", type=click.Path(path_type=Path), default=LANDMARKS_PATH, help="The table to write.")
def main(sources: tuple[tuple[Path, float], ...], landmarker: Path | None, out: Path) -> None:
    """Triangulate MediaPipe's landmarks from labelled pictures, and write the table that photos are fitted to."""
    labels, places, weights = [], [], []
    with FaceFinder(landmarker) as finder:
        for path, weight in sources:
            with Archive(path) as archive:
                found = [seen for seen in look_at_data_set(archive, finder, MAX_YAW) if seen.face is not None]
            if len(found) < LEAST_PICTURES:
                raise UserError(f"{path}: faces in {len(found)} pictures; {LEAST_PICTURES} or more are needed")
            labels += [seen.label for seen in found]
            places += [landmark_places(seen) for seen in found]
            weights += [weight / len(found)] * len(found)
    points = symmetrical(triangulate(torch.stack(labels), np.stack(places), np.array(weights)), mirror_partners())
    table = np.column_stack([points, face_model().weights])
    with atomic_path(out) as temporary:
        np.savetxt(temporary, table, fmt="%.4f", delimiter=",", header="x,y,z,weight", comments="")
    click.echo(f"wrote {len(points)} landmarks from {len(labels)} pictures to {out}")


if __name__ == "__main__":
    main()
