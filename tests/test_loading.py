"""The loader: our snapshots, those in the published format, and everything that must not be loaded or run."""

import collections
import copy
import hashlib
import json
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import fill

import legacy
from dnnlib import EasyDict, UserError
from dnnlib.util import construct_class_by_name
from torch_utils import persistence
from training import loading, triplane
from training.augment import AugmentPipe
from training.dual_discriminator import MaskDualDiscriminatorV2
from training.loading import load_network, load_snapshot
from training.networks_stylegan2 import Generator
from training.triplane import TriPlaneGenerator
from training.volumetric_rendering import renderer

GOLDEN = Path(__file__).parent / "golden"
FRONT = torch.tensor([[1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]])
NEVER = "raise RuntimeError('the text of this module must not run')\n"


def make(record):
    kwargs = json.loads((GOLDEN / f"{record}_kwargs.json").read_text())
    return fill(construct_class_by_name(**kwargs)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def G():
    return make("generator_small")


@pytest.fixture(scope="module")
def D():
    return make("discriminator_small")


@pytest.fixture
def tiny():
    """A network that is stored in a few kilobytes."""
    return fill(Generator(4, 0, 4, 8, 3, mapping_kwargs=dict(num_layers=1), channel_max=4))


@pytest.fixture
def save(tmp_path):
    """Write a snapshot, or bytes as they are, to a file; returns its path."""

    def write(content, protocol=4):
        path = tmp_path / "network.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
        return path

    return write


def pictures(network):
    torch.manual_seed(0)
    return network(torch.randn(1, network.z_dim), FRONT, neural_rendering_resolution=16, noise_mode="const")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def refusal(path, key="G_ema", **kwargs):
    """The one-line error of loading `path`, which begins with the name of the file."""
    with pytest.raises(UserError) as error:
        load_network(path, key, **kwargs)
    line = str(error.value)
    assert line.startswith(str(path)) or f" {path}" in line
    assert len(line) < 1000 and line.isprintable()
    return line


# Our own snapshots


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pictures_are_the_same(G, D, save, protocol):
    path = save(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=EasyDict(path="x")), protocol)
    state = torch.get_rng_state()
    loaded = load_network(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is TriPlaneGenerator and same(pictures(loaded), pictures(G))
    assert not any(module.training for module in loaded.modules())
    assert not any(tensor.requires_grad for tensor in loaded.parameters())
    assert loaded.init_kwargs == G.init_kwargs
    names = [name for name, _ in G.named_parameters()]
    assert [name for name, _ in loaded.named_parameters()] == names
    assert same(pictures(pickle.loads(pickle.dumps(loaded))), pictures(G))  # can be stored again
    with open(path, "rb") as file:
        assert same(pictures(pickle.load(file)["G_ema"]), pictures(G))
    assert same(pictures(load_network(path, trust_pickle=True)), pictures(G))


def test_what_scripts_change_is_kept(G, save):
    changed = copy.deepcopy(G)
    changed.rendering_kwargs["depth_resolution"] = 5
    changed.rendering_kwargs["ray_start"] = 2.4
    changed.neural_rendering_resolution = 32
    loaded = load_network(save(dict(G_ema=changed)))
    assert loaded.rendering_kwargs == changed.rendering_kwargs and loaded.neural_rendering_resolution == 32
    assert type(loaded.rendering_kwargs) is EasyDict and loaded.rendering_kwargs is not loaded.init_kwargs.rendering_kwargs
    assert same(pictures(loaded), pictures(changed)) and not same(pictures(loaded), pictures(G))


def test_only_the_network_asked_for_is_built(tiny, save, monkeypatch):
    other = copy.deepcopy(tiny)
    path = save(dict(G=other, D=other, G_ema=tiny))
    built = []
    construct = loading._construct
    monkeypatch.setattr(loading, "_construct", lambda *args, **kwargs: built.append(1) or construct(*args, **kwargs))
    load_network(path)
    assert len(built) == 1


def test_a_training_network_comes_at_rest(tiny, save):
    path = save(dict(G=tiny.train().requires_grad_(True)))
    for trust_pickle in (False, True):
        loaded = load_network(path, "G", torch.device("cpu"), trust_pickle)
        assert not loaded.training and not any(tensor.requires_grad for tensor in loaded.parameters())
        assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), tiny.state_dict().values()))


