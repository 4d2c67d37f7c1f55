"""Finds images and their masks by name and decodes them, whatever their format, in parallel."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dnnlib import UserError
from dnnlib.archive import Archive, stem
from training.decoding import decode_image, decode_mask

EXAMPLES_SHOWN = 3  # names shown beside each count
MAX_CLASS = 63  # a mask without higher levels holds class numbers; faint edges alone make no mask


@dataclass(frozen=True)
class Pair:
    """An image and its mask, by their names in the two sources."""

    image: str
    mask: str


class Tally:
    """Counts by kind, with the names of a few examples."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = collections.defaultdict(list)
        self._counts: collections.Counter = collections.Counter()

    def add(self, kind: str, name: str = "", count: int = 1) -> None:
        """Count `count` more of `kind`, with `name` as an example."""
        self._counts[kind] += count
        if name and len(self._names[kind]) < EXAMPLES_SHOWN:
            self._names[kind].append(name)

    @property
    def total(self) -> int:
        """The total count of all kinds."""
        return self._counts.total()

    def lines(self) -> list[str]:
        """A line ``image without a mask: 7 (a.png, b.png, c.png, ...)`` for each kind, the most frequent first."""
        lines = []
        for kind, count in self._counts.most_common():
            names = self._names[kind] + ["..."] * (len(self._names[kind]) < count)
            if count:
                lines.append(f"{kind}: {count}" + (f" ({', '.join(names)})" if self._names[kind] else ""))
        return lines


class Unusable(Exception):
    """A pair that cannot be used.  `kind` is for counting, `name` is the file, and `detail` may give the reason."""

    def __init__(self, kind: str, name: str, detail: str = ""):
        super().__init__(kind)
        self.kind = kind
        self.example = f"{name}: {detail}" if detail else name


def pair_by_name(images: Archive, masks: Archive, left_out: Tally) -> list[Pair]:
    """Match images and masks whose relative names agree apart from the extension.  The rest is counted in `left_out`."""
    image_of = _by_stem(images, "image", left_out)
    mask_of = _by_stem(masks, "mask", left_out)
    for name in sorted(image_of.keys() - mask_of.keys()):
        left_out.add("image without a mask", image_of[name])
    for name in sorted(mask_of.keys() - image_of.keys()):
        left_out.add("mask without an image", mask_of[name])
    return [Pair(image_of[name], mask_of[name]) for name in sorted(image_of.keys() & mask_of.keys())]


def load_pair(images: Archive, masks: Archive, pair: Pair) -> tuple[Image.Image, Image.Image]:
    """Read the image as RGB and the mask as L, both upright.  Raises Unusable if one is unreadable or their shapes differ.

    Their sizes may differ as long as the proportions agree to a pixel, so that one is a reduced version of the other.
    """
    image = _load(images, pair.image, decode_image, "image")
    mask = _load(masks, pair.mask, decode_mask, "mask")
    (width, height), (mask_width, mask_height) = image.size, mask.size
    if abs(width * mask_height - height * mask_width) > max(image.size):
        sizes = f"{width}x{height}, mask {mask_width}x{mask_height}"
        raise Unusable("image and mask of different proportions", pair.image, sizes)
    return image, mask


def highest_level(mask: Image.Image) -> int:
    """The highest level of a picture of one channel."""
    return max(level for level, count in enumerate(mask.histogram()) if count)


def mask_classes(mask: Image.Image) -> list[int]:
    """The class numbers, such as [0, 1], in a mask (L) that holds them instead of levels up to 255.  Empty for other masks."""
    levels = [level for level, count in enumerate(mask.histogram()) if count]
    return levels if 0 < levels[-1] <= MAX_CLASS else []


def map_in_order(function: Callable[[Any], Any], items: Iterable) -> Iterator[Any]:
    """Apply `function` to each item on threads, and yield the results in order.  Only a few results are kept in memory.

    An exception raised by `function` is raised when its turn comes.  Pillow and zlib let other threads run while they work.
    """
    workers = min(os.cpu_count() or 1, 8)
    pool = ThreadPoolExecutor(workers)
    waiting: collections.deque = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _by_stem(archive: Archive, what: str, left_out: Tally) -> dict[str, str]:
    names = collections.defaultdict(list)
    for name in archive.image_names():
        names[stem(name)].append(name)
    for same in names.values():
        if len(same) > 1:
            left_out.add(f"{what} with the name of another but for the extension", " and ".join(same), count=len(same))
    return {name: same[0] for name, same in names.items() if len(same) == 1}


def _load(archive: Archive, name: str, decode: Callable[[bytes], Image.Image], what: str) -> Image.Image:
    try:
        return decode(archive.read(name))
    except UserError as error:
        raise Unusable(f"{what} that cannot be read", name, str(error)) from None
