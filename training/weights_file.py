"""Stores a network as a safetensors file: the weights, and in the file's metadata the constructor as JSON.

Such a file contains numbers and text, and nothing that could run.  The JSON is

    {"key": "G_ema", "class_name": "TriPlaneGenerator", "init_args": [], "init_kwargs": {...}, "attributes": {...}}

where `key` is the network's name in its snapshot, and `attributes` are those that may change after construction.
"""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import torch

from dnnlib import UserError

SUFFIX = ".safetensors"
MAX_TENSORS = 10_000  # far more than any network has; limits the memory that a small file can use
_METADATA_KEY = "multi_pose"
_LENGTH_BYTES = 8  # a file begins with the length of its header, little-endian; the header begins with a brace
_MAX_HEADER = 100_000_000  # bytes; the limit of safetensors itself


class WeightsFile(NamedTuple):
    """The content of such a file."""

    key: str
    class_name: str
    init_args: list
    init_kwargs: dict[str, Any]
    attributes: dict[str, Any]
    tensors: dict[str, torch.Tensor]  # by state-dict name, on the CPU

    def constructor(self) -> dict[str, Any]:
        """Everything except the tensors."""
        return {name: value for name, value in self._asdict().items() if name != "tensors"}


def is_weights_file(file: BinaryIO) -> bool:
    """Whether `file`, open at its start and left there, is safetensors or named like it.  Such a file is never unpickled."""
    start = file.read(_LENGTH_BYTES + 1)
    file.seek(0)
    looks_so = start[_LENGTH_BYTES:] == b"{" and int.from_bytes(start[:_LENGTH_BYTES], "little") <= _MAX_HEADER
    return looks_so or str(file.name).endswith(SUFFIX)


def write(path: Path, content: WeightsFile) -> str:
    """Write `content` to `path` and return its JSON.  Raises ValueError if the constructor's arguments do not fit into JSON."""
    library = _library()
    try:
        text = json.dumps(content.constructor(), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of its constructor cannot be written as JSON: {error}") from None
    # Copies, because the tensors of a network may share memory, which the format cannot express.
    whole = torch.contiguous_format
    tensors = {name: tensor.detach().cpu().clone(memory_format=whole) for name, tensor in content.tensors.items()}
    # The library's own writer replaces `path`, whatever it is, and hides errors of the disk.
    path.write_bytes(library.torch.save(tensors, metadata={"format": "pt", _METADATA_KEY: text}))
    return text


def read(path: str | os.PathLike) -> WeightsFile:
    """Read the file at `path`.  Raises ValueError if it is damaged or not a network of this project."""
    library = _library()
    try:
        with library.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            names = file.keys()
            if len(names) > MAX_TENSORS:
                raise ValueError(f"it has more than {MAX_TENSORS} tensors, far more than any network of this family")
            # Copies, because the library's tensors are views of a file that may change.
            tensors = {} if text is None else {name: file.get_tensor(name).clone() for name in names}
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # the library's own class, and torch's errors for unusual types and shapes
        raise ValueError(f"it is not a {SUFFIX} file, or is damaged ({str(error)[:200]}); get it again") from None
    if text is None:
        raise ValueError("it contains weights but no constructor; only files of python -m training.export can be rebuilt")
    return _parse(text, tensors)


def _parse(text: str, tensors: dict[str, torch.Tensor]) -> WeightsFile:
    try:
        content = WeightsFile(tensors=tensors, **json.loads(text))
    except (TypeError, ValueError):
        raise ValueError("the constructor in its metadata is not the JSON of python -m training.export") from None
    for name, kind in (("key", str), ("class_name", str), ("init_args", list), ("init_kwargs", dict), ("attributes", dict)):
        value = getattr(content, name)
        if not isinstance(value, kind):
            raise ValueError(f"the {name} in its metadata is of type {type(value).__name__} instead of {kind.__name__}")
    return content


def _library() -> ModuleType:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise UserError(f"{SUFFIX} files need a package that is not installed: pip install safetensors") from None
    return safetensors
