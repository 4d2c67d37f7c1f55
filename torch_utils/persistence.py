"""Pickles that carry the source of their classes, in the format of StyleGAN2-ADA, EG3D and PanoHead snapshots.

A decorated object is stored as a call of `_reconstruct_persistent_obj` with one dictionary, `meta`: the text of the module
that defines its class, the class's name, and the object's attributes.  So a snapshot can be loaded where that module has
changed since.  Where the module is installed with the same text, its class is used, and no text is run.

Plain `pickle.load` of a snapshot runs what is in the file.  For files of others use `training.inference.load_network`.
"""

import copy
import functools
import hashlib
import importlib
import inspect
import sys
import types
from typing import Any, Callable

from dnnlib import EasyDict

_VERSION = 6  # of the format; the one that published snapshots have
_sources: dict[str, str] = {}  # name of a module with decorated classes -> its text
_executed: dict[str, types.ModuleType] = {}  # text -> the module made of it, where none is installed
_import_hooks: list[Callable[[EasyDict], EasyDict]] = []


def persistent_class(cls: type) -> type:
    """Class decorator: instances remember their constructor arguments and are pickled along with their source."""
    original_init = cls.__init__
    if cls.__module__ not in _sources:  # it is, while the text of a snapshot is being executed
        _sources[cls.__module__] = inspect.getsource(sys.modules[cls.__module__])

    @functools.wraps(original_init)
    def init(self, *args, **kwargs):
        if "_init_args" not in self.__dict__:  # a decorated base class must not overwrite the arguments of its heir
            # Copies: the caller may go on to change a dictionary of options.
            self.__dict__["_init_args"], self.__dict__["_init_kwargs"] = copy.deepcopy((args, kwargs))
        original_init(self, *args, **kwargs)

    def reduce(self):
        name = type(self).__module__
        meta = EasyDict(
            type="class",
            version=_VERSION,
            module_name=name,
            module_src=_sources[name],
            class_name=type(self).__name__,
            state=self.__dict__,
        )
        return _reconstruct_persistent_obj, (meta,)

    cls.__init__ = init
    cls.__reduce__ = reduce
    cls.init_args = property(lambda self: self._init_args, doc="Positional arguments of the constructor.")
    cls.init_kwargs = property(lambda self: EasyDict(self._init_kwargs), doc="Keyword arguments of the constructor.")
    cls._persistent = True
    return cls


def is_persistent(obj: Any) -> bool:
    """Whether `obj` is an instance of a decorated class, or such a class."""
    return getattr(obj, "_persistent", False) is True


def import_hook(hook: Callable[[EasyDict], EasyDict]) -> None:
    """Register `hook`: it gets each object's `meta` before the object is rebuilt and returns the one to use."""
    _import_hooks.append(hook)


def _reconstruct_persistent_obj(meta: dict) -> Any:
    """What pickle calls to rebuild one object."""
    meta = EasyDict(meta)
    for hook in _import_hooks:
        meta = hook(meta)
    if meta.type != "class" or meta.version != _VERSION:
        raise ValueError(f"stored as {meta.type!r}, version {meta.version}; this project reads classes of version {_VERSION}")
    module = _installed_module(meta) or _executed_module(meta.module_src)
    cls = getattr(module, meta.class_name)
    obj = cls.__new__(cls)
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(meta.state)
    else:
        obj.__dict__.update(meta.state)
    return obj


def _installed_module(meta: EasyDict) -> types.ModuleType | None:
    """The installed module of `meta`, if its text is the stored one; published snapshots store no module name."""
    name = meta.get("module_name")
    if name is None:
        name = next((name for name, source in _sources.items() if source == meta.module_src), None)
    if name is None or name.startswith(_EXECUTED_PREFIX):
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return module if _sources.get(name) == meta.module_src else None


_EXECUTED_PREFIX = "_persistent_module_"


def _executed_module(source: str) -> types.ModuleType:
    """A module made by running `source`, the same one for the same text."""
    if source not in _executed:
        name = _EXECUTED_PREFIX + hashlib.sha256(source.encode()).hexdigest()[:32]
        module = types.ModuleType(name)
        _sources[name] = source
        sys.modules[name] = module
        try:
            exec(compile(source, f"<{name}>", "exec"), module.__dict__)
        except BaseException:
            del sys.modules[name], _sources[name]
            raise
        _executed[source] = module
    return _executed[source]
