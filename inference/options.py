"""Options shared by gen_samples, gen_videos and gen_interpolation, with one definition and one check each."""

from collections.abc import Callable
from typing import Any

import click

import camera_utils
from dnnlib import cli
from inference.shapes import DEFAULT_LEVEL, EMPTY_DENSITY, SHAPE_FORMATS
from training.images import IMAGE_MODES


def _refuse_class(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter("these networks are conditioned on cameras, not on classes; leave the option out", ctx, param)


def _explain_reload(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo("--reload_modules: networks are always rebuilt from the installed code, with or without it")


_NETWORK_OPTIONS = (
    click.option("--network", help="Network file or URL", metavar="PKL", required=True),
    click.option(
        "--trunc-cutoff", help="Rows of w that --trunc applies to", metavar="INT", type=click.IntRange(min=0), default=14
    ),
    click.option("--class", help="Refused: there are no classes", metavar="INT", callback=_refuse_class, expose_value=False),
    click.option(
        "--fov-deg",
        help="Field of view in degrees",
        type=cli.FiniteFloat(min=0, max=180, min_open=True, max_open=True),
        default=camera_utils.DEFAULT_FOV_DEGREES,
    ),
    click.option(
        "--pose_cond",
        help="Azimuth of the conditioning camera in degrees, 90 is frontal",
        type=cli.FiniteFloat(min=-360, max=360),
        default=90.0,
    ),
    click.option("--image_mode", help="Which picture to show", type=click.Choice(IMAGE_MODES), default="image"),
    click.option(
        "--sample_mult", help="Multiplies the samples on a ray", type=cli.FiniteFloat(min=0, min_open=True), default=1.0
    ),
    click.option(
        "--nrr", help="Size of raw pictures in pixels  [default: the network's]", metavar="INT", type=click.IntRange(min=1)
    ),
    click.option(
        "--reload_modules",
        help="Rebuild the network: always done",
        type=bool,
        default=False,
        callback=_explain_reload,
        expose_value=False,
    ),
    click.option("--trust-pickle", help="Run code stored in the network file; only for files you trust", is_flag=True),
    click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME"),
)

_WITH_SHAPES = cli.only_with("shapes")
_SHAPE_OPTIONS = (
    click.option("--shapes", help="Also write each seed's shape", metavar="BOOL", type=bool, default=False, is_eager=True),
    click.option("--shape-res", help="Voxels along a side", type=click.IntRange(min=8), default=512, callback=_WITH_SHAPES),
    click.option(
        "--shape-format",
        help="Density volume (.mrc), or mesh: .glb has a texture, .stl is for printing",
        type=click.Choice(SHAPE_FORMATS),
        default=SHAPE_FORMATS[0],
        callback=_WITH_SHAPES,
    ),
    click.option(
        "--shape-level",
        help=f"Density at a mesh's surface  [default: {DEFAULT_LEVEL:g}, or half the highest where no density reaches it]",
        type=cli.FiniteFloat(min=EMPTY_DENSITY, min_open=True),
        callback=_WITH_SHAPES,
    ),
    click.option(
        "--scale",
        help="Size of an .stl, for printing: 1 is life size in millimetres, 0.5 half of it",
        type=cli.FiniteFloat(min=0, min_open=True),
        default=1.0,
        callback=_WITH_SHAPES,
    ),
)


def network_options(function: Callable) -> Callable:
    """Add the options of a network and its rendering, passed on as network, trunc_cutoff, fov_deg, pose_cond, image_mode, …"""
    return _apply(_NETWORK_OPTIONS, function)


def shape_options(function: Callable) -> Callable:
    """Add the options of exported shapes, passed on as shapes, shape_res, shape_format, shape_level and scale."""
    return _apply(_SHAPE_OPTIONS, function)


def trunc_option(default: float) -> Callable:
    """The option --trunc, passed on as trunc.  Its default differs between commands."""
    text = "Truncation: 0 is the mean face, 1 the full variety"
    return click.option("--trunc", help=text, type=cli.FiniteFloat(min=-2, max=2), default=default)


def _apply(options: tuple[Callable[[Any], Any], ...], function: Callable) -> Callable:
    for option in reversed(options):
        function = option(function)
    return function
