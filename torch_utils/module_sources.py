"""Source code of modules: collects what a module needs from its own project, and creates modules from stored sources.

A snapshot stores the source of the module of each of its classes, and that source imports its siblings.  `bundle` collects all
of them.  `load` creates modules from such a bundle where the installed files differ or do not exist.
"""

import ast
import builtins
import functools
import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import itertools
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Callable, Iterator, NamedTuple

SHARED = ("dnnlib", "torch_utils")  # never stored, because they are installed wherever a snapshot is opened


class Text(NamedTuple):
    """The source of a module, and whether the module is a package."""

    text: str
    is_package: bool


class Bundle(NamedTuple):
    """A module's name in its project, and the sources, by name, of the module and everything it imports from that project."""

    name: str
    sources: dict[str, str]

    @property
    def text(self) -> str:
        """The source of the module itself."""
        return self.sources[self.name]


_bundles: dict[str, Bundle] = {}  # keys are names in sys.modules
_texts: dict[str, Text] = {}  # sources of installed modules when they were first requested


def bundle(module_name: str) -> Bundle:
    """Collect what to store for a module that is, or is being, imported.  Raises OSError if its source cannot be found.

    The first call for a module reads the files.  It should happen while the module is imported, because files can change while
    the program runs.
    """
    if module_name not in _bundles:
        collection = next((c for c in _collections if module_name.startswith(c.prefix)), None)
        name = module_name if collection is None else module_name.removeprefix(collection.prefix)
        sources = _closure(name, _finder_in_project(name) if collection is None else collection.find)
        if name not in sources:
            raise OSError(f"the source of the module {module_name} cannot be found, so its classes cannot be stored")
        _bundles[module_name] = Bundle(name, sources)
    return _bundles[module_name]


def with_text(text: str) -> str | None:
    """The name of an installed module with exactly this source, among those that `bundle` was called for, or None."""
    return next((name for name, bundle in _bundles.items() if bundle.name == name and bundle.text == text), None)


def are_installed(sources: dict[str, str]) -> bool:
    """Whether all these modules are installed with exactly these sources.  Does not run any of them."""
    return all((found := installed(name)) is not None and found.text == text for name, text in sorted(sources.items()))


# Installed modules


def installed(name: str) -> Text | None:
    """The source of what ``import name`` would find, without running it.  None if there is no such module or no source."""
    if name not in _texts:
        spec = _spec(name)
        text = None if spec is None else _read(spec)
        if text is None:
            return None
        _texts[name] = Text(text, spec.submodule_search_locations is not None)
    return _texts[name]


def _read(spec: ModuleSpec) -> str | None:
    loader = spec.loader if hasattr(spec.loader, "get_source") else SourceFileLoader(spec.name, str(spec.origin))
    try:
        return loader.get_source(spec.name)
    except (ImportError, OSError):
        return None


def _spec(name: str) -> ModuleSpec | None:
    """The spec of what ``import name`` would find, without running any module."""
    module = sys.modules.get(name)
    if module is not None:
        spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
        if spec is None and file is not None:  # the module is a running script
            spec = importlib.util.spec_from_file_location(name, file)
        return spec
    parent = name.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(name)
    above = _spec(parent)
    places = None if above is None else above.submodule_search_locations
    return PathFinder.find_spec(name, places) if places else None


def _root(spec: ModuleSpec) -> Path | None:
    """The folder on sys.path from which a module is imported."""
    place = spec.submodule_search_locations[0] if spec.submodule_search_locations else spec.origin
    return None if place is None else Path(os.path.abspath(place)).parents[spec.name.count(".")]


def _finder_in_project(owner: str) -> Callable[[str], Text | None]:
    """`installed`, restricted to modules of the project of `owner`, which are those beside it.  None for all others."""
    spec = _spec(owner)
    root = None if spec is None else _root(spec)

    @functools.cache
    def is_in_project(top: str) -> bool:
        spec = None if root is None or top in SHARED else _spec(top)
        return spec is not None and _root(spec) == root and _distribution(top, root) == _distribution(owner, root)

    return lambda name: installed(name) if is_in_project(name.partition(".")[0]) else None


