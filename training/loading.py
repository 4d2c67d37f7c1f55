"""Loads networks from published snapshots and our own, without running code from the file.

A snapshot is a pickle of a dictionary with `G`, `D` and `G_ema`; see `torch_utils.persistence` for how it stores a network.
The file is read as inert records.  A network whose class is known here is rebuilt from its constructor's arguments and filled
with the stored tensors.  The source in the file is never run, so an old snapshot uses today's code.

Files of `training.export` contain a single network and nothing that could run.  They are rebuilt in the same way.
"""

import contextlib
import functools
import hashlib
import inspect
import math
import mmap
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from dnnlib import UserError
from dnnlib.download import open_url
from torch_utils import inert_pickle
from torch_utils.inert_pickle import Record
from training import superresolution, weights_file
from training.augment import AugmentPipe
from training.dual_discriminator import DualDiscriminator, MaskDualDiscriminator, MaskDualDiscriminatorV2
from training.networks_stylegan2 import Generator
from training.rendering_settings import MENDED_PLANES
from training.triplane import TriPlaneGenerator
from training.volumetric_rendering import renderer
from training.weights_file import MAX_TENSORS, WeightsFile

NETWORKS = ("G", "D", "G_ema")
_CLASSES = (TriPlaneGenerator, Generator, DualDiscriminator, MaskDualDiscriminator, MaskDualDiscriminatorV2, AugmentPipe)
_KNOWN_CLASSES = {known.__name__: known for known in _CLASSES}  # snapshots store no module
KEPT_ATTRIBUTES = ("rendering_kwargs", "neural_rendering_resolution")  # scripts change these after construction
# Limits far above what networks need.  Without them, a small file could describe something that does not fit into memory.
_MAX_ENTRIES, _MAX_NAME, _MAX_NUMBER = 20, 500, 2**20
_SUPERRESOLUTION = {f"{superresolution.__name__}.{name}" for name in superresolution.LAYOUTS}
_ADVICE = "--trust-pickle allows it by running the code in the file; use it only if you trust the author"


def load_network(
    path_or_url: str | os.PathLike,
    key: str = "G_ema",
    device: torch.device | str | None = None,
    trust_pickle: bool = False,
) -> torch.nn.Module:
    """Load the network `key` of a snapshot or exported file onto `device` (default: CPU), in evaluation mode without gradients.

    Nothing in the file is executed, and only this network is built.  `trust_pickle` instead unpickles the snapshot with the
    code in it, which also loads classes that are not known here.  Raises UserError if there is no such network, or if the file
    is missing, damaged or asks for something unknown.
    """
    with _errors_in_one_line(path_or_url):
        entries = _entries(path_or_url, trust_pickle)
        if key not in entries:
            raise ValueError(f"there is no {key!r} in it, only {', '.join(map(str, entries)) or 'nothing'}")
        network = entries[key]()
        if not isinstance(network, torch.nn.Module):
            raise ValueError(f"its entry {key!r} is not a network but of type {type(network).__name__}")
        return _at_rest(network).to(device or "cpu")


def stored_names(path_or_url: str | os.PathLike, trust_pickle: bool = False) -> list[str]:
    """Names of the entries of a snapshot or exported file.  Raises UserError like `load_network`."""
    with _errors_in_one_line(path_or_url):
        return list(_entries(path_or_url, trust_pickle))


def stored_value(path_or_url: str | os.PathLike, name: str, trust_pickle: bool = False) -> Any:
    """The plain value `name` of a snapshot, such as its ``training_set_kwargs``, or None; UserError as for `load_network`."""
    with _errors_in_one_line(path_or_url):
        entries = _entries(path_or_url, trust_pickle)
        return entries[name]() if name in entries else None


def load_snapshot(
    path_or_url: str | os.PathLike, trust_pickle: bool = False, required: tuple[str, ...] = NETWORKS
) -> dict[str, Any]:
    """Load what can be rebuilt of a snapshot: its networks on the CPU, as by `load_network`, and plain values.

    Entries that cannot be rebuilt, such as another project's augmentation, are left out unless they are `required`.  Raises
    UserError like `load_network`.
    """
    with _errors_in_one_line(path_or_url):
        snapshot = {}
        for key, build in _entries(path_or_url, trust_pickle).items():
            try:
                item = build()
            except ValueError:
                if key in required:
                    raise
                continue
            snapshot[key] = _at_rest(item) if isinstance(item, torch.nn.Module) else item
        return snapshot


def _at_rest(network: torch.nn.Module) -> torch.nn.Module:
    return network.eval().requires_grad_(False)


# Reading


