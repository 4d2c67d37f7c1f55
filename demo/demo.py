"""What the shipped network makes, and how one like it is trained: turning heads, meshes and a sheet, for `make demo`.

It runs the project's own commands, prints each, and ends by saying where the results are.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: Python looks for modules in this folder, but they are in the one above
    sys.path[0] = str(ROOT)

from demo.comparison import save_comparison  # noqa: E402
from dnnlib import UserError, cli  # noqa: E402
from dnnlib.util import existing_path, make_output_dir  # noqa: E402
from torch_utils.device import select_device  # noqa: E402

IMAGES = ROOT / "dataset" / "heads-128" / "img.zip"
MASKS = ROOT / "dataset" / "heads-128" / "seg.zip"
SHIPPED_MODEL = ROOT / "models" / "heads-128.pkl"
SEEDS = "0-3"
FRAMES = 120  # of a full turn
SHAPE = ["--shapes=true", "--shape-res=128", "--shape-format=.glb"]
RECIPE = ["--cfg=ffhq", "--preset=heads", "--gpus=1", "--gamma=1", "--gamma_seg=1", "--tick=0.2", "--snap=1000"]
# What a device can do while somebody waits: minutes of training, and options of train.py that suit it.
TRAININGS = {
    "cpu": (4, ["--batch=4"]),
    "cuda": (20, ["--batch=32", "--neural_rendering_resolution_initial=64"]),
}


@cli.command()
@click.option("--outdir", help="Where to write", metavar="DIR", default="demo-out")
@click.option("--img_data", help="Pictures of 128 pixels with labels", metavar="DIR|ZIP", default=str(IMAGES))
@click.option("--seg_data", help="Their masks", metavar="DIR|ZIP", default=str(MASKS))
@click.option("--minutes", help="How long to train  [default: 4 on the CPU, 20 on a GPU]", type=cli.FiniteFloat(min=0.01))
@click.option("--device", help="cpu, cuda or cuda:N; the best there is if not given")
def main(outdir: str, img_data: str, seg_data: str, minutes: float | None, device: str | None) -> None:
    """Show what the shipped network makes; then train one from nothing for a few minutes, and show what that makes.

    Run it again, and the new network trains on from where it stopped.

    \b
    python demo/demo.py
    """
    chosen = select_device(device)
    usual_minutes, recipe = TRAININGS[chosen.type]
    data = [f"--img_data={existing_path(img_data, 'data set')}", f"--seg_data={existing_path(seg_data, 'data set')}"]
    folder = make_output_dir(outdir)
    networks = {}
    if SHIPPED_MODEL.exists():
        print("The network that comes with the project:")
        networks["shipped"] = SHIPPED_MODEL
        show(SHIPPED_MODEL, folder, f"--device={chosen}")
        save_comparison(folder / "sheet.png", [SHIPPED_MODEL], img_data, seg_data, chosen)
        print(f"Wrote {folder / 'sheet.png'}: real heads, and those of the shipped network from the same cameras")
    length = f"{minutes or usual_minutes:g}"
    print(f"\nA new network, for {length} minutes from nothing; heads take hours:")
    run(["train.py", f"--outdir={folder / 'runs'}", *data, *RECIPE, *recipe, f"--minutes={length}", f"--device={chosen}"])
    networks["new"] = newest_snapshot(folder / "runs")
    show(networks["new"], folder, f"--device={chosen}")
    save_comparison(folder / "sheet.png", list(networks.values()), img_data, seg_data, chosen)
    print_results(folder, networks)


def run(command: list[str]) -> None:
    """Run one of the project's commands as a user would, printed first; UserError if it fails."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    process = subprocess.Popen([sys.executable, str(ROOT / command[0]), *command[1:]])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # the same Ctrl-C has reached it: it writes what it has
        raise
    if code != 0:
        raise UserError(f"{command[0]} failed; what it said is above")


def newest_snapshot(runs: Path) -> Path:
    """The last network of the runs in a folder."""
    snapshots = sorted(runs.glob("*/network-snapshot-*.pkl"), key=lambda path: path.stat().st_mtime)
    if not snapshots:
        raise UserError(f"no network was written to {runs}; train for longer with --minutes")
    return snapshots[-1]


def show(network: Path, folder: Path, device: str) -> None:
    """Turning heads, strips of views and a shape of a network, in a folder of `folder` called like it."""
    place = [f"--outdir={folder}", device]
    turn = [f"--output={folder / network.stem / 'turning.mp4'}", "--grid=2x2", "--cfg=Head", f"--w-frames={FRAMES}", device]
    run(["gen_videos.py", f"--network={network}", f"--seeds={SEEDS}", "--trunc=0.7", *turn])
    run(["gen_samples.py", f"--network={network}", f"--seeds={SEEDS}", *SHAPE, *place])


def print_results(folder: Path, networks: dict[str, Path]) -> None:
    """Where everything is, and what to try next, with the first of the networks."""
    rows = " and the ".join(networks)
    print(f"\n{folder / 'sheet.png'}: real heads, and below them, from the same cameras, rows of the {rows} network")
    for name, network in networks.items():
        print(f"{folder / network.stem}: the {name} network: turning.mp4, five views of each seed (.png), meshes (.glb)")
    best = next(iter(networks.values()))
    print(f"""
Next, after `source .venv/bin/activate`:
  make demo                              # trains the new network for as long again
  python gen_videos.py --network {best} --seeds 4-12 --grid 3x3 --cfg Head --outdir out
  python demo/score.py --network {best}   # how good it is, in numbers
  ./gen_pti_script.sh --network {best}   # from one picture to a whole head
  python demo/render_heads.py --help     # more heads, in any number""")


if __name__ == "__main__":
    main()
