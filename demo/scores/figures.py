"""Computes figures from samples, each next to the same figure of the data, and formats them as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

import camera_utils
from demo.scores import yaw
from demo.scores.held_out import HeldOut, in_camera_axes
from demo.scores.samples import Sample
from metrics.consistency import Agreement

FAR_OFF = 90.0  # degrees between the yaw of a camera and the yaw seen in its picture
YAW_BIN = 30  # degrees; bins are centred on multiples of it, like the fixed views of held-out sets
CAMERA_AXES = ("right", "down", "forward")
DECIMALS = {"%": 1, "degrees": 1, "world units": 4}


@dataclass(frozen=True)
class Figure:
    """One row of the table.  None means not measured."""

    name: str
    unit: str  # one of DECIMALS
    samples: float | None
    data: float | None
    error: float | None = None  # the standard error of `samples`
    note: str = ""  # such as why it was not measured


def mask_figures(samples: Sequence[Sample], truth: HeldOut) -> list[Figure]:
    """The share of a picture that is head: the mean of the masks."""
    ours, theirs = ([100 * mask.mean() for mask in masks] for masks in ([sample.mask for sample in samples], truth.masks))
    return [_compare("mask coverage", "%", ours, theirs)]


def yaw_figures(samples: Sequence[Sample], truth: HeldOut) -> tuple[list[Figure], dict[str, list[float]]]:
    """Distributions of the yaw of the cameras and of the yaw seen in the pictures, and the `yaw_histogram` of each.

    The cameras of the samples are drawn from those of the data.  Whether the pictures really show heads from there is read from
    the pictures by a `YawReader` trained on the held-out views only.  Held-out heads are read by a reader that was not trained
    on them, so that both columns include the reader's errors.
    """
    known = np.stack([yaw.describe(picture, mask) for picture, mask in zip(truth.pictures, truth.masks)])
    drawn = np.stack([yaw.describe(sample.picture, sample.mask) for sample in samples])
    cameras = camera_utils.yaw_pitch_roll_degrees(torch.stack([sample.label for sample in samples]))[:, 0].numpy()
    seen, seen_truth = yaw.YawReader(known, truth.yaws).read(drawn), yaw.read_each_by_others(known, truth.yaws, truth.heads)
    figures = []
    for name in yaw.SECTORS:
        figures.append(_share_figure(f"cameras at the {name}", cameras, truth.yaws, name))
    for name in yaw.SECTORS:
        figures.append(_share_figure(f"pictures seen from the {name}", seen, seen_truth, name))
    off, off_truth = yaw.difference(seen, cameras), yaw.difference(seen_truth, truth.yaws)
    figures.append(Figure("yaw seen off the camera's, median", "degrees", float(np.median(off)), float(np.median(off_truth))))
    far, far_truth = (100.0 * (values > FAR_OFF) for values in (off, off_truth))
    figures.append(_compare(f"yaw seen over {FAR_OFF:g} degrees off", "%", far, far_truth))
    laws = {"cameras": cameras, "cameras of data": truth.yaws, "seen": seen, "seen in data": seen_truth}
    return figures, {name: yaw_histogram(values) for name, values in laws.items()}


def yaw_histogram(yaws: np.ndarray) -> list[float]:
    """Shares of yaws (degrees) in bins of YAW_BIN degrees; the first is centred on -180, the last on 180 - YAW_BIN."""
    bins = np.floor((yaws + 180 + YAW_BIN / 2) % 360 / YAW_BIN).astype(int)
    return (np.bincount(bins, minlength=360 // YAW_BIN) / len(yaws)).tolist()


def consistency_figures(heads: Sequence[Mapping[float, Agreement]], truth: Sequence[Mapping[float, Agreement]]) -> list[Figure]:
    """Means over heads of what `compare_all` found.  The truth's own value, below 100 because of pixel size, is the limit."""
    figures = []
    for what, share in (("points that agree", "share"), ("points hidden", "hidden_share")):
        for angle in heads[0]:
            ours, theirs = ([100 * getattr(found[angle], share) for found in group] for group in (heads, truth))
            figures.append(_compare(f"{what}, {angle:g} degrees", "%", ours, theirs))
    return figures


def face_figures(faces: Mapping[str, Sequence[bool]], truth: Mapping[str, Sequence[bool]]) -> list[Figure]:
    """Shares of views, by side, in which a face was found."""
    return [
        _compare(f"face found in {side} views", "%", 100.0 * np.array(found), 100.0 * np.array(truth[side]))
        for side, found in faces.items()
    ]


def faces_not_measured(reason: str) -> list[Figure]:
    """The rows of `face_figures` if there is no landmarker."""
    return [
        Figure(f"face found in {side} views", "%", None, None, note=f"not measured: {reason}") for side in ("front", "back")
    ]


def shift_figures(samples: Sequence[Sample], jitter: np.ndarray | None) -> list[Figure]:
    """The learned camera shift compared with the data's misplaced cameras (`jitter` [M, 3]), along the axes of the cameras."""
    labels = torch.stack([sample.label for sample in samples])
    shifts = in_camera_axes(torch.stack([sample.shift for sample in samples]), labels).numpy()
    groups = [shifts, np.empty([0, 3]) if jitter is None else jitter]
    note = "data: not known, give --train_data" if jitter is None else "data: the jitter"
    figures = [_compare("camera shift, length", "world units", *(np.linalg.norm(group, axis=1) for group in groups), note)]
    for axis, name in enumerate(CAMERA_AXES):
        figures.append(_compare(f"camera shift, mean {name}", "world units", *(group[:, axis] for group in groups)))
    for axis, name in enumerate(CAMERA_AXES):
        deviations = (float(group[:, axis].std()) if len(group) else None for group in groups)
        figures.append(Figure(f"camera shift, deviation {name}", "world units", *deviations))
    return figures


def table(figures: Sequence[Figure]) -> list[str]:
    """Lines of a table of figures: samples, with their standard error, and data."""
    rows = [("", "samples", "", "data", "")]
    for figure in figures:
        error = "" if figure.error is None else f"± {_number(figure.error, figure.unit)}"
        texts = (_number(value, figure.unit) for value in (figure.samples, figure.data))
        ours, theirs = ("–" if text is None else text for text in texts)
        rows.append((figure.name, ours, error, theirs, f"{figure.unit}; {figure.note}" if figure.note else figure.unit))
    name, ours, error, theirs = (max(len(row[column]) for row in rows) for column in range(4))
    return [f"{a:{name}}  {b:>{ours}} {c:{error}}  {d:>{theirs}}  {e}".rstrip() for a, b, c, d, e in rows]


def _number(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.{DECIMALS[unit]}f}"


def _compare(name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], note: str = "") -> Figure:
    """Compare the means of two groups of values.  Values of nan could not be measured and are left out."""
    (mean, error), (data, _) = _mean(ours), _mean(theirs)
    return Figure(name, unit, mean, data, error, note)


def _mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and its standard error, each None if there are too few values."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    return (float(known.mean()) if len(known) else None), error


def _share_figure(name: str, ours: np.ndarray, theirs: np.ndarray, sector: str) -> Figure:
    shares = (100 * yaw.sector_shares(values)[sector] for values in (ours, theirs))
    return Figure(name, "%", *shares)
