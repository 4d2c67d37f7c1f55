"""A tiny network, photos of it with masks and cameras, and the command called in this process."""

import json
import math
import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from helpers import small_generator

import camera_utils
from inference import synthesis
from pti.targets import TargetSource
from training.images import to_uint8

YAWS = (0.0, 60.0, 180.0)  # degrees, of the photos


@pytest.fixture(scope="session")
def generator():
    """A generator of heads that renders raw pictures of 16 pixels with 4 + 4 samples per ray, and pictures of 128."""
    return small_generator(4, triplane_size=32)


@pytest.fixture(scope="session")
def network(generator, tmp_path_factory):
    """The path of a snapshot of it."""
    path = tmp_path_factory.mktemp("networks") / "tiny.pkl"
    path.write_bytes(pickle.dumps(dict(G_ema=generator)))
    return str(path)


@pytest.fixture(scope="session")
def photos(generator, tmp_path_factory):
    """A folder with `img` and `seg`: a head of the network's own from three sides, in a folder named after it."""
    folder = tmp_path_factory.mktemp("photos")
    for part in ("img", "seg"):
        (folder / part / "00007").mkdir(parents=True)
    face = synthesis.prepare(generator, torch.full([1, generator.backbone.num_ws, generator.w_dim], 0.3))
    labels = []
    for index, yaw in enumerate(YAWS):
        label = camera_utils.orbit_label(math.radians(yaw), 0.0)
        image = to_uint8(synthesis.render(generator, face, label)["image"])[0]
        y, x = np.mgrid[:128, :128] / 128
        mask = np.where(np.hypot(x - 0.5, y - 0.5) < 0.35, 255, 0).astype(np.uint8)
        PIL.Image.fromarray(image).save(folder / "img" / "00007" / f"{index:03d}.png")
        PIL.Image.fromarray(mask).save(folder / "seg" / "00007" / f"{index:03d}.png")
        labels.append([f"00007/{index:03d}.png", label[0].tolist()])
    (folder / "img" / "dataset.json").write_text(json.dumps(dict(labels=labels)))
    return folder


@pytest.fixture(scope="session")
def target(photos):
    """The first of the photos."""
    return TargetSource(str(photos)).load([0], 128)


@pytest.fixture
def unchanged(generator):
    """Fails if the test changes the generator."""
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    settings, size = dict(generator.rendering_kwargs), generator.neural_rendering_resolution
    yield
    assert all(torch.equal(before[name], tensor) for name, tensor in generator.state_dict().items())
    assert dict(generator.rendering_kwargs) == settings and generator.neural_rendering_resolution == size
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in generator.parameters())