def test_whole_snapshots(tiny, D, save):
    pipe = AugmentPipe(xflip=1)
    pipe.p.fill_(0.25)
    extras = dict(augment_pipe=pipe, training_set_kwargs=EasyDict(path="a.zip", resolution=np.int64(128)), note=None)
    snapshot = load_snapshot(save(dict(G=tiny, D=D, G_ema=tiny, **extras)))
    assert list(snapshot) == ["G", "D", "G_ema", "augment_pipe", "training_set_kwargs", "note"]
    assert type(snapshot["D"]) is MaskDualDiscriminatorV2 and type(snapshot["G"]) is Generator
    assert snapshot["augment_pipe"].p == 0.25 and snapshot["augment_pipe"].xflip == 1
    assert snapshot["training_set_kwargs"] == dict(path="a.zip", resolution=128) and snapshot["note"] is None


def test_what_cannot_be_rebuilt_is_left_out_unless_it_is_a_network(tiny, save):
    foreign = Stored("SomeClass", {})
    assert list(load_snapshot(save(dict(G_ema=tiny, augment_pipe=foreign)))) == ["G_ema"]
    with pytest.raises(UserError, match="SomeClass"):
        load_snapshot(save(dict(G_ema=tiny, D=foreign)))


@pytest.mark.parametrize("unknown", ["SingleDiscriminator", "DummyDualDiscriminator", "SomebodysDiscriminator"])
def test_a_generator_opens_whatever_is_beside_it(unknown, tiny, save):
    content = dict(G_ema=tiny, D=Stored(unknown, {}), augment_pipe=Stored("AugmentPipe", {}), training_set_kwargs={"a": 1})
    path = save(content)
    assert same(load_network(path).state_dict(), tiny.state_dict())
    with open(path, "rb") as file:
        data = legacy.load_network_pkl(file)
    assert set(data) == {"G_ema", "augment_pipe", "training_set_kwargs"} and data["augment_pipe"] is None
    assert same(data["G_ema"].state_dict(), tiny.state_dict())


# Published snapshots


class Stored:
    """Pickles as a persistent object of the published format: no module name, and a text of its own."""

    def __init__(self, class_name, state, source=NEVER):
        self.meta = EasyDict(type="class", version=6, module_src=source, class_name=class_name, state=state)

    def __reduce__(self):
        return persistence._reconstruct_persistent_obj, (self.meta,)


def by_name(module, name, monkeypatch, attributes=None):
    """A module of a class that is stored by its name; the class exists for writing only."""
    kind = type(name, (torch.nn.Module,), dict(__module__=module.__name__))
    monkeypatch.setattr(module, name, kind, raising=False)
    stored = kind()
    stored.__dict__.update(attributes or {})
    return stored


def published(module, monkeypatch):
    """`module` as published code stores it: with its dictionaries, NumPy's numbers, and some parts by name."""
    state = dict(module.__dict__, _modules=children(module, monkeypatch))
    if not persistence.is_persistent(module):
        twin = copy.copy(module)
        twin.__dict__ = state
        return twin
    state["_init_kwargs"] = json.loads(json.dumps(state["_init_kwargs"]))  # plain dictionaries
    state["_parameters"], state["_buffers"] = (collections.OrderedDict(state[name]) for name in ("_parameters", "_buffers"))
    for name in ("grid_model", "layout"):  # this project's own
        state.pop(name, None)
    if "weight_gain" in state:
        state["weight_gain"] = np.float64(state["weight_gain"])
    if isinstance(module, TriPlaneGenerator):
        state["rendering_kwargs"] = dict(state["rendering_kwargs"])
        parts = state["_modules"]
        parts["renderer"] = by_name(renderer, "ImportanceRenderer", monkeypatch, dict(plane_axes=torch.eye(3)))
        if module.grid_model.flat_axes:  # as in EG3D
            parts["decoder"] = by_name(triplane, "OSGDecoder", monkeypatch, parts["decoder"].meta.state)
    return Stored(type(module).__name__, state)


