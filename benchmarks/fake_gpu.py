"""What training would hold in the memory of a GPU, counted on a machine without one.

python -m benchmarks.fake_gpu --batch 4

Networks and losses run on tensors without data (PyTorch's FakeTensorMode) that say they are on 'cuda': half precision, memory
formats and compiled ops are those of a GPU, and a tensor that was made on another device is an error.  Nothing is computed.
What libraries allocate for themselves, such as the workspaces of convolutions, is not counted.
"""

import collections
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from torch._subclasses import FakeTensorMode
from torch.utils import cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dnnlib import cli
from dnnlib.util import construct_class_by_name
from torch_utils import custom_ops
from torch_utils.ops.examples import ops_mode
from training.config import TrainingConfig
from training.loss import StyleGAN2Loss
from training.options import PRESETS

ROOT = Path(__file__).parent.parent
CUDA = torch.device("cuda")
_LIBRARY = "fake_gpu.so"
_BLOCK = 512  # bytes that PyTorch's allocator of a GPU rounds up to
_SHOWN = 8  # rows of a table


def environment(folder: Path) -> dict[str, str]:
    """That of a process in which `fake_gpu` works; builds what it preloads in `folder`.

    CalledProcessError or OSError without a compiler.
    """
    if torch.version.cuda is not None:  # knows such devices by itself
        return dict(os.environ)
    library = folder / _LIBRARY
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()] + ["-lc10", "-ltorch_cpu"]
    found_at = [f"-Wl,-rpath,{path}" for path in cpp_extension.library_paths()]
    source = Path(__file__).with_suffix(".cpp")
    flags = ["-std=c++20", "-shared", "-fPIC", *includes, str(source), "-o", str(library), *libraries, *found_at]
    subprocess.run([cpp_extension.get_cxx_compiler(), *flags], check=True, capture_output=True, text=True)
    return dict(os.environ, LD_PRELOAD=" ".join(filter(None, [str(library), os.environ.get("LD_PRELOAD")])))


@contextlib.contextmanager
def fake_gpu(compiled: bool = True) -> Iterator[None]:
    """Inside, tensors have no data, and may be on 'cuda'.  `compiled`: as if the compiled CUDA ops were there, or not."""
    with contextlib.ExitStack() as stack:
        if compiled:
            stack.enter_context(_shapes_of_compiled_ops())
        else:
            stack.enter_context(ops_mode("ref"))
        yield stack.enter_context(FakeTensorMode(allow_non_fake_inputs=False))


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """`module`, its parameters and buffers on the fake GPU; `Module.to` does not move tensors without data."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = torch.nn.Parameter(parameter.detach().to(CUDA), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(CUDA)
    return module


def networks(config: TrainingConfig, resolution: int) -> tuple[torch.nn.Module, torch.nn.Module, StyleGAN2Loss]:
    """Generator, discriminator and loss as training makes them, on the fake GPU."""
    G, D = (
        moved(construct_class_by_name(**kwargs).train().requires_grad_(False))
        for kwargs in (config.generator_kwargs(resolution), config.discriminator_kwargs(resolution))
    )
    return G, D, construct_class_by_name(device=CUDA, G=G, D=D, **config.loss_kwargs())


def run_phase(loss: StyleGAN2Loss, phase: str, batch: int, nimg: int = 0) -> None:
    """Gradients of one phase of `training.loss.PHASES` for `batch` samples."""
    learner, size = loss.G if phase.startswith("G") else loss.D, loss.G.img_resolution
    learner.requires_grad_(True)
    inputs = dict(
        real_img=torch.zeros(batch, 3, size, size, device=CUDA),
        real_seg=torch.zeros(batch, 1, size, size, device=CUDA),
        real_c=torch.zeros(batch, loss.G.c_dim, device=CUDA),
        gen_z=torch.zeros(batch, loss.G.z_dim, device=CUDA),
        gen_c=torch.zeros(batch, loss.G.c_dim, device=CUDA),
    )
    loss.accumulate_gradients(phase, **inputs, gain=1, cur_nimg=nimg)
    learner.requires_grad_(False)


class Held(TorchDispatchMode):
    """Counts the bytes of tensors on the fake GPU that are made inside and not yet freed: now, and at most.

    `at_peak` has the bytes of that moment by place in this project's code and operation, shape and type.
    """

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.at_peak: collections.Counter[tuple[str, str]] = collections.Counter()
        self._held: collections.Counter[tuple[str, str]] = collections.Counter()
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == CUDA.type:
                storage = tensor.untyped_storage()
                if storage not in self._seen:
                    self._seen[storage] = None
                    self._add(storage, (_place(), f"{function.overloadpacket.__name__} {_kind(tensor)}"))
        return result

    def _add(self, storage: torch.UntypedStorage, label: tuple[str, str]) -> None:
        size = -(-storage.nbytes() // _BLOCK) * _BLOCK
        self._count(label, size)
        weakref.finalize(storage, self._count, label, -size)
        if self.bytes > self.peak:
            self.peak, self.at_peak = self.bytes, self._held.copy()

    def _count(self, label: tuple[str, str], size: int) -> None:
        self.bytes += size
        self._held[label] += size


def _kind(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _place() -> str:
    """The innermost function of this project's networks that is running, or the backward pass, where there is none."""
    for frame, _ in traceback.walk_stack(None):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "training"):
            return f"{path.stem}.{getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}"
    return "backward"


