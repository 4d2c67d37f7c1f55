"""Measures the quality of a generator of heads against held-out heads, with figures that need no downloaded network."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: Python looks for modules in this folder, but they are in the one above
    sys.path[0] = str(ROOT)

from demo.scores import figures, samples  # noqa: E402
from demo.scores.held_out import HeldOut, load_held_out, load_jitter  # noqa: E402
from dnnlib import cli  # noqa: E402
from dnnlib.util import atomic_path, make_output_dir  # noqa: E402
from inference import synthesis  # noqa: E402
from inference.options import trunc_option  # noqa: E402
from metrics import heads as all_round  # noqa: E402
from metrics.consistency import TOLERANCE, compare_all, thin_out  # noqa: E402
from metrics.faces import NotMeasurable, open_finder  # noqa: E402
from metrics.heads import DEPTH_RESOLUTION, SIDES  # noqa: E402
from metrics.results import device_name, images_seen, versions  # noqa: E402
from photo.faces import FaceFinder  # noqa: E402
from training.triplane import TriPlaneGenerator  # noqa: E402

HELD_OUT = ROOT / "dataset" / "heads-128-held-out"
TRAINING_SET = ROOT / "dataset" / "heads-128"


@cli.command()
@click.option("--network", help="Network file or URL", metavar="PKL", required=True)
@click.option("--data", help="Held-out set: img, seg and truth", metavar="DIR", default=str(HELD_OUT))
@click.option("--train_data", help="Training set, for the jitter of its cameras  [default: the shipped one]", metavar="DIR")
@click.option("--samples", "count", help="Pictures from the data's cameras", type=click.IntRange(min=2), default=64)
@click.option("--heads", help="Heads seen from all sides", type=click.IntRange(min=2), default=8)
@click.option("--seed", help="First seed of both", type=click.IntRange(0, cli.MAX_SEED // 2), default=0)
@trunc_option(1.0)
@click.option("--landmarker", help="face_landmarker.task  [default: that of an installed package]", metavar="PATH")
@click.option("--outdir", help="Write score.json to this folder", metavar="DIR")
@click.option("--json", "json_path", help="Write the figures to this file", metavar="PATH")
@click.option("--trust-pickle", help="Run code stored in the network file; only for files you trust", is_flag=True)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
def main(
    network: str,
    data: str,
    train_data: str | None,
    count: int,
    heads: int,
    seed: int,
    trunc: float,
    landmarker: str | None,
    outdir: str | None,
    json_path: str | None,
    **loading: Any,
) -> None:
    """Measure the heads of a network against heads whose masks, depths and cameras are known.

    Samples from the data's cameras give mask coverage, the yaw seen in the pictures, and the learned camera shift.  Heads seen
    from all sides show how well depths agree between views, and in which views a face is found.

    \b
    python demo/score.py --network PKL --outdir out
    """
    if outdir and json_path:
        raise click.UsageError("--outdir and --json both say where the figures go; give only one of them")
    truth = load_held_out(data)
    jitter = _jitter(train_data)
    target = Path(json_path) if json_path else Path(outdir) / "score.json" if outdir else None
    if target is not None:
        make_output_dir(target.parent)
    with open_finder(landmarker) as finder:
        G = synthesis.load_generator(network, **loading)
        rows, histograms = measure(G, truth, jitter, range(seed, seed + count), range(seed, seed + heads), trunc, finder)
    facts = {
        "network": synthesis.network_name(network),
        "images_seen": images_seen(network),
        "data": Path(data).name,
        "samples": count,
        "heads": heads,
        "first_seed": seed,
        "truncation": trunc,
        "tolerance": TOLERANCE,
        "depth_resolution": DEPTH_RESOLUTION,
        "device": device_name(synthesis.device_of(G)),
        **versions(),
    }
    print("\n".join(f"{name.replace('_', ' '):17}{'unknown' if fact is None else fact}" for name, fact in facts.items()))
    print("\n".join(["", *figures.table(rows)]))
    if target is not None:
        yaws = {"bin_degrees": figures.YAW_BIN, "first_bin": "centred on -180", "shares": histograms}
        content = {**facts, "figures": [asdict(row) for row in rows], "yaw_histograms": yaws}
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"\nWrote {target}")


def measure(
    G: TriPlaneGenerator,
    truth: HeldOut,
    jitter: np.ndarray | None,
    seeds: range,
    head_seeds: range,
    truncation_psi: float,
    finder: FaceFinder | NotMeasurable,
) -> tuple[list[figures.Figure], dict[str, list[float]]]:
    """Compute all figures, and the histograms of `figures.yaw_figures`.

    `seeds` are for pictures from the data's cameras, `head_seeds` for heads seen from all sides.
    """
    labels = samples.spread_by_yaw(truth.labels, len(seeds))
    drawing = samples.draw_like_data(G, seeds, labels, truncation_psi)
    drawn = list(cli.progress(drawing, total=len(seeds), unit="picture", desc="samples"))
    yaw_rows, histograms = figures.yaw_figures(drawn, truth)

    agreements, pictures = [], {side: [] for side in SIDES}
    for number, seed in enumerate(cli.progress(head_seeds, unit="head", desc="all round")):
        head = all_round.head_of(G, seed, truncation_psi)
        agreements.append(all_round.agreement_of(G, head, 360 * number / len(head_seeds), DEPTH_RESOLUTION))
        for side, yaws in SIDES.items():
            pictures[side] += all_round.pictures_from(G, head, yaws)
    views = truth.surfaces().values()
    ceiling = [compare_all([thin_out(view, DEPTH_RESOLUTION) for view in head], all_round.ANGLES) for head in views]
    return [
        *figures.mask_figures(drawn, truth),
        *yaw_rows,
        *figures.consistency_figures(agreements, ceiling),
        *_faces(pictures, truth, finder),
        *figures.shift_figures(drawn, jitter),
    ], histograms


def _faces(pictures: dict[str, list[np.ndarray]], truth: HeldOut, finder: FaceFinder | NotMeasurable) -> list[figures.Figure]:
    """In which pictures of each side a face is found, for the samples and for the data."""
    if isinstance(finder, NotMeasurable):
        return figures.faces_not_measured(str(finder))
    yaws = np.abs(truth.yaws)
    chosen = {"front": yaws <= max(map(abs, SIDES["front"])) + 1, "back": yaws >= min(map(abs, SIDES["back"])) - 1}
    ours = {side: [finder.shows_face(view) for view in views] for side, views in pictures.items()}
    theirs = {side: [finder.shows_face(view) for view in truth.pictures[chosen[side]]] for side in pictures}
    return figures.face_figures(ours, theirs)


def _jitter(train_data: str | None) -> np.ndarray | None:
    """The jitter of the given training set, or of the shipped one if it exists."""
    if train_data is None and not TRAINING_SET.exists():
        return None
    return load_jitter(train_data or TRAINING_SET)


if __name__ == "__main__":
    main()