def children(module, monkeypatch):
    return collections.OrderedDict((name, published(child, monkeypatch)) for name, child in module._modules.items())


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("record", ["generator_small", "eg3d_small"])
def test_published_snapshots(record, protocol, save, monkeypatch):
    network = make(record)
    network.rendering_kwargs["depth_resolution"] = 20
    path = save(dict(G_ema=published(network, monkeypatch), D=Stored("SomeDiscriminator", {})), protocol)
    monkeypatch.undo()
    with open(path, "rb") as file, pytest.raises(RuntimeError, match="must not run"):
        pickle.load(file)
    loaded = load_network(path)
    assert type(loaded) is TriPlaneGenerator and same(pictures(loaded), pictures(network))


# What does not fit


def test_tensors_that_do_not_fit(tiny, save):
    tiny.mapping.fc0.extra = torch.nn.Parameter(torch.ones(1))
    assert "mapping.fc0.extra has no place" in refusal(save(dict(G_ema=tiny)))
    del tiny.mapping.fc0.extra
    tiny.mapping.fc0.bias = torch.nn.Parameter(torch.ones(7))
    assert "mapping.fc0.bias is [7] instead of [4]" in refusal(save(dict(G_ema=tiny)))
    tiny.mapping.fc0.bias = None
    assert "mapping.fc0.bias is missing" in refusal(save(dict(G_ema=tiny)))
    tiny.synthesis = None
    assert " more" in refusal(save(dict(G_ema=tiny)))


def test_other_classes_are_refused_by_name_and_source(tiny, save):
    path = save(dict(G_ema=Stored("SomeClass", state={}), G=torch.nn.Softplus(), D=3))
    line = refusal(path)
    assert "SomeClass" in line and hashlib.sha256(NEVER.encode()).hexdigest()[:12] in line and "--trust-pickle" in line
    assert "Softplus" in refusal(path, "G")
    assert "not a network" in refusal(path, "D")
    assert "no 'E' in it, only G_ema, G, D" in refusal(path, "E")
    path = save(dict(G_ema=tiny, D=3))
    assert "not a network" in refusal(path, "D", trust_pickle=True)
    assert "no 'E' in it, only G_ema, D" in refusal(path, "E", trust_pickle=True)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        dict(class_name="Generator"),
        dict(class_name="Generator", state=None, module_src=""),
        dict(class_name=["Generator"], state={}, module_src=""),
        dict(class_name="Generator", state={}, module_src=""),
        dict(class_name="Generator", state=dict(_parameters=[], _buffers={}, _modules={}), module_src=""),
        dict(class_name="Generator", state=dict(_parameters={1: 2}, _buffers={}, _modules={}), module_src=""),
        dict(class_name="Generator", state=dict(_parameters={}, _buffers={}, _modules={"a": 1}), module_src=""),
        dict(class_name="Generator", state=dict(_parameters={"a": 1}, _buffers={}, _modules={}), module_src=""),
    ],
)
def test_objects_that_make_no_sense(meta, save):
    stored = Stored("", {})
    stored.meta = meta
    refusal(save(dict(G_ema=stored)))


