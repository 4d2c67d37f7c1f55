"""Heads that a person keeps, and the names of directions, in a file."""

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from dnnlib import UserError
from dnnlib.util import atomic_path, make_output_dir
from viz.states import State

NAME_LENGTH = 60


class Kept(NamedTuple):
    """A head of the gallery: the network that made it, and its state."""

    network: str
    state: State


class Gallery:
    """A JSON file at `path`, read anew each time: another viewer may have written it.  UserError if it is damaged."""

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()

    def heads(self) -> dict[str, Kept]:
        """All heads by name."""
        try:
            return {name: Kept(str(kept["network"]), State(**kept["state"])) for name, kept in self._read()["heads"].items()}
        except (KeyError, TypeError, AttributeError, UserError):
            raise self._damaged() from None

    def keep(self, name: str, network: str, state: State) -> None:
        """Add a head, in the place of one of the same name."""
        with self._lock:
            content = self._read()
            content["heads"][_checked(name)] = dict(network=network, state=asdict(state))
            self._write(content)

    def remove(self, name: str) -> None:
        """Remove a head, if it is there."""
        with self._lock:
            content = self._read()
            content["heads"].pop(name, None)
            self._write(content)

    def directions(self, network: str) -> dict[int, str]:
        """The names of a network's directions, by number."""
        return {int(number): str(name) for number, name in self._read()["directions"].get(network, {}).items()}

    def name_direction(self, network: str, number: int, name: str) -> None:
        """Call a direction something."""
        with self._lock:
            content = self._read()
            content["directions"].setdefault(network, {})[str(number)] = _checked(name)
            self._write(content)

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return dict(heads={}, directions={})
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(content["heads"], dict) and isinstance(content["directions"], dict):
                return content
        except (ValueError, KeyError, TypeError):
            pass
        raise self._damaged()

    def _write(self, content: dict[str, Any]) -> None:
        make_output_dir(self.path.parent)
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _damaged(self) -> UserError:
        return UserError(f"{self.path} is damaged: mend or remove it")


def _checked(name: str) -> str:
    name = " ".join(str(name).split())
    if not 0 < len(name) <= NAME_LENGTH:
        raise UserError(f"a name has 1 to {NAME_LENGTH} letters")
    return name
