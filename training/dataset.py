"""Provides pictures, masks and cameras for training, and the order in which training sees them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch

import camera_utils
from dnnlib import UserError
from dnnlib.archive import Archive, read_labels, stem
from dnnlib.util import is_power_of_two
from training.decoding import decode_image, decode_mask

BEHIND_DEGREES = 90  # |yaw| from which `back_repeat` applies


class HeadPictures(torch.utils.data.Dataset):
    """Square pictures, each with a camera label, from a folder or zip of `dataset_tool_seg.py`.

    dataset.json provides the labels.  Only pictures with |yaw| in [`min_yaw`, `max_yaw`] degrees are kept; those with |yaw| of
    at least 90 (or `min_yaw`, if larger) appear `back_repeat` times.  `mirror` adds every picture and label mirrored, after
    all others.

    An item is (image uint8 [3, H, H], label float32 [25]).  Raises UserError if anything is missing.
    """

    def __init__(self, img_data: str, mirror: bool = False, min_yaw: float = 0, max_yaw: float = 180, back_repeat: int = 1):
        self.images = Archive(img_data)
        self.name = Path(img_data).stem
        self.law = dict(mirror=mirror, min_yaw=min_yaw, max_yaw=max_yaw, back_repeat=back_repeat)  # of its cameras
        self._image_names = _picture_names(self.images)
        self._labels = _labels_of(self.images, self._image_names)
        self._sources = select_views(self._labels, min_yaw, max_yaw, back_repeat)  # item -> index of its picture
        if not len(self._sources):
            raise UserError(
                f"no picture in {img_data} has |yaw| between {min_yaw:g} and {max_yaw:g} degrees; widen --min_yaw and --max_yaw"
            )
        self._unmirrored = len(self._sources)
        if mirror:
            self._sources = np.tile(self._sources, 2)
        self.resolution = self._check_first()

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return self._pixels(self.images, self._image_names, decode_image, index), self.label(index)

    def _pixels(self, archive: Archive, names: list[str], decode: Callable[[bytes], PIL.Image.Image], index: int) -> np.ndarray:
        """The picture or mask of an item, uint8 [C, H, H], mirrored where the item is; UserError if it has another size."""
        name = names[self._sources[index]]
        pixels = np.atleast_3d(_read(archive, name, decode))
        if pixels.shape[:2] != (self.resolution, self.resolution):
            size = "x".join(map(str, pixels.shape[1::-1]))
            raise UserError(f"{name} is {size} pixels and the first picture {self.resolution}; run dataset_tool_seg.py --check")
        return (pixels[:, ::-1] if self.is_mirrored(index) else pixels).transpose(2, 0, 1).copy()

    def label(self, index: int) -> np.ndarray:
        """The camera label of an item, mirrored if the item is: float32 [25].  Real and generated views use the same rule."""
        return self._labels_of_items(np.array([index]))[0]

    def item_labels(self) -> np.ndarray:
        """`label` of all items: float32 [N, 25]."""
        return self._labels_of_items(np.arange(len(self)))

    def _labels_of_items(self, indices: np.ndarray) -> np.ndarray:
        labels = torch.from_numpy(self._labels[self._sources[indices]])
        mirrored = torch.from_numpy(self.is_mirrored(indices))
        return torch.where(mirrored[:, None], camera_utils.flip_label(labels), labels).numpy()

    def picture_labels(self) -> np.ndarray:
        """Labels of the pictures that the data set shows, each once and unmirrored: float32 [M, 25]."""
        return self._labels[np.unique(self._sources)]

    def item_names(self) -> list[str]:
        """The picture of each item, by its path in the data set."""
        return [self._image_names[source] for source in self._sources]

    def item_sources(self) -> np.ndarray:
        """Each item's picture, by its number among all pictures of the archive in the order of their names."""
        return self._sources

    def is_mirrored(self, index: int | np.ndarray) -> bool | np.ndarray:
        """Whether an item is a mirrored picture."""
        return index >= self._unmirrored

    def _check_first(self) -> int:
        """Check the first picture and return its size in pixels."""
        name = self._image_names[self._sources[0]]
        height, width = _read(self.images, name, decode_image).shape[:2]
        if height != width or not is_power_of_two(height):
            advice = "prepare it with dataset_tool_seg.py --resolution 512x512"
            raise UserError(
                f"{name} in {self.images.path} is {width}x{height}; pictures must be square, a power of two wide: {advice}"
            )
        return height


