"""The command for inversion: turns photos of people into latents, tuned generators, turning heads and meshes."""

import sys
from pathlib import Path
from typing import Any

import click

if not __package__:  # run as a script: Python looks for modules in this folder, but they are in the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dnnlib import UserError, cli  # noqa: E402
from dnnlib.util import make_output_dir  # noqa: E402
from inference import synthesis  # noqa: E402
from inference.shapes import MESH_FORMATS, check_format  # noqa: E402
from pti.inversion import Machine, Wanted, invert  # noqa: E402
from pti.perceptual import load_perceptual  # noqa: E402
from pti.rendering import use_precision  # noqa: E402
from pti.settings import PRECISIONS, PUBLISHED_RATE, SMALL, SMALL_RATE, SPACES, ProjectionSettings, TuningSettings  # noqa: E402
from pti.targets import TargetSource  # noqa: E402
from torch_utils.device import select_device  # noqa: E402

PROJECTION, TUNING, WANTED = ProjectionSettings(), TuningSettings(), Wanted()
ALL = "all"


class Indices(cli.Seeds):
    """Parses ``0-3,7`` into a list of numbers, and accepts ``all``."""

    name = "indices"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int] | str:
        return value if value == ALL else super().convert(value, param, ctx)


def _least(number: float) -> cli.FiniteFloat:
    return cli.FiniteFloat(min=number)


WITH_SHAPES = cli.only_with("shapes")
COUNT = click.IntRange(min=0)


