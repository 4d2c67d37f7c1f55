"""What goes wrong with whole heads most often, told from the records of stats.jsonl before it has cost a week.

An alarm is a condition on the means of a record that holds in `PATIENCE` records in a row, after so many images that a
healthy run has left it behind.  docs/watching.md says where the limits come from and what they are blind to.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from training.watching import LOOK_EVERY

PATIENCE = 3  # records in a row


class Alarm(NamedTuple):
    """An alarm that went off."""

    name: str
    nimg: int  # images seen by then
    line: str  # what is wrong, and what to change


@dataclass(frozen=True)
class Rule:
    """When an alarm goes off."""

    name: str
    after_kimg: float  # thousands of images before which it cannot
    stats: tuple[str, ...]  # whose means `holds` gets, and `line` by number
    holds: Callable[..., bool]
    line: str


_COVERAGE = ("Mask/coverage/fake", "Mask/coverage/real")
EMPTY_SHARE = 0.1  # of the real masks' coverage, below which masks are empty; full ones leave as little uncovered
SATURATED_LOSS = 0.1  # of the discriminator; 1.4 if it cannot tell, and healthy runs stay near 1
COLLAPSED_SHARE = 0.1  # of the real pictures' diversity
FLAT_RELIEF = 0.02  # world units; heads have 0.06, a thick sheet of cardboard 0.01
SECOND_FACE_LIKENESS = 0.5  # heads have 0.0, those with two faces 0.95


def _is_empty(fake: float, real: float) -> bool:
    return fake < EMPTY_SHARE * real


def _is_full(fake: float, real: float) -> bool:
    return _is_empty(1 - fake, 1 - real)


RULES = (
    Rule(
        "empty mask",
        20,
        _COVERAGE,
        _is_empty,
        "the masks of generated heads are empty ({0:.1%} head, real ones {1:.1%}): the background draws everything.  Use "
        "--bcg_reg_prob 0.2, more --gamma_seg, and dataset_tool_seg.py --check to see whether the masks fit the pictures",
    ),
    Rule(
        "full mask",
        20,
        _COVERAGE,
        _is_full,
        "the masks of generated heads are full ({0:.1%} head, real ones {1:.1%}): the head draws the background as well.  Use "
        "--use_background true --bcg_reg_prob 0.2, and dataset_tool_seg.py --check to see whether the masks fit the pictures",
    ),
    Rule(
        "saturated discriminator",
        20,
        ("Loss/D/loss", "Loss/scores/real", "Loss/scores/fake"),
        lambda loss, real, fake: loss < SATURATED_LOSS,
        "the discriminator is never wrong (loss {0:.3f}, scores {1:.1f} and {2:.1f}), so that the generator learns little.  "
        "Double --gamma and --gamma_seg, lower --dlr, or use --aug ada if the pictures are few",
    ),
    Rule(
        "collapse",
        50,
        ("Probe/diversity", "Probe/diversity_real"),
        lambda made, real: made < COLLAPSED_SHARE * real,
        "all seeds make the same head (deviation {0:.3f}, real pictures {1:.3f}).  --resume a snapshot from before, with more "
        "--gamma, a lower --glr or a larger --batch",
    ),
    Rule(
        "flat depth",
        100,
        ("Probe/relief", *_COVERAGE),
        lambda relief, *coverage: relief < FLAT_RELIEF and not _is_empty(*coverage) and not _is_full(*coverage),
        "heads are flat (relief {0:.3f}; a head has about 0.06).  Check the yaws with dataset_tool_seg.py --check: views from "
        "the sides must be there and their cameras right; --gen_pose_cond true helps where yaw goes with expression",
    ),
    Rule(
        "second face",
        200,
        ("Probe/back_likeness", "Probe/relief"),
        lambda likeness, relief: likeness > SECOND_FACE_LIKENESS and relief >= FLAT_RELIEF,
        "heads look from behind as they do from the front (correlation {0:.2f}).  Use --triplane_depth 3, a larger "
        "--back_repeat, and data with pictures from behind",
    ),
)


class Alarms:
    """Looks at the records of a run, one by one; each alarm goes off once."""

    def __init__(self):
        self._in_a_row = {rule.name: 0 for rule in RULES}
        self._gone_off: set[str] = set()
        self._seen = -1

    def add(self, record: dict[str, Any], nimg: int) -> list[Alarm]:
        """The alarms that go off with `record`, name -> {mean, ...}, as of `nimg` images.

        Of records within `LOOK_EVERY` images only the first is looked at.
        """
        if nimg // LOOK_EVERY == self._seen:
            return []
        self._seen = nimg // LOOK_EVERY
        found = []
        for rule in RULES:
            values = [_mean(record, name) for name in rule.stats]
            holds = nimg >= rule.after_kimg * 1000 and all(map(math.isfinite, values)) and rule.holds(*values)
            self._in_a_row[rule.name] = self._in_a_row[rule.name] + 1 if holds else 0
            if self._in_a_row[rule.name] == PATIENCE and rule.name not in self._gone_off:
                self._gone_off.add(rule.name)
                found.append(Alarm(rule.name, nimg, rule.line.format(*values)))
        return found


def find(records: Iterable[dict[str, Any]]) -> list[Alarm]:
    """All alarms that go off with the records of a stats.jsonl, in order."""
    alarms = Alarms()
    return [alarm for record in records for alarm in alarms.add(record, record["nimg"])]


def _mean(record: dict[str, Any], name: str) -> float:
    """nan where the record has none."""
    mean = record.get(name, {}).get("mean")
    return math.nan if mean is None else mean
