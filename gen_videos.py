"""Renders videos of random heads: a camera turns or sways around a grid of faces, which may change from seed to seed."""

from pathlib import Path

import click
import torch

from dnnlib import cli
from dnnlib.util import make_output_dir
from inference import synthesis, videos
from inference.options import network_options, shape_options, trunc_option
from inference.shapes import check_format
from meshes.head_file import save_shape


@cli.command()
@click.option("--seeds", help="Random seeds, such as 0-3,7", type=cli.Seeds(), required=True)
@click.option("--outdir", help="Where to write interpolation.mp4, or seedNNNN.mp4 with --interpolate false", metavar="DIR")
@click.option("--output", help="Write a single video to this file instead", metavar="FILE.mp4")
@click.option(
    "--cfg",
    help="Camera path: Head makes a full turn, the others sway",
    type=click.Choice(list(synthesis.CAMERA_PATHS)),
    default="FFHQ",
)
@trunc_option(1.0)
@click.option("--interpolate", help="One video through all seeds, or one per seed", metavar="BOOL", type=bool, default=True)
@click.option("--grid", help="Columns and rows of faces", type=cli.Pair(), default="1x1")
@click.option("--num-keyframes", help="Seeds that each cell shows  [default: seeds / cells]", type=click.IntRange(min=1))
@click.option("--w-frames", help="Frames from one seed to the next", type=click.IntRange(min=1), default=240)
@click.option("--shuffle-seed", help="Shuffle the seeds with this seed", type=click.IntRange(min=0, max=2**32 - 1))
@click.option("--fps", help="Frames per second", type=click.IntRange(min=1), default=60)
@shape_options
@network_options
def main(
    network: str,
    seeds: list[int],
    outdir: str | None,
    output: str | None,
    cfg: str,
    trunc: float,
    trunc_cutoff: int,
    interpolate: bool,
    grid: tuple[int, int],
    num_keyframes: int | None,
    w_frames: int,
    shuffle_seed: int | None,
    fps: int,
    fov_deg: float,
    pose_cond: float,
    image_mode: str,
    shapes: bool,
    shape_res: int,
    shape_format: str,
    shape_level: float | None,
    scale: float,
    **loading: object,
) -> None:
    """Film the faces of the seeds in a grid and write an H.264 mp4.

    If there are fewer cells than seeds, each cell passes through several seeds, and the video ends where it began.

    \b
    python gen_videos.py --network PKL --seeds 0-3 --grid 2x2 --outdir=out --cfg Head --trunc 0.7
    """
    jobs = plan_videos(seeds, outdir, output, interpolate, grid, num_keyframes, shuffle_seed)
    if shapes:
        check_format(shape_format)
    G = synthesis.load_generator(network, **loading)
    folder = make_output_dir(outdir if outdir is not None else Path(output).parent)
    path = synthesis.CAMERA_PATHS[cfg]
    camera = synthesis.orbit(G, fov_deg)
    conditioning = synthesis.conditioning_label(camera, pose_cond, path.pivot)

    def ws_of(seeds: list[int]) -> torch.Tensor:
        return synthesis.seeds_to_ws(G, seeds, conditioning, trunc, trunc_cutoff)

    for file, cells in jobs.items():
        make_output_dir(file.parent)
        keyframes = torch.stack([ws_of(cell) for cell in cells])
        frames = videos.orbit_frames(G, keyframes, path, camera, w_frames, grid[0], image_mode)
        videos.write_video(frames, file, fps, total=len(cells[0]) * w_frames)
        print(f"Wrote {file}")
    for seed in dict.fromkeys(seeds) if shapes else ():
        face, file = synthesis.prepare(G, ws_of([seed])), folder / f"seed{seed:04d}{shape_format}"
        save_shape(G, face, file, shape_res, camera(path.view(0)), shape_level, scale)


def plan_videos(
    seeds: list[int],
    outdir: str | None,
    output: str | None,
    interpolate: bool,
    grid: tuple[int, int],
    num_keyframes: int | None,
    shuffle_seed: int | None,
) -> dict[Path, list[list[int]]]:
    """Map each output file to the seeds that each cell of its grid passes through.  Refuses contradictory options."""
    if outdir is None and output is None:
        raise click.UsageError("give --outdir DIR or --output FILE.mp4")
    if outdir is not None and output is not None:
        raise click.UsageError("--outdir and --output both say where the video goes; give only one of them")
    if output is not None and (Path(output).suffix.lower() != ".mp4" or Path(output).is_dir()):
        raise click.UsageError(f"--output {output} is not the name of an .mp4 file, the only format of videos")
    if interpolate:
        cells = videos.keyframe_seeds(seeds, grid[0] * grid[1], num_keyframes, shuffle_seed)
        return {Path(output or Path(outdir) / "interpolation.mp4"): cells}
    if grid != (1, 1) or num_keyframes is not None or shuffle_seed is not None:
        raise click.UsageError("--grid, --num-keyframes and --shuffle-seed only work with --interpolate true")
    if output is not None and len(seeds) > 1:
        raise click.UsageError("--output names a single file, but --interpolate false writes one per seed; use --outdir")
    return {Path(output or Path(outdir) / f"seed{seed:04d}.mp4"): [[seed]] for seed in seeds}


if __name__ == "__main__":
    main()
