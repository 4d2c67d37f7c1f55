"""The pictures that are compared: those of the data as training shows them, and a generator's from the same cameras."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib import UserError
from inference.synthesis import device_of
from metrics.views import Draw
from training.dataset import HeadPictures
from training.images import to_uint8
from training.triplane import TriPlaneGenerator

BACKGROUNDS = ("own", "white")  # as pictures are, or heads alone, by their masks
READERS = 4  # threads that decode pictures


class Made(NamedTuple):
    """Pictures that a generator made."""

    images: np.ndarray  # uint8 [N, 3, H, H]
    masks: np.ndarray | None  # float32 [N, 1, H, H] in [0, 1]; None of networks without masks


class RealPictures:
    """The pictures of a data set, each once and once mirrored: number 2 k is picture k, number 2 k + 1 its mirror image."""

    def __init__(self, dataset: HeadPictures):
        self.dataset = dataset
        self.keys = 2 * dataset.item_sources() + dataset.is_mirrored(np.arange(len(dataset)))  # of each item
        self._items = dict(zip(*np.unique(self.keys, return_index=True)))
        self.masked = hasattr(dataset, "masks")

    def require(self, background: str) -> None:
        """UserError if heads alone are wanted (white) and there are no masks."""
        if background == "white" and not self.masked:
            raise UserError("--background white cuts heads out by their masks: give --seg_data too")

    def read(self, numbers: np.ndarray, background: str = "own") -> np.ndarray:
        """Pictures uint8 [N, 3, H, H], with one of BACKGROUNDS."""
        if background == "own":
            return np.stack([item[0] for item in self._read(numbers)])
        return before_white(*self.read_whole(numbers))

    def read_whole(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 [N, 3, H, H] as they are, and their masks float32 [N, 1, H, H] in [0, 1]."""
        images, masks, _ = zip(*self._read(numbers))
        return np.stack(images), np.stack(masks).astype(np.float32) / 255

    def labels(self, numbers: np.ndarray) -> np.ndarray:
        """Their cameras, float32 [N, 25]."""
        return np.stack([self.dataset.label(int(self._items[number])) for number in numbers])

    def _read(self, numbers: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda number: self.dataset[int(self._items[number])], numbers))


@torch.no_grad()
def make(G: TriPlaneGenerator, draws: list[Draw], labels: np.ndarray, truncation_psi: float = 1.0) -> Made:
    """The pictures of `draws` with the cameras `labels` [M, 25] of a data set's items.

    As in training: the one label conditions the mapping, and the other, moved by the shift that the network learned for it, is
    the camera.  Rays are jittered by a generator that is seeded here.
    """
    device = device_of(G)
    z = torch.from_numpy(np.stack([draw.z for draw in draws])).to(device)
    conditioning, rendered = (
        torch.from_numpy(labels[[getattr(draw, name) for draw in draws]]).to(device) for name in ("conditioning", "rendered")
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        ws = G.mapping(z, conditioning, truncation_psi)
        camera, _ = G.apply_delta_c(z, rendered, truncation_psi)
        views = G.synthesis(ws, camera, noise_mode="const")
    images = to_uint8(views["image"]).transpose(0, 3, 1, 2)
    mask = views.get("image_mask")
    if mask is not None:
        mask = F.interpolate(mask, size=images.shape[-2:], mode="bilinear").clamp(0, 1).cpu().numpy()
    return Made(np.ascontiguousarray(images), mask)


def with_background(made: Made, background: str) -> np.ndarray:
    """The pictures uint8 [N, 3, H, H], as they are or with the heads alone; UserError if the network makes no masks."""
    if background == "own":
        return made.images
    if made.masks is None:
        raise UserError("--background white cuts heads out by their masks, and this network makes none")
    return before_white(made.images, made.masks)


def before_white(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Pictures uint8 [N, 3, H, H] cut out by masks float32 [N, 1, H, H] in [0, 1]: uint8, white elsewhere."""
    return (255 + (images.astype(np.float32) - 255) * masks).round().astype(np.uint8)


def as_rows(images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [N, 3, H, H] as [N, H, H, 3], as finders of faces and people take them."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
