"""The networks that a page may choose: those given on the command line, the snapshots of runs, the folders of inversions."""

import re
import threading
import weakref
from pathlib import Path

from dnnlib import UserError
from dnnlib.download import is_url
from training.run_folder import OPTIONS_NAME
from viz.picture import Network, is_inversion, load

SNAPSHOTS = "network-snapshot-*.pkl"
NETWORK_SUFFIXES = (".pkl", ".safetensors")
LISTED = 200  # of a folder, at most


class Library:
    """Networks by name, each loaded once for all pages that look at it.

    `given` are files, https URLs, and folders: of a run, of an inversion, or that hold any of these.  UserError for what is
    not there.  A page gets nothing from outside of them; `urls` allows it to name other https URLs.
    """

    def __init__(self, given: list[str], device: str | None = None, trust_pickle: bool = False, urls: bool = False):
        for name in given:
            if not is_url(name) and not Path(name).exists():
                raise UserError(f"--network {name}: there is no such file or folder")
        self.given, self.device, self.trust_pickle, self.urls = list(given), device, trust_pickle, urls
        self._loaded: weakref.WeakValueDictionary[tuple[str, str], Network] = weakref.WeakValueDictionary()
        self._loading = threading.Lock()

    def names(self) -> list[str]:
        """All that can be chosen now: runs appear and grow."""
        found = [name for given in self.given for name in ([given] if is_url(given) else _usable(Path(given)))]
        return list(dict.fromkeys(found))

    def add(self, name: str) -> None:
        """Offer `name`, a path, from now on."""
        if name not in self.given:
            self.given.append(name)

    def get(self, name: str) -> Network:
        """The network `name`, newest if it is a run; UserError if it cannot be used, or is not among those that were given."""
        if is_url(name):
            if name not in self.given and not (self.urls and name.startswith("https://")):
                raise UserError(f"{name}: only networks that were given with --network can be opened here")
            file = name
        else:
            if not self._is_inside(Path(name)):
                raise UserError(f"{name}: it is not in what was given with --network")
            file = self.file(name)
        with self._loading:
            network = self._loaded.get((name, file))
            if network is None:
                network = load(file, self.device, self.trust_pickle)
                network.name, network.file = name, file
                self._loaded[name, file] = network
        return network

    def file(self, name: str) -> str:
        """What is behind `name` now: the newest snapshot of a run, or itself."""
        path = Path(name)
        return str(_newest(path)) if is_run(path) else name

    def _is_inside(self, path: Path) -> bool:
        real = path.resolve()
        return any(real.is_relative_to(Path(given).resolve()) for given in self.given if not is_url(given))


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a training run."""
    return (path / OPTIONS_NAME).exists() or (path.is_dir() and any(path.glob(SNAPSHOTS)))


def _newest(run: Path) -> Path:
    snapshots = sorted(run.glob(SNAPSHOTS), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))
    if not snapshots:
        raise UserError(f"{run} has no snapshot yet")
    return snapshots[-1]


def _usable(path: Path) -> list[str]:
    """The networks at or below a path that was given."""
    if path.is_file() or is_run(path) or is_inversion(path):
        return [str(path)]
    inside = [place for pattern in ("*", "*/*") for place in sorted(path.glob(pattern)) if not place.name.startswith(".")]
    runs = {place for place in inside if place.is_dir() and (is_run(place) or is_inversion(place))}
    files = [place for place in inside if place.suffix in NETWORK_SUFFIXES and place.parent not in runs]
    return [str(place) for place in (*sorted(runs), *files)][:LISTED]
