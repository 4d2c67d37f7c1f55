"""A photo becomes a head: gen_pti_script.sh in a process of its own, watched and stopped from a page."""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dnnlib import UserError
from dnnlib.util import make_output_dir, next_run_dir
from viz.jobs import Job
from viz.picture import is_inversion

SCRIPT = Path(__file__).resolve().parents[1] / "gen_pti_script.sh"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".bmp", ".tif", ".tiff")
MAX_BYTES = 64 * 2**20  # of a photo
STAGES = {"projection": 0.05, "tuning": 0.55}  # where they begin, of the whole
STAGE_SHARE = 0.45
GRACE_SECONDS = 5.0  # from asking the process to end until it is killed


def save_photo(name: str, content: bytes, outputs: Path) -> Path:
    """The photo that a page sent, in a new folder of `outputs`; UserError if it is none by its name or size."""
    given = Path(name.replace("\\", "/"))
    if given.suffix.lower() not in SUFFIXES:
        raise UserError(f"photos are files of the kinds {', '.join(SUFFIXES)}")
    if not 0 < len(content) <= MAX_BYTES:
        raise UserError(f"a photo has at most {MAX_BYTES // 2**20} MiB, and is not empty")
    plain = re.sub(r"[^A-Za-z0-9]+", "-", given.stem).strip("-")[:40] or "photo"  # the page may call it anything
    folder = make_output_dir(next_run_dir(outputs, plain))
    photo = folder / f"{plain}{given.suffix.lower()}"
    photo.write_bytes(content)
    return photo


def invert(photo: Path, network: str, job: Job, steps: int, tuning_steps: int, trust_pickle: bool, device: str | None) -> Path:
    """The folder that pti/run.py makes of a photo, beside it.  UserError with the script's own words if it fails."""
    words = ["sh", str(SCRIPT), "--network", network, "--target", str(photo), "--outdir", str(photo.parent)]
    words += ["--num-steps", str(steps), "--num-steps-pti", str(tuning_steps), "--save-video", "false", "--shapes", "false"]
    words += ["--trust-pickle"] if trust_pickle else []
    words += ["--device", device] if device else []
    process = subprocess.Popen(
        words,
        env=dict(os.environ, PYTHON=sys.executable),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a group of its own: the script and what it starts end together
    )
    share, last = 0.0, ""
    try:
        for line in _lines(process):
            if (now := _progress(line)) is not None:
                share = now
            elif line:
                last = line
            job.step(share)
        process.wait()
    finally:
        _end(process)
    if process.returncode != 0:
        raise UserError(last.removeprefix("Error: ") or f"gen_pti_script.sh ended with {process.returncode}")
    found = [place.parent for place in photo.parent.glob("*/*/projected_w.npz") if is_inversion(place.parent)]
    if not found:
        raise UserError(last or "no face was found in the photo")
    return found[0]


def _lines(process: subprocess.Popen) -> Iterator[str]:
    """What the process says, line by line, redrawn ones too; an empty one whenever it says nothing for a while."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=0.2):
                yield ""
                continue
            data = os.read(process.stdout.fileno(), 2**16)
            *lines, said = re.split(rb"[\r\n]+", said + data)
            yield from (line.decode(errors="replace").strip() for line in lines)
            if not data:
                return


def _progress(line: str) -> float | None:
    """How much of the whole is done, by the bar of a stage; None for any other line."""
    match = re.match(rf"({'|'.join(STAGES)}): +(\d+)%", line)
    return STAGES[match[1]] + STAGE_SHARE * int(match[2]) / 100 if match else None


def _end(process: subprocess.Popen) -> None:
    """The end of the process and of all it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
