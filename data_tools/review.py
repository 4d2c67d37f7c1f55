"""Inspects the data before training: refuses what nothing can be learned from, and reports what is odd in one line each."""

import collections

import numpy as np
import torch
from PIL import Image

import camera_utils
from data_tools.report import PIXEL_FOCAL, UNUSABLE_LABELS, label_faults, mask_fault
from dnnlib import UserError
from training.dataset import HeadDataset

MASKS_LOOKED_AT = 100
TOO_MANY = 0.5  # share of the inspected data; a fault this frequent comes from how the data were made
_ADVICE = "dataset_tool_seg.py fixes or lists the faults (--check), and --accept-data true trains anyway"


def review(dataset: HeadDataset, accept: bool = False) -> list[str]:
    """Inspect all labels and some masks.  Returns a line for each kind of fault, with its count.

    Raises UserError, unless `accept`, if more than half of them have a fault that makes learning impossible: cameras that are
    not a rotation, look away from the head or are in pixels, and masks without a head or with levels that no mask has.
    """
    labels = torch.from_numpy(dataset.picture_labels()).double()
    found = {kind: int(flags.sum()) for kind, flags in label_faults(labels).items()}
    focal = camera_utils.unpack_label(labels)[1][:, 0, 0]
    found["intrinsics in pixels instead of picture widths"] = int((focal > PIXEL_FOCAL).sum())
    faults = [(kind, count, len(labels), kind in UNUSABLE_LABELS or "pixels" in kind) for kind, count in found.items()]

    sample = np.unique(np.linspace(0, len(dataset) - 1, min(MASKS_LOOKED_AT, len(dataset))).round().astype(int))
    masks = collections.Counter(mask_fault(Image.fromarray(dataset[int(index)][1][0])) for index in sample)
    faults += [(kind, count, len(sample), True) for kind, count in masks.items() if kind is not None]

    lines = [f"{kind}: {count} of {total} looked at" for kind, count, total, _ in faults if count]
    unusable = [f"{kind}: {count} of {total}" for kind, count, total, bad in faults if bad and count > TOO_MANY * total]
    if unusable and not accept:
        raise UserError(f"nothing can be learned from {dataset.images.path} as it is: {'; '.join(unusable)}; {_ADVICE}")
    return lines