@contextlib.contextmanager
def _errors_in_one_line(path_or_url: str | os.PathLike) -> Iterator[None]:
    """Turn a ValueError about the content of a file into a UserError that names the file."""
    try:
        yield
    except inert_pickle.RefusedName as error:
        reason = f"it asks for {error.name[:100]!r}, which is not known here; {_ADVICE}"
    except RecursionError:
        reason = "it is nested too deeply for a snapshot"
    except ValueError as error:
        reason = str(error)
    else:
        return
    # Names come from the file, so line breaks and control characters are removed.
    raise UserError(f"{path_or_url}: {''.join(c if c.isprintable() else ' ' for c in reason[:600])}")


def _entries(path_or_url: str | os.PathLike, trust_pickle: bool) -> dict[str, Callable[[], Any]]:
    """The entries of the file by name, each as a function that builds it."""
    with open_url(path_or_url) as file:
        if weights_file.is_weights_file(file):
            stored = weights_file.read(file.name)
            return {stored.key: functools.partial(_rebuild_exported, stored)}
        content = _unpickle(file) if trust_pickle else _read_inert(file)
    if not isinstance(content, dict) or len(content) > _MAX_ENTRIES:
        raise ValueError(f"it is not a snapshot: it contains a {type(content).__name__}, not a small dictionary of networks")
    return {key: functools.partial(_itself if trust_pickle else _rebuild, item) for key, item in content.items()}


def _itself(item: Any) -> Any:
    return item


def _read_inert(file: BinaryIO) -> Any:
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return inert_pickle.read(content)
    except ValueError as error:
        raise ValueError(f"it is not a snapshot, or is damaged ({str(error)[:200]}); get it again") from None


def _unpickle(file: BinaryIO) -> Any:
    try:
        return pickle.load(file)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # the code in the file may raise anything
        raise ValueError(f"it cannot be unpickled: {type(error).__name__}: {str(error)[:200]}") from None


# Rebuilding


class _Stored(NamedTuple):
    """An object in a snapshot."""

    class_name: str
    state: dict[str, Any]  # its attributes
    source: str  # the source of its module, or an empty string


def _stored(record: Any) -> _Stored:
    """Interpret the record of a module.  Raises ValueError if it is something else."""
    try:
        if record.name != inert_pickle.PERSISTENT_OBJECT:
            stored = _Stored(record.name.rpartition(".")[2], record.state, "")
        else:
            meta = record.args[0]
            stored = _Stored(meta["class_name"], meta["state"], meta["module_src"])
        if isinstance(stored.state, dict) and isinstance(stored.class_name, str) and isinstance(stored.source, str):
            return stored
    except (AttributeError, IndexError, KeyError, TypeError):
        pass
    raise ValueError("one of its objects is stored in an unknown way")


def _rebuild(item: Any) -> Any:
    """Build the network or plain value that an entry of a snapshot describes."""
    if not isinstance(item, Record) or item.name in inert_pickle.CONVERSIONS:
        return inert_pickle.value(item)
    stored = _stored(item)
    known = _KNOWN_CLASSES.get(stored.class_name)
    if known is None:
        digest = f" (source {hashlib.sha256(stored.source.encode()).hexdigest()[:12]})" if stored.source else ""
        raise ValueError(f"its class {stored.class_name[:100]!r}{digest} is not known here; {_ADVICE}")
    tensors = inert_pickle.value(_tensors(item))
    args, kwargs = inert_pickle.value((stored.state.get("_init_args", ()), stored.state.get("_init_kwargs", {})))
    attributes = {name: inert_pickle.value(stored.state[name]) for name in KEPT_ATTRIBUTES if name in stored.state}
    if _has_mended_planes(stored):
        # Settings travel with the network: into snapshots, exported files, and whatever is rebuilt from them.
        for settings in (kwargs, attributes):
            if isinstance(settings.get("rendering_kwargs"), dict):
                settings["rendering_kwargs"][MENDED_PLANES] = True
    return _assemble(known, args, kwargs, attributes, tensors)


def _rebuild_exported(stored: WeightsFile) -> torch.nn.Module:
    """Build the network of an exported file."""
    known = _KNOWN_CLASSES.get(stored.class_name)
    if known is None:
        raise ValueError(f"its class {stored.class_name[:100]!r} is not known here")
    attributes = {name: stored.attributes[name] for name in KEPT_ATTRIBUTES if name in stored.attributes}
    try:
        return _assemble(known, tuple(stored.init_args), stored.init_kwargs, attributes, stored.tensors)
    except inert_pickle.RefusedName as error:
        raise ValueError(f"it asks for {error.name[:100]!r}, which is not known here") from None


def _assemble(known: type, args: tuple, kwargs: dict, attributes: dict, tensors: dict) -> torch.nn.Module:
    """Build a network of a known class from the arguments, attributes and tensors in a file."""
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError("some of its parameters are not tensors")
    _check_numbers(args, kwargs, attributes)
    storages = (tensor.untyped_storage() for tensor in tensors.values())
    stored_bytes = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    network = _construct(known, args, kwargs, limit=stored_bytes)
    _fill(network, tensors)
    for name, value in attributes.items():
        if hasattr(network, name):
            _set_attribute(network, name, value)
    return network


