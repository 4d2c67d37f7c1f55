"""Short names of contents: two files, data sets or networks that have the same one are the same."""

import hashlib
import json
import os
from typing import Any

import numpy as np
import torch

from dnnlib.archive import Archive
from training.dataset import HeadPictures

SHORT = 8  # bytes of the names that are not compared with anything outside
_CHUNK = 2**20


def sha256_of_file(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_values(value: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=SHORT).hexdigest()


def digest_of_array(array: np.ndarray) -> str:
    """Of an array's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=SHORT).hexdigest()


def digest_of_generator(G: torch.nn.Module) -> str:
    """Of all that decides what a generator makes: weights, buffers (`pti.results` names weights alone), and how it renders."""
    digest = hashlib.blake2b(digest_size=SHORT)
    for name, tensor in sorted(G.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    settings = dict(rendering=G.rendering_kwargs, raw_pixels=G.neural_rendering_resolution)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def digest_of_pictures(archive: Archive) -> str:
    """Of the pictures of a folder or zip, by names and contents; a folder and the zip of it have the same.

    A zip tells the checksums of its files without being read; those of a folder are computed.
    """
    entries = [(name, *archive.checksum(name)) for name in archive.image_names()]
    return digest_of_values(entries)


def digest_of_cameras(dataset: HeadPictures) -> str:
    """Of which picture each item shows, mirrored or not, and its camera."""
    mirrored = dataset.is_mirrored(np.arange(len(dataset)))
    parts = [digest_of_array(part) for part in (dataset.item_sources(), mirrored, dataset.item_labels())]
    return digest_of_values(parts)
