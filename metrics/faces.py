"""The finder of faces for a figure that is left out where MediaPipe or its model cannot be had."""

import contextlib
import os
from typing import Iterator

from dnnlib import UserError
from photo.faces import FaceFinder


class NotMeasurable(Exception):
    """Something that a figure needs is missing; the message says what, and how to get it."""


@contextlib.contextmanager
def open_finder(model: str | os.PathLike | None = None) -> Iterator[FaceFinder | NotMeasurable]:
    """A FaceFinder, or what it is missing.  UserError if a `model` was asked for and cannot be used."""
    try:
        finder = FaceFinder(model)
    except UserError as error:
        if model is not None:
            raise
        yield NotMeasurable(str(error))
    else:
        with finder:
            yield finder