def _distribution(name: str, root: Path) -> list[str]:
    """The installed packages that may own a module, if all modules share one folder."""
    if root.name not in ("site-packages", "dist-packages"):
        return []
    return sorted(_distributions().get(name.partition(".")[0], []))


_distributions = functools.cache(importlib.metadata.packages_distributions)


# Import graph


def _closure(name: str, find: Callable[[str], Text | None]) -> dict[str, str]:
    """Sources by name of `name` and of everything it imports, directly or indirectly, as far as `find` knows them."""
    sources, pending = {}, [*_with_parents(name)]
    while pending:
        name = pending.pop()
        found = None if name in sources else find(name)
        if found is not None:
            sources[name] = found.text
            pending += _imports(found.text, name if found.is_package else name.rpartition(".")[0])
    return dict(sorted(sources.items()))


@functools.cache
def _imports(text: str, package: str) -> frozenset[str]:
    """Names that a source imports anywhere in it.  Some refer to members of modules instead of modules."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # the source may be for another version of Python and be imported conditionally
        return frozenset()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= (package.count(".") + 1 if package else 0):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(itertools.chain.from_iterable(map(_with_parents, names)))


def _with_parents(name: str) -> Iterator[str]:
    """``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``, because importing the last one runs them all."""
    return itertools.accumulate(name.split("."), "{}.{}".format)


# Modules created from stored sources


def load(name: str, sources: dict[str, str]) -> ModuleType:
    """Create the module `name` from its entry in `sources`.  The same sources always give the same module.

    The module and what it imports from `sources` get private names in sys.modules, so they neither use nor replace installed
    modules.  This runs the sources, so anything they raise is passed on.
    """
    collection = next((c for c in _collections if c.fits(sources)), None)
    if collection is None:
        collection = _Collection(f"_stored_sources_{len(_collections)}.")
        _collections.append(collection)
        sys.meta_path.append(collection)
    collection.sources.update(sources)
    return importlib.import_module(collection.prefix + name)


class _Collection(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Sources that belong together, importable as modules of a private package."""

    def __init__(self, prefix: str):
        self.prefix = prefix  # of the private names; ends in a dot
        self.sources: dict[str, str] = {}  # keys are names without the prefix

    def fits(self, sources: dict[str, str]) -> bool:
        """Whether `sources` are from the same project: they overlap with these, and no source differs."""
        common = self.sources.keys() & sources.keys()
        return bool(common) and all(self.sources[name] == sources[name] for name in common)

    def find(self, name: str) -> Text | None:
        """The source of the module `name`, given without the prefix."""
        return Text(self.sources[name], self.is_package(self.prefix + name)) if name in self.sources else None

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not (fullname + ".").startswith(self.prefix):
            return None
        is_package = self.is_package(fullname)
        known = is_package or fullname.removeprefix(self.prefix) in self.sources
        return ModuleSpec(fullname, self, is_package=is_package) if known else None

    def is_package(self, fullname: str) -> bool:
        return any((self.prefix + name).startswith(fullname + ".") for name in self.sources)

    def get_source(self, fullname: str) -> str:
        return self.sources.get(fullname.removeprefix(self.prefix), "")  # the private package itself is empty

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_source(fullname), fullname)  # tracebacks find the source by this name

    def exec_module(self, module: ModuleType) -> None:
        module.__builtins__ = dict(vars(builtins), __import__=self._import)
        super().exec_module(module)

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: tuple[str, ...] = (), level: int = 0
    ) -> ModuleType:
        """The ``import`` statement of these modules.  Relative imports need no translation."""
        if level > 0 or name not in self.sources:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(self.prefix + name, globals, locals, fromlist, 0)
        # Without a list of names, import returns the outermost package: here, the one inside the private package.
        return module if fromlist else sys.modules[self.prefix + name.partition(".")[0]]


_collections: list[_Collection] = []
