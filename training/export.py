"""Write one network of a snapshot to a file of its own, which every command accepts as --network.

MODEL.safetensors contains the weights, and the constructor as JSON: no pickle, and nothing that could run.  MODEL.json beside
it is the same JSON for people to read.  MODEL.pkl is a snapshot with only this network, which plain Python can load together
with the code it needs.

\b
Examples:
  python -m training.export network-snapshot-001000.pkl --out model.safetensors
  python -m training.export network-snapshot-001000.pkl --out model.pkl
"""

import json
from pathlib import Path

import click
import torch

from dnnlib import UserError
from dnnlib.cli import command
from dnnlib.util import atomic_path, make_output_dir
from torch_utils import persistence
from training import weights_file
from training.checkpoint import save_snapshot
from training.loading import KEPT_ATTRIBUTES, NETWORKS, load_network
from training.weights_file import SUFFIX, WeightsFile

SNAPSHOT_SUFFIX = ".pkl"


def export_network(network: torch.nn.Module, path: Path, key: str = "G_ema") -> None:
    """Write `network` to `path` in the format of its suffix: .pkl, or .safetensors with a .json of its constructor beside it.

    Each file appears only when it is complete, and the .safetensors only after `load_network` could read it back under the name
    `key`.  Raises UserError if it could not, or if an existing .json was not written by an export.
    """
    if path.suffix not in (SUFFIX, SNAPSHOT_SUFFIX):
        raise UserError(f"--out {path}: the name must end in {SUFFIX} or {SNAPSHOT_SUFFIX}")
    if path.suffix == SNAPSHOT_SUFFIX:
        make_output_dir(path.parent)
        save_snapshot(path, {key: network}, {})
        return
    description = path.with_suffix(".json")
    if description.exists() and not _is_description(description):
        raise UserError(f"{description} was not written by an export and would be replaced; choose another name for --out")
    if not persistence.is_persistent(network):
        raise UserError(f"a {type(network).__name__} does not say how it was constructed and cannot be exported")
    attributes = {name: getattr(network, name) for name in KEPT_ATTRIBUTES if hasattr(network, name)}
    content = WeightsFile(
        key, type(network).__name__, list(network.init_args), network.init_kwargs, attributes, network.state_dict()
    )
    make_output_dir(path.parent)
    try:
        with atomic_path(path) as temporary:
            text = _write_and_read_back(temporary, content)
        with atomic_path(description) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} was not written: {getattr(error, 'strerror', None) or error}") from None


def _write_and_read_back(path: Path, content: WeightsFile) -> str:
    """Return the JSON in the written file.  Raises ValueError if the file cannot be written or not be loaded."""
    text = weights_file.write(path, content)
    try:
        load_network(path, content.key)
    except UserError as error:
        raise ValueError(str(error).removeprefix(f"{path}: ")) from None
    return text


def _is_description(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(content) == set(WeightsFile._fields) - {"tensors"}


@command(help=__doc__)
@click.argument("network", metavar="PKL")
@click.option("--out", help=f"File to write, NAME{SUFFIX} or NAME{SNAPSHOT_SUFFIX}", metavar="FILE", required=True)
@click.option("--key", help="Which network of the snapshot", type=click.Choice(NETWORKS), default="G_ema")
@click.option("--trust-pickle", help="Run code stored in the snapshot; only for files you trust", is_flag=True)
def main(network: str, out: str, key: str, trust_pickle: bool) -> None:
    path = Path(out)
    export_network(load_network(network, key, trust_pickle=trust_pickle), path, key)
    description = f" and {path.with_suffix('.json')}" if path.suffix == SUFFIX else ""
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB){description}")


if __name__ == "__main__":
    main()
