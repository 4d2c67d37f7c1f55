"""Results side by side: a table, and curves over the images that the networks had seen when they were measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnlib import UserError
from metrics import results
from training.images import save_image, tile

PANEL = (560, 360)  # pixels of one figure's curves
MARGINS = (64, 40, 16, 40)  # left, top, right, bottom
COLUMNS = 2
FONT_SIZE = 13
COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207), (127, 127, 127))
GREY = (200, 200, 200)
TICKS = 5


class Point(NamedTuple):
    """A figure of one network."""

    source: str  # whose results: the run, or the file
    network: str
    images_seen: int | None
    value: float | None
    error: float | None
    differs: tuple[str, ...]  # in what it was measured otherwise than the first of its name: not comparable if anything


def compare(files: Sequence[Path], plot: Path | None = None) -> None:
    """Print a table of all figures in `files`, and draw their curves into the picture `plot`; UserError if there are none."""
    figures = collect(files)
    print("\n".join(table(figures)))
    if plot is not None:
        save_image(draw(figures), plot)
        print(f"\nWrote {plot}")


def collect(files: Sequence[Path]) -> dict[str, list[Point]]:
    """The figures by name, each in the order of files and of images seen; of what was measured again the last."""
    found: dict[str, dict[tuple, Point]] = {}
    first: dict[str, dict] = {}
    for path, source in zip(files, _sources(files)):
        for line in results.read(path):
            for name, value in line["figures"].items():
                if name.endswith("_error"):
                    continue
                against = first.setdefault(name, line["fingerprint"])
                differs = tuple(results.differences(against, line["fingerprint"]))
                network, seen = str(line.get("network", "")), line.get("images_seen")
                error = line["figures"].get(f"{name}_error")
                point = Point(source, Path(network).name, seen, value, error, differs)
                found.setdefault(name, {})[(source, network, seen, line["fingerprint"][results.WHOSE], differs)] = point
    order = list(dict.fromkeys(_sources(files)))
    return {
        name: sorted(points.values(), key=lambda point: (order.index(point.source), point.images_seen or 0))
        for name, points in found.items()
    }


def table(figures: dict[str, list[Point]]) -> list[str]:
    """Lines: a heading for each figure, and under it a row for each network."""
    lines = []
    for name, points in figures.items():
        lines += ["", name]
        width = max(len(_who(point)) for point in points)
        for point in points:
            seen = "" if point.images_seen is None else f"{point.images_seen / 1000:g} kimg"
            value = "not seen" if point.value is None else f"{point.value:.5g}"
            error = "" if point.error is None else f"± {point.error:.2g}"
            mark = f"  not comparable: differs in {', '.join(point.differs)}" if point.differs else ""
            lines.append(f"  {_who(point):{width}}  {seen:>12}  {value:>9} {error:10}{mark}".rstrip())
    return lines[1:]


def _who(point: Point) -> str:
    return f"{point.source}: {point.network}"


def _sources(files: Sequence[Path]) -> list[str]:
    """What each file's results are called: the run's folder, or the file; longer where two would be called the same."""
    parts = [path.resolve().parent if path.name == results.RESULTS_NAME else path.resolve().with_suffix("") for path in files]
    names = [part.name for part in parts]
    return [name if names.count(name) == 1 else f"{part.parent.name}/{name}" for name, part in zip(names, parts)]


# Curves


def draw(figures: dict[str, list[Point]]) -> np.ndarray:
    """A picture uint8 [H, W, 3] with a panel for each figure; hollow marks are not comparable with the first.

    UserError if no network tells how many images it has seen.
    """
    shown = {name: [p for p in points if p.images_seen is not None and p.value is not None] for name, points in figures.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        raise UserError("nothing to plot: no network in these results tells how many images it has seen")
    sources = list(dict.fromkeys(point.source for points in shown.values() for point in points))
    colours = {source: COLOURS[number % len(COLOURS)] for number, source in enumerate(sources)}
    panels = [_panel(name, points, colours) for name, points in shown.items()]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % min(COLUMNS, len(panels)))
    return tile(np.stack(panels), min(COLUMNS, len(panels)))


def _panel(name: str, points: list[Point], colours: dict[str, tuple[int, int, int]]) -> np.ndarray:
    image = Image.new("RGB", PANEL, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    left, top, right, bottom = MARGINS[0], MARGINS[1], PANEL[0] - MARGINS[2], PANEL[1] - MARGINS[3]
    across = _ticks([point.images_seen / 1000 for point in points] + [0.0])
    up = _ticks([point.value for point in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - across[0]) / (across[-1] - across[0]) * (right - left),
            bottom - (y - up[0]) / (up[-1] - up[0]) * (bottom - top),
        )

    for tick in up:
        y = place(across[0], tick)[1]
        pen.line([(left, y), (right, y)], GREY)
        pen.text((left - 6, y), f"{tick:g}", "black", font, anchor="rm")
    for tick in across:
        x = place(tick, up[0])[0]
        pen.line([(x, bottom), (x, bottom + 4)], "black")
        pen.text((x, bottom + 6), f"{tick:g}", "black", font, anchor="mt")
    pen.text((right, PANEL[1] - 4), "thousands of images", "black", font, anchor="rb")
    pen.text((left, 4), name, "black", font)
    legend = left
    for source, colour in colours.items():
        own = [point for point in points if point.source == source]
        if not own:
            continue
        comparable = [place(point.images_seen / 1000, point.value) for point in own if not point.differs]
        if len(comparable) > 1:
            pen.line(comparable, colour, 2)
        for point in own:
            x, y = place(point.images_seen / 1000, point.value)
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], "white" if point.differs else colour, colour, 2)
        pen.text((legend, 21), source, colour, font)
        legend += pen.textlength(source, font) + 16
    return np.asarray(image)


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, about TICKS of them, from under the least value to over the most."""
    least, most = min(values), max(values)
    span = (most - least) or abs(most) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * TICKS >= span)
    first, last = math.floor(least / step), math.ceil(most / step)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]
