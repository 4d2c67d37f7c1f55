"""The folder of a run: which one to continue, whether its options still fit, and whether somebody is at work in it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dnnlib import UserError
from dnnlib.util import FileLock, is_locked
from training import checkpoint
from training.config import TrainingConfig

OPTIONS_NAME = "training_options.json"
LOG_NAME = "log.txt"
# What may differ when a run goes on: how long, how it is recorded, and where it computes.
CHANGEABLE = (
    *("outdir", "kimg", "minutes", "snap", "desc", "workers", "gpus", "batch_gpu", "device"),
    *("nobench", "trust_pickle", "accept_data", "metrics", "metric_views", "detector", "embedder"),
)


def read_options(run_dir: Path) -> dict[str, Any] | None:
    """The options that a run was started with, or None if the folder does not tell."""
    try:
        options = json.loads((run_dir / OPTIONS_NAME).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(options, dict) and TrainingConfig.__dataclass_fields__.keys() - CHANGEABLE <= options.keys()
    return options if known else None


def changed_options(stored: dict[str, Any], config: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Options that are not those of the run and may not change: name -> (stored, given)."""
    given = json.loads(json.dumps(asdict(config)))  # tuples become lists, as in the file
    return {
        name: (stored.get(name), value) for name, value in given.items() if name not in CHANGEABLE and stored.get(name) != value
    }


def check_unchanged(run_dir: Path, stored: dict[str, Any], config: TrainingConfig) -> None:
    """UserError that lists the options of `config` with which `run_dir` cannot go on."""
    changes = [f"--{name} was {old}, is {new}" for name, (old, new) in changed_options(stored, config).items()]
    if changes:
        raise UserError(f"cannot continue {run_dir} with other options: {'; '.join(changes)}; or --resume a network snapshot")


def find_unfinished(config: TrainingConfig) -> Path | None:
    """The newest run in `config.outdir` of the same options that has not reached its length and that nobody works on."""
    outdir = Path(config.outdir)
    for run_dir in sorted(outdir.iterdir(), reverse=True) if outdir.is_dir() else ():
        stored = read_options(run_dir)
        if stored is None or changed_options(stored, config) or is_locked(run_dir / LOG_NAME):
            continue
        states = checkpoint.state_paths(run_dir)  # none if it was killed early: it begins anew in its place
        if not states or checkpoint.images_seen(states[-1]) < config.kimg * 1000:
            return run_dir
    return None


def lock_run(run_dir: Path) -> FileLock:
    """What the process that writes in a run folder holds: a lock on the log.  UserError if another one does."""
    return FileLock(run_dir / LOG_NAME, f"another process trains in {run_dir}; wait for it, or stop it")
