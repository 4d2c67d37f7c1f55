"""A head in the hand: a viewer of a network in the browser; or, with --out, one picture of it in a file."""

import threading
import webbrowser
from pathlib import Path

import click

from dnnlib import UserError, cli
from dnnlib.util import InterruptFlag, make_output_dir
from torch_utils.device import select_device
from training.images import save_image
from viz import picture
from viz.networks import Library
from viz.states import State, state_options

SHIPPED = Path(__file__).resolve().parent / "models" / "heads-128.pkl"
LOCAL = ("127.0.0.1", "localhost", "::1")


@cli.command()
@click.option(
    "--network",
    "networks",
    help="Network file or URL, run, folder of pti/run.py, or a folder of these; again for more  [default: the shipped one]",
    metavar="PKL|DIR",
    multiple=True,
)
@click.option("--port", help="Where to serve; the next free one if it is taken", type=click.IntRange(0, 65535), default=8080)
@click.option("--host", help="Address to listen on: 0.0.0.0 lets other machines look", default=LOCAL[0])
@click.option("--open", "open_browser", help="Open a browser", is_flag=True)
@click.option("--dark", help="Begin with a dark page", is_flag=True)
@click.option("--outdir", help="Where the page keeps its gallery and inversions", metavar="DIR", default="out/viewer")
@click.option("--out", help="Write the picture of the options below to this file, and serve nothing", metavar="FILE.png")
@click.option("--trust-pickle", help="Run code stored in network files; only for files you trust", is_flag=True)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
@state_options
def main(
    networks: tuple[str, ...],
    port: int,
    host: str,
    open_browser: bool,
    dark: bool,
    outdir: str,
    out: str | None,
    trust_pickle: bool,
    device: str | None,
    **settings: object,
) -> None:
    """Turn heads in the browser: drag to orbit, scroll to come closer, drag with the right button to pan.

    \b
    python visualizer.py
    python visualizer.py --network PKL --seed 3 --yaw 30 --out view.png
    """
    state, given = State(**settings), list(networks) or [str(SHIPPED)]
    library = Library(given, str(select_device(device)), trust_pickle, urls=host in LOCAL)
    names = library.names()
    if not names:
        raise UserError(f"--network {', '.join(given)}: there is no network in it")
    if out is not None:
        if Path(out).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise UserError(f"--out {out}: pictures are written as .png or .jpg")
        make_output_dir(Path(out).parent)
        save_image(picture.picture(state, library.get(names[0])), out)
        print(f"Wrote {out}")
        return
    serve(library, names[0], state, host, port, dark, outdir, open_browser)


def serve(library: Library, first: str, state: State, host: str, port: int, dark: bool, outdir: str, opens: bool) -> None:
    """Serve pages until Ctrl-C or SIGTERM."""
    from viz.page import Viewer  # here: one picture needs no viser

    viewer = Viewer(library, first, state, host, port, dark, outdir)
    if host not in LOCAL:
        print(f"Whoever reaches {host} can use this page, without a password: its networks, gallery and inversions")
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    print(f"Viewer: http://{shown}:{viewer.port}", flush=True)
    if opens:
        webbrowser.open(f"http://{shown}:{viewer.port}")
    with InterruptFlag() as interrupted:
        while not interrupted:
            threading.Event().wait(0.2)
    viewer.stop()


if __name__ == "__main__":
    main()
