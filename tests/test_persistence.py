"""Pickles that carry their source, read where the source is the same, has changed, or does not exist."""

import copy
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from fill import fill

from dnnlib import EasyDict
from dnnlib.util import construct_class_by_name
from torch_utils import module_sources, persistence
from training.networks_stylegan2 import FullyConnectedLayer, Generator

KWARGS = json.loads((Path(__file__).parent / "golden" / "generator_small_kwargs.json").read_text())
FRONT = torch.tensor([[1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]])

PUBLISHED = dict(module_name=None, sources=None)


class Stored:
    """Pickles as the call that rebuilds a persistent object from `meta`."""

    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return persistence._reconstruct_persistent_obj, (self.meta,)


def meta_of(obj, **changes):
    """What is stored of a persistent object; a change to None leaves the entry out.  `PUBLISHED` snapshots lack two."""
    meta = dict(obj.__reduce__()[1][0], **changes)
    return {key: content for key, content in meta.items() if content is not None}


def through_pickle(obj):
    return pickle.loads(pickle.dumps(obj))


@pytest.fixture(scope="module")
def generator():
    return fill(construct_class_by_name(**KWARGS)).eval().requires_grad_(False)


@pytest.fixture
def layer():
    return fill(FullyConnectedLayer(3, 4))


@pytest.fixture
def no_execution(monkeypatch):
    def refuse(name, sources):
        raise AssertionError("a module's text was executed")

    monkeypatch.setattr(module_sources, "load", refuse)


def pictures(G):
    torch.manual_seed(0)
    return G(torch.randn(1, G.z_dim), FRONT, neural_rendering_resolution=16, noise_mode="const")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy])
def test_copies_make_the_same_pictures_without_running_text(generator, no_execution, copied):
    twin = copied(generator)
    assert type(twin) is type(generator) and same(pictures(twin), pictures(generator))
    twin.decoder.net[0].weight.data.zero_()
    assert not same(pictures(twin), pictures(generator))


def test_published_networks_have_no_module_name(layer, no_execution):
    assert type(through_pickle(Stored(meta_of(layer, **PUBLISHED)))) is FullyConnectedLayer


def test_changed_text_is_run(layer):
    source = sys.modules[FullyConnectedLayer.__module__].__file__
    changed = Path(source).read_text().replace("self.bias_gain = lr_multiplier", "self.bias_gain = 0")
    twin = through_pickle(Stored(meta_of(layer, module_src=changed, **PUBLISHED)))
    assert type(twin) is not FullyConnectedLayer and type(twin).__name__ == "FullyConnectedLayer"
    x = torch.ones(2, 3)
    assert torch.equal(twin(x), layer(x))  # the state is the stored one,
    assert (twin.bias_gain, type(twin)(3, 4).bias_gain) == (1, 0)  # the class is the text's
    again = through_pickle(twin)
    assert type(again) is type(twin) and torch.equal(again(x), layer(x))


def test_text_runs_once_and_a_failing_one_leaves_no_module(layer):
    text = "from torch_utils import persistence\nimport torch\ncount = []\n"
    text += "@persistence.persistent_class\nclass FullyConnectedLayer(torch.nn.Module):\n    token = object()\n"
    first, second = (through_pickle(Stored(meta_of(layer, module_src=text, **PUBLISHED))) for _ in range(2))
    assert type(first) is type(second) and first.token is second.token
    modules = set(sys.modules)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            through_pickle(Stored(meta_of(layer, module_src="1 / 0", **PUBLISHED)))
    assert not any("." in name for name in set(sys.modules) - modules)  # but for the empty package that it was to be in


def test_import_hooks_see_and_change_what_is_stored(layer, monkeypatch):
    monkeypatch.setattr(persistence, "_import_hooks", [])

    def hook(meta):
        assert meta.class_name == "FullyConnectedLayer"
        return EasyDict(meta, state=dict(meta.state, weight_gain=0))

    persistence.import_hook(hook)
    assert through_pickle(layer).weight_gain == 0


@pytest.mark.parametrize("change", [dict(version=5), dict(type="function")])
def test_other_formats_are_refused(layer, change):
    with pytest.raises(ValueError, match="version"):
        through_pickle(Stored(meta_of(layer, **change)))


def test_constructor_arguments_are_remembered_as_they_were():
    mapping_kwargs = dict(num_layers=1)
    G = Generator(4, 0, 4, 8, 3, mapping_kwargs=mapping_kwargs, channel_max=4)
    mapping_kwargs["num_layers"] = 5
    assert persistence.is_persistent(G) and persistence.is_persistent(Generator) and not persistence.is_persistent(torch.nn)
    assert G.init_args == (4, 0, 4, 8, 3) and G.init_kwargs == dict(mapping_kwargs=dict(num_layers=1), channel_max=4)
    assert through_pickle(G).init_kwargs == G.init_kwargs
