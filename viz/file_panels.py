"""The panels for files: what to save, what to open, and photos that become heads."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib import UserError
from pti.results import Results
from viz import outputs, picture, states
from viz.jobs import Job
from viz.states import command_line

NOTHING = "–"  # a dropdown has to have an entry
MESHES = (".glb", ".ply", ".stl")
RESOLUTIONS = ("128", "256", "512")
PAIR_SIDE = 256  # pixels of the photo, and of what its camera sees
MAX_KEYS = 50


def save(tab: Any) -> None:
    """Files of what is shown."""
    gui = tab.gui
    tab.job, tab.keys = None, []
    as_png = gui.add_button("Picture (.png)")
    tab.on(
        as_png.on_click,
        lambda _: _download(tab, f"{_stem(tab)}.png", outputs.png(tab.state, tab.network, tab.viewer.painter.turn)),
    )
    with gui.add_folder("Film"):
        frames = gui.add_number("Frames", 120, min=2, max=2000, step=1)
        fps = gui.add_number("A second", 30, min=1, max=120, step=1)
        turn = gui.add_button("Turntable (.mp4)")
        keys = gui.add_button_group("Path", ("Add view", "Remove last"), hint="Views that a film flies through")
        told = gui.add_markdown("No views yet.")
        path = gui.add_button("Film of the path (.mp4)")
    with gui.add_folder("Mesh"):
        kind = gui.add_dropdown("Format", MESHES, hint=".glb has a texture, .stl is for printing")
        resolution = gui.add_dropdown("Voxels", RESOLUTIONS, initial_value=RESOLUTIONS[1], hint="Along a side")
        mesh = gui.add_button("Mesh")
    # Below the others: it is as high as its text is long.
    tab.command = gui.add_text("Command", "", multiline=True, hint="Makes the same picture without this page")
    tab.progress = gui.add_progress_bar(0, visible=False, animated=True)
    tab.cancel = gui.add_button("Cancel", color="red", visible=False)

    def film(views: list[Any]) -> None:
        def write(file: Path, step: outputs.Step) -> None:
            outputs.film(views, network, file, _whole(fps.value, 1, 120), tab.viewer.painter.turn, step)

        network = tab.network
        _start(tab, f"{_stem(tab)}.mp4", write)

    def edit_keys(_: Any) -> None:
        if keys.value == "Add view":
            tab.keys = [*tab.keys, tab.state][:MAX_KEYS]
        else:
            tab.keys = tab.keys[:-1]
        told.content = f"Views: {len(tab.keys)}." if tab.keys else "No views yet."

    def fly(_: Any) -> None:
        if len(tab.keys) < 2:
            raise UserError("a path has at least two views: turn the head, Add view, turn it, Add view")
        film(outputs.fly(tab.state, tab.keys, _whole(frames.value, 2, 2000)))

    def export(_: Any) -> None:
        state, network, suffix, side = tab.state, tab.network, _one_of(MESHES, kind), int(_one_of(RESOLUTIONS, resolution))

        def write(file: Path, step: outputs.Step) -> None:
            outputs.mesh(state, network, file, side, tab.viewer.painter.turn, step)

        _start(tab, f"{_stem(tab)}{suffix}", write)

    tab.on(turn.on_click, lambda _: film(outputs.turntable(tab.state, _whole(frames.value, 2, 2000))))
    tab.on(keys.on_click, edit_keys)
    tab.on(path.on_click, fly)
    tab.on(mesh.on_click, export)
    tab.on(tab.cancel.on_click, lambda _: tab.job and tab.job.cancel())


def _whole(value: float, low: int, high: int) -> int:
    """A number of a field, whatever the page has sent, within its limits."""
    return min(max(int(value), low), high)


def _one_of(choices: tuple[str, ...], dropdown: Any) -> str:
    """What is chosen; UserError for anything that was not offered, which a page can send all the same."""
    if dropdown.value not in choices:
        raise UserError(f"choose one of {', '.join(choices)}")
    return dropdown.value


def _stem(tab: Any) -> str:
    """A file name for what is shown."""
    state = tab.state
    face = "photo" if state.face == states.PHOTO else f"seed{state.seed:04d}"
    return f"{Path(tab.network.name).stem}-{face}"


def _download(tab: Any, name: str, content: bytes) -> None:
    tab.client.send_file_download(name, content, save_immediately=True)


def _start(tab: Any, name: str, write: Callable[[Path, outputs.Step], None]) -> None:
    """Let `write` make the file `name` in the background, and send it to the page."""

    def work(job: Job) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            write(file, job.step)
            _download(tab, name, file.read_bytes())

    def done(reason: str | None) -> None:
        if tab.closed:
            return
        tab.progress.visible = tab.cancel.visible = False
        if reason is not None:
            tab.tell(f"{name}: {reason}")

    with tab.lock:
        if tab.job is not None and tab.job.is_running:
            raise UserError("a file is being made: wait for it, or cancel it")
        tab.progress.value, tab.progress.visible, tab.cancel.visible = 0, True, True
        tab.job = Job(work, lambda share: setattr(tab.progress, "value", 100 * share), done)


def stop(tab: Any) -> None:
    """The page is closed: nobody waits for its files."""
    if tab.job is not None:
        tab.job.cancel()


def drawn(tab: Any) -> None:
    """Say how to make the picture that is shown now."""
    tab.command.value = command_line(tab.state, tab.network.file, f"{_stem(tab)}.png")


# What to open


def open_(tab: Any) -> None:
    """Networks, the gallery, and photos."""
    gui, viewer = tab.gui, tab.viewer
    tab.choice = gui.add_dropdown("Network", _names(tab), initial_value=tab.network.name)
    look = gui.add_button("Look for new ones")
    hint = "In what was given with --network" + (", or an https address" if viewer.library.urls else "")
    place = gui.add_text("Path", "", hint=hint)
    open_place = gui.add_button("Open")
    tab.on(tab.choice.on_update, lambda _: _use(tab, tab.choice.value))
    tab.on(look.on_click, lambda _: network_changed(tab))
    tab.on(open_place.on_click, lambda _: _use(tab, place.value.strip()))
    with gui.add_folder("Gallery"):
        _gallery(tab)
    with gui.add_folder("Photo"):
        _photo(tab)


def _names(tab: Any) -> tuple[str, ...]:
    names = tab.viewer.library.names()
    return tuple(names if tab.network.name in names else [tab.network.name, *names])


def _use(tab: Any, name: str) -> None:
    try:
        tab.use(name)
    except UserError:
        network_changed(tab)  # the list shows what is still looked at
        raise


def network_changed(tab: Any) -> None:
    """Show which networks there are, and which one is looked at."""
    tab.choice.options = _names(tab)
    tab.choice.value = tab.network.name


def show_photo(tab: Any) -> None:
    """The photo that the network was tuned to, if any, beside what its camera sees."""
    has_photo = tab.network.photo is not None and tab.network.pivot is not None
    tab.pair.visible = tab.from_camera.visible = has_photo
    if has_photo:
        tab.pair.image = _pair(tab)


def _pair(tab: Any) -> np.ndarray:
    """The photo, and beside it what its camera sees: [PAIR_SIDE, 2 * PAIR_SIDE, 3]."""
    with tab.viewer.painter.turn():
        seen = picture.photo_picture(tab.network)
    height = tab.network.photo.shape[0]  # of several photos in a row, the first
    return np.concatenate([picture.enlarged(pixels, PAIR_SIDE) for pixels in (tab.network.photo[:, :height], seen)], axis=1)


def _gallery(tab: Any) -> None:
    gui, gallery = tab.gui, tab.viewer.gallery
    name = gui.add_text("Name", "")
    keep = gui.add_button("Keep this head")
    kept = gui.add_dropdown("Kept", (NOTHING,))
    buttons = gui.add_button_group("", ("Show", "Remove"))

    def refill() -> None:
        kept.options = tuple(gallery.heads()) or (NOTHING,)

    def add(_: Any) -> None:
        gallery.keep(name.value, tab.network.name, tab.state)
        refill()
        kept.value = " ".join(name.value.split())

    def act(_: Any) -> None:
        heads = gallery.heads()
        if kept.value not in heads:
            refill()
            raise UserError("choose one of the heads that were kept")
        if buttons.value == "Remove":
            gallery.remove(kept.value)
            refill()
            return
        head = heads[kept.value]
        if head.network != tab.network.name:
            tab.use(head.network)
        tab.show_state(head.state)

    tab.on(keep.on_click, add)
    tab.on(buttons.on_click, act)
    try:
        refill()
    except UserError as error:
        tab.tell(str(error))


def _photo(tab: Any) -> None:
    """A photo becomes a head, in the background; and the photo of the network that is looked at."""
    gui, viewer = tab.gui, tab.viewer
    tab.pair = gui.add_image(np.zeros([PAIR_SIDE, 2 * PAIR_SIDE, 3], np.uint8), label="Photo, and its camera", visible=False)
    tab.from_camera = gui.add_button("From the photo's camera", visible=False)
    upload = gui.add_upload_button("Make a head of a photo", mime_type="image/*")
    steps = gui.add_number("Projection", 500, min=1, max=5000, step=1, hint="Steps that look for the latent")
    tuning = gui.add_number("Tuning", 500, min=0, max=5000, step=1, hint="Steps that tune the network")
    tab.inverting = gui.add_progress_bar(0, visible=False, animated=True)
    tab.stop_inverting = gui.add_button("Stop", color="red", visible=False)

    def begin(_: Any) -> None:
        network = tab.network.file
        if Path(network).is_dir():
            network = str(Results(Path(network)).generator)
        counts = _whole(steps.value, 1, 5000), _whole(tuning.value, 0, 5000)
        viewer.invert(tab, upload.value.name, upload.value.content, network, *counts)

    tab.on(upload.on_upload, begin)
    tab.on(tab.stop_inverting.on_click, lambda _: viewer.inversion and viewer.inversion.cancel())
    tab.on(tab.from_camera.on_click, lambda _: tab.show_state(replace(tab.state, **picture.photo_view(tab.network))))


def show_inversion(tab: Any, share: float | None) -> None:
    """How far the inversion of a photo is; None once it has ended."""
    tab.inverting.visible = tab.stop_inverting.visible = share is not None
    if share is not None:
        tab.inverting.value = 100 * share
