"""Texts of modules: what a module needs of its own project, and modules that are made of stored texts.

A snapshot holds the text of the module of each class in it, and that text imports its siblings.  `bundle` collects them.
`load` makes modules of such a collection where other files, or none, are installed under those names.
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

SHARED = ("dnnlib", "torch_utils")  # never stored: they are installed wherever a snapshot is opened


class Text(NamedTuple):
    """The text of a module, and whether the module is a package."""

    text: str
    is_package: bool


class Bundle(NamedTuple):
    """A module's name in its project, and the texts, by name, of itself and of all that it imports from that project."""

    name: str
    sources: dict[str, str]

    @property
    def text(self) -> str:
        """The module's own text."""
        return self.sources[self.name]


_bundles: dict[str, Bundle] = {}  # by name in sys.modules
_texts: dict[str, Text] = {}  # of installed modules, as they were when first asked for


def bundle(module_name: str) -> Bundle:
    """What to store of a module that is being imported, or has been; OSError if its source cannot be found.

    Files are read in the first call for a module, which should come while it is imported: files change while they run.
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
    """The name of an installed module with exactly this text among those that `bundle` was called for, or None."""
    return next((name for name, bundle in _bundles.items() if bundle.name == name and bundle.text == text), None)


def are_installed(sources: dict[str, str]) -> bool:
    """Whether all of these modules are installed with exactly these texts.  Runs none of them."""
    return all((found := installed(name)) is not None and found.text == text for name, text in sorted(sources.items()))


# What is installed


def installed(name: str) -> Text | None:
    """The text of what ``import name`` finds, without running it; None if there is no such module, or it has no text."""
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
    """Where ``import name`` finds a module, without running any."""
    module = sys.modules.get(name)
    if module is not None:
        spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
        if spec is None and file is not None:  # a script that is being run
            spec = importlib.util.spec_from_file_location(name, file)
        return spec
    parent = name.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(name)
    above = _spec(parent)
    places = None if above is None else above.submodule_search_locations
    return PathFinder.find_spec(name, places) if places else None


def _root(spec: ModuleSpec) -> Path | None:
    """The folder from which a module is imported: what is on sys.path."""
    place = spec.submodule_search_locations[0] if spec.submodule_search_locations else spec.origin
    return None if place is None else Path(os.path.abspath(place)).parents[spec.name.count(".")]


def _finder_in_project(owner: str) -> Callable[[str], Text | None]:
    """`installed` for modules of the project of `owner`, those beside it; all others are None."""
    spec = _spec(owner)
    root = None if spec is None else _root(spec)

    @functools.cache
    def is_in_project(top: str) -> bool:
        spec = None if root is None or top in SHARED else _spec(top)
        return spec is not None and _root(spec) == root and _distribution(top, root) == _distribution(owner, root)

    return lambda name: installed(name) if is_in_project(name.partition(".")[0]) else None


def _distribution(name: str, root: Path) -> list[str]:
    """The installed packages that a module may come from, where everything is in one folder."""
    if root.name not in ("site-packages", "dist-packages"):
        return []
    return sorted(_distributions().get(name.partition(".")[0], []))


_distributions = functools.cache(importlib.metadata.packages_distributions)


# What imports what


def _closure(name: str, find: Callable[[str], Text | None]) -> dict[str, str]:
    """Texts by name of `name` and of what it imports, directly or not, as far as `find` knows the text."""
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
    """Names of modules that a text imports anywhere; some are names of what is in a module, which no module has."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # it may be meant for another version of Python, behind a condition
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
    """``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``: importing the last runs them all."""
    return itertools.accumulate(name.split("."), "{}.{}".format)


# Modules made of stored texts


def load(name: str, sources: dict[str, str]) -> ModuleType:
    """The module `name` made of its text in `sources`, the same one for the same texts.

    It and what it imports from `sources` get private names in sys.modules; installed modules are neither used in their
    place nor replaced.  Runs the texts, so whatever they raise may come out.
    """
    collection = next((c for c in _collections if c.fits(sources)), None)
    if collection is None:
        collection = _Collection(f"_stored_sources_{len(_collections)}.")
        _collections.append(collection)
        sys.meta_path.append(collection)
    collection.sources.update(sources)
    return importlib.import_module(collection.prefix + name)


class _Collection(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Texts that belong together, as modules of a private package that import each other."""

    def __init__(self, prefix: str):
        self.prefix = prefix  # of private names, with a dot at its end
        self.sources: dict[str, str] = {}  # by the names without it

    def fits(self, sources: dict[str, str]) -> bool:
        """Whether `sources` are of the same project: some modules are here too, and none of them with another text."""
        common = self.sources.keys() & sources.keys()
        return bool(common) and all(self.sources[name] == sources[name] for name in common)

    def find(self, name: str) -> Text | None:
        """The text of `name`, a name without the prefix."""
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
        return self.sources.get(fullname.removeprefix(self.prefix), "")  # nothing in the private package itself

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_source(fullname), fullname)  # by that name, tracebacks find the text

    def exec_module(self, module: ModuleType) -> None:
        module.__builtins__ = dict(vars(builtins), __import__=self._import)
        super().exec_module(module)

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: tuple[str, ...] = (), level: int = 0
    ) -> ModuleType:
        """What ``import`` calls in these modules.  Relative names are right as they are."""
        if level > 0 or name not in self.sources:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(self.prefix + name, globals, locals, fromlist, 0)
        # Without a list of names, import gives the outermost package: here the one inside the private package.
        return module if fromlist else sys.modules[self.prefix + name.partition(".")[0]]


_collections: list[_Collection] = []
