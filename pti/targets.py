"""Loads the photos to invert: pictures, masks and cameras, from the same folders as training and the photo tool."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import torch

import camera_utils
from dnnlib import UserError
from dnnlib.archive import LABELS_NAME, Archive, read_labels, stem
from training.decoding import decode_image, decode_mask
from training.images import from_uint8

IMAGES, MASKS = "img", "seg"  # names, or parts of the names, of the folders of pictures and of masks


@dataclass(frozen=True)
class Target:
    """k photos of one person: pictures [k, 3, H, H] in [-1, 1], masks [k, 1, H, H] in [0, 1] or None, labels [k, 25]."""

    name: str
    images: torch.Tensor
    masks: torch.Tensor | None
    labels: torch.Tensor

    def to(self, device: torch.device | str) -> "Target":
        """A copy on `device`."""
        tensors = {name: getattr(self, name) for name in ("images", "masks", "labels")}
        moved = {name: tensor if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
        return dataclasses.replace(self, **moved)

    def masks_for_loss(self, wanted: bool) -> torch.Tensor | None:
        """The masks if they are `wanted`.  Raises UserError if they are missing."""
        if wanted and self.masks is None:
            raise UserError(f"--mask true, but {self.name} has no mask: give --target_seg DIR, or --mask false")
        return self.masks if wanted else None


class TargetSource:
    """Photos with labels, and with masks if there are any, in folders or zips.

    `img` may also be a folder that contains `img` and `seg`, or zips with these names.  Without `seg`, masks are looked for
    beside the photos, in a folder with `seg` instead of `img` in its name.  Raises UserError if there are no photos, or if
    labels or masks do not match them.
    """

    def __init__(self, img: str, seg: str | None = None):
        path = Path(img)
        inside = [place for place in (path / IMAGES, path / f"{IMAGES}.zip") if place.exists()]
        if inside and not (path / LABELS_NAME).exists():
            path = inside[0]
        if path.is_file() and path.suffix.lower() in PIL.Image.registered_extensions():
            raise UserError(
                f"{path} is a photo without a camera: give it to gen_pti_script.sh, or to dataset_tool_photo.py first"
            )
        self._images = Archive(path)
        self._masks = _mask_archive(path, seg)
        self.names = self._images.image_names()
        if not self.names:
            raise UserError(f"{path} contains no pictures")
        self._labels = _labels_of(self._images, self.names)
        self._mask_names = _match_masks(self._images, self._masks, self.names)

    @property
    def has_masks(self) -> bool:
        """Whether there are masks for the photos."""
        return self._masks is not None

    def load(self, indices: list[int], resolution: int) -> Target:
        """Load the photos with these indices (in order of their names) as one target, resized to `resolution` pixels."""
        beyond = [index for index in indices if index >= len(self.names)]
        if beyond:
            last = len(self.names) - 1
            raise UserError(f"--idx {beyond[0]}: {self._images.path} has photos 0 to {last}")
        names = [self.names[index] for index in indices]
        images = [_to_size(_decode(self._images, name, decode_image), resolution, name) for name in names]
        masks = None
        if self._masks is not None:
            found = [_decode(self._masks, self._mask_names[name], decode_mask) for name in names]
            masks = torch.from_numpy(np.stack([_to_size(mask, resolution, name) for mask, name in zip(found, names)]))
            masks = from_uint8(masks[:, None], low=0.0)
        pictures = from_uint8(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        labels = torch.tensor([self._labels[name] for name in names], dtype=torch.float32)
        return Target(_target_name(names, self.names), pictures.contiguous(), masks, labels)


def _mask_archive(images: Path, seg: str | None) -> Archive | None:
    if seg is not None:
        return Archive(seg)
    images = Path(os.path.abspath(images))  # "." has no name
    beside = images.with_name(images.name.replace(IMAGES, MASKS))
    return Archive(beside) if beside != images and beside.exists() else None


def _labels_of(images: Archive, names: list[str]) -> dict[str, list[float]]:
    labels = read_labels(images)
    advice = "dataset_tool_photo.py makes crops with cameras from raw photos"
    if labels is None:
        raise UserError(f"{images.path} has no {LABELS_NAME} with the camera of each photo; {advice}")
    missing = [name for name in names if name not in labels]
    if missing:
        raise UserError(
            f"{LABELS_NAME} in {images.path} does not match: it lacks {len(missing)} of {len(names)} photos, such as "
            f"{missing[0]}; {advice}"
        )
    for name in names:
        label = np.asarray(labels[name])
        if label.shape != (camera_utils.LABEL_DIM,) or not np.isfinite(label).all():
            raise UserError(f"{LABELS_NAME} in {images.path}: {name} has no {camera_utils.LABEL_DIM} finite numbers; {advice}")
    return labels


def _match_masks(images: Archive, masks: Archive | None, names: list[str]) -> dict[str, str]:
    if masks is None:
        return {}
    by_stem = {stem(name): name for name in masks.image_names()}
    missing = [name for name in names if stem(name) not in by_stem]
    if missing:
        raise UserError(
            f"{masks.path} does not match {images.path}: {len(missing)} of {len(names)} photos have no mask, "
            f"such as {missing[0]}"
        )
    return {name: by_stem[stem(name)] for name in names}


def _decode(archive: Archive, name: str, decode: Callable[[bytes], PIL.Image.Image]) -> PIL.Image.Image:
    try:
        return decode(archive.read(name))
    except UserError as error:
        raise UserError(f"cannot read {name} in {archive.path}: {error}") from None


def _to_size(picture: PIL.Image.Image, resolution: int, name: str) -> np.ndarray:
    if picture.width != picture.height:
        raise UserError(
            f"{name} is {picture.width}x{picture.height}, but labels describe cameras of squares: "
            "prepare it with dataset_tool_photo.py"
        )
    kind = PIL.Image.Resampling.BOX if picture.width >= resolution else PIL.Image.Resampling.BILINEAR
    return np.asarray(picture.resize((resolution, resolution), kind))


def _target_name(names: list[str], all_names: list[str]) -> str:
    """A name for a folder: that of the photo, with its folders if the name is not unique, and the number of further photos."""
    first = PurePosixPath(names[0])
    alike = [name for name in all_names if PurePosixPath(name).stem == first.stem]
    name = first.stem if len(alike) == 1 else stem(names[0]).replace("/", "-")
    return name if len(names) == 1 else f"{name}+{len(names) - 1}"
