"""Style mixing: shows what the layers of a generator control, from the front, the side and the back."""

import click
import numpy as np

from dnnlib import UserError, cli
from dnnlib.util import make_output_dir
from inference import synthesis
from inference.options import network_options, trunc_option
from training.images import picture, save_image, tile


@cli.command()
@click.option("--seeds", help="The two faces, A,B", type=cli.Seeds(), default="521,329")
@click.option("--outdir", help="Where to write seedAAAA-seedBBBB.png", metavar="DIR", required=True)
@trunc_option(0.7)
@click.option("--layers", help="Columns: layers from k on come from B", type=cli.Seeds(), default="0,2,3,4,6,8")
@click.option("--views", help="Rows: yaws in degrees, or front, side, back", default="front,45,back")
@network_options
def main(
    network: str,
    seeds: list[int],
    outdir: str,
    trunc: float,
    trunc_cutoff: int,
    layers: list[int],
    views: str,
    fov_deg: float,
    pose_cond: float,
    image_mode: str,
    **loading: object,
) -> None:
    """Mix the styles of two faces: each column takes the layers from k on from the second face and the others from the first.

    The column of layer 0 is the second face.  Each row is a view.

    \b
    python gen_interpolation.py --network PKL --trunc 0.7 --outdir out --seeds 521,329
    """
    if len(seeds) != 2:
        raise UserError(f"--seeds takes two seeds, A,B, but got {len(seeds)}")
    rows = synthesis.still_views(views)
    G = synthesis.load_generator(network, **loading)
    if max(layers) > G.backbone.num_ws:
        raise UserError(f"--layers: this network has {G.backbone.num_ws} layers, so there is no layer {max(layers)}")
    folder = make_output_dir(outdir)
    camera = synthesis.orbit(G, fov_deg)
    conditioning = synthesis.conditioning_label(camera, pose_cond)
    first, second = synthesis.seeds_to_ws(G, seeds, conditioning, trunc, trunc_cutoff).split(1)
    labels = [camera(view) for view in rows]

    columns = []
    for k in cli.progress(layers, unit="column", desc="mixing"):
        face = synthesis.prepare(G, synthesis.mix_styles(first, second, k))
        columns.append([picture(view, image_mode, synthesis.depth_range(G)) for view in synthesis.views(G, face, labels)])
    cells = [column[row] for row in range(len(rows)) for column in columns]
    path = folder / "-".join(f"seed{seed:04d}" for seed in seeds)
    save_image(tile(np.concatenate(cells), columns=len(layers)), path.with_suffix(".png"))
    print(f"Wrote {path}.png")


if __name__ == "__main__":
    main()
