"""How good networks are, in figures: against a data set, by view, or files of such figures beside each other."""

from pathlib import Path
from typing import Any

import click

from dnnlib import UserError, cli
from dnnlib.util import make_output_dir
from inference import synthesis
from metrics import comparison, results
from metrics.measuring import Measurer, Settings
from metrics.pictures import BACKGROUNDS
from metrics.requests import EFFICIENTNET, NAMES
from metrics.views import VIEWS
from torch_utils import distributed
from torch_utils.device import select_device
from training.dataset import HeadDataset, HeadPictures
from training.loading import stored_value
from training.run_folder import OPTIONS_NAME

CAMERA_LAW = ("mirror", "min_yaw", "max_yaw", "back_repeat")  # of train.py, of the same names
YAW = cli.FiniteFloat(min=0, max=180)
TRAINED = "[default: as the network was trained, or plain]"


@cli.command()
@click.argument("files", nargs=-1)
@click.option("--compare", is_flag=True, help="Put the results in FILES side by side, and measure nothing")
@click.option("--plot", help="Where --compare draws its figures over the images seen", metavar="PNG")
@click.option("--network", help="Network file or URL", metavar="PKL")
@click.option("--metrics", help=f"Names with commas between: {NAMES}", type=cli.Names(), default="fid2k_full,kid2k_full")
@click.option("--views", help="Which sides to look at", type=cli.Names(choices=VIEWS), default="all")
@click.option("--num-images", help="Pictures or heads for metrics without a number in their name", type=click.IntRange(min=2))
@click.option("--img_data", help="Real pictures with labels, folder or zip  [default: what it learned from]", metavar="PATH")
@click.option("--seg_data", help="Their masks  [default: what it learned from]", metavar="PATH")
@click.option("--mirror", help=f"Show every picture mirrored too  {TRAINED}", type=bool)
@click.option("--min_yaw", help=f"Leave out views with less |yaw|, degrees  {TRAINED}", type=YAW)
@click.option("--max_yaw", help=f"Leave out views with more |yaw|, degrees  {TRAINED}", type=YAW)
@click.option("--back_repeat", help=f"Show views from behind this many times  {TRAINED}", type=click.IntRange(min=1))
@click.option(
    "--background", help="Compare pictures as they are, or heads alone", type=click.Choice(BACKGROUNDS), default="own"
)
@click.option("--trunc", help="Truncation: 1 is the full variety", type=cli.FiniteFloat(min=-2, max=2), default=1.0)
@click.option("--seed", help="Of latents and cameras", type=click.IntRange(0, cli.MAX_SEED // 2), default=0)
@click.option("--detector", help="Whose features are compared: a path or URL of Inception", default=EFFICIENTNET)
@click.option("--embedder", help="For id: a path or URL of ArcFace as TorchScript", metavar="PATH")
@click.option("--landmarker", help="face_landmarker.task  [default: that of an installed package]", metavar="PATH")
@click.option("--segmenter", help="selfie_segmenter.tflite  [default: that of an installed package]", metavar="PATH")
@click.option("--batch", help="Pictures at a time", type=click.IntRange(min=1), default=4)
@click.option("--gpus", help="Processes, one per GPU (or sharing the CPU)", type=click.IntRange(min=1), default=1)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
@click.option(
    "--out", help=f"Add the results to this file  [default: {results.RESULTS_NAME} of the network's run]", metavar="PATH"
)
@click.option("--cache", help="Where features are kept  [default: in the folder of downloads]", metavar="DIR")
@click.option("--trust-pickle", help="Run code stored in the network and the detector; only if you trust both", is_flag=True)
def main(files: tuple[str, ...], compare: bool, plot: str | None, network: str | None, **options: Any) -> None:
    """Measure a network, or put measured ones side by side.

    \b
    python calc_metrics.py --network PKL --img_data IMG.zip --metrics fid2k_full,two_faces --views all,front,side,back
    python calc_metrics.py --compare RUN/metrics.jsonl OTHER/metrics.jsonl --plot runs.png
    """
    if compare:
        if network is not None or not files:
            raise click.UsageError("--compare takes files of results, and no --network")
        comparison.compare(list(map(Path, files)), None if plot is None else Path(plot))
        return
    if files or plot is not None:
        raise click.UsageError("files and --plot go with --compare")
    if network is None:
        raise click.UsageError("--network says what to measure")
    if not options["metrics"]:
        raise click.UsageError("--metrics is empty")
    device = select_device(options["device"], distributed.last_local_rank(options["gpus"]))  # says now that a GPU is missing
    settings = _settings(options)
    data = _data(network, options)
    told = settings.check(open_data(data))  # now, and not in every process
    if distributed.speaks():
        print("\n".join(f"Metrics: {line}" for line in told))
    out = _out(network, options["out"])
    backend = "nccl" if device.type == "cuda" else "gloo"
    args = (network, settings, data, options["device"], out, options["trust_pickle"])
    distributed.launch(measure, args, options["gpus"], backend=backend)


def measure(
    local_rank: int, network: str, settings: Settings, data: dict, device: str | None, out: Path | None, trust_pickle: bool
) -> None:
    """Measure as one of several processes; the first prints the lines, and adds them to the file `out`."""
    chosen = select_device(device, local_rank)
    G = synthesis.load_generator(network, str(chosen), trust_pickle)
    dataset = open_data(data)
    if dataset.resolution != G.img_resolution:
        raise UserError(
            f"{data['img_data']} has pictures of {dataset.resolution} pixels and the network makes {G.img_resolution}; "
            f"dataset_tool_seg.py --resolution {G.img_resolution}x{G.img_resolution} makes them alike"
        )
    about = dict(network=network, images_seen=results.images_seen(network))
    known = results.known(out) if distributed.get_rank() == 0 else []
    measured = 0
    for line in Measurer(settings, dataset, chosen).measure(G, about, known):
        measured += 1
        results.report(line, out)
    if distributed.get_rank() == 0 and not measured:
        print(f"Nothing to do: {out} has all of it")


def open_data(data: dict[str, Any]) -> HeadPictures:
    """The real pictures; with their masks where there are some."""
    law = {name: data[name] for name in CAMERA_LAW if name in data}
    if data["seg_data"] is None:
        return HeadPictures(data["img_data"], **law)
    return HeadDataset(data["img_data"], data["seg_data"], **law)


def _settings(options: dict[str, Any]) -> Settings:
    names = ("num_images", "detector", "embedder", "landmarker", "segmenter", "batch", "background", "seed", "cache")
    given = {name: options[name] for name in (*names, "trust_pickle")}
    lists = dict(metrics=tuple(options["metrics"]), views=tuple(options["views"]))
    return Settings(**lists, truncation=options["trunc"], **given)


def _data(network: str, options: dict[str, Any]) -> dict[str, Any]:
    """Data and camera law: as given, else as the network was trained with."""
    stored = stored_value(network, "training_set_kwargs", options["trust_pickle"])
    trained = stored if isinstance(stored, dict) else {}
    data = {name: options[name] for name in CAMERA_LAW if options[name] is not None}
    data = {name: trained[name] for name in CAMERA_LAW if name in trained} | data
    if options["img_data"] is None and "img_data" not in trained:
        raise UserError(f"{network} does not tell what it learned from: give --img_data")
    own = options["img_data"] is None
    data["img_data"] = trained["img_data"] if own else options["img_data"]
    data["seg_data"] = trained.get("seg_data") if own and options["seg_data"] is None else options["seg_data"]
    return data


def _out(network: str, out: str | None) -> Path | None:
    """Where results are added: as given, or in the run that the network is from, if it is one."""
    if out is not None:
        make_output_dir(Path(out).parent)
        return Path(out)
    folder = Path(network).parent
    return folder / results.RESULTS_NAME if (folder / OPTIONS_NAME).exists() else None


if __name__ == "__main__":
    main()
