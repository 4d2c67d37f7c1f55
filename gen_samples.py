"""Renders random heads: a strip of five views per seed, from the front to the back, and optionally the shape."""

from pathlib import Path

import click
import numpy as np

from dnnlib import cli
from dnnlib.util import make_output_dir
from inference import synthesis
from inference.options import network_options, shape_options, trunc_option
from inference.shapes import check_format
from meshes.head_file import save_shape
from training.images import picture, save_image, tile


@cli.command()
@click.option("--seeds", help="Random seeds, such as 0-3,7", type=cli.Seeds(), required=True)
@click.option("--outdir", help="Where to write OUTDIR/NETWORK/seedNNNN.png", metavar="DIR", required=True)
@trunc_option(0.7)
@shape_options
@network_options
def main(
    network: str,
    seeds: list[int],
    outdir: str,
    trunc: float,
    trunc_cutoff: int,
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
    """Render a strip of five views (yaw 0, -45, -90, -135 and -180 degrees) for each seed.

    With --shapes true, the shape is written beside each strip: the density volume (.mrc), or a mesh in metres with a texture
    and the first view's camera (.glb) or with vertex colours (.ply, .obj), or a closed mesh in millimetres for printing (.stl).

    \b
    python gen_samples.py --network PKL --seeds 0-3 --outdir out --trunc 0.7 --shapes true
    """
    if shapes:
        check_format(shape_format)
    G = synthesis.load_generator(network, **loading)
    folder = make_output_dir(Path(outdir) / synthesis.network_name(network))
    camera = synthesis.orbit(G, fov_deg)
    conditioning = synthesis.conditioning_label(camera, pose_cond)
    labels = [camera(view) for view in synthesis.SAMPLE_VIEWS]

    for seed in cli.progress(seeds, unit="seed", desc="samples"):
        ws = synthesis.seeds_to_ws(G, [seed], conditioning, trunc, trunc_cutoff)
        face = synthesis.prepare(G, ws)
        strip = [picture(view, image_mode, synthesis.depth_range(G)) for view in synthesis.views(G, face, labels)]
        save_image(tile(np.concatenate(strip), columns=len(strip)), folder / f"seed{seed:04d}.png")
        if shapes:
            save_shape(G, face, folder / f"seed{seed:04d}{shape_format}", shape_res, labels[0], shape_level, scale)
    print(f"Wrote {len(seeds)} strips to {folder}")


if __name__ == "__main__":
    main()
