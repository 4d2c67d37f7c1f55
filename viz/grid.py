"""A sheet of heads to choose from, drawn one after the other."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import PIL.Image
import PIL.ImageDraw

from training.images import tile
from viz import picture, states
from viz.painter import Draw
from viz.picture import Network
from viz.states import State

COLUMNS = 4
COUNT = COLUMNS**2
CELL = 256  # pixels, at most
EMPTY = 128  # grey of what is not drawn yet


def draws(state: State, network: Network, seeds: list[int], before: np.ndarray | None) -> list[Draw]:
    """Draws the heads of `seeds`, otherwise as `state` has them: each gives the sheet so far, on that of `before`, if any."""
    cell = min(CELL, network.G.img_resolution)
    sheet = np.full([COUNT, cell, cell, 3], EMPTY, dtype=np.uint8)
    if before is not None and before.shape == (COLUMNS * cell, COLUMNS * cell, 3):
        sheet[:] = before.reshape(COLUMNS, cell, COLUMNS, cell, 3).swapaxes(1, 2).reshape(sheet.shape)

    def draw(index: int) -> Draw:
        def add(stale: Callable[[], bool]) -> np.ndarray:
            shown = replace(state, face=states.SEED, seed=seeds[index])
            pixels = picture.picture(shown, network, picture.FULL, stale)
            sheet[index] = _labelled(pixels, cell, f"{seeds[index]}")
            return tile(sheet, COLUMNS)

        return add

    return [draw(index) for index in range(len(seeds))]


def _labelled(pixels: np.ndarray, cell: int, text: str) -> np.ndarray:
    image = PIL.Image.fromarray(picture.enlarged(pixels, cell)).convert("RGB")
    outlined = dict(fill="white", stroke_width=1, stroke_fill="black", font_size=max(10, cell // 10))
    PIL.ImageDraw.Draw(image).text((4, 2), text, **outlined)
    return np.asarray(image)


def seed_at(seeds: list[int], x: float, y: float) -> int | None:
    """The seed of the head at x, y, from 0 to 1 across the sheet; None beside it."""
    if not (0 <= x < 1 and 0 <= y < 1):
        return None
    index = int(y * COLUMNS) * COLUMNS + int(x * COLUMNS)
    return seeds[index] if index < len(seeds) else None
