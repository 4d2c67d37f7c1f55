"""The names of metrics, what they ask for, and what each needs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dnnlib import UserError

EFFICIENTNET = "efficientnet-lite0"  # the detector that needs no download
DISTANCES = ("fid", "kid", "pr", "is")  # of features of pictures
NEIGHBOURS = 3  # of pr50k3_full
MOST = 10_000_000  # pictures
# Metrics without a number in their name: how many heads or pictures they take unless --num-images says otherwise.
COUNTS = {
    "fid_random": 50_000,
    "consistency": 64,
    "two_faces": 64,
    "coverage": 128,
    "id": 256,
    "seg": 256,
    "pose": 256,
}
BY_VIEW = (*DISTANCES, "seg", "pose")  # the others look at heads from all round
_NUMBERED = re.compile(r"(?:(fid|kid)(\d+k?)_(full|random)|(pr)(\d+k?)3_(full)|(is)(\d+k?))")
NAMES = f"fid50k_full, kid50k_full, pr50k3_full, is50k (any number: fid2k_full), {', '.join(COUNTS)}"


@dataclass(frozen=True)
class Request:
    """A metric that was asked for."""

    name: str
    kind: str  # one of DISTANCES or of the names in COUNTS but fid_random
    count: int  # pictures or heads
    stem: str  # what the names of its figures begin with
    apart: bool = False  # the camera that conditions is drawn apart from the one that pictures are seen from

    @property
    def by_view(self) -> bool:
        """Whether it can look at one side alone."""
        return self.kind in BY_VIEW


def parse_all(names: Sequence[str], num_images: int | None = None) -> list[Request]:
    """The metrics called `names`; `num_images` is for those without a number in their name.

    UserError for a name that is none, or if there is nothing that `num_images` could be for.
    """
    requests = [parse(name, num_images) for name in names]
    if num_images is not None and COUNTS.keys().isdisjoint(names):
        raise UserError(f"--num-images would have no effect: {', '.join(names)} say by their names how many pictures they take")
    return requests


def parse(name: str, num_images: int | None = None) -> Request:
    """The metric called `name`; `num_images` is for one without a number in its name.  UserError if there is none."""
    if name in COUNTS:
        count = COUNTS[name] if num_images is None else num_images
        kind, _, apart = name.partition("_random")
        stem = f"{kind}{_short(count)}" if kind in DISTANCES else name
        return Request(name, kind, count, stem, apart=name.endswith("_random"))
    match = _NUMBERED.fullmatch(name)
    if not match:
        raise UserError(f"no metric is called {name!r}; there are {NAMES}")
    kind, number, *form = (part for part in match.groups() if part is not None)
    count = int(number.removesuffix("k")) * (1000 if number.endswith("k") else 1)
    least = NEIGHBOURS + 1 if kind == "pr" else 10 if kind == "is" else 2
    if not least <= count <= MOST:
        raise UserError(f"{name}: from {least} to {MOST} pictures can be compared")
    return Request(name, kind, count, name.partition("_")[0], apart=form == ["random"])


def _short(count: int) -> str:
    """2000 as 2k, 500 as it is."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)