def test_files_that_are_no_snapshots(tiny, save, tmp_path):
    whole = pickle.dumps(dict(G_ema=tiny))
    for size in (0, 1, 2, 50, len(whole) // 2, len(whole) - 1):
        assert "damaged" in refusal(save(whole[:size]))
        assert "cannot be unpickled" in refusal(save(whole[:size]), trust_pickle=True)
    for content in (b"a text file\n", b"PK\x03\x04" + bytes(99), b"<!DOCTYPE html>", bytes(range(256))):
        assert "damaged" in refusal(save(content))
    assert "list" in refusal(save([1]))
    assert "small" in refusal(save({f"G{index}": tiny for index in range(21)}))
    assert "list" in refusal(save([1]), trust_pickle=True)
    for path in (tmp_path / "missing.pkl", tmp_path):
        refusal(path)


def test_nested_modules_and_values(tiny, save):
    start = b"ctorch.nn.modules.container\nSequential\n)\x81}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_buffers}"
    start += b"X\x08\x00\x00\x00_modules}X\x01\x00\x00\x000"
    chain = start * 10_000 + b"N" + b"sub" * 10_000
    replaced = pickle.dumps(dict(G_ema=Stored("Generator", dict(_parameters={}, _buffers={}, _modules="HERE"))), protocol=2)
    here = b"X\x04\x00\x00\x00HERE"
    assert here in replaced
    assert "deeply" in refusal(save(replaced.replace(here, b"}X\x01\x00\x00\x000" + chain + b"s")))
    tiny.__dict__["_init_args"] = "HERE"
    nested = b"]" * 10_000 + b"a" * 9_999
    replaced = pickle.dumps(dict(G_ema=tiny), protocol=3)
    assert replaced.count(here) == 1
    assert "deeply" in refusal(save(replaced.replace(here, nested)))


# What must not run


class Calls:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def test_nothing_is_executed(tiny, save, tmp_path):
    marker = tmp_path / "was here"
    touch = Calls(os.system, f"touch '{marker}'")
    tiny.__dict__["hidden"] = touch
    for content in (touch, dict(G_ema=touch), dict(G_ema=tiny), dict(G_ema=Stored("Generator", touch))):
        path = save(content)
        line = refusal(path)
        assert "system" in line and "--trust-pickle" in line and not marker.exists()
    assert type(load_network(save(dict(G_ema=tiny)), trust_pickle=True)) is Generator
    assert marker.exists()  # so it would have been


def test_a_class_named_in_the_arguments_is_not_called(G, save, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *args, **kwargs: pytest.fail("called"))
    for where in ("keyword", "position"):
        network = copy.copy(G)
        arguments = copy.deepcopy(G._init_kwargs)
        arguments["rendering_kwargs"]["superresolution_module"] = "os.system"
        args = ()
        if where == "position":
            names = "z_dim c_dim w_dim img_resolution img_channels sr_num_fp16_res mapping_kwargs rendering_kwargs".split()
            args = tuple(arguments.pop(name) for name in names)
        network.__dict__ = dict(G.__dict__, _init_args=args, _init_kwargs=arguments)
        assert "os.system" in refusal(save(dict(G_ema=network)))


@pytest.mark.parametrize(
    "change, complaint",
    [
        (dict(w_dim=2**20), "larger than what is stored"),
        (dict(w_dim=2**30), "numbers above"),
        (dict(mapping_kwargs=dict(num_layers=2**20)), "larger than what is stored"),
        (dict(mapping_kwargs=dict(num_layers=2**32)), "numbers above"),
        (dict(img_resolution="8"), "cannot be built"),
        (dict(img_resolution=7), "cannot be built"),
        (dict(surprise=1), "surprise"),
        (dict(mapping_kwargs=3), "cannot be built"),
    ],
)
def test_arguments_that_make_no_sense_cost_neither_time_nor_memory(tiny, save, change, complaint):
    tiny.__dict__["_init_kwargs"] = dict(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3, channel_max=4) | change
    tiny.__dict__["_init_args"] = ()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert complaint in refusal(save(dict(G_ema=tiny)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB


def test_a_small_file_does_not_become_a_long_list_of_names(tiny, save):
    long = "x" * 10_000
    refusal(save(dict(G_ema=Stored("Generator", dict(_parameters={long: torch.ones(1)}, _buffers={}, _modules={})))))
    shared = {f"p{index}": None for index in range(3)} | {f"q{index}": torch.ones(1) for index in range(20)}
    modules = {f"m{i}": Stored("A", dict(_parameters=shared, _buffers={}, _modules={})) for i in range(600)}
    state = dict(_parameters={}, _buffers={}, _modules=modules)
    assert "10000 tensors" in refusal(save(dict(G_ema=Stored("Generator", state))))
    twice = Stored("A", dict(_parameters={}, _buffers={}, _modules={}))
    state = dict(_parameters={}, _buffers={}, _modules=dict(a=twice, b=twice))
    assert "two places" in refusal(save(dict(G_ema=Stored("Generator", state))))


def test_text_from_the_file_cannot_write_to_the_terminal(tiny, save):
    refusal(save({"\x1b[31m\nred": 1}))
    tiny.mapping.fc0.x = None
    tiny.mapping.fc0._parameters["\x1b[31m\nred" + "d" * 300] = torch.nn.Parameter(torch.ones(1))
    refusal(save(dict(G_ema=tiny)))