class HeadDataset(HeadPictures):
    """`HeadPictures` with a mask of the same size for each, from a second folder or zip: what training reads.

    Images and masks pair by name without extension.  An item is (image uint8 [3, H, H], mask uint8 [1, H, H], label float32
    [25]).
    """

    def __init__(self, img_data: str, seg_data: str, **views):
        self.masks = Archive(seg_data)
        self._mask_names = _masks_of(Archive(img_data), self.masks)
        super().__init__(img_data, **views)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, label = super().__getitem__(index)
        return image, self._pixels(self.masks, self._mask_names, decode_mask, index), label


def select_views(labels: np.ndarray, min_yaw: float, max_yaw: float, back_repeat: int) -> np.ndarray:
    """Rows of labels [M, 25] that a data set shows, in order: those with |yaw| in range, with views from behind repeated."""
    yaw = camera_utils.yaw_pitch_roll_degrees(torch.from_numpy(labels))[:, 0].abs().numpy()
    repeats = np.where(yaw >= max(BEHIND_DEGREES, min_yaw), back_repeat, 1)
    repeats[(yaw < min_yaw) | (yaw > max_yaw)] = 0
    return np.repeat(np.arange(len(labels)), repeats)


def _picture_names(images: Archive) -> list[str]:
    names = images.image_names()
    if not names:
        raise UserError(f"{images.path} contains no pictures")
    return names


def _masks_of(images: Archive, masks: Archive) -> list[str]:
    """The names of the masks of `images`, in the order of these."""
    names = _picture_names(images)
    masks_by_stem = {stem(name): name for name in masks.image_names()}
    missing = [name for name in names if stem(name) not in masks_by_stem]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images have no mask in {masks.path}, such as {missing[0]}; run dataset_tool_seg.py"
        )
    if len(masks_by_stem) > len(names):
        extra = sorted(set(masks_by_stem) - {stem(name) for name in names})
        raise UserError(
            f"{len(extra)} masks in {masks.path} have no image in {images.path}, such as {masks_by_stem[extra[0]]}; "
            "run dataset_tool_seg.py"
        )
    return [masks_by_stem[stem(name)] for name in names]


def _labels_of(images: Archive, names: list[str]) -> np.ndarray:
    """Labels float32 [M, 25] of the images `names`."""
    labels = read_labels(images)
    if labels is None:
        raise UserError(f"{images.path} has no labels: its dataset.json must give the camera of every image")
    missing = [name for name in names if name not in labels]
    if missing:
        raise UserError(f"dataset.json in {images.path} lacks {len(missing)} of {len(names)} images, such as {missing[0]}")
    wrong = [name for name in names if len(labels[name]) != camera_utils.LABEL_DIM or not np.isfinite(labels[name]).all()]
    if wrong:
        raise UserError(
            f"dataset.json in {images.path}: the label of {wrong[0]} is not {camera_utils.LABEL_DIM} finite numbers"
        )
    return np.array([labels[name] for name in names], dtype=np.float32)


def _read(archive: Archive, name: str, decode: Callable[[bytes], PIL.Image.Image]) -> np.ndarray:
    """Read a picture as a uint8 array, [H, W, 3] or [H, W].  Raises UserError with its name if it cannot be read."""
    try:
        return np.asarray(decode(archive.read(name)))
    except UserError as error:
        raise UserError(f"cannot read {name} in {archive.path}: {error}") from None


def global_order(start: int, length: int, seed: int) -> Iterator[int]:
    """Yield item numbers of an endless pass over `length` items from position `start` on, reshuffled in each round.

    The order depends only on position and seed, so it can be resumed anywhere and is the same for all readers.
    """
    position = start
    while True:
        epoch, offset = divmod(position, length)
        for index in np.random.default_rng([seed, epoch]).permutation(length)[offset:]:
            yield int(index)
            position += 1


