"""How different two pictures look: by the features of VGG16 (LPIPS, Zhang 2018), or by structure where there are no weights.

All distances take pictures [N, 3, H, W] in [-1, 1] and give a mean over the batch, 0 for equal pictures.  Pictures over 256
pixels are reduced by area to 256 first: VGG16 was trained on pictures of 224.
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
# VGG16: (input, output channels) of the 3x3 convolutions, by block; a max-pooling comes before all blocks but the first.
VGG_BLOCKS = (
    ((3, 64), (64, 64)),
    ((64, 128), (128, 128)),
    ((128, 256), (256, 256), (256, 256)),
    ((256, 512), (512, 512), (512, 512)),
    ((512, 512), (512, 512), (512, 512)),
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of pictures in [0, 1]
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_LUMINANCE, SSIM_CONTRAST = 0.01**2, 0.03**2  # for pictures in [0, 1]
MIN_SCALE = 16  # pixels of the smallest scale of the structural loss


def at_most(images: torch.Tensor, pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Pictures [N, C, H, W] reduced by area to `pixels` where they are larger."""
    return images if max(images.shape[-2:]) <= pixels else F.interpolate(images, size=(pixels, pixels), mode="area")


class StructuralLoss(torch.nn.Module):
    """Needs no weights: at each scale from the full picture down to 16 pixels, 1 - SSIM (Wang 2004) plus the mean difference.

    The mean over the scales, of pictures in [0, 1].
    """

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The distance, a scalar."""
        first, second = (at_most(images) / 2 + 0.5 for images in (first, second))
        terms = []
        while True:
            terms.append(1 - ssim(first, second).mean() + (first - second).abs().mean())
            if first.shape[-1] < 2 * MIN_SCALE:
                return torch.stack(terms).mean()
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Structural similarity [N, C, h, w] of pictures [N, C, H, W] in [0, 1], by Gaussian windows that lie inside them."""
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
                index += 2  # a ReLU after each
            self._taps.append(names)
            index += 1  # the pooling

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Normalised pictures [N, 3, H, W] -> the activations at the end of each block."""
        found = []
        for number, names in enumerate(self._taps):
            if number > 0:
                x = F.max_pool2d(x, 2)
            for name in names:
                x = F.relu(self.features[name](x))
            found.append(x)
        return found


class VggLoss(torch.nn.Module):
    """LPIPS (Zhang 2018): differences of unit-length activations, weighted by channel where there are heads.

    `heads` are the learned weights of the channels of each block; without them every channel counts 1.
    """

    def __init__(self, vgg: Vgg16, heads: list[torch.Tensor] | None = None):
        super().__init__()
        self.vgg = vgg.eval().requires_grad_(False)
        self.heads = torch.nn.ParameterList([torch.nn.Parameter(head, requires_grad=False) for head in heads or []])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None])

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The distance, a scalar."""
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
    """The TorchScript VGG16 of StyleGAN's metrics, which takes pictures in [0, 255] and gives LPIPS features [N, D]."""

    def __init__(self, script: torch.jit.ScriptModule):
        super().__init__()
        self.script = script.eval()

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The distance, a scalar."""
        return (self._features(first) - self._features(second)).square().sum(dim=1).mean()

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.script(at_most((images + 1) * (255 / 2)), resize_images=False, return_lpips=True)


def load_perceptual(
    vgg: str | None = None, heads: str | None = None, device: torch.device | str = "cpu"
) -> StructuralLoss | VggLoss | ScriptedLoss:
    """The distance to use, on `device`: by the VGG16 at the path or URL `vgg`, or structural (and said so) without one.

    `vgg` is TorchScript as StyleGAN's metrics have it, or a state dict with torchvision's names; `heads`, for the latter,
    are the state dict of LPIPS' linear layers.  UserError for a file that is neither.
    """
    if vgg is None:
        if heads is not None:
            raise UserError("--lpips-heads weigh the features of a VGG16: give --vgg too")
        print("No --vgg: pictures are compared by their structure at several scales, which needs no weights")
        return StructuralLoss().to(device)
    with open_url(vgg) as file:
        path = file.name
    if is_script(path):
        if heads is not None:
            raise UserError(f"{vgg} has LPIPS weights in it already: leave --lpips-heads out")
        return _scripted(path, vgg).to(device)
    network = Vgg16()
    weights = {name: tensor for name, tensor in _state_dict(path, vgg).items() if name.startswith("features.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{vgg} holds other tensors than torchvision's VGG16: features.0.weight to features.28.bias") from None
    return VggLoss(network, None if heads is None else _heads(heads)).to(device)


def is_script(path: str | os.PathLike) -> bool:
    """Whether a file is TorchScript: an archive with code in it."""
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
        raise UserError(f"{name} is neither TorchScript nor a state dict of tensors alone") from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{name} is not a state dict: it holds other things than tensors")
    return content


def _heads(path_or_url: str) -> list[torch.Tensor]:
    """The channel weights of LPIPS' linear layers, from a state dict with `lin0.model.1.weight` [1, C, 1, 1], …"""
    with open_url(path_or_url) as file:
        content = _state_dict(file.name, path_or_url)
    heads = []
    for index, block in enumerate(VGG_BLOCKS):
        found = [tensor for name, tensor in content.items() if name.startswith(f"lin{index}.")]
        if len(found) != 1 or found[0].numel() != block[-1][1]:
            raise UserError(f"{path_or_url} is not LPIPS' linear layers for VGG16: lin{index} with {block[-1][1]} weights")
        heads.append(found[0].flatten())
    return heads
