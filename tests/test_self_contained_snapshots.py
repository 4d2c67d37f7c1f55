"""Snapshots of this project where only `torch_utils` and `dnnlib` exist, or where the project's source has changed."""

import ast
import copy
import importlib
import json
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from fill import fill

import camera_utils
from dnnlib import EasyDict
from dnnlib.util import construct_class_by_name
from torch_utils import module_sources, persistence
from training.augment import AugmentPipe
from training.checkpoint import save_snapshot
from training.loading import load_network

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"

# A process that sees no other part of the project, however that is installed.  It makes pictures, of a copy too, and saves.
ELSEWHERE = """
import copy, importlib.util, os, pickle, sys
here, root, with_decoy = sys.argv[1], sys.argv[2], sys.argv[3] == "decoy"
sys.path[:] = [here] + [path for path in sys.path if path and os.path.realpath(path) != os.path.realpath(root)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
import torch, torch_utils
assert torch_utils.__path__ == [here + "/torch_utils"]
assert with_decoy == any(importlib.util.find_spec(name) for name in ("training", "camera_utils"))
with open(here + "/network.pkl", "rb") as file:
    snapshot = pickle.load(file)
with open(here + "/inputs.pt", "rb") as file:
    z, c, pictures = torch.load(file)
G = copy.deepcopy(snapshot["G_ema"])
assert type(G) is type(snapshot["G_ema"]) is type(snapshot["G"])
torch.manual_seed(0)
views = G(z, c, neural_rendering_resolution=16, noise_mode="const")
logits = snapshot["D"](pictures, c)
augmented = snapshot["augment_pipe"](pictures, c)
torch.save((views, logits, augmented), here + "/results.pt")
with open(here + "/again.pkl", "wb") as file:
    pickle.dump(dict(snapshot, G_ema=G), file)
assert not any(name.split(".")[0] in ("training", "camera_utils") for name in sys.modules)
"""


def make(record):
    return construct_class_by_name(**json.loads((GOLDEN / f"{record}_kwargs.json").read_text()))


@pytest.fixture(scope="module")
def networks():
    parts = dict(G=make("generator_small"), D=make("discriminator_small"), G_ema=fill(make("generator_small")))
    return {name: module.eval().requires_grad_(False) for name, module in parts.items()}


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    shapes = dict(image=[2, 3, 128, 128], image_raw=[2, 3, 32, 32], image_mask=[2, 1, 32, 32])
    pictures = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return torch.randn([2, 512], generator=generator), camera_utils.orbit_label(0.2, 0.1).expand(2, -1), pictures


def everything(snapshot, inputs):
    z, c, pictures = inputs
    torch.manual_seed(0)
    views = snapshot["G_ema"](z, c, neural_rendering_resolution=16, noise_mode="const")
    return views, snapshot["D"](pictures, c), snapshot["augment_pipe"](pictures, c)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    pairs = zip(a.values(), b.values()) if isinstance(a, dict) else zip(a, b)
    return len(a) == len(b) and all(same(x, y) for x, y in pairs)


@pytest.mark.parametrize("decoy", ["alone", "decoy"])
def test_pictures_elsewhere_are_the_same(networks, inputs, tmp_path, decoy):
    """Where nothing else of the project is, and where another project has a `training` and a `camera_utils`."""
    here = tmp_path / "elsewhere"
    for package in module_sources.SHARED:
        shutil.copytree(ROOT / package, here / package, ignore=shutil.ignore_patterns("__pycache__"))
    if decoy == "decoy":
        (here / "training").mkdir()
        for name in ("training/__init__.py", "training/triplane.py", "camera_utils.py"):
            (here / name).write_text("raise RuntimeError('another project must not run')\n")
    snapshot = dict(networks, augment_pipe=AugmentPipe())
    save_snapshot(here / "network.pkl", snapshot, {})
    torch.save(inputs, here / "inputs.pt")
    subprocess.run([sys.executable, "-c", ELSEWHERE, here, ROOT, decoy], cwd=tmp_path, check=True)
    expected = everything(snapshot, inputs)
    assert same(torch.load(here / "results.pt"), expected)
    # What was saved there opens here, by this project's classes, and is as large.
    assert abs(os.path.getsize(here / "again.pkl") - os.path.getsize(here / "network.pkl")) < 20_000
    again = pickle.loads((here / "again.pkl").read_bytes())
    assert type(again["G_ema"]) is type(snapshot["G_ema"]) and same(everything(again, inputs), expected)
    assert same(load_network(here / "again.pkl").state_dict(), snapshot["G_ema"].state_dict())


def global_names(data):
    """The modules of all that a pickle names."""
    strings, modules = [], set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            modules.add(argument.split(" ")[0])
        elif "UNICODE" in opcode.name:
            strings.append(argument)
        elif opcode.name == "STACK_GLOBAL":
            modules.add(strings[-2])
    return modules