def _has_mended_planes(stored: _Stored) -> bool:
    """Whether a published generator contains the renderer of later EG3D code."""
    modules = stored.state.get("_modules")
    record = modules.get("renderer") if isinstance(modules, dict) else None
    axes = None if record is None else inert_pickle.value(_stored(record).state.get("plane_axes"))
    return isinstance(axes, torch.Tensor) and renderer.has_mended_planes(axes)


def _tensors(record: Record) -> dict[str, Record]:
    """Records of all parameters and persistent buffers of a module and its children, by state-dict name."""
    found, seen, pending = {}, set(), [("", record)]
    while pending:
        prefix, module = pending.pop()
        if id(module) in seen:
            raise ValueError("one of its modules is stored in two places")
        seen.add(id(module))
        state = _stored(module).state
        try:
            transient = inert_pickle.value(state.get("_non_persistent_buffers_set", ()))
            for name, tensor in (*state["_parameters"].items(), *state["_buffers"].items()):
                if tensor is not None and name not in transient:
                    found[_joined(prefix, name)] = tensor
            for name, child in state["_modules"].items():
                if child is not None:
                    pending.append((_joined(prefix, name) + ".", child))
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"its module {prefix[:100]!r} is stored in an unknown way") from None
        if len(found) > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS} tensors, far more than any network of this family")
    return found


def _joined(prefix: str, name: str) -> str:
    if len(prefix) + len(name) > _MAX_NAME:
        raise ValueError("its modules are nested too deeply, or have very long names")
    return prefix + name


class _WithoutDraws(TorchFunctionMode):
    """Keeps torch.randn from drawing numbers inside this block, since they will be overwritten.

    Loading is therefore fast and does not affect the random generators.  Because sizes come from a file, tensors with more than
    `limit` numbers in total (give or take some millions) raise ValueError before they are allocated.
    """

    _OVERHEAD = 2**12  # cost of a tensor besides its numbers, so that many empty ones count too
    _SLACK = 2**24

    def __init__(self, limit: int):
        super().__init__()
        self._left = limit + self._SLACK

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.randn, torch.zeros, torch.ones, torch.full):
            size = args if isinstance(args[0], int) else args[0]
            self._left -= math.prod(size) + self._OVERHEAD
            if self._left < 0:
                raise ValueError("they ask for a network that is larger than what is stored")
            func = torch.empty if func is torch.randn else func
        return func(*args, **(kwargs or {}))


def _construct(known: type, args: tuple, kwargs: dict[str, Any], limit: int) -> torch.nn.Module:
    """Construct an object of a known class from the arguments in a file.  Its tensors will be filled later."""
    try:
        rendering_kwargs = inspect.signature(known).bind(*args, **kwargs).arguments.get("rendering_kwargs", {})
        # This argument names a class.  It is the only place where a file could choose what is called.
        module = rendering_kwargs.get("superresolution_module")
        if module is not None and module not in _SUPERRESOLUTION:
            raise inert_pickle.RefusedName(str(module))
        with _WithoutDraws(limit):
            return known(*args, **kwargs)
    except (inert_pickle.RefusedName, RecursionError, MemoryError):
        raise
    except Exception as error:  # wrong arguments may fail anywhere
        raise ValueError(f"a {known.__name__} cannot be built from the arguments in it: {str(error)[:200]}") from None


def _check_numbers(*arguments: Any) -> None:
    """Raise ValueError if the arguments contain a number that can only be meant to exhaust time or memory."""
    pending, seen = list(arguments), set()
    while pending:
        item = pending.pop()
        if isinstance(item, int) and item > _MAX_NUMBER:
            raise ValueError(f"its arguments contain numbers above {_MAX_NUMBER}, far above any size in this family")
        if isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            pending += item.values() if isinstance(item, dict) else item


def _fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy the stored tensors into `network`.  Raises ValueError unless names and shapes agree."""
    wanted = network.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} has no place" for name in tensors if name not in wanted]
    for name in wanted.keys() & tensors.keys():
        if wanted[name].shape != tensors[name].shape:
            problems.append(f"{name} is {list(tensors[name].shape)} instead of {list(wanted[name].shape)}")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        name = type(network).__name__
        raise ValueError(f"its tensors are not those of the {name} it describes: {', '.join(problems[:3])}{more}")
    tensors = {name: tensor.to(wanted[name].dtype).contiguous() for name, tensor in tensors.items()}
    network.load_state_dict(tensors, assign=True)


def _set_attribute(network: torch.nn.Module, name: str, value: Any) -> None:
    """Set an attribute, converted to the type it has in a new network, because old snapshots store plain dictionaries."""
    kind = type(getattr(network, name))
    try:
        setattr(network, name, kind(value))
    except TypeError:
        raise ValueError(f"its {name} is a {type(value).__name__} instead of a {kind.__name__}") from None
