"""Compares pictures, views, films, shapes, training and inversion with a plain implementation of the published arithmetic.

\b
  python -m benchmarks

This takes about seven minutes on two idle cores.  It prints a table and, with --out, writes a JSON file that also contains the
device and versions.
"""

import json
import platform
import statistics
from typing import Any

import click
import torch

from benchmarks import measure
from benchmarks.cases import CASES, Setting
from dnnlib import UserError, cli
from dnnlib.util import atomic_path
from torch_utils import custom_ops, doctor
from torch_utils.device import select_device

BUDGET = 12.0  # seconds for the rounds of a case, not counting the first
COLUMNS = "{:<38}{:>12}{:>9}{:>7}{:>11}{:>10}{:>7}{:>9}  "
HEADINGS = ("", "published s", "fast s", "ratio", "publ. GiB", "fast GiB", "ratio", "of rate")


@cli.command(help=__doc__)
@click.option("--only", help="Comma-separated names of cases: " + ", ".join(CASES), type=cli.Names(CASES), default="")
@click.option("--quick", help="Small networks and one round, which only shows that everything works", is_flag=True)
@click.option("--device", help="cpu, cuda or cuda:N  [default: the best there is]", metavar="NAME")
@click.option("--out", help="Also write all figures to this file", metavar="FILE.json")
def main(only: list[str], quick: bool, device: str | None, out: str | None) -> None:
    """Run the cases, print a row for each, and write the file."""
    setting = Setting(select_device(device), quick)
    if custom_ops.mode() == "ref":
        raise UserError(f"{custom_ops.SWITCH}=ref disables the fast path; unset it")
    measure.all_bits_of_float32()
    rates = measure.attainable_rate(setting)
    rows: dict[str, dict[str, Any]] = {}
    record = dict(
        machine=doctor.machine(), device=str(setting.device), quick=quick, load=_load(), flop_per_second=rates, cases=rows
    )
    print(f"{record['machine']['CPU' if setting.device.type == 'cpu' else 'GPU']}, torch {torch.__version__}")
    print(", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()) + "\n")
    print(COLUMNS.format(*HEADINGS))
    for name in only or CASES:
        rows[name] = run_case(name, setting, max(rates.values()))
        print(COLUMNS.format(rows[name]["title"], *_cells(rows[name])) + rows[name]["note"], flush=True)
        if out is not None:  # after each case, so that an interrupted run keeps its results
            with atomic_path(out) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n")
    if out is not None:
        print(f"\nWrote {out}")


def run_case(name: str, setting: Setting, rate: float) -> dict[str, Any]:
    """The figures of one case: seconds, GiB, their ratios, and the share of the attainable `rate` (FLOPs per second)."""
    work = CASES[name](setting)
    try:
        runs = measure.seconds_of(work, setting, BUDGET)
    except measure.Disagreement as error:
        raise UserError(f"{name}: {error}; see python -m torch_utils.doctor") from None
    seconds = {path: statistics.median(found) for path, found in runs.items()}
    title, note, paths = work.title, work.note(seconds["fast"]), list(seconds)
    del work  # frees its memory for the processes that follow
    peaks = {path: measure.in_fresh_process(name, path, setting) for path in paths}
    row = dict(
        title=title, seconds=seconds, runs=runs, memory_gib={path: peak["memory"] for path, peak in peaks.items()}, note=note
    )
    if "published" in peaks:
        row["speedup"] = seconds["published"] / seconds["fast"]
        row["memory_ratio"] = peaks["fast"]["memory"] / peaks["published"]["memory"]
        row["flop"] = peaks["published"]["flop"]
        row["share_of_rate"] = row["flop"] / seconds["fast"] / rate
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    def pair(kind: str) -> list[str]:
        return ["" if path not in row[kind] else f"{row[kind][path]:.3g}" for path in ("published", "fast")]

    def times(kind: str) -> str:
        return f"{row[kind]:.2g}x" if kind in row else ""

    share = f"{row['share_of_rate']:.0%}" if "share_of_rate" in row else ""
    return [*pair("seconds"), times("speedup"), *pair("memory_gib"), times("memory_ratio"), share]


def _load() -> str:
    """The load of the machine: figures of a busy machine mean little."""
    try:
        return " ".join(open("/proc/loadavg").read().split()[:3])
    except OSError:
        return f"unknown on {platform.system()}"


if __name__ == "__main__":
    main()
