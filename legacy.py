"""Loads snapshots for scripts of this family.  `training.loading` does the work and never runs code from the file."""

import mmap
import shutil
import tempfile
from typing import Any, BinaryIO

import torch

from dnnlib import UserError
from torch_utils import misc
from training.loading import NETWORKS, load_snapshot

FORCED_FP16_RESOLUTIONS = 4  # the highest ones, as in published code with `force_fp16`
FORCED_CONV_CLAMP = 256


def load_network_pkl(f: BinaryIO, force_fp16: bool = False) -> dict[str, Any]:
    """Load the networks from a snapshot that `dnnlib.util.open_url` has opened as `f`.

    Returns a dictionary with `G_ema`, and with `G` and `D` if the file holds them and their classes are known here.  All are on
    the CPU, in evaluation mode and without gradients.  `training_set_kwargs` and `augment_pipe` are None if the file has none.
    With `force_fp16`, the four highest resolutions of each network run in float16 on a GPU.  Raises UserError if the file is
    damaged or is a TensorFlow pickle of the first StyleGAN2.
    """
    with tempfile.NamedTemporaryFile(suffix=".pkl") as copy:
        shutil.copyfileobj(f, copy)
        copy.flush()
        if _is_tensorflow_pickle(copy):
            raise UserError("this is a TensorFlow pickle of the first StyleGAN2: convert it with stylegan3's legacy.py first")
        data = load_snapshot(copy.name, required=("G_ema",))
    if force_fp16:
        data.update({key: _in_half_precision(data[key]) for key in NETWORKS if key in data})
    return dict(training_set_kwargs=None, augment_pipe=None) | data


def _is_tensorflow_pickle(file: BinaryIO) -> bool:
    if file.tell() == 0:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"dnnlib.tflib", 0, 2**20) >= 0


def _in_half_precision(network: torch.nn.Module) -> torch.nn.Module:
    """Rebuild the network so that its highest resolutions run in float16."""
    kwargs = dict(network.init_kwargs, num_fp16_res=FORCED_FP16_RESOLUTIONS, conv_clamp=FORCED_CONV_CLAMP)
    if "sr_num_fp16_res" in kwargs:
        kwargs["sr_num_fp16_res"] = FORCED_FP16_RESOLUTIONS
    half = type(network)(*network.init_args, **kwargs).eval().requires_grad_(False)
    misc.copy_params_and_buffers(network, half, require_all=True)
    for name in ("rendering_kwargs", "neural_rendering_resolution"):
        if hasattr(network, name):
            setattr(half, name, getattr(network, name))
    return half
