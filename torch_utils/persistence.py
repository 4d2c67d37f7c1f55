"""Pickles that carry the source of their classes, in the format of StyleGAN2-ADA, EG3D and PanoHead snapshots.

A decorated object is stored as a call of `_reconstruct_persistent_obj` with one dictionary, `meta`: the source of the module
that defines its class, the name of the class, and the attributes of the object.  Snapshots of this project also store the
sources, by name, of everything that module imports from its own project.  They can therefore be loaded where only `torch_utils`
and `dnnlib` are installed, or after the project has changed.  If the same sources are installed, their classes are used and the
stored sources are not run.

Plain `pickle.load` of a snapshot runs code from the file.  Use `training.loading.load_network` for files from others.
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

_VERSION = 6  # of the format; published snapshots have the same
_import_hooks: list[Callable[[EasyDict], EasyDict]] = []


def persistent_class(cls: type) -> type:
    """Class decorator: instances remember their constructor arguments and are pickled together with their source."""
    original_init = cls.__init__
    module_sources.bundle(cls.__module__)  # reads the sources now, because files may change while the program runs

    @functools.wraps(original_init)
    def init(self, *args, **kwargs):
        if "_init_args" not in self.__dict__:  # a decorated base class must not overwrite the arguments of a subclass
            # Copies, because the caller may change a dictionary of options later.
            self.__dict__["_init_args"], self.__dict__["_init_kwargs"] = copy.deepcopy((args, kwargs))
        original_init(self, *args, **kwargs)

    def reduce(self):
        bundle = module_sources.bundle(type(self).__module__)
        meta = EasyDict(
            type="class",
            version=_VERSION,
            module_name=bundle.name,
            module_src=bundle.text,
            sources=bundle.sources,  # one object for all classes of a module, so it is pickled once
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
    """Whether `obj` is a decorated class or an instance of one."""
    return getattr(obj, "_persistent", False) is True


def import_hook(hook: Callable[[EasyDict], EasyDict]) -> None:
    """Register `hook`, which receives each object's `meta` before the object is rebuilt and returns the one to use."""
    _import_hooks.append(hook)


def _reconstruct_persistent_obj(meta: dict) -> Any:
    """Rebuild one object.  Called by pickle."""
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
    """The installed module of `meta` if it and its imports match the stored sources, else one created from the sources."""
    name = meta.get("module_name") or module_sources.with_text(meta.module_src)  # published snapshots store no name
    sources = {**meta.get("sources", {}), name: meta.module_src}  # a hook may have changed the source
    if name is not None and module_sources.are_installed(sources):
        return importlib.import_module(name)
    if "sources" not in meta:  # the source stands alone, so its imports refer to installed modules
        name = f"text_{hashlib.sha256(meta.module_src.encode()).hexdigest()[:32]}"
        sources = {name: meta.module_src}
    return module_sources.load(name, sources)
