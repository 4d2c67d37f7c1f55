"""Draws a sheet that compares real heads with those of networks, seen by the same cameras in every row."""

from pathlib import Path

import numpy as np
import torch

import camera_utils
from dnnlib.cli import progress
from inference import synthesis
from training.dataset import HeadDataset
from training.images import picture, save_image, tile

COLUMNS = 8
TRUNCATION = 0.7


def save_comparison(path: Path, networks: list[Path], img_data: str | Path, seg_data: str | Path, device: torch.device) -> None:
    """Write a sheet to `path`: a row of pictures of the data set around the head, and a row of heads for each network.

    Column k shows seed k of every network from the camera of the data's picture above it.  The networks' pictures must have the
    size of the data.
    """
    dataset = HeadDataset(str(img_data), str(seg_data))
    items = round_the_head(dataset)
    rows = [np.stack([dataset[item][0] for item in items]).transpose(0, 2, 3, 1)]
    labels = torch.from_numpy(np.stack([dataset.label(item) for item in items])).to(device)
    for network in progress(networks, unit="network", desc="sheet"):
        G = synthesis.load_generator(str(network), str(device))
        rows.append(np.concatenate([draw(G, seed, label[None]) for seed, label in enumerate(labels)]))
    save_image(tile(np.concatenate(rows), COLUMNS), path)


def round_the_head(dataset: HeadDataset) -> list[int]:
    """COLUMNS items of `dataset` whose cameras go around the head in steps that are as equal as the data allow."""
    labels = torch.from_numpy(np.stack([dataset.label(item) for item in range(len(dataset))]))
    yaw = camera_utils.yaw_pitch_roll_degrees(labels)[:, 0]
    targets = torch.arange(COLUMNS) * 360 / COLUMNS
    distance = ((yaw - targets[:, None] + 180) % 360 - 180).abs()
    return distance.argmin(dim=1).tolist()


def draw(G: torch.nn.Module, seed: int, label: torch.Tensor) -> np.ndarray:
    """Render the head of `seed` from the camera `label` [1, 25], which also conditions the mapping: uint8 [1, H, W, 3]."""
    ws = synthesis.seeds_to_ws(G, [seed], label, TRUNCATION)
    return picture(synthesis.render(G, synthesis.prepare(G, ws), label), "image")
