"""Loads the ground truth: a set made by `demo/render_heads.py --truth true --fixed-views true`."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import camera_utils
from data_tools.pairs import Pair, Tally, Unusable, load_pair, pair_by_name
from demo.heads.truth import read_depth
from demo.heads.views import ViewRanges, sample_views
from dnnlib import UserError
from dnnlib.archive import Archive, read_labels, stem
from dnnlib.util import existing_path
from metrics.consistency import Surface
from metrics.heads import HEAD_LEVEL

ADVICE = "make one with demo/render_heads.py --truth true --fixed-views true"
LAW_DRAWS = 2000  # views whose shifts are drawn if only the distribution is known


@dataclass(frozen=True)
class HeldOut:
    """Views of heads that training never saw, in the order of their names."""

    heads: list[str]  # N: the head that a view shows
    pictures: np.ndarray  # uint8 [N, H, H, 3]
    masks: np.ndarray  # float32 [N, H, H] in 0..1
    depths: np.ndarray  # float32 [N, H, H] along the camera's z axis, world units; infinite where there is no head
    labels: torch.Tensor  # [N, 25]

    @property
    def yaws(self) -> np.ndarray:
        """The yaws of the labels, in degrees [N]."""
        return camera_utils.yaw_pitch_roll_degrees(self.labels)[:, 0].numpy()

    def surfaces(self) -> dict[str, list[Surface]]:
        """What the cameras see of each head, by the head's name."""
        found: dict[str, list[Surface]] = {}
        for head, depth, label in zip(self.heads, self.depths, self.labels):
            found.setdefault(head, []).append(Surface(torch.from_numpy(depth), label))
        return found


def load_held_out(path: str | os.PathLike) -> HeldOut:
    """Load the set in the folder `path`: img, seg and truth, each a folder or a zip.

    Raises UserError if a part, a picture or a label is missing or does not match, or if there is only one head.
    """
    folder = existing_path(path, "--data")
    images, masks, truth = (_part(folder, name) for name in ("img", "seg", "truth"))
    left_out = Tally()
    pairs = pair_by_name(images, masks, left_out)
    labels = read_labels(images) or {}
    if not pairs or left_out.total:
        raise UserError(f"{folder}: {'; '.join(left_out.lines()) or 'no pictures'}; {ADVICE}")
    for pair in pairs:
        label = labels.get(pair.image, ())
        if len(label) != camera_utils.LABEL_DIM or not np.isfinite(label).all():
            raise UserError(f"{folder}: {pair.image} has no label of {camera_utils.LABEL_DIM} finite numbers; {ADVICE}")
    views = [_load_view(images, masks, truth, pair) for pair in pairs]
    if len({view[0].shape for view in views}) > 1:
        raise UserError(f"{folder}: its pictures are not of one size; {ADVICE}")
    heads = [str(Path(pair.image).parent) for pair in pairs]
    if len(set(heads)) < 2:
        raise UserError(f"{folder} shows one head; at least two are needed, each in a folder of its own; {ADVICE}")
    return HeldOut(
        heads,
        *(np.stack(parts) for parts in zip(*views)),
        torch.tensor([labels[pair.image] for pair in pairs], dtype=torch.float32),
    )


def load_jitter(path: str | os.PathLike) -> np.ndarray:
    """Load how far the cameras of a training set were from their labels: shifts [M, 3], world units, along the cameras' axes.

    They come from the views in ``people/*.json`` of a folder (or zip) of `demo/render_heads.py`.  If only its ``options.json``
    is left, they are drawn from the same distribution.  Raises UserError if there is neither.
    """
    archive = Archive(existing_path(path, "--train_data"))
    people = [name for name in archive.names if name.startswith("people/") and name.endswith(".json")]
    try:
        if people:
            views = [view for name in people for view in json.loads(archive.read(name))["views"]]
            labels = torch.tensor([view["label"] for view in views], dtype=torch.float32)
            return in_camera_axes(torch.tensor([view["shift"] for view in views], dtype=torch.float32), labels).numpy()
        if "options.json" in archive.names:
            ranges = json.loads(archive.read("options.json"))["ranges"]
            plans = sample_views(np.random.default_rng(0), LAW_DRAWS, ViewRanges(**ranges)) if ranges else []
            labels = torch.tensor([plan.label for plan in plans]).reshape(-1, camera_utils.LABEL_DIM)
            return in_camera_axes(torch.tensor([plan.shift for plan in plans]).reshape(-1, 3), labels).numpy()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: its cameras cannot be read: {type(error).__name__} {error}") from None
    raise UserError(f"{path} has neither people/*.json nor options.json; give a folder that demo/render_heads.py made")


def in_camera_axes(shifts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Convert shifts [N, 3] along the world's axes to right, down and forward of the cameras of labels [N, 25]."""
    rotation = camera_utils.unpack_label(labels)[0][:, :3, :3]
    return (rotation.mT @ shifts[:, :, None])[:, :, 0]


def _part(folder: Path, name: str) -> Archive:
    zipped = folder / f"{name}.zip"
    part = zipped if zipped.exists() else folder / name
    if not part.exists():
        raise UserError(f"{folder} has no {name}; {ADVICE}")
    return Archive(part)


def _load_view(images: Archive, masks: Archive, truth: Archive, pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load picture, mask and depth of one view."""
    try:
        picture, mask = load_pair(images, masks, pair)
    except Unusable as reason:
        raise UserError(f"{images.path}: {reason} ({reason.example})") from None
    name = f"{stem(pair.image)}.png"
    try:
        with Image.open(io.BytesIO(truth.read(name))) as image:
            depth = read_depth(image).astype(np.float32)
    except OSError as error:
        raise UserError(f"cannot read {name} in {truth.path}: {error}") from None
    share = np.asarray(mask, dtype=np.float32) / 255
    if not picture.width == picture.height == len(share) == len(share[0]) == len(depth) == len(depth[0]):
        raise UserError(f"{images.path}: picture, mask and depth of {pair.image} are not squares of one size; {ADVICE}")
    return np.asarray(picture), share, np.where((share >= HEAD_LEVEL) & (depth > 0), depth, np.float32(np.inf))
