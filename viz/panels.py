"""The panels of a page: each control edits a field of the state, or starts something."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dnnlib import UserError, cli
from viz import file_panels, grid, picture, states

KEY_VIEWS = {"Front": 0.0, "Left": 90.0, "Back": 180.0, "Right": 270.0}  # yaws in degrees
SHOWN = {"Picture": "image", "Raw": "image_raw", "Depth": "image_depth", "Normals": states.NORMALS, "Mask": "image_mask"}
BACKGROUNDS = {"Its own": states.OWN, "Another seed's": states.OTHER, "White": states.WHITE, "None": states.NONE}
SLIDERS = 6  # principal directions that can be moved
MOST_SEED = cli.MAX_SEED - grid.COUNT


def build(tab: Any) -> None:
    """Make the panels of a page that has just opened."""
    gui = tab.gui
    gui.main_panel.dock_right()
    tab.headline = gui.add_markdown("")
    groups = gui.add_tab_group()
    with groups.add_tab("Head"):
        _seed(tab)
        _walk(tab)
        _mixing(tab)
        _directions(tab)
    with groups.add_tab("View"):
        _view(tab)
    with groups.add_tab("Save"):
        file_panels.save(tab)
    with groups.add_tab("Open"):
        file_panels.open_(tab)
    network_changed(tab)


def close(tab: Any) -> None:
    """Stop what the panels of a page have started."""
    file_panels.stop(tab)


def network_changed(tab: Any) -> None:
    """Let the panels show what is true of another network."""
    rows = tab.network.G.backbone.num_ws
    tab.cutoff.max, tab.rows.max = rows, rows
    tab.from_photo.visible = tab.network.pivot is not None
    try:
        names = tab.viewer.gallery.directions(tab.network.name)
    except UserError as error:
        names = {}
        tab.tell(str(error))
    for index, slider in enumerate(tab.direction_sliders):
        slider.label = names.get(index, f"Direction {index + 1}")
    file_panels.network_changed(tab)
    headline(tab)


def headline(tab: Any) -> None:
    """What is looked at, on top of the panels."""
    G = tab.network.G
    name = _plain(Path(tab.network.file).name)
    tab.headline.content = f"**{name}** · {G.img_resolution} pixels, raw {G.neural_rendering_resolution}"


def drawn(tab: Any) -> None:
    """Called when the best picture of a state is there."""
    file_panels.drawn(tab)


def _plain(text: str) -> str:
    """Text without what Markdown or HTML would take for their own."""
    return "".join(letter if letter.isalnum() or letter in " ./:,-+@" else f"&#{ord(letter)};" for letter in text)


def _choice(tab: Any, label: str, name: str, texts: dict[str, str]) -> Any:
    """A dropdown whose texts stand for values of a field."""
    by_value = {value: text for text, value in texts.items()}
    return tab.bind(name, tab.gui.add_dropdown(label, tuple(texts)), texts.__getitem__, by_value.__getitem__)


def _seed_field(tab: Any, label: str, name: str, **kwargs: Any) -> Any:
    return tab.bind(name, tab.gui.add_number(label, 0, min=0, max=MOST_SEED, step=1, **kwargs), int)


def _seed(tab: Any) -> None:
    gui = tab.gui
    seed = _seed_field(tab, "Seed", "seed", hint="The face: a number makes it, the same one always")
    steps = gui.add_button_group("", ("Previous", "Next", "Grid"), hint="The grid shows the next sixteen: click one")

    def step(_: Any) -> None:
        if steps.value == "Grid":
            first = min(tab.state.seed, MOST_SEED)
            tab.seeds = None if tab.seeds is not None else list(range(first, first + grid.COUNT))
            tab.refresh()
            return
        stride = grid.COUNT if tab.seeds is not None else 1
        seed_now = min(max(tab.state.seed + (stride if steps.value == "Next" else -stride), 0), MOST_SEED)
        if tab.seeds is not None:
            tab.seeds = list(range(seed_now, seed_now + grid.COUNT))
        tab.show_state(replace(tab.state, face=states.SEED, seed=seed_now))

    tab.on(steps.on_click, step)
    tab.on(seed.on_update, lambda _: tab.edit(face=states.SEED))
    tab.from_photo = gui.add_checkbox("Face of the photo", False, hint="That this network was tuned to", visible=False)
    tab.bind("face", tab.from_photo, lambda on: states.PHOTO if on else states.SEED, lambda face: face == states.PHOTO)
    tab.bind("trunc", gui.add_slider("Truncation", -1.0, 2.0, 0.05, 0.7, hint="0 is the mean face, 1 the full variety"))
    rows = tab.network.G.backbone.num_ws
    tab.cutoff = gui.add_slider("Cutoff", 0, rows, 1, rows, hint="Rows of w that are truncated")
    tab.bind("trunc_cutoff", tab.cutoff, int, lambda cutoff: min(cutoff, tab.cutoff.max))
    tab.bind(
        "pose_cond",
        gui.add_slider(
            "Conditioning", -90.0, 270.0, 1.0, 90.0, hint="Camera that the face is made for: 90 degrees is the front"
        ),
    )


def _walk(tab: Any) -> None:
    with tab.gui.add_folder("Walk to another seed", expand_by_default=False):
        _seed_field(tab, "To seed", "walk_seed")
        tab.bind("walk", tab.gui.add_slider("Way", 0.0, 1.0, 0.01, 0.0))


def _mixing(tab: Any) -> None:
    with tab.gui.add_folder("Mix styles", expand_by_default=False):
        _seed_field(tab, "Of seed", "mix_seed")
        tab.rows = tab.gui.add_multi_slider("Rows", 0, 100, 1, (0, 0), hint="Which rows of w are its: the first are the shape")
        tab.bind("mix", tab.rows, lambda ends: tuple(sorted(map(int, ends))))


def _directions(tab: Any) -> None:
    """Sliders along the principal directions of w, each with a name that a person gives it."""
    with tab.gui.add_folder("Directions", expand_by_default=False):
        tab.direction_sliders = []
        for index in range(SLIDERS):
            slider = tab.gui.add_slider(f"Direction {index + 1}", -3.0, 3.0, 0.1, 0.0, hint="In deviations of w")
            tab.direction_sliders.append(slider)
            tab.bind("directions", slider, _with_step(tab, index), lambda steps, index=index: _step(steps, index))
        reset = tab.gui.add_button("All to zero")
        tab.on(reset.on_click, lambda _: tab.show_state(replace(tab.state, directions=())))
        which = tab.gui.add_number("Number", 1, min=1, max=SLIDERS, step=1)
        name = tab.gui.add_text("Name", "", hint="What this direction changes, as you see it")

        def rename(_: Any) -> None:
            index = min(max(int(which.value), 1), SLIDERS) - 1
            tab.viewer.gallery.name_direction(tab.network.name, index, name.value)
            network_changed(tab)

        tab.on(tab.gui.add_button("Name it").on_click, rename)


def _step(steps: tuple[float, ...], index: int) -> float:
    return steps[index] if index < len(steps) else 0.0


def _with_step(tab: Any, index: int) -> Any:
    def changed(value: float) -> tuple[float, ...]:
        steps = [_step(tab.state.directions, other) for other in range(max(SLIDERS, len(tab.state.directions)))]
        steps[index] = value
        return tuple(steps) if any(steps) else ()

    return changed


def _view(tab: Any) -> None:
    gui = tab.gui
    _choice(tab, "Show", "image_mode", SHOWN)
    turn = gui.add_button_group("From", tuple(KEY_VIEWS))

    def look(_: Any) -> None:
        view = picture.front_view(tab.network)
        tab.show_state(replace(tab.state, **dict(view, yaw=KEY_VIEWS[turn.value])))

    tab.on(turn.on_click, look)
    _choice(tab, "Background", "background", BACKGROUNDS)
    _seed_field(tab, "Its seed", "background_seed")
    tab.bind("fov_deg", gui.add_slider("Field of view", 8.0, 60.0, 0.5, states.State().fov_deg, hint="In degrees"))
    samples = (0.25, 0.5, 1.0, 2.0, 4.0)
    texts = {f"× {number:g}": number for number in samples}
    by_value = {number: text for text, number in texts.items()}
    dropdown = gui.add_dropdown("Samples", tuple(texts), hint="On each ray, beside those of the network")
    tab.bind("sample_mult", dropdown, texts.__getitem__, lambda number: by_value.get(number, "× 1"))
    dark = gui.add_checkbox("Dark page", tab.dark)
    tab.on(dark.on_update, lambda _: tab.set_dark(bool(dark.value)))
