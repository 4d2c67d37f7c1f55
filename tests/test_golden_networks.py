"""The networks compared with the records in tests/golden: names, shapes, kinds, and outputs with the weights of `fill`.

tests/golden/README.md says how each record was made.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import draw, fill

from dnnlib.util import construct_class_by_name

GOLDEN = Path(__file__).parent / "golden"
IMAGE_TOLERANCE = 1e-3  # relative L2 error, of pictures
TOLERANCE = 1e-4  # of everything else
SAVED_EVERY = 4  # of the pixels of large pictures, in some records


def load_json(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def build(name, **overrides):
    return construct_class_by_name(**{**load_json(f"{name}_kwargs"), **overrides})


def assert_close(result, expected, tolerance=TOLERANCE):
    expected = torch.from_numpy(expected)
    assert result.shape == expected.shape
    error = float((result - expected).norm() / expected.norm())
    assert error < tolerance, f"relative error {error:.2e}"


def assert_pictures_close(result, record, prefix):
    """Compare all outputs in `result` with the entries of `record` that begin with `prefix`."""
    names = {name.removeprefix(prefix) for name in record if name.startswith(prefix)}
    assert set(result) == names
    for name in names:
        expected, picture = record[prefix + name], result[name]
        if picture.shape[-1] == SAVED_EVERY * expected.shape[-1]:
            picture = picture[:, :, ::SAVED_EVERY, ::SAVED_EVERY]
        assert_close(picture, expected, IMAGE_TOLERANCE)


# Names


V1_256 = dict(class_name="training.dual_discriminator.MaskDualDiscriminator", img_resolution=256)


@pytest.mark.parametrize(
    "record, kwargs, overrides",
    [
        ("generator_small", "generator_small", {}),
        ("generator_ffhq512", "generator_ffhq512", {}),
        ("eg3d_small", "eg3d_small", {}),
        ("discriminator_small", "discriminator_small", {}),
        ("discriminator_v2_512", "discriminator_v2_512", {}),
        ("discriminator_v1_256", "discriminator_v2_512", V1_256),
    ],
)
def test_state_dict_names_shapes_and_kinds(record, kwargs, overrides):
    network = build(kwargs, **overrides)
    parameters = dict(network.named_parameters())
    found = {
        name: dict(shape=list(tensor.shape), kind="parameter" if name in parameters else "buffer")
        for name, tensor in network.state_dict().items()
    }
    assert found == load_json(record)


# The generator


@pytest.fixture(scope="module")
def record():
    return np.load(GOLDEN / "generator_small.npz")


@pytest.fixture(scope="module")
def generator():
    return fill(build("generator_small")).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def z():
    return torch.from_numpy(draw("z", (2, 512)))


def test_mapping(generator, record, z):
    c = torch.from_numpy(record["c"])
    assert_close(generator.mapping(z, c, truncation_psi=0.7, truncation_cutoff=4), record["ws"])
    assert_close(generator.mapping(z, c), record["ws_full"])


def test_camera_shift(generator, record, z):
    shifted, shift = generator.apply_delta_c(z, torch.from_numpy(record["c"]))
    assert_close(shift, record["delta_c"])
    assert_close(shifted, record["c_shifted"])


def test_backbone(generator, record):
    planes = generator.backbone.synthesis(torch.from_numpy(record["ws"]), noise_mode="const")
    assert_close(planes[:, ::9, ::4, ::4], record["planes"])
    assert_close(planes.mean(dim=[1, 2, 3]), record["planes_mean"])


def test_density_and_colour_of_points(generator, record):
    xyz, ws = torch.from_numpy(record["xyz"]), torch.from_numpy(record["ws"])
    found = generator.sample_mixed(xyz, torch.zeros_like(xyz), ws, noise_mode="const")
    assert_close(found["sigma"], record["sigma"])
    assert_close(found["rgb"], record["rgb"])


def test_synthesis(generator, record):
    ws, c = torch.from_numpy(record["ws"]), torch.from_numpy(record["c_shifted"])
    torch.manual_seed(7)
    result = generator.synthesis(ws, c, neural_rendering_resolution=32, noise_mode="const")
    assert_pictures_close(result, record, "synthesis_")


def test_forward(generator, record, z):
    torch.manual_seed(7)
    result = generator(z, torch.from_numpy(record["c"]), neural_rendering_resolution=32, noise_mode="const")
    assert_pictures_close(result, record, "forward_")


# EG3D's generator


def test_eg3d_generator(z):
    record = np.load(GOLDEN / "eg3d_small.npz")
    generator = fill(build("eg3d_small")).eval().requires_grad_(False)
    xyz, c = torch.from_numpy(record["xyz"]), torch.from_numpy(record["c"])
    found = generator.sample(xyz, torch.zeros_like(xyz), z, c, noise_mode="const")
    assert_close(found["sigma"], record["sigma"])
    assert_close(found["rgb"], record["rgb"])
    torch.manual_seed(7)
    assert_pictures_close(generator(z, c, neural_rendering_resolution=32, noise_mode="const"), record, "forward_")


# Discriminators


@pytest.mark.parametrize(
    "name, record_name, entry",
    [("discriminator_small", "training_small", "logits"), ("discriminator_v1_small", "training_fades", "v1_logits")],
)
def test_logits(name, record_name, entry):
    record = np.load(GOLDEN / f"{record_name}.npz")
    pictures = {
        "image": torch.tanh(torch.from_numpy(draw("image", (4, 3, 128, 128)))),
        "image_raw": torch.tanh(torch.from_numpy(draw("image_raw", (4, 3, 32, 32)))),
        "image_mask": torch.sigmoid(torch.from_numpy(draw("image_mask", (4, 1, 32, 32)))),
    }
    discriminator = fill(build(name)).eval().requires_grad_(False)
    assert_close(discriminator(pictures, torch.from_numpy(record["c"])), record[entry])