def test_snapshots_name_no_class_of_the_project(networks):
    data = pickle.dumps(dict(networks, augment_pipe=AugmentPipe()), protocol=2)
    tops = {name.split(".")[0] for name in global_names(data)}
    python = {"collections", "copy_reg", "__builtin__", "_codecs"}
    assert {"torch", *module_sources.SHARED} <= tops <= {"torch", *module_sources.SHARED} | python


def test_texts_cost_little(networks):
    """Each source is stored once in a snapshot, however many classes need it."""
    data = pickle.dumps(networks)
    texts = {text for name, bundle in module_sources._bundles.items() if "training" in name for text in bundle.sources.values()}
    for text in texts:
        assert data.count(text.encode()) <= 1
    assert data.count(b"class TriPlaneGenerator(") == data.count(b"def box_limits(") == 1


def test_copying_reads_no_files(networks, monkeypatch):
    for module, name in ((module_sources, "_read"), (module_sources, "_spec"), (ast, "parse")):
        monkeypatch.setattr(module, name, lambda *args: pytest.fail("looked for a source"))
    copy.deepcopy(networks["G_ema"])


# What is stored and when it is used, on a small project

PROJECT = {
    "pine/__init__.py": "",
    "pine/tree.py": """
import math
import numpy as np, pine.wood.bark
import pine.cone as cone
from torch_utils import persistence
from . import needles
from .wood import *

class Base:
    factor = cone.SIZE

@persistence.persistent_class
class Tree(Base):
    def __init__(self, height):
        self.height = height

    def value(self):
        from grove import GROVE
        return self.height * self.factor * needles.COUNT * pine.wood.bark.THICK * GROVE
""",
    "pine/cone.py": "from pine.seed import SEED\nSIZE = 2 * SEED\n",
    "pine/needles.py": "import pine\nCOUNT = 3\nfrom .needles import COUNT\n",
    "pine/seed.py": "SEED = 1\n",
    "pine/wood/__init__.py": "__all__ = ['bark']\n",
    "pine/wood/bark.py": "THICK = 5\nfrom ..seed import SEED\n",
    "pine/unused.py": "",
    "pine/forest.py": """
from torch_utils import persistence
from pine.tree import Tree

@persistence.persistent_class
class Forest:
    def __init__(self, trees):
        self.trees = trees

    def all_trees(self):
        return all(isinstance(tree, Tree) for tree in self.trees)
""",
    "grove.py": "import json\nGROVE = 7\n",
}
NEEDED = ["grove", "pine", "pine.cone", "pine.needles", "pine.seed", "pine.tree", "pine.wood", "pine.wood.bark"]
VALUE = 2 * 3 * 5 * 7


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project's files; `restart` forgets what was imported of them, as a new process would."""
    bundles, texts = dict(module_sources._bundles), dict(module_sources._texts)

    class Project:
        def __init__(self):
            for name, text in PROJECT.items():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                self.write(name, text)

        def write(self, name, text):
            (tmp_path / name).write_text(text)
            self.restart()

        def restart(self):
            for name in [name for name in sys.modules if name.split(".")[0] in ("pine", "grove")]:
                del sys.modules[name]
            for known, before in ((module_sources._bundles, bundles), (module_sources._texts, texts)):
                known.clear()
                known.update(before)
            importlib.invalidate_caches()

        def remove(self):
            shutil.rmtree(tmp_path / "pine")
            (tmp_path / "grove.py").unlink()
            self.restart()

        def tree(self, height=1):
            return importlib.import_module("pine.tree").Tree(height)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    project = Project()
    yield project
    project.restart()


def is_installed(obj):
    return not type(obj).__module__.startswith("_stored_sources_")


def test_what_is_stored(project):
    tree = project.tree()
    meta = tree.__reduce__()[1][0]
    assert meta.module_name == "pine.tree" and list(meta.sources) == NEEDED
    assert meta.sources["pine.tree"] is meta.module_src == PROJECT["pine/tree.py"]
    assert tree.__reduce__()[1][0].sources is meta.sources
    assert list(module_sources.bundle("pine.seed").sources) == ["pine", "pine.seed"]


def test_the_installed_class_is_used_where_all_texts_are_the_same(project, monkeypatch):
    data = pickle.dumps(project.tree())
    project.restart()
    monkeypatch.setattr(module_sources, "load", lambda *args: pytest.fail("a text was executed"))
    tree = pickle.loads(data)
    assert is_installed(tree) and type(tree) is type(project.tree()) and tree.value() == VALUE


@pytest.mark.parametrize("name", sorted(set(PROJECT) - {"pine/unused.py", "pine/forest.py"}))
def test_any_changed_text_makes_the_stored_ones_count(project, name):
    data = pickle.dumps(project.tree(2))
    project.write(name, "raise RuntimeError('this is not what was stored')\n")
    tree = pickle.loads(data)
    assert not is_installed(tree) and tree.value() == 2 * VALUE
    assert "pine" not in sys.modules and "grove" not in sys.modules
    twin = pickle.loads(pickle.dumps(copy.deepcopy(tree)))
    assert type(twin) is type(tree) and twin.value() == 2 * VALUE


