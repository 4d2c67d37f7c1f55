"""Perceptual distances: VGG16 of both kinds on stand-ins with random weights, and the structural one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnnlib import UserError
from pti import perceptual


def pictures(size=64, seed=0):
    rng = np.random.RandomState(seed)
    return torch.from_numpy(rng.uniform(-1, 1, [1, 3, size, size]).astype(np.float32))


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    weights = perceptual.Vgg16().state_dict()
    torch.save(dict(weights, **{"classifier.0.weight": torch.zeros(1)}), path)
    return path


class Stub(torch.nn.Module):
    """Takes what the VGG16 of StyleGAN's metrics takes; its features are the mean colours."""

    def forward(self, x, resize_images: bool = True, return_lpips: bool = False):
        assert not resize_images and return_lpips
        return x.mean(dim=[2, 3]) / 255


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    first, second = pictures(40) / 2 + 0.5, pictures(40, seed=1) / 4 + 0.5
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
    for channel in range(3):
        _, expected = metrics.structural_similarity(
            first[0, channel].double().numpy(), second[0, channel].double().numpy(), full=True, **options
        )
        found = perceptual.ssim(first.double(), second.double())[0, channel]
        np.testing.assert_allclose(found, expected[5:-5, 5:-5], atol=1e-6)


def test_structural_loss_is_a_mean_over_scales():
    first, second = pictures(64), pictures(64, seed=1)
    expected = []
    a, b = first / 2 + 0.5, second / 2 + 0.5
    for _ in range(3):  # 64, 32, 16
        expected.append(1 - perceptual.ssim(a, b).mean() + (a - b).abs().mean())
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    assert perceptual.StructuralLoss()(first, second).item() == pytest.approx(sum(expected).item() / 3, rel=1e-5)
    assert perceptual.StructuralLoss()(first, first).item() == pytest.approx(0, abs=1e-5)


def test_large_pictures_are_reduced_by_area():
    large = pictures(512)
    loss = perceptual.StructuralLoss()
    reduced = F.avg_pool2d(large, 2)
    assert loss(large, -large).item() == pytest.approx(loss(reduced, -reduced).item(), rel=1e-5)


def test_vgg_activations_are_compared_by_unit_length(vgg_file):
    loss = perceptual.load_perceptual(str(vgg_file))
    first, second = pictures(), pictures(seed=1)
    mean, deviation = (torch.tensor(row)[:, None, None] for row in (perceptual.IMAGENET_MEAN, perceptual.IMAGENET_DEVIATION))
    weights = torch.load(vgg_file, weights_only=True)

    def activations(x):
        x, index = (x / 2 + 0.5 - mean) / deviation, 0
        for block, count in enumerate((2, 2, 3, 3, 3)):
            if block:
                x, index = F.max_pool2d(x, 2), index + 1
            for _ in range(count):
                x = F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1).relu()
                index += 2
            yield x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)

    expected = sum((a - b).square().sum(1).mean() for a, b in zip(activations(first), activations(second)))
    assert loss(first, second).item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss(first, first).item() == 0


def test_lpips_heads_weigh_channels(vgg_file, tmp_path):
    heads = {f"lin{i}.model.1.weight": torch.zeros(1, width, 1, 1) for i, width in enumerate((64, 128, 256, 512, 512))}
    torch.save(heads, tmp_path / "none.pth")
    heads["lin1.model.1.weight"][:] = 2.0
    torch.save(heads, tmp_path / "second.pth")
    first, second = pictures(), pictures(seed=1)
    assert perceptual.load_perceptual(str(vgg_file), str(tmp_path / "none.pth"))(first, second).item() == 0
    loss = perceptual.load_perceptual(str(vgg_file), str(tmp_path / "second.pth"))
    a, b = loss._activations(first)[1], loss._activations(second)[1]
    assert loss(first, second).item() == pytest.approx(2 * (a - b).square().sum(1).mean().item(), rel=1e-5)


def test_scripted_vgg_gets_pictures_from_0_to_255(tmp_path):
    path = tmp_path / "vgg16.pt"
    torch.jit.script(Stub()).save(path)
    loss = perceptual.load_perceptual(str(path))
    black, white = torch.full([1, 3, 32, 32], -1.0), torch.full([1, 3, 32, 32], 1.0)
    assert loss(black, white).item() == pytest.approx(3)


def test_without_weights_one_line_says_so(capsys):
    assert isinstance(perceptual.load_perceptual(), perceptual.StructuralLoss)
    assert capsys.readouterr().out.count("\n") == 1


def test_what_is_no_vgg_is_one_clear_line(vgg_file, tmp_path):
    (tmp_path / "text").write_text("not a network")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "linear.pt")
    for name, message in [
        ("text", "neither TorchScript nor a state dict"),
        ("other.pth", "does not contain the tensors of torchvision's VGG16"),
        ("list.pth", "is not a state dict"),
        ("linear.pt", "is not the VGG16 of StyleGAN's metrics"),
        ("missing", "not found"),
    ]:
        with pytest.raises(UserError, match=message):
            perceptual.load_perceptual(str(tmp_path / name))
    with pytest.raises(UserError, match="needs --vgg too"):
        perceptual.load_perceptual(None, str(vgg_file))
    with pytest.raises(UserError, match="not LPIPS' linear layers"):
        perceptual.load_perceptual(str(vgg_file), str(vgg_file))
