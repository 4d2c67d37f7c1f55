"""Train a generator of whole heads from single-view photos, on the CPU or on one or more GPUs.

\b
This example trains the way PanoHead does at 512 pixels on 8 GPUs:
  python train.py --outdir training-runs --img_data dataset/testdata_img.zip --seg_data dataset/testdata_seg.zip \\
    --cfg=ffhq --batch=32 --gpus 8 --gamma=1 --gamma_seg=1 --gen_pose_cond=True --mirror=1 --use_torgb_raw=1 \\
    --decoder_activation="none" --disc_module MaskDualDiscriminatorV2 --bcg_reg_prob 0.2 --triplane_depth 3 \\
    --density_noise_fade_kimg 200 --density_reg 0 --min_yaw 0 --max_yaw 180 --back_repeat 4 --trans_reg 10 \\
    --gpc_reg_prob 0.7
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from data_tools.review import review
from dnnlib import UserError
from dnnlib.cli import MAX_SEED, FiniteFloat, Names, command
from metrics.measuring import Settings
from metrics.requests import NAMES
from metrics.views import VIEWS
from torch_utils import distributed
from torch_utils.device import select_device
from training import options as settings
from training.config import TrainingConfig
from training.dataset import HeadDataset
from training.layers import ARCHITECTURES
from training.regularizers import DENSITY_TYPES
from training.rendering_settings import ACTIVATIONS
from training.run_folder import check_unchanged, find_unfinished, read_options
from training.training_loop import train

COUNT = click.IntRange(min=0)
AT_LEAST_ONE = click.IntRange(min=1)
NOT_NEGATIVE = FiniteFloat(min=0)
POSITIVE = FiniteFloat(min=0, min_open=True)
FRACTION = FiniteFloat(min=0, max=1)
YAW = FiniteFloat(min=0, max=180)


def option(name: str, kind: Any, text: str, **kwargs: Any) -> Callable:
    """A click option with the default of the field of the same name in TrainingConfig."""
    field = TrainingConfig.__dataclass_fields__[name.lstrip("-").replace("-", "_")]
    if not kwargs.get("required"):
        kwargs["default"] = field.default
    return click.option(name, type=kind, help=text, **kwargs)


@command(help=__doc__)
@option("--outdir", str, "Folder in which a numbered folder is created for this run", required=True)
@option("--cfg", click.Choice(settings.SCENES), "Where the cameras of the data are, and how rays are sampled", required=True)
@option("--img_data", str, "Images with labels: a folder or zip made by dataset_tool_seg.py", required=True)
@option("--seg_data", str, "Masks of the images: a folder or zip", required=True)
@option(
    "--gpus", AT_LEAST_ONE, "Processes: one per GPU, or sharing the CPU; under torchrun, as many as it starts", required=True
)
@option("--batch", AT_LEAST_ONE, "Samples per batch, for all GPUs together", required=True)
@option("--gamma", NOT_NEGATIVE, "Weight of R1 for image and raw image", required=True)
@option("--gamma_seg", NOT_NEGATIVE, "Weight of R1 for the mask", required=True)
@option(
    "--preset",
    click.Choice(settings.PRESETS),
    "Sizes of the networks: those of the paper, half of them, or sizes that a CPU can train",
)
@option("--device", str, "cpu, cuda or auto")
@option("--desc", str, "Text appended to the name of the run folder")
@option("--metrics", Names(), f"What to measure at every snapshot, with commas between: {NAMES}")
@option("--metric_views", Names(choices=VIEWS), "Which sides --metrics look at")
@option("--detector", str, "Whose features --metrics compare: a path or URL of Inception for figures as published")
@option("--embedder", str, "For --metrics id: a path or URL of ArcFace as TorchScript")
@option("--cond", bool, "Condition on the camera labels, which rendering needs")
@option("--mirror", bool, "Add a mirrored copy of every picture")
@option("--min_yaw", YAW, "Leave out views with a smaller |yaw|, in degrees")
@option("--max_yaw", YAW, "Leave out views with a larger |yaw|, in degrees")
@option("--back_repeat", AT_LEAST_ONE, "Repeat views from behind this many times")
@option("--workers", AT_LEAST_ONE, "Processes that read data, per GPU")
@option("--accept-data", bool, "Train even if nothing can be learned from the data, as far as can be seen")
@option("--aug", click.Choice(["noaug", "ada", "fixed"]), "Augmentation of the discriminator's input")
@option("--p", FRACTION, "Probability of each augmentation for --aug fixed")
@option("--target", FRACTION, "Target of --aug ada: mean sign of the logits of real images")
@option("--resume", str, "Continue the run in this folder, or start from the networks of this snapshot (a path or https URL)")
@option("--resume_kimg", COUNT, "Start counting from this many thousand images")
@option("--resume_blur", bool, "Continue the fades of blur and pose swapping after --resume, from --resume_kimg on")
@option("--freezed", COUNT, "Number of discriminator layers that are frozen")
@option("--trust_pickle", bool, "Allow --resume to run code stored in the snapshot", is_flag=True)
@option("--kimg", POSITIVE, "Train for this many thousand images (0.5 is 500)")
@option("--minutes", POSITIVE, "Stop after this many minutes, as with Ctrl-C; the same command then continues")
@option("--tick", POSITIVE, "Thousands of images between reports (ticks)")
@option("--snap", AT_LEAST_ONE, "Ticks between saved pictures and networks")
@option("--seed", click.IntRange(0, MAX_SEED), "Seed of all random numbers")
@option("--nobench", bool, "Disable cuDNN's benchmarking of convolutions")
@option("--batch-gpu", AT_LEAST_ONE, "Samples that a GPU processes at a time; by default its whole share")
@option("--mbstd-group", AT_LEAST_ONE, "Group size of the minibatch standard deviation")
@option("--glr", NOT_NEGATIVE, "Learning rate of the generator")
@option("--dlr", NOT_NEGATIVE, "Learning rate of the discriminator")
@option("--cbase", click.IntRange(min=1024), "Number of channels of a layer times its resolution")
@option("--cmax", AT_LEAST_ONE, "Maximum number of channels of a layer")
@option("--map-depth", AT_LEAST_ONE, "Layers of the mapping network")
@option("--g_architecture", click.Choice(ARCHITECTURES), "How the backbone's layers are connected")
@option("--g_const_resolution", click.IntRange(min=4), "Resolution of the constant that synthesis starts from")
@option("--g_num_fp16_res", COUNT, "Number of highest resolutions of the backbone that run in float16 (on a GPU)")
@option("--triplane_size", click.IntRange(min=4), "Resolution of a feature grid")
@option("--triplane_depth", AT_LEAST_ONE, "Depth of a feature grid")
@option("--decoder_lr_mul", NOT_NEGATIVE, "Learning-rate multiplier of the decoder")
@option("--decoder_activation", click.Choice(ACTIVATIONS), "Activation of the decoder's colours")
@option("--use_torgb_raw", bool, "Compute the raw image with a learned layer instead of taking three features")
@option("--use_background", bool, "Generate the background separately from the head")
@option("--sr-module", str, "Super-resolution, a class of training/superresolution.py; by default it depends on the resolution")
@option("--sr_noise_mode", click.Choice(["random", "none"]), "Noise in super-resolution")
@option("--sr_num_fp16_res", COUNT, "Above 0: super-resolution runs in float16 (on a GPU)")
@option("--c-scale", NOT_NEGATIVE, "Scale of the label that conditions the generator")
@option("--gen_pose_cond", bool, "Condition the generator on the camera")
@option("--trans_reg", NOT_NEGATIVE, "Above 0: learn camera shifts, with this weight on their mean")
@option("--depth_resolution", click.IntRange(min=4), "Coarse samples per ray; the default depends on --cfg")
@option("--depth_resolution_importance", COUNT, "Fine samples per ray; the default depends on --cfg")
@option("--ray_start", NOT_NEGATIVE, "Nearest sampled depth; the default depends on --cfg")
@option("--ray_end", NOT_NEGATIVE, "Farthest sampled depth; the default depends on --cfg")
@option("--neural_rendering_resolution_initial", AT_LEAST_ONE, "Initial resolution of the raw image")
@option("--neural_rendering_resolution_final", AT_LEAST_ONE, "Final resolution of the raw image; by default the initial one")
@option("--neural_rendering_resolution_fade_kimg", COUNT, "Thousands of images to fade from one to the other")
@option(
    "--disc_module", click.Choice(settings.DISCRIMINATORS), "How the discriminator sees the mask: a branch, or a channel (V2)"
)
@option("--d_num_fp16_res", COUNT, "Number of highest resolutions of the discriminator that run in float16 (on a GPU)")
@option("--disc_c_noise", NOT_NEGATIVE, "Noise on the discriminator's labels, in standard deviations of the labels")
@option("--seg_resolution", click.IntRange(min=8), "Resolution of the mask branch")
@option("--seg_channels", AT_LEAST_ONE, "Channels of a mask")
@option("--blur_fade_kimg", COUNT, "The blur fades over batch/32 times this many thousand images")
@option("--gpc_reg_prob", FRACTION, "Final probability of conditioning on another sample's camera")
@option("--gpc_reg_fade_kimg", COUNT, "Thousands of images until --gpc_reg_prob is reached")
@option("--bcg_reg_prob", FRACTION, "Probability of using another sample's background")
@option("--style_mixing_prob", FRACTION, "Probability of mixing the styles of two latents")
@option("--density_reg", NOT_NEGATIVE, "Weight of the density regulariser; for monotonic-*, of its smoothness part")
@option("--density_reg_every", AT_LEAST_ONE, "Batches between uses of the density regulariser")
@option("--density_reg_p_dist", NOT_NEGATIVE, "Distance of neighbours for --reg_type l1, in world units")
@option("--density_noise_fade_kimg", COUNT, "Thousands of images over which the noise on densities fades")
@option("--reg_type", click.Choice((*DENSITY_TYPES, "l1-alt", "total-variation")), "Kind of density regulariser")
@option("--c-noise", NOT_NEGATIVE, "Refused: no effect in the family", hidden=True)
@option("--sr_first_cutoff", click.IntRange(min=2), "Refused: no effect in the family", hidden=True)
@option("--sr_first_stopband", FiniteFloat(min=2), "Refused: no effect in the family", hidden=True)
@click.option("--restart", is_flag=True, help="Begin a new run even if an unfinished one with the same options could continue")
@click.option("-n", "--dry-run", is_flag=True, help="Print the options and stop")
@click.pass_context
def main(ctx: click.Context, dry_run: bool, restart: bool, **options: Any) -> None:
    for name, value in settings.PRESETS[options["preset"]].items():
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            options[name] = value
    run_dir = Path(options["resume"]) if options["resume"] and os.path.isdir(options["resume"]) else None
    if run_dir is not None:
        stored = read_options(run_dir)
        if stored is None:
            raise UserError(f"{run_dir} is not the folder of a run; give --resume one, or a network snapshot")
        options["resume"] = stored["resume"]  # what the run itself started from
    config = TrainingConfig(**options)
    if run_dir is not None:
        check_unchanged(run_dir, stored, config)
    dataset = HeadDataset(**config.dataset_kwargs())
    faults = review(dataset, config.accept_data)
    if distributed.speaks():
        for fault in faults:
            print(f"Warning: {config.img_data}: {fault}; dataset_tool_seg.py --check says which", file=sys.stderr)
    if config.metrics:
        Settings(**config.metric_settings()).check(dataset)
    record = config.record(dataset.resolution)
    if dry_run:
        print(json.dumps(record, indent=2))
        found = run_dir or (None if restart else find_unfinished(config))
        print(f"Dry run: nothing was made; this would {f'continue {found}' if found else 'begin a new run'}.")
        return
    # Asked here, so that a missing GPU is reported once and not by every process.
    device = select_device(config.device, distributed.last_local_rank(config.gpus))
    distributed.launch(train, (config, run_dir, restart), config.gpus, backend="nccl" if device.type == "cuda" else "gloo")


if __name__ == "__main__":
    main()
