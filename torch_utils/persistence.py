"""Pickles that carry the source of their classes, in the format of StyleGAN2-ADA, EG3D and PanoHead snapshots.

A decorated object is stored as a call of `_reconstruct_persistent_obj` with one dictionary, `meta`: the text of the module
that defines its class, the class's name, and the object's attributes.  Snapshots of this project also have, by name, the
texts of what that module imports from its own project, so that they can be loaded where only `torch_utils` and `dnnlib`
are, or where the project has changed since.  Where the same texts are installed, their classes are used and no text is run.

Plain `pickle.load` of a snapshot runs what is in the file.  For files of others use `training.loading.load_network`.
"""

import copy
import functools
import hashlib
import importlib
import sys
import types
from typing import Any, Callable

from dnnlib import EasyDict
from torch_utils import module_sources

_VERSION = 6  # of the format; the one that published snapshots have
_import_hooks: list[Callable[[EasyDict], EasyDict]] = []


def persistent_class(cls: type) -> type:
    """Class decorator: instances remember their constructor arguments and are pickled along with their source."""
    original_init = cls.__init__
    module_sources.bundle(cls.__module__)  # read now: the files may change while the program runs

    @functools.wraps(original_init)
    def init(self, *args, **kwargs):
        if "_init_args" not in self.__dict__:  # a decorated base class must not overwrite the arguments of its heir
            # Copies: the caller may go on to change a dictionary of options.
            self.__dict__["_init_args"], self.__dict__["_init_kwargs"] = copy.deepcopy((args, kwargs))
        original_init(self, *args, **kwargs)

    def reduce(self):
        bundle = module_sources.bundle(type(self).__module__)
        meta = EasyDict(
            type="class",
            version=_VERSION,
            module_name=bundle.name,
            module_src=bundle.text,
            sources=bundle.sources,  # one object for all classes of a module: pickled once
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
    cls = getattr(_module(meta), meta.class_name)
    obj = cls.__new__(cls)
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(meta.state)
    else:
        obj.__dict__.update(meta.state)
    return obj


def _module(meta: EasyDict) -> types.ModuleType:
    """The installed module of `meta`, if it and what it imports from its project have the stored texts; or one made of them."""
    name = meta.get("module_name") or module_sources.with_text(meta.module_src)  # published snapshots store no name
    sources = {**meta.get("sources", {}), name: meta.module_src}  # a hook may have changed the text
    if name is not None and module_sources.are_installed(sources):
        return importlib.import_module(name)
    if "sources" not in meta:  # the text stands alone, and its imports find what is installed
        name = f"text_{hashlib.sha256(meta.module_src.encode()).hexdigest()[:32]}"
        sources = {name: meta.module_src}
    return module_sources.load(name, sources)
