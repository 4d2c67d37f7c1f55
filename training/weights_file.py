"""A network as a safetensors file: its weights, and in the file's metadata its constructor as JSON.

Such a file holds numbers and text and nothing that could run.  The JSON is

    {"key": "G_ema", "class_name": "TriPlaneGenerator", "init_args": [], "init_kwargs": {...}, "attributes": {...}}

where `key` is the name that the network had in its snapshot and `attributes` are what may change after construction.
"""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import torch

from dnnlib import UserError

SUFFIX = ".safetensors"
MAX_TENSORS = 10_000  # far above what there is, so that a small file does not take much memory
_METADATA_KEY = "multi_pose"
_LENGTH_BYTES = 8  # a file begins with the length of its header, little-endian, and the header with a brace
_MAX_HEADER = 100_000_000  # bytes; what safetensors itself allows


class WeightsFile(NamedTuple):
    """What such a file says."""

    key: str
    class_name: str
    init_args: list
    init_kwargs: dict[str, Any]
    attributes: dict[str, Any]
    tensors: dict[str, torch.Tensor]  # by state-dict name, on the CPU

    def constructor(self) -> dict[str, Any]:
        """All but the tensors."""
        return {name: value for name, value in self._asdict().items() if name != "tensors"}


def is_weights_file(file: BinaryIO) -> bool:
    """Whether `file`, open at its start and left there, is safetensors, or is called so: such a file is never unpickled."""
    start = file.read(_LENGTH_BYTES + 1)
    file.seek(0)
    looks_so = start[_LENGTH_BYTES:] == b"{" and int.from_bytes(start[:_LENGTH_BYTES], "little") <= _MAX_HEADER
    return looks_so or str(file.name).endswith(SUFFIX)


def write(path: Path, content: WeightsFile) -> str:
    """Write `content` to `path`; returns its JSON.  ValueError if the constructor has arguments that JSON cannot hold."""
    library = _library()
    try:
        text = json.dumps(content.constructor(), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of its constructor cannot be written as JSON: {error}") from None
    # Copies: tensors of a network may share memory, which the format has no way to say.
    whole = torch.contiguous_format
    tensors = {name: tensor.detach().cpu().clone(memory_format=whole) for name, tensor in content.tensors.items()}
    # Not by the library's own writer: it replaces `path`, whatever that is, and hides what the disk says.
    path.write_bytes(library.torch.save(tensors, metadata={"format": "pt", _METADATA_KEY: text}))
    return text


def read(path: str | os.PathLike) -> WeightsFile:
    """The content of the file at `path`; ValueError if it is damaged or no network of this project."""
    library = _library()
    try:
        with library.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            names = file.keys()
            if len(names) > MAX_TENSORS:
                raise ValueError(f"it has more than {MAX_TENSORS} tensors, far more than any network of this family")
            # Copies: the library's tensors are views of a file that may change.
            tensors = {} if text is None else {name: file.get_tensor(name).clone() for name in names}
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # the library's own class, and whatever torch says of odd types and shapes
        raise ValueError(f"it is not a {SUFFIX} file, or is damaged ({str(error)[:200]}); get it again") from None
    if text is None:
        raise ValueError("it holds weights but no constructor; only files of python -m training.export can be rebuilt")
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
