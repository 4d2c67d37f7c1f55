"""What was measured, as lines of JSON, each with the fingerprint of all that a figure depends on."""

import json
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dnnlib import UserError
from dnnlib.util import existing_path
from inference.synthesis import network_name

RESULTS_NAME = "metrics.jsonl"  # in the folder of a run
PACKAGES = ("torch", "numpy", "scipy", "mediapipe")
WHOSE = "network"  # the part of a fingerprint that says what was measured; the others say how

Line = dict[str, Any]


def append(path: Path, line: Line) -> None:
    """Add a line to a file of results, which is made if need be; what a process that was killed left of one is ended first."""
    text = json.dumps(line) + "\n"
    with open(path, "a+b") as file:
        file.seek(max(file.tell() - 1, 0))
        file.write(("" if file.read(1) in (b"", b"\n") else "\n").encode() + text.encode())


def report(line: Line, path: Path | None) -> None:
    """Print the figures of a line, and the line itself where it goes into no file."""
    for name, value in line["figures"].items():
        print(f"{name:32}{'not seen' if value is None else f'{value:.5g}'}")
    if path is None:
        print(json.dumps(line))
    else:
        append(path, line)


def read(path: Path) -> list[Line]:
    """The lines of a file of results; those that are not whole are left out.  UserError if there is no file, or no line."""
    lines = known(existing_path(path, "results"))
    if not lines:
        raise UserError(f"{path} holds no results of calc_metrics.py or train.py --metrics")
    return lines


def known(path: Path | None) -> list[Line]:
    """`read`, but nothing where there is no file, or no line in it."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path and path.exists() else ():
        try:
            line = json.loads(text)
            if isinstance(line["figures"], dict) and isinstance(line["fingerprint"], dict) and "metric" in line:
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return lines


def is_among(metric: str, view: str, fingerprint: dict[str, Any], lines: Iterable[Line]) -> bool:
    """Whether a metric with this fingerprint is among `lines`."""
    asked = (metric, view, json.loads(json.dumps(fingerprint)))
    return any((line["metric"], line.get("view"), line["fingerprint"]) == asked for line in lines)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """In what two fingerprints differ besides the network: names such as ``detector.sha256``."""
    first, second = ({name: v for name, v in _flat(part).items() if name != WHOSE} for part in (first, second))
    return [name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def images_seen(network: str) -> int | None:
    """How many images a snapshot of training has seen, to the thousand, as its name tells; None for other names."""
    match = re.fullmatch(r"network-snapshot-(\d+)", network_name(network))
    return int(match[1]) * 1000 if match else None


def device_name(device: torch.device) -> str:
    """What computes, for people to read."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