# The compiled CUDA ops as far as shapes go


@contextlib.contextmanager
def _shapes_of_compiled_ops() -> Iterator[None]:
    library = torch.library.Library(custom_ops.CUDA.name, "DEF")
    bindings = (custom_ops.CUDA.folder / "bindings.cpp").read_text()
    for pieces in re.findall(r"m\.def\(\s*((?:\"[^\"]*\"\s*)+),", bindings):
        schema = "".join(re.findall(r"\"([^\"]*)\"", pieces))
        name = schema.partition("(")[0]
        library.define(schema)
        library.impl(name, _SHAPES[name], "Meta")
    try:
        with mock.patch.object(custom_ops, "cuda_ops", lambda: getattr(torch.ops, custom_ops.CUDA.name)):
            yield
    finally:
        library._destroy()


def _bias_act_grad(grad, x, scale, noise, bias, slope, gain, clamp, last):
    samples, channels, pixels = x.shape[0], x.shape[1], x[0, 0].numel()
    return (
        torch.empty_like(x),
        x.new_empty(samples if scale is not None else 0, channels),
        x.new_empty(samples if noise is not None else 0, pixels),
        x.new_empty(channels),
    )


def _upfirdn2d(x, taps, up_x, up_y, down_x, down_y, left, right, top, bottom):
    (batch, channels, height, width), (taps_y, taps_x) = x.shape, taps.shape
    height = (height * up_y + top + bottom - taps_y) // down_y + 1
    width = (width * up_x + left + right - taps_x) // down_x + 1
    memory_format = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return torch.empty(batch, channels, height, width, dtype=x.dtype, device=x.device, memory_format=memory_format)


_SHAPES: dict[str, Any] = dict(
    grid_lookup=lambda table, points, axes: table.new_empty(*points.shape[:2], table.shape[-1]),
    grid_lookup_grad_table=lambda grad, points, table_shape, axes: grad.new_empty(table_shape),
    grid_lookup_grad_points=lambda grad, table, points, axes: torch.empty_like(points),
    grid_mlp=lambda table, points, axes, w1, b1, w2, b2: table.new_empty(*points.shape[:2], b2.shape[0]),
    composite=lambda weights, features, order: features.new_empty(*features.shape[:2], features.shape[-1]),
    composite_grad=lambda grad, weights, features, order: (torch.empty_like(weights), torch.empty_like(features)),
    bias_act=lambda x, *others: torch.empty_like(x),
    bias_act_grad=_bias_act_grad,
    upfirdn2d=_upfirdn2d,
)


@cli.command(help=__doc__)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Sizes of the networks", default="paper", show_default=True)
@click.option("--resolution", type=int, help="Pixels of a picture", default=512, show_default=True, metavar="INT")
@click.option("--batch", type=int, help="Samples at a time", default=4, show_default=True, metavar="INT")
@click.option("--plain", help="Without compiled ops", is_flag=True)
def main(preset: str, resolution: int, batch: int, plain: bool) -> None:
    """Print what each phase of training holds at most, and where it was made."""
    if torch.version.cuda is None and _LIBRARY not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as folder:
            again = [sys.executable, "-m", "benchmarks.fake_gpu", *sys.argv[1:]]
            sys.exit(subprocess.run(again, env=environment(Path(folder)), cwd=ROOT).returncode)
    config = TrainingConfig(**{**_PUBLISHED, **PRESETS[preset], "batch": batch, "preset": preset})
    with fake_gpu(compiled=not plain):
        G, D, loss = networks(config, resolution)
        weights = sum(p.numel() * p.element_size() for m in (G, D) for p in m.parameters())
        print(f"weights of G and D {weights / 2**30:.2f} GiB; their averages and moments are three times as much\n")
        for phase in ("Gboth", "Dmain", "Dreg", "pictures"):
            with Held() as held:
                if phase == "pictures":
                    _pictures(G.eval(), batch)
                else:
                    run_phase(loss, phase, batch)
            _print_peak(phase, held)
            for parameter in (*G.parameters(), *D.parameters()):
                parameter.grad = None


# The published 512 command of docs/training.md, as far as it says what networks hold.
_PUBLISHED: dict[str, Any] = dict(
    outdir="", cfg="ffhq", img_data="", seg_data="", gpus=1, gamma=1, gamma_seg=1, gen_pose_cond=True, use_torgb_raw=True
)
_PUBLISHED |= dict(decoder_activation="none", disc_module="MaskDualDiscriminatorV2", bcg_reg_prob=0.2, triplane_depth=3)
_PUBLISHED |= dict(density_noise_fade_kimg=200, density_reg=0, trans_reg=10, gpc_reg_prob=0.7)


@torch.no_grad()
def _pictures(G: torch.nn.Module, batch: int) -> None:
    G(torch.zeros(batch, G.z_dim, device=CUDA), torch.zeros(batch, G.c_dim, device=CUDA), noise_mode="const")


def _print_peak(phase: str, held: Held) -> None:
    print(f"{phase}: at most {held.peak / 2**30:.2f} GiB")
    places: collections.Counter[str] = collections.Counter()
    for (place, _), size in held.at_peak.items():
        places[place] += size
    for place, size in places.most_common(_SHOWN):
        print(f"  {size / 2**30:6.2f}  {place}")


if __name__ == "__main__":
    main()