@cli.command()
@click.option("--network", help="Network file or URL", metavar="PKL", required=True)
@click.option("--target_img", help="Photos with their cameras in dataset.json", metavar="DIR|ZIP", required=True)
@click.option("--target_seg", help="Their masks  [default: beside them, with seg for img in the name]", metavar="DIR|ZIP")
@click.option("--idx", help="Which photos, in order of their names: 0-3,7 or all", type=Indices(), default="0")
@click.option("--together", help="The photos show one person: fit one latent and one generator", type=bool, default=False)
@click.option("--outdir", help="Where to write OUTDIR/NETWORK/NAME/", metavar="DIR", required=True)
@click.option("--num-steps", help="Steps of the projection", type=click.IntRange(min=1), default=PROJECTION.steps)
@click.option("--num-steps-pti", help="Steps of the tuning", type=COUNT, default=TUNING.steps)
@click.option(
    "--lr-pti",
    help=f"Learning rate of the tuning  [default: {PUBLISHED_RATE:g}, {SMALL_RATE:g} up to {SMALL} pixels]",
    type=cli.FiniteFloat(min=0, min_open=True),
)
@click.option("--seed", help="Random seed", type=click.IntRange(min=0, max=2**31), default=PROJECTION.seed)
@click.option("--space", help="One latent for all layers, or one for each", type=click.Choice(SPACES), default=PROJECTION.space)
@click.option("--optimize-noise", help="Also fit the noise of the layers", type=bool, default=PROJECTION.optimize_noise)
@click.option("--mask", help="Weight the head and fit the background separately  [default: if there are masks]", type=bool)
@click.option("--refine-pose", help="Correct the cameras by a few degrees", type=bool, default=PROJECTION.refine_pose)
@click.option("--locality", help="Weight of keeping other latents unchanged", type=_least(0), default=TUNING.locality)
@click.option("--back-prior", help="Weight of keeping unseen sides unchanged", type=_least(0), default=TUNING.back_prior)
@click.option(
    "--early-stop", help="Skip to a stage's last quarter after so many steps without progress; 0: never", type=COUNT, default=0
)
@click.option("--vgg", help="VGG16 for the perceptual loss, as TorchScript or state dict", metavar="PATH|URL")
@click.option("--lpips-heads", help="LPIPS' linear layers, if --vgg is a state dict", metavar="PATH|URL")
@click.option("--save-video", help="Film the projection and a turn before and after tuning", type=bool, default=WANTED.video)
@click.option("--fps", help="Frames per second", type=click.IntRange(min=1), default=WANTED.fps)
@click.option("--w-frames", help="Frames per turn", type=click.IntRange(min=1), default=WANTED.frames)
@click.option("--shapes", help="Also write the volume and the mesh", type=bool, default=WANTED.shapes, is_eager=True)
@click.option(
    "--shape-res", help="Voxels along a side", type=click.IntRange(min=16), default=WANTED.shape_res, callback=WITH_SHAPES
)
@click.option(
    "--shape-format",
    help="Format of the mesh; .glb has a texture",
    type=click.Choice([*MESH_FORMATS, *(name.removeprefix(".") for name in MESH_FORMATS)]),
    default=WANTED.shape_format,
    callback=WITH_SHAPES,
)
@click.option(
    "--shape-level",
    help="Density at the mesh's surface  [default: 10, or half the highest]",
    type=cli.FiniteFloat(),
    callback=WITH_SHAPES,
)
@click.option(
    "--nrr", help="Size of raw pictures in pixels  [default: the network's]", metavar="INT", type=click.IntRange(min=1)
)
@click.option("--precision", help="tf32 and mixed need a GPU", type=click.Choice(PRECISIONS), default="fp32")
@click.option(
    "--max-memory", help="GiB for weights, gradients and pictures; less is slower", type=cli.FiniteFloat(min=0, min_open=True)
)
@click.option("--restart", help="Start over instead of resuming", type=bool, default=False)
@click.option("--trust-pickle", help="Run code stored in the network file; only for files you trust", is_flag=True)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
def main(
    network: str, target_img: str, target_seg: str | None, idx: list[int] | str, together: bool, outdir: str, **options: Any
):
    """Find each photo's latent, tune the generator to it, and film and export the head.

    Photos must be cropped to match their cameras, as dataset_tool_photo.py does.  If a run is stopped, repeat the command to
    resume after its last finished stage.

    \b
    python pti/run.py --network PKL --target_img dataset/testdata_img --idx 12 --outdir out --shapes true
    """
    device = select_device(options["device"])
    use_precision(options["precision"], device)
    suffix = "." + options["shape_format"].removeprefix(".")
    if options["shapes"]:
        check_format(suffix)
    source = TargetSource(target_img, target_seg)
    indices = list(range(len(source.names))) if idx == ALL else idx
    perceptual = load_perceptual(options["vgg"], options["lpips_heads"], device)
    machine = Machine(device, options["trust_pickle"], options["nrr"], options["precision"], options["max_memory"])
    wanted = Wanted(
        options["save_video"],
        options["fps"],
        options["w_frames"],
        options["shapes"],
        options["shape_res"],
        suffix,
        options["shape_level"],
    )
    if options["mask"] is None:
        options["mask"] = source.has_masks
    projection, tuning = settings_of(options)
    folder = make_output_dir(Path(outdir) / synthesis.network_name(network))
    asked = dict(vgg=options["vgg"], lpips_heads=options["lpips_heads"])
    for group in [indices] if together else [[index] for index in indices]:
        try:
            invert(network, source, group, folder, perceptual, projection, tuning, wanted, machine, asked, options["restart"])
        except (RuntimeError, MemoryError) as error:
            if not cli.is_out_of_memory(error):
                raise
            limit = "raise" if options["max_memory"] else "say how much there is with"
            raise UserError(
                f"out of memory: {limit} --max-memory GIB (it computes in strips), lower --nrr or --shape-res, or use "
                "--device cpu; finished stages are kept, and the same command resumes from there"
            ) from None


def settings_of(options: dict[str, Any]) -> tuple[ProjectionSettings, TuningSettings]:
    """The settings of both stages for the command's `options`."""
    projection = ProjectionSettings(
        space=options["space"],
        steps=options["num_steps"],
        mask=options["mask"],
        refine_pose=options["refine_pose"],
        optimize_noise=options["optimize_noise"],
        early_stop=options["early_stop"],
        seed=options["seed"],
    )
    tuning = TuningSettings(
        steps=options["num_steps_pti"],
        learning_rate=options["lr_pti"],
        mask=options["mask"],
        locality=options["locality"],
        back_prior=options["back_prior"],
        early_stop=options["early_stop"],
        seed=options["seed"],
    )
    return projection, tuning


if __name__ == "__main__":
    main()
