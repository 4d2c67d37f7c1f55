"""Rendered people in memory: pictures, masks, depths and cameras of the same number of views of each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import camera_utils
from demo.heads.truth import read_depth
from dnnlib import UserError, cli

ADVICE = "make a set with demo/render_heads.py --truth true --jitter 0"


class Views(NamedTuple):
    """A batch of views: `persons` people (rows of `who`), `views` of each, one after the other."""

    who: torch.Tensor  # int64 [persons]
    numbers: torch.Tensor  # int64 [persons * views]: which rows of all views of all people
    images: torch.Tensor  # uint8 [persons * views, 3, H, H]
    masks: torch.Tensor  # float32 [persons * views, 1, H, H] in 0..1
    depths: torch.Tensor  # float32 [persons * views, H, H] along the camera's z axis, world units; 0 where there is nothing
    labels: torch.Tensor  # [persons * views, 25]

    def to(self, device: torch.device) -> "Views":
        """The same on `device`."""
        return Views(*(part.to(device) for part in self))


@dataclass(frozen=True)
class People:
    """P people, each seen in V views."""

    names: list[str]  # P
    images: torch.Tensor  # uint8 [P, V, 3, H, H]
    masks: torch.Tensor  # uint8 [P, V, 1, H, H]
    depths: torch.Tensor  # float16 [P, V, H, H] along the camera's z axis, world units; 0 where there is nothing
    labels: torch.Tensor  # [P, V, 25]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def resolution(self) -> int:
        """Pixels of a side of the pictures."""
        return self.images.shape[-1]

    @property
    def views(self) -> int:
        """Views of each person."""
        return self.images.shape[1]

    def draw(self, rng: np.random.Generator, persons: int, views: int) -> Views:
        """Some views of some people, none of them twice."""
        who = torch.from_numpy(rng.choice(len(self), min(persons, len(self)), replace=False))
        which = torch.from_numpy(np.stack([rng.choice(self.views, min(views, self.views), replace=False) for _ in who]))
        rows = who[:, None]
        return Views(
            who,
            (rows * self.views + which).flatten(),
            self.images[rows, which].flatten(0, 1),
            self.masks[rows, which].flatten(0, 1).float() / 255,
            self.depths[rows, which].flatten(0, 1).float(),
            self.labels[rows, which].flatten(0, 1),
        )


def load_people(folder: Path, most: int | None = None) -> People:
    """The first `most` people of a folder that `demo/render_heads.py --truth true` makes; those it is still at are left out.

    UserError if there are fewer than two, or if a picture, mask or depth is missing or of another size.
    """
    found = sorted((folder / "people").glob("*.json"))[:most]
    if len(found) < 2:
        raise UserError(f"{folder} has the views of {len(found)} people in people/; at least 2 are needed: {ADVICE}")
    people = [_load_person(folder, path) for path in cli.progress(found, unit="person", desc="reading")]
    if len({tuple(part.shape for part in person) for person in people}) > 1:
        raise UserError(f"{folder}: people differ in the number of their views or the size of their pictures; {ADVICE}")
    parts = [torch.from_numpy(np.stack(parts)) for parts in zip(*people)]
    return People([path.stem for path in found], *parts)


def _load_person(folder: Path, description: Path) -> tuple[np.ndarray, ...]:
    """Pictures, masks, depths and labels of one person, the views in the order of their names."""
    name = description.stem
    try:
        labels = np.array([view["label"] for view in json.loads(description.read_text())["views"]], np.float32)
        files = sorted(path for path in (folder / "img" / name).iterdir())
        images = np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in files])
        masks = np.stack([np.asarray(Image.open(folder / "seg" / name / f"{path.stem}.png"))[None] for path in files])
        truth = [read_depth(Image.open(folder / "truth" / name / f"{path.stem}.png")) for path in files]
        depths = np.stack(truth).astype(np.float16)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: the views of {name} cannot be read ({error}); {ADVICE}") from None
    sizes = {images.shape[-2:], masks.shape[-2:], depths.shape[-2:]}
    if labels.shape != (len(files), camera_utils.LABEL_DIM) or len(sizes) > 1 or images.shape[-1] != images.shape[-2]:
        raise UserError(f"{folder}: labels, pictures, masks and depths of {name} do not belong together; {ADVICE}")
    return images, masks, depths, labels
