"""Which options of a training run contradict each other or would have no effect: one clear line for each."""

import os
from typing import Any

from dnnlib import UserError
from dnnlib.util import is_power_of_two
from metrics.requests import DISTANCES, parse_all
from training.options import Options


def check(config: Options, preset: dict[str, Any]) -> None:
    """Raise UserError for the first mistake; `preset` holds the defaults that the options' preset changes."""
    _check_effects(config, preset)
    _check_batch(config)
    _check_sizes(config)
    _check_run(config)


# Options that act only under a condition: name, whether they act, and what to do.  Refused when given a value of their own.
_CONDITIONS = (
    ("p", lambda c: c.aug == "fixed", "it is the strength of --aug fixed"),
    ("target", lambda c: c.aug == "ada", "it is the target of --aug ada"),
    ("resume_kimg", lambda c: c.resume is not None, "it counts what --resume has seen"),
    ("resume_blur", lambda c: c.resume is not None, "it is about --resume"),
    (
        "blur_fade_kimg",
        lambda c: c.resume is None or c.resume_blur,
        "after --resume the blur is over but with --resume_blur true",
    ),
    (
        "gpc_reg_fade_kimg",
        lambda c: c.resume is None or c.resume_blur,
        "after --resume the fade is over but with --resume_blur true",
    ),
    ("gpc_reg_prob", lambda c: c.gen_pose_cond, "it needs --gen_pose_cond true"),
    ("gpc_reg_fade_kimg", lambda c: c.gen_pose_cond, "it needs --gen_pose_cond true"),
    ("bcg_reg_prob", lambda c: c.use_background, "it needs --use_background true"),
    ("density_reg_every", lambda c: c.density_reg > 0, "it needs --density_reg over 0"),
    (
        "density_reg_p_dist",
        lambda c: c.density_reg > 0 and c.reg_type == "l1",
        "it needs --reg_type l1 and --density_reg over 0",
    ),
    ("reg_type", lambda c: c.density_reg > 0, "it needs --density_reg over 0"),
    ("seg_resolution", lambda c: c.disc_module == "MaskDualDiscriminator", "only MaskDualDiscriminator has a branch for masks"),
    (
        "neural_rendering_resolution_fade_kimg",
        lambda c: c.neural_rendering_resolution_final is not None,
        "it needs --neural_rendering_resolution_final",
    ),
    (
        "c_noise",
        lambda c: False,
        "the family offers it and does nothing with it; --disc_c_noise acts on the discriminator's labels",
    ),
    ("sr_first_cutoff", lambda c: False, "it belongs to StyleGAN3 super-resolution, which this project does not have"),
    ("sr_first_stopband", lambda c: False, "it belongs to StyleGAN3 super-resolution, which this project does not have"),
    ("metric_views", lambda c: any(r.by_view for r in parse_all(c.metrics)), "no metric looks at a side"),
    ("detector", lambda c: any(r.kind in DISTANCES for r in parse_all(c.metrics)), "no metric compares features"),
    ("embedder", lambda c: "id" in c.metrics, "it is for --metrics id"),
    ("cond", lambda c: False, "without camera labels there is nothing to render pictures with"),
    ("seg_channels", lambda c: False, "masks here have one channel"),
)


def _check_effects(config: Options, preset: dict[str, Any]) -> None:
    defaults = {name: field.default for name, field in config.__dataclass_fields__.items()} | preset
    for name, acts, reason in _CONDITIONS:
        value = getattr(config, name)
        if (tuple(value) if isinstance(value, list) else value) != defaults[name] and not acts(config):
            raise UserError(f"--{name} {value} would have no effect: {reason}")
    if config.reg_type in ("l1-alt", "total-variation"):
        raise UserError(
            f"--reg_type {config.reg_type} is offered by the family and does nothing there; "
            "use l1, monotonic-detach or monotonic-fixed"
        )


def _check_batch(config: Options) -> None:
    if config.batch % config.gpus:
        raise UserError(f"--batch {config.batch} must be a multiple of --gpus {config.gpus}")
    if config.batch % (config.gpus * config.micro_batch):
        raise UserError(
            f"--batch {config.batch} must be a multiple of --gpus {config.gpus} times --batch-gpu {config.micro_batch}"
        )
    if config.micro_batch % min(config.mbstd_group, config.micro_batch):
        raise UserError(f"--mbstd-group {config.mbstd_group} must divide the batch of a GPU, {config.micro_batch}")
    if config.disc_c_noise > 0 and config.micro_batch < 2:
        raise UserError("--disc_c_noise is in deviations of the labels of a GPU's batch, which needs --batch-gpu 2 or more")


def _check_sizes(config: Options) -> None:
    if config.g_const_resolution < 4 or not is_power_of_two(config.g_const_resolution):
        raise UserError(f"--g_const_resolution {config.g_const_resolution} must be a power of two, at least 4")
    if config.g_const_resolution > config.triplane_size:
        raise UserError(f"--g_const_resolution {config.g_const_resolution} is over --triplane_size {config.triplane_size}")
    for name in ("triplane_size", "seg_resolution"):
        value = getattr(config, name)
        if value < 8 or not is_power_of_two(value):
            raise UserError(f"--{name} {value} must be a power of two, at least 8")
        if value > config.cbase:
            raise UserError(f"--{name} {value} leaves no channels: it must be at most --cbase {config.cbase}")
    start, end = config.ray_limits
    if not 0 <= start < end:
        raise UserError(f"--ray_start {start:g} must be at least 0 and less than --ray_end {end:g}")
    if config.min_yaw > config.max_yaw:
        raise UserError(f"--min_yaw {config.min_yaw:g} is over --max_yaw {config.max_yaw:g}")


def _check_run(config: Options) -> None:
    if config.resume_kimg >= config.kimg:
        raise UserError(
            f"--resume_kimg {config.resume_kimg} leaves nothing to do up to --kimg {config.kimg:g}, which counts from 0"
        )
    parse_all(config.metrics)  # says which of them is unknown
    if config.desc and ("/" in config.desc or os.sep in config.desc):
        raise UserError(f"--desc {config.desc} becomes part of a folder's name and cannot hold a slash")
    if config.gpus > 1 and config.device.startswith("cuda:"):
        raise UserError(
            f"--device {config.device} is one GPU and --gpus asks for {config.gpus}: leave it out, or set CUDA_VISIBLE_DEVICES"
        )
