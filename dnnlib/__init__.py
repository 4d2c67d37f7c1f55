"""Small, torch-free helpers: dictionaries, objects by name, files, logs and command lines."""

from .util import EasyDict, UserError

__all__ = ["EasyDict", "UserError"]
