"""Show training runs on one page of HTML that needs no network: curves, pictures over time, options, metrics, alarms.

\b
Example:
  python -m training.report training-runs/00000-ffhq-heads-gpus1-batch4-gamma1
  python -m training.report training-runs/00000-* training-runs/00001-* --out both.html
"""

import base64
import html
import io
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import PIL.Image

from dnnlib import UserError
from dnnlib.cli import command, progress
from dnnlib.util import atomic_path, format_time, is_locked
from metrics.results import images_seen
from training import alarms
from training.run_folder import LOG_NAME, OPTIONS_NAME
from training.snapshots import STATS_NAME, read_stats

TEMPLATE = Path(__file__).with_suffix(".html")
MODES = ("", "_raw", "_depth", "_mask")  # what the names of sheets end with
MOMENTS = 24  # at most of a run whose sheets are shown
SHEET_WIDTH = 720  # pixels at most
SHEET_QUALITY = 80
SHEET_BYTES = 3_000_000  # of all runs' sheets together; base64 makes them a third more
POINTS = 1500  # of a curve at most; of longer ones neighbours are averaged
PACE_RECORDS = 5  # the last ones, from which the time left is told
DIGITS = 5  # of a number in a curve

Stats = dict[str, list[float | None]]


class Chart(NamedTuple):
    """One plot: what is in it, and what to read from it."""

    title: str
    about: str
    stats: tuple[tuple[str, str], ...]  # names in stats.jsonl, and what they are called here
    logarithmic: bool = False


def _phases(kind: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"Gradients/{kind}/{phase}", phase) for phase in ("Gmain", "Greg", "Gboth", "Dmain", "Dreg"))


CHARTS = (
    Chart("Losses", "softplus losses; a discriminator that cannot tell has 1.39", (("Loss/G/loss", "G"), ("Loss/D/loss", "D"))),
    Chart("Scores", "the discriminator's logits", (("Loss/scores/real", "real"), ("Loss/scores/fake", "fake"))),
    Chart("Margin of the scores", "real less fake; growing without end means saturated", (("Loss/scores/margin", "margin"),)),
    Chart(
        "Signs of the scores", "1: always called real, -1: never", (("Loss/signs/real", "real"), ("Loss/signs/fake", "fake"))
    ),
    Chart("R1", "squared gradients", (("Loss/r1_penalty", "pictures"), ("Loss/r1_penalty_seg", "masks")), True),
    Chart("Gradient norms", "of each phase, averaged over processes", _phases("norm"), True),
    Chart(
        "Faulty gradients",
        "share that is not finite, and steps that were skipped for it",
        (*_phases("nonfinite"), ("Progress/skipped_steps", "skipped steps")),
    ),
    Chart("Head in the masks", "share of the picture", (("Mask/coverage/real", "real"), ("Mask/coverage/fake", "fake"))),
    Chart(
        "Diversity",
        "deviation among pictures: real ones, and seeds from the same camera",
        (("Probe/diversity_real", "real"), ("Probe/diversity", "fake")),
    ),
    Chart(
        "Relief",
        f"deviation of a front view's depth, world units; flat under {alarms.FLAT_RELIEF}",
        (("Probe/relief", "relief"),),
    ),
    Chart(
        "Likeness of front and back",
        f"correlation of detail; a second face over {alarms.SECOND_FACE_LIKENESS}",
        (("Probe/back_likeness", "correlation"),),
    ),
    Chart("Camera shift, mean", "world units", tuple((f"Camera/shift/{axis}", axis) for axis in "xyz")),
    Chart("Camera shift, spread", "world units", (("Camera/shift/spread", "spread"),)),
    Chart("Images a second", "of all processes together", (("Throughput/images", "images"),)),
    Chart("Peak memory", "GiB since the process began", (("Resources/peak_memory_gb", "memory"),)),
    Chart("Augmentation", "probability of each change", (("Progress/augment", "p"),)),
)
NO_CURVE = re.compile(r"Progress/(tick|kimg)|Timing/.*|Throughput/rank.*")  # in the table of the last record alone


