"""Perceptual distances: features of VGG16 (LPIPS, Zhang 2018), or structural similarity if there are no weights.

All distances take pictures [N, 3, H, W] in [-1, 1] and return the mean over the batch, which is 0 for equal pictures.  Pictures
larger than 256 pixels are first reduced to 256 by area, because VGG16 was trained on pictures of 224.
"""

import os
import pickle
import zipfile
from typing import Any

import torch
import torch.nn.functional as F

from dnnlib import UserError
from dnnlib.download import open_url

MAX_PIXELS = 256
# VGG16: (input, output channels) of the 3x3 convolutions, by block.  All blocks but the first start with a max-pooling.
VGG_BLOCKS = (
    ((3, 64), (64, 64)),
    ((64, 128), (128, 128)),
    ((128, 256), (256, 256), (256, 256)),
    ((256, 512), (512, 512), (512, 512)),
    ((512, 512), (512, 512), (512, 512)),
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # for pictures in [0, 1]
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_LUMINANCE, SSIM_CONTRAST = 0.01**2, 0.03**2  # for pictures in [0, 1]
MIN_SCALE = 16  # pixels; the smallest scale of the structural loss


def at_most(images: torch.Tensor, pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Reduce pictures [N, C, H, W] to `pixels` by area if they are larger."""
    return images if max(images.shape[-2:]) <= pixels else F.interpolate(images, size=(pixels, pixels), mode="area")


class StructuralLoss(torch.nn.Module):
    """Structural distance without weights: 1 - SSIM (Wang 2004) plus the mean difference, averaged over scales.

    The scales range from the full picture down to 16 pixels; values are compared in [0, 1].
    """

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the distance, a scalar."""
        first, second = (at_most(images) / 2 + 0.5 for images in (first, second))
        terms = []
        while True:
            terms.append(1 - ssim(first, second).mean() + (first - second).abs().mean())
            if first.shape[-1] < 2 * MIN_SCALE:
                return torch.stack(terms).mean()
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Structural similarity [N, C, h, w] of pictures [N, C, H, W] in [0, 1], over the Gaussian windows that fit inside them."""
    channels = first.shape[1]
    place = torch.arange(SSIM_WINDOW, device=first.device, dtype=first.dtype) - SSIM_WINDOW // 2
    bell = torch.exp(-(place**2) / (2 * SSIM_SIGMA**2))
    bell = (bell / bell.sum()).expand(channels, 1, 1, -1)

    def mean(images: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(images, bell, groups=channels), bell.mT, groups=channels)

    mean1, mean2 = mean(first), mean(second)
    variances = mean(first**2) - mean1**2 + mean(second**2) - mean2**2
    covariance = mean(first * second) - mean1 * mean2
    luminance = (2 * mean1 * mean2 + SSIM_LUMINANCE) / (mean1**2 + mean2**2 + SSIM_LUMINANCE)
    return luminance * (2 * covariance + SSIM_CONTRAST) / (variances + SSIM_CONTRAST)


class Vgg16(torch.nn.Module):
    """The convolutions of VGG16 (Simonyan 2015), with the names of torchvision's state dict: `features.N.weight`, …"""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.ModuleDict()
        self._taps: list[list[str]] = []
        index = 0
        for block in VGG_BLOCKS:
            names = []
            for inputs, outputs in block:
                self.features[str(index)] = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
                names.append(str(index))
                index += 2  # each is followed by a ReLU
            self._taps.append(names)
            index += 1  # the pooling

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the activations at the end of each block for normalised pictures [N, 3, H, W]."""
        found = []
        for number, names in enumerate(self._taps):
            if number > 0:
                x = F.max_pool2d(x, 2)
            for name in names:
                x = F.relu(self.features[name](x))
            found.append(x)
        return found


class VggLoss(torch.nn.Module):
    """LPIPS (Zhang 2018): differences of normalised activations, weighted by channel if `heads` are given.

    `heads` are the learned weights of the channels of each block.  Without them, every channel has weight 1.
    """

    def __init__(self, vgg: Vgg16, heads: list[torch.Tensor] | None = None):
        super().__init__()
        self.vgg = vgg.eval().requires_grad_(False)
        self.heads = torch.nn.ParameterList([torch.nn.Parameter(head, requires_grad=False) for head in heads or []])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None])

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the distance, a scalar."""
        total = 0
        for index, (a, b) in enumerate(zip(self._activations(first), self._activations(second), strict=True)):
            difference = (a - b) ** 2
            if len(self.heads):
                difference = difference * self.heads[index][:, None, None]
            total = total + difference.sum(dim=1).mean()
        return total

    def _activations(self, images: torch.Tensor) -> list[torch.Tensor]:
        normalised = (at_most(images) / 2 + 0.5 - self.mean) / self.deviation
        return [F.normalize(features, dim=1, eps=1e-10) for features in self.vgg(normalised)]


class ScriptedLoss(torch.nn.Module):
    """The TorchScript VGG16 of StyleGAN's metrics, which maps pictures in [0, 255] to LPIPS features [N, D]."""

    def __init__(self, script: torch.jit.ScriptModule):
        super().__init__()
        self.script = script.eval()

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the distance, a scalar."""
        return (self._features(first) - self._features(second)).square().sum(dim=1).mean()

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.script(at_most((images + 1) * (255 / 2)), resize_images=False, return_lpips=True)


def load_perceptual(
    vgg: str | None = None, heads: str | None = None, device: torch.device | str = "cpu"
) -> StructuralLoss | VggLoss | ScriptedLoss:
    """Load the perceptual distance onto `device`: one based on the VGG16 at the path or URL `vgg`, or else the structural one.

    `vgg` is TorchScript, as used by StyleGAN's metrics, or a state dict with torchvision's names.  For a state dict, `heads`
    can name the state dict of LPIPS' linear layers.  Raises UserError for any other file.  Prints a note if there is no `vgg`.
    """
    if vgg is None:
        if heads is not None:
            raise UserError("--lpips-heads weights the features of a VGG16, so it needs --vgg too")
        print("No --vgg: comparing pictures by structural similarity at several scales, which needs no weights")
        return StructuralLoss().to(device)
    with open_url(vgg) as file:
        path = file.name
    if is_script(path):
        if heads is not None:
            raise UserError(f"{vgg} already contains LPIPS weights; leave --lpips-heads out")
        return _scripted(path, vgg).to(device)
    network = Vgg16()
    weights = {name: tensor for name, tensor in _state_dict(path, vgg).items() if name.startswith("features.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"{vgg} does not contain the tensors of torchvision's VGG16, features.0.weight to features.28.bias"
        ) from None
    return VggLoss(network, None if heads is None else _heads(heads)).to(device)


def is_script(path: str | os.PathLike) -> bool:
    """Whether a file is TorchScript: an archive that contains code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _scripted(path: str, name: str) -> ScriptedLoss:
    try:
        loss = ScriptedLoss(torch.jit.load(path, map_location="cpu"))
        features = loss._features(torch.zeros(1, 3, 64, 64))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{name} is not the VGG16 of StyleGAN's metrics: {' '.join(str(error).split())[:200]}") from None
    if features.ndim != 2:
        raise UserError(f"{name} gives features of {features.ndim} dimensions; the VGG16 of StyleGAN's metrics gives [N, D]")
    return loss


def _state_dict(path: str, name: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError):
        raise UserError(f"{name} is neither TorchScript nor a state dict of tensors only") from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{name} is not a state dict: it contains other things than tensors")
    return content


def _heads(path_or_url: str) -> list[torch.Tensor]:
    """Load the channel weights of LPIPS' linear layers from a state dict with `lin0.model.1.weight` [1, C, 1, 1], …"""
    with open_url(path_or_url) as file:
        content = _state_dict(file.name, path_or_url)
    heads = []
    for index, block in enumerate(VGG_BLOCKS):
        found = [tensor for name, tensor in content.items() if name.startswith(f"lin{index}.")]
        if len(found) != 1 or found[0].numel() != block[-1][1]:
            raise UserError(f"{path_or_url} is not LPIPS' linear layers for VGG16: lin{index} needs {block[-1][1]} weights")
        heads.append(found[0].flatten())
    return heads