class ShareSampler(torch.utils.data.Sampler):
    """The share of one process in `global_order`: of each `num_shares` runs of `size` items, run number `share`."""

    def __init__(self, length: int, size: int, share: int = 0, num_shares: int = 1, seed: int = 0, start: int = 0):
        self.length = length
        self.size = size
        self.share = share
        self.num_shares = num_shares
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[int]:
        for position, index in enumerate(global_order(self.start, self.length, self.seed)):
            if position // self.size % self.num_shares == self.share:
                yield index


# For other people's scripts; training itself uses `HeadDataset`


class ImageFolderDataset(torch.utils.data.Dataset):
    """Pictures of a folder or zip with their labels, in the form that projectors and metrics of this family expect.

    An item is (image uint8 [3, H, H], label float32 [label_dim]); labels are empty without `use_labels`.  `max_size` keeps that
    many pictures, chosen by `random_seed`; `xflip` adds every picture and its camera mirrored, after all others.  Raises
    UserError if there are no pictures, or none of the requested `resolution`.
    """

    def __init__(
        self,
        path: str,
        resolution: int | None = None,
        use_labels: bool = False,
        max_size: int | None = None,
        xflip: bool = False,
        random_seed: int = 0,
    ):
        self._path, self.name = path, Path(path).stem
        self._images = Archive(path)
        self._image_fnames = _picture_names(self._images)
        self._use_labels = use_labels
        count = len(self._image_fnames)
        chosen = np.arange(count)
        if max_size is not None and max_size < count:
            chosen = np.sort(np.random.default_rng(random_seed).permutation(count)[:max_size])
        self._sources = np.tile(chosen, 2) if xflip else chosen
        self._unmirrored = len(chosen)
        self._raw_labels = None
        self.resolution = len(_read(self._images, self._image_fnames[0], decode_image))
        if resolution is not None and self.resolution != resolution:
            raise UserError(f"pictures in {path} are {self.resolution} pixels wide, not {resolution}")
        self.image_shape, self.num_channels = [3, self.resolution, self.resolution], 3

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return self._pixels(self._images, self._image_fnames, decode_image, index), self.get_label(index)

    def _pixels(self, archive: Archive, names: list[str], decode: Callable[[bytes], PIL.Image.Image], index: int) -> np.ndarray:
        """Read a picture or mask as uint8 [C, H, H]."""
        pixels = np.atleast_3d(_read(archive, names[self._sources[index]], decode))
        return (pixels[:, ::-1] if index >= self._unmirrored else pixels).transpose(2, 0, 1).copy()

    def _get_raw_labels(self) -> np.ndarray:
        """Labels float32 [pictures, label_dim] in the order of `_image_fnames`."""
        if self._raw_labels is None:
            names = self._image_fnames
            self._raw_labels = _labels_of(self._images, names) if self._use_labels else np.zeros([len(names), 0], np.float32)
        return self._raw_labels

    def get_label(self, index: int) -> np.ndarray:
        """The label float32 [label_dim] of an item, mirrored if the item is."""
        label = self._get_raw_labels()[self._sources[index]]
        if self.has_labels and index >= self._unmirrored:
            return camera_utils.flip_label(torch.from_numpy(label)).numpy()
        return label.copy()

    @property
    def label_dim(self) -> int:
        """Number of entries of a label: 25, or 0 without labels."""
        return self._get_raw_labels().shape[1]

    @property
    def label_shape(self) -> list[int]:
        """The shape of a label."""
        return [self.label_dim]

    @property
    def has_labels(self) -> bool:
        """Whether the labels contain anything."""
        return self.label_dim > 0


class MaskLabeledDataset(ImageFolderDataset):
    """`ImageFolderDataset` with a mask for each picture: items are (image, mask uint8 [1, H, H], label)."""

    def __init__(self, img_path: str, seg_path: str, **options):
        super().__init__(img_path, **options)
        self._seg_path = seg_path
        self._masks = Archive(seg_path)
        self._mask_fnames = _masks_of(self._images, self._masks)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        image, label = super().__getitem__(index)
        return image, self._pixels(self._masks, self._mask_fnames, decode_mask, index), label