def test_unrelated_changes_do_not_matter(project):
    data = pickle.dumps(project.tree())
    project.write("pine/unused.py", "1 / 0")
    assert is_installed(pickle.loads(data))


def test_files_that_change_while_they_run(project, tmp_path):
    tree = project.tree()
    (tmp_path / "pine/cone.py").write_text("SIZE = 'edited'\n")
    data = pickle.dumps(tree)
    project.remove()
    assert pickle.loads(data).value() == VALUE


def test_classes_of_one_snapshot_share_their_modules(project):
    trees = [project.tree(1), project.tree(2)]
    data = pickle.dumps(importlib.import_module("pine.forest").Forest(trees))
    project.remove()
    forest = pickle.loads(data)
    assert not is_installed(forest) and forest.all_trees()
    other = pickle.loads(data)
    assert type(other) is type(forest)


def test_snapshots_of_different_versions_live_side_by_side(project):
    versions = []
    for size in (2, 3):
        project.write("pine/cone.py", f"SIZE = {size}\n")
        versions.append(pickle.dumps(project.tree()))
    project.remove()
    trees = [pickle.loads(data) for data in versions]
    assert [tree.value() for tree in trees] == [VALUE, VALUE / 2 * 3]
    assert [pickle.loads(pickle.dumps(tree)).value() for tree in trees] == [VALUE, VALUE / 2 * 3]


def test_tracebacks_show_stored_texts_by_name(project):
    data = pickle.dumps(project.tree(None))
    project.remove()
    tree = pickle.loads(data)
    with pytest.raises(TypeError) as error:
        tree.value()
    shown = "".join(traceback.format_exception(error.value))
    assert type(tree).__module__ in shown and "return self.height * self.factor" in shown


def test_hooks_may_change_the_text(project, monkeypatch):
    data = pickle.dumps(project.tree())
    monkeypatch.setattr(persistence, "_import_hooks", [])
    mended = PROJECT["pine/tree.py"].replace("self.height *", "10 * self.height *")
    persistence.import_hook(lambda meta: EasyDict(meta, module_src=mended))
    assert pickle.loads(data).value() == 10 * VALUE


def test_snapshots_without_the_other_texts(project):
    """As this project wrote them at first: the text of one module, with its name."""

    class Earlier:
        def __init__(self, obj):
            self.meta = {name: value for name, value in obj.__reduce__()[1][0].items() if name != "sources"}

        def __reduce__(self):
            return persistence._reconstruct_persistent_obj, (self.meta,)

    text = PROJECT["pine/tree.py"].replace("from . import", "from pine import").replace("from .wood", "from pine.wood")
    project.write("pine/tree.py", text)
    data = pickle.dumps(Earlier(project.tree()))
    tree = pickle.loads(data)
    assert is_installed(tree) and tree.value() == VALUE
    project.write("pine/tree.py", "1 / 0")
    project.write("pine/cone.py", "SIZE = 3")
    tree = pickle.loads(data)
    assert not is_installed(tree) and tree.value() == VALUE / 2 * 3  # by the text that is stored, and what is installed
    assert pickle.loads(pickle.dumps(tree)).value() == tree.value()


def test_a_project_that_is_installed_among_packages(tmp_path, monkeypatch):
    """There, what belongs to the project is what came in the same package."""
    site = tmp_path / "site-packages"
    for package, modules in (("alder", ("alder_net", "alder_parts")), ("birch", ("birch",))):
        (site / f"{package}-1.0.dist-info").mkdir(parents=True)
        (site / f"{package}-1.0.dist-info" / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
        (site / f"{package}-1.0.dist-info" / "top_level.txt").write_text("\n".join(modules))
        for module in modules:
            (site / f"{module}.py").write_text("import alder_parts, birch\n" if module == "alder_net" else "")
    monkeypatch.syspath_prepend(site)
    module_sources._distributions.cache_clear()
    try:
        assert list(module_sources.bundle("alder_net").sources) == ["alder_net", "alder_parts"]
    finally:
        module_sources._distributions.cache_clear()
        del module_sources._bundles["alder_net"]


def test_imports_that_cannot_be_followed(project, tmp_path):
    (tmp_path / "pine/odd.py").write_text("from . import ancient, missing, __name__\nimport no_such, torch.nn as nn, sys\n")
    (tmp_path / "pine/ancient.py").write_text("print 'Python 2'\n")
    (tmp_path / "oak.py").write_text("from . import a\nfrom ..b import c\nimport pine.odd\n")
    assert list(module_sources.bundle("oak").sources) == ["oak", "pine", "pine.ancient", "pine.odd"]


def test_classes_without_a_source_are_refused_at_once(monkeypatch):
    namespace = dict(__name__="no_such_module")
    with pytest.raises(OSError, match="no_such_module"):
        exec("from torch_utils import persistence\n@persistence.persistent_class\nclass A: pass", namespace)
