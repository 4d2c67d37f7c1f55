"""Opens the face finder for a figure that is left out if MediaPipe or its model is not available."""

import contextlib
import os
from collections.abc import Iterator

from dnnlib import UserError
from photo.faces import FaceFinder


class NotMeasurable(Exception):
    """Something that a figure needs is missing.  The message says what, and how to get it."""


@contextlib.contextmanager
def open_finder(model: str | os.PathLike | None = None) -> Iterator[FaceFinder | NotMeasurable]:
    """Yield a FaceFinder, or the reason why there is none.  Raises UserError if a given `model` cannot be used."""
    try:
        finder = FaceFinder(model)
    except UserError as error:
        if model is not None:
            raise
        yield NotMeasurable(str(error))
    else:
        with finder:
            yield finder