@command(help=__doc__)
@click.argument("run_dirs", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The page; report.html in the first RUN_DIR if not given")
def main(run_dirs: tuple[Path, ...], out: Path | None) -> None:
    run_dirs = tuple(dict.fromkeys(path.resolve() for path in run_dirs))
    for run_dir in run_dirs:
        _require_run(run_dir)
    out = out or run_dirs[0] / "report.html"
    page = render([describe(path, len(run_dirs)) for path in run_dirs])
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"Wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")


def render(runs: Sequence[dict[str, Any]]) -> str:
    """The page that shows `runs`, each as `describe` gives it."""
    data = dict(made=time.strftime("%Y-%m-%d %H:%M"), runs=_told_apart(runs), charts=_charts(runs))
    title = "Training report: " + ", ".join(run["name"] for run in runs)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")  # nothing ends the script early
    return TEMPLATE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title)).replace("{{data}}", text)


def _told_apart(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of one name get that of their folder's folder in front."""
    names = [run["name"] for run in runs]
    return [
        run if names.count(run["name"]) == 1 else dict(run, name=f"{Path(run['folder']).parent.name}/{run['name']}")
        for run in runs
    ]


def _charts(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """CHARTS and one for each statistic that none of them has, as far as the runs have something for them."""
    names = list(dict.fromkeys(name for run in runs for name in run["stats"]))
    known = {name for chart in CHARTS for name, _ in chart.stats}
    others = [Chart(name, "", ((name, name),)) for name in names if name not in known and not NO_CURVE.fullmatch(name)]
    shown = [chart._replace(stats=[pair for pair in chart.stats if pair[0] in names]) for chart in (*CHARTS, *others)]
    return [chart._asdict() for chart in shown if chart.stats]


# What is known of a run


def describe(run_dir: Path, runs: int = 1) -> dict[str, Any]:
    """All that the page shows of a run, one of so many `runs`, as plain values."""
    options, records = _options(run_dir), read_stats(run_dir)
    state = _state(run_dir, options, records)
    return dict(
        name=run_dir.name,
        folder=str(run_dir),
        state=state,
        facts=_facts(options, records, state),
        alarms=[dict(name=a.name, kimg=a.nimg / 1000, line=a.line) for a in alarms.find(records)],
        **_curves(records),
        last={name: value for name, value in records[-1].items() if isinstance(value, dict)} if records else {},
        metrics=_metrics(run_dir),
        options={name: json.dumps(value) for name, value in _flat(options).items()},
        **_sheets(run_dir, runs),
    )


def _require_run(run_dir: Path) -> None:
    if not any((run_dir / name).is_file() for name in (OPTIONS_NAME, STATS_NAME)):
        raise UserError(f"{run_dir} is not the folder of a run: it has neither {OPTIONS_NAME} nor {STATS_NAME}")


def _options(run_dir: Path) -> dict[str, Any]:
    """The options of a run, of another version too; none where they cannot be read."""
    try:
        options = json.loads((run_dir / OPTIONS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _state(run_dir: Path, options: dict[str, Any], records: list[dict[str, Any]]) -> str:
    if is_locked(run_dir / LOG_NAME):
        return "running"
    if records and "kimg" in options and records[-1]["nimg"] >= options["kimg"] * 1000:
        return "finished"
    return "stopped"


def _facts(options: dict[str, Any], records: list[dict[str, Any]], state: str) -> dict[str, str]:
    """What to know of a run at a glance."""
    facts = {"Data": Path(str(options["img_data"])).name} if "img_data" in options else {}
    target = f" of {options['kimg']:,g} kimg" if "kimg" in options else " kimg"
    if not records:
        return {**facts, "Seen": f"nothing yet{target}"}
    last = records[-1]
    facts["Seen"] = f"{last['nimg'] / 1000:,g}{target}"
    if (taken := _mean(last, "Timing/total_sec")) is not None:
        facts["Time so far"] = format_time(taken)
    paces = [pace for record in records[1:][-PACE_RECORDS:] if (pace := _mean(record, "Timing/sec_per_kimg"))]
    if paces:  # not of the first tick, which is a batch long and has all the start in it
        pace = sum(paces) / len(paces)
        facts["Images a second"] = f"{1000 / pace:.3g}"
        if state != "finished" and "kimg" in options:
            facts["Time left"] = format_time(max(options["kimg"] - last["nimg"] / 1000, 0) * pace)
            facts["Time left"] += "" if state == "running" else ", once it goes on"
    if (memory := _mean(last, "Resources/peak_memory_gb")) is not None:
        facts["Peak memory"] = f"{memory:.1f} GiB"
    if "timestamp" in last:
        facts["Last record"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(last["timestamp"]))
    return facts


def _mean(record: dict[str, Any], name: str) -> float | None:
    return record.get(name, {}).get("mean")


def _curves(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The kimg and hours of the points, and the means of all statistics there; many records are grouped into fewer points."""
    size = -(-len(records) // POINTS) or 1
    groups = [records[i : i + size] for i in range(0, len(records), size)]
    names = dict.fromkeys(name for record in records for name, value in record.items() if isinstance(value, dict))
    stats: Stats = {name: [_average([_mean(record, name) for record in group]) for group in groups] for name in names}
    paces = stats.get("Timing/sec_per_kimg", [])
    if paces:
        stats["Throughput/images"] = [_rounded(1000 / pace) if pace else None for pace in paces]
    hours = [_rounded(value / 3600) if value is not None else None for value in stats.get("Timing/total_sec", [])]
    return dict(kimg=[group[-1]["nimg"] / 1000 for group in groups], hours=hours, stats=stats)


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(sum(known) / len(known)) if known else None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The figures in metric*.jsonl: name, value, kimg (None if not known), and `way`, alike where they compare."""
    found = []
    for path in sorted(run_dir.glob("metric*.jsonl")):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
                figures = line.get("figures") or line["results"]
                found += [_metric(line, name, value) for name, value in figures.items() if _is_figure(name, value)]
            except (ValueError, KeyError, TypeError, AttributeError):  # half a line, or another program's
                continue
    return found


def _is_figure(name: str, value: Any) -> bool:
    return not name.endswith("_error") and isinstance(value, (int, float)) and math.isfinite(value)


def _metric(line: dict[str, Any], name: str, value: float) -> dict[str, Any]:
    seen, snapshot = line.get("images_seen"), str(line.get("network") or line.get("snapshot_pkl") or "")
    seen = images_seen(snapshot) if seen is None else seen
    kimg = None if seen is None else seen / 1000
    way = {part: of for part, of in line.get("fingerprint", {}).items() if part != "network"}
    error = line.get("figures", {}).get(f"{name}_error")
    return dict(
        name=name, value=value, error=error, kimg=kimg, snapshot=Path(snapshot).name, way=json.dumps(way, sort_keys=True)
    )


# Pictures


def _sheets(run_dir: Path, runs: int) -> dict[str, Any]:
    """Sheets of generated pictures over time, first and last among them, and of real ones, as data URLs.

    There are as many moments as fit into this run's part of SHEET_BYTES, two at least.
    """
    found = (re.fullmatch(r"fakes(\d+)\.png", path.name) for path in sorted(run_dir.glob("fakes*.png")))
    moments = [match[1] for match in found if match]
    if len(moments) > MOMENTS:
        moments = [moments[round(i * (len(moments) - 1) / (MOMENTS - 1))] for i in range(MOMENTS)]
    width = SHEET_WIDTH if runs == 1 else SHEET_WIDTH * 2 // 3
    bar = progress(moments, desc=f"Sheets of {run_dir.name[:40]}", leave=False)
    sheets = [dict(kimg=int(moment), **_pictures(run_dir, f"fakes{moment}", width)) for moment in bar]
    while len(sheets) > 2 and sum(map(_size, sheets)) > SHEET_BYTES / runs:
        sheets = sheets[:1] + sheets[1:-1][1::2] + sheets[-1:]
    return dict(sheets=sheets, reals=_pictures(run_dir, "reals", width))


def _pictures(run_dir: Path, name: str, width: int) -> dict[str, str]:
    """The sheets called `name` by what they show; one that is missing or damaged is left out."""
    pictures = {}
    for mode in MODES:
        try:
            with PIL.Image.open(run_dir / f"{name}{mode}.png") as image:
                pictures[mode.lstrip("_") or "image"] = _data_url(image, width)
        except OSError:
            continue
    return pictures


def _data_url(image: PIL.Image.Image, width: int) -> str:
    image = image.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), PIL.Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "jpeg", quality=SHEET_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _size(sheet: dict[str, Any]) -> int:
    return sum(len(value) * 3 // 4 for value in sheet.values() if isinstance(value, str))


if __name__ == "__main__":
    main()
