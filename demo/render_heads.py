"""Renders a data set of synthetic heads from all sides, with exact cameras and soft masks, and optionally ground truth."""

import collections
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

if not __package__:  # run as a script: Python looks for modules in this folder, but they are in the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demo.heads import portrait, workers  # noqa: E402
from demo.heads.hair_styles import STYLES  # noqa: E402
from demo.heads.output import MAX_IDENTITIES, HeadSet, SetOptions, make_person  # noqa: E402
from demo.heads.views import ViewRanges  # noqa: E402
from dnnlib import UserError, cli  # noqa: E402
from dnnlib.util import is_power_of_two  # noqa: E402

MIN_RESOLUTION, MAX_RESOLUTION = 32, 1024
MAX_SEED = 2**32 - 1
MAX_PITCH = 60.0  # beyond that, views show the open bottom of the bust, or little but hair


class Range(click.ParamType):
    """Parses ``-30,30`` into (-30.0, 30.0): two angles in degrees, the lower first, both within `limit` of 0."""

    name = "LO,HI"

    def __init__(self, limit: float):
        self.limit = limit

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            low, high = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form LO,HI, such as -30,30", param, ctx)
        if not -self.limit <= low <= high <= self.limit:
            self.fail(f"{value!r}: give the lower angle first, both from {-self.limit:g} to {self.limit:g}", param, ctx)
        return low, high


def render_set(
    outdir: Path,
    options: SetOptions,
    processes: int,
    prepare: Callable[[], None] = portrait.prepare,
    portray: Callable[[portrait.Sitting], portrait.Portrait] = portrait.portray,
) -> None:
    """Render the people that `outdir` lacks, each by `portray` in one of the processes.  Complete people are kept.

    `prepare` runs once before them, in this process.

    Raises UserError if the folder does not belong to this set, or if the renderer kept dying for some people.
    """
    given_up = []
    with HeadSet(outdir, options) as heads:
        missing = heads.missing()
        if missing:
            prepare()
        total = options.identities * options.views
        steps = collections.Counter()
        work = functools.partial(make_person, portray, heads.staging, options)
        try:
            with cli.progress(total=total, initial=total - len(missing) * options.views, unit="view") as bar:
                for event in workers.run(work, missing, min(processes, len(missing))):
                    if event.kind == "step":
                        steps[event.task] += 1
                        bar.update()
                    elif event.kind == "done":
                        heads.adopt(event.task)
                    else:
                        bar.update(-steps.pop(event.task, 0))
                        outcome = "given up" if event.kind == "given up" else "tried again"
                        bar.write(f"person {event.task}: the renderer died; {outcome}", file=sys.stderr)
                        given_up += [event.task] * (event.kind == "given up")
        finally:
            heads.finish()
    if given_up:
        names = ", ".join(map(str, sorted(given_up)))
        raise UserError(f"the renderer died {workers.TRIES} times at each of these people: {names}; run again to retry them")


@cli.command()
@click.option("--outdir", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder, or one to complete.")
@click.option("--identities", type=click.IntRange(1, MAX_IDENTITIES), required=True, help="People.")
@click.option("--views", type=click.IntRange(1, 1000), required=True, help="Pictures per person.")
@click.option("--resolution", type=click.IntRange(MIN_RESOLUTION, MAX_RESOLUTION), default=128, help="Pixels, a power of two.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, help="Sets of different seeds have no person in common.")
@click.option("--yaw", type=Range(180), default=(-180.0, 180.0), help="Degrees; 0 is the front.", show_default="-180,180")
@click.option("--pitch", type=Range(MAX_PITCH), default=(-30.0, 30.0), help="Degrees; 0 is level.", show_default="-30,30")
@click.option("--jitter", type=cli.FiniteFloat(0, 0.2), default=0.01, help="Error of the crops, as a share of the frame.")
@click.option("--fixed-views", type=bool, default=False, help="Same views of everyone, evenly spaced, with exact labels.")
@click.option("--truth", type=bool, default=False, help="Also write a depth picture per view and a mesh per person.")
@click.option("--style", type=click.Choice(list(STYLES)), help="One hair style for everyone.  [default: random]")
@click.option("--format", "image_format", type=click.Choice(["png", "jpg"]), default="png", help="Of images; masks are png.")
@click.option("--spp", type=click.IntRange(1, 4096), default=24, help="Light paths per pixel, before the denoiser.")
@click.option("--workers", "processes", type=click.IntRange(1, 256), help="Processes.  [default: one for each core]")
@click.pass_context
def main(
    ctx: click.Context,
    outdir: Path,
    identities: int,
    views: int,
    resolution: int,
    seed: int,
    yaw: tuple[float, float],
    pitch: tuple[float, float],
    jitter: float,
    fixed_views: bool,
    truth: bool,
    style: str | None,
    image_format: str,
    spp: int,
    processes: int | None,
) -> None:
    """Render people who do not exist, each from all sides: DIR/img with its labels, and DIR/seg with the masks.

    Run the same command again to complete a set that was interrupted; --identities may grow.  The same options give the same
    files.  --jitter moves the camera at random, without changing the label: sideways and along the view, with this standard
    deviation in frame widths and in zoom.

    \b
    python demo/render_heads.py --outdir heads --identities 400 --views 6
    python dataset_tool_seg.py --check --img_source heads/img --seg_source heads/seg
    """
    if not is_power_of_two(resolution):
        raise click.BadParameter(f"{resolution} is not a power of two", param_hint="--resolution")
    given = {name for name in ("yaw", "pitch", "jitter") if ctx.get_parameter_source(name).name == "COMMANDLINE"}
    if fixed_views and given:
        raise click.UsageError(
            f"--fixed-views leaves nothing to chance; leave out {', '.join(f'--{n}' for n in sorted(given))}"
        )
    ranges = None if fixed_views else ViewRanges(yaw, pitch, jitter)
    options = SetOptions(identities, views, resolution, seed, spp, image_format, truth, style, ranges)
    render_set(outdir, options, processes or workers.default_workers())
    click.echo(
        f"{identities} people, {identities * views} views: {outdir}/img and {outdir}/seg; to look at: {outdir}/sheet.png"
    )


if __name__ == "__main__":
    main()
