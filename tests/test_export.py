"""Networks as safetensors: same pictures, no code executed, and a one-line error for a faulty file."""

import copy
import errno
import json
import os
import pickle
import struct
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from test_gen_scripts import network, picture, succeed  # noqa: F401 (a fixture)
from test_loading import D, G, make, pictures, refusal, same, tiny  # noqa: F401 (fixtures)

from dnnlib import UserError
from training import export, loading
from training.export import export_network
from training.loading import load_network, load_snapshot
from training.networks_stylegan2 import Generator
from training.weights_file import SUFFIX


def invoke(*args):
    """Run the command in this process: its exit code and what it printed."""
    result = CliRunner().invoke(export.main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def exported(tiny, tmp_path):
    """The path of an exported tiny network."""
    export_network(tiny, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def description(path):
    return json.loads(path.with_suffix(".json").read_text())


def rewrite(path, tensors=None, text=None, **changes):
    """Rewrite the file at `path` with other tensors, with `changes` to the constructor, or with other text in its place."""
    content = dict(description(path), **changes)
    text = json.dumps({name: value for name, value in content.items() if value is not ...}) if text is None else text
    tensors = safetensors.torch.load_file(path) if tensors is None else tensors
    path.write_bytes(safetensors.torch.save(tensors, metadata=dict(multi_pose=text)))


# What is written is what is read


@pytest.mark.parametrize("record", ["generator_small", "eg3d_small"])
def test_pictures_are_the_same(record, tmp_path):
    original = make(record)
    original.rendering_kwargs["depth_resolution"] = 20
    original.neural_rendering_resolution = 32
    state = torch.get_rng_state()
    export_network(original, tmp_path / "model.safetensors")
    loaded = load_network(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert same(pictures(loaded), pictures(original))
    assert loaded.rendering_kwargs == original.rendering_kwargs and loaded.neural_rendering_resolution == 32
    assert loaded.init_kwargs == original.init_kwargs
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    pickled = pickle.loads(pickle.dumps(loaded))
    assert same(pictures(pickled), pictures(original))


def test_scripts_take_the_file_and_draw_the_same(network, tmp_path):  # noqa: F811
    code, output = invoke(network, "--out", tmp_path / "out" / "tiny.safetensors")
    assert code == 0 and "tiny.safetensors" in output and "tiny.json" in output
    for path in (network, tmp_path / "out" / "tiny.safetensors"):
        succeed("gen_samples", "--network", path, "--seeds", 1, "--outdir", tmp_path / Path(path).suffix[1:], "--device", "cpu")
    ours, theirs = (sorted((tmp_path / folder).rglob("*.png")) for folder in ("safetensors", "pkl"))
    assert ours and len(ours) == len(theirs)
    assert all((picture(one) == picture(other)).all() for one, other in zip(ours, theirs))


def test_a_snapshot_of_one_network(network, tmp_path):  # noqa: F811
    path = tmp_path / "model.pkl"
    code, output = invoke(network, "--out", path)
    assert (code, output.split()[:2]) == (0, ["Wrote", str(path)])
    with open(path, "rb") as file:
        content = pickle.load(file)
    assert list(content) == ["G_ema"]
    same(pictures(content["G_ema"]), pictures(load_network(network)))
    assert not path.with_suffix(".json").exists()


def test_any_network_of_a_snapshot(D, tmp_path):  # noqa: F811
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(dict(D=D)))
    code, output = invoke(tmp_path / "network.pkl", "--out", tmp_path / "d.safetensors", "--key", "D")
    assert code == 0, output
    loaded = load_network(tmp_path / "d.safetensors", "D")
    assert type(loaded) is type(D) and same(loaded.state_dict(), D.state_dict())
    assert "no 'G_ema' in it, only D" in refusal(tmp_path / "d.safetensors")


def test_the_json_says_how_the_network_is_constructed(exported, tiny):  # noqa: F811
    content = description(exported)
    assert content["class_name"] == "Generator" and content["key"] == "G_ema" and content["attributes"] == {}
    again = Generator(*content["init_args"], **content["init_kwargs"])
    again.load_state_dict(safetensors.torch.load_file(exported))
    assert same(again.state_dict(), tiny.state_dict())


def test_the_json_beside_it_is_not_needed(exported, tiny):  # noqa: F811
    exported.with_suffix(".json").unlink()
    assert same(load_network(exported).state_dict(), tiny.state_dict())
    assert list(load_snapshot(exported)) == ["G_ema"]


def test_by_url_under_any_name(exported, tiny, monkeypatch):  # noqa: F811
    kept = exported.rename(exported.with_name("0123-download"))
    monkeypatch.setattr(loading, "open_url", lambda url: open(kept, "rb"))
    assert same(load_network("https://example.com/download?id=3").state_dict(), tiny.state_dict())


def test_the_network_does_not_depend_on_the_file(exported, tiny):  # noqa: F811
    loaded = load_network(exported)
    with open(exported, "r+b") as file:
        file.write(bytes(exported.stat().st_size))
    assert same(loaded.state_dict(), tiny.state_dict())


def test_tensors_that_share_memory(tiny, tmp_path):  # noqa: F811
    shared = copy.deepcopy(tiny)
    shared.synthesis.b8.conv0.bias.data = shared.synthesis.b8.conv1.bias.data
    export_network(shared, tmp_path / "model.safetensors")
    assert same(load_network(tmp_path / "model.safetensors").state_dict(), shared.state_dict())


# Files that are refused


def test_a_pickle_by_this_name_is_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(dict(G_ema=Attack())))
    for trust_pickle in (False, True):
        assert "not a .safetensors file, or is damaged" in refusal(path, trust_pickle=trust_pickle)
    assert not marker.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:20] + b"\x00\xff" + data[22:],
        lambda data: struct.pack("<Q", 90_000_000) + data[8:],
        lambda data: struct.pack("<Q", 20_002) + b"[" * 10_000 + b"]" * 10_000 + b"  ",
    ],
)
def test_damaged_files(exported, damage):
    exported.write_bytes(damage(exported.read_bytes()))
    assert "damaged" in refusal(exported)


def test_files_that_are_not_ours(exported):
    exported.write_bytes(safetensors.torch.save(dict(weight=torch.zeros(3)), metadata=dict(format="pt")))
    assert "no constructor" in refusal(exported)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "not the JSON"),
        ("{", "not the JSON"),
        ("[]", "not the JSON"),
        ("3", "not the JSON"),
        ("{}", "not the JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_metadata_that_is_no_constructor(exported, text, reason):
    rewrite(exported, text=text)
    assert reason in refusal(exported)


@pytest.mark.parametrize(
    "changes, reason",
    [
        (dict(class_name=...), "not the JSON"),
        (dict(surplus=1), "not the JSON"),
        (dict(key=None), "the key in its metadata is of type NoneType"),
        (dict(key=["G_ema"]), "the key in its metadata is of type list"),
        (dict(key="G"), "no 'G_ema' in it, only G"),
        (dict(init_args={}), "the init_args in its metadata is of type dict"),
        (dict(attributes=[]), "the attributes in its metadata is of type list"),
        (dict(class_name="Popen"), "'Popen' is not known here"),
        (dict(class_name="SynthesisNetwork"), "not known here"),
        (dict(init_args=[]), "cannot be built"),
        (dict(init_kwargs=dict(img_channels="3")), "cannot be built"),
        (dict(init_args=[4, 0, 4, 2**40, 3]), "numbers above"),
        (dict(init_args=[2**20, 0, 2**20, 8, 3]), "larger than what is stored"),
        (dict(init_args=[4, 0, 4, 16, 3]), "is missing"),
    ],
)
def test_constructors_that_do_not_fit(exported, changes, reason):
    rewrite(exported, **changes)
    line = refusal(exported)
    assert reason in line and "trust-pickle" not in line


def test_a_class_by_name_in_the_arguments_is_refused(G, tmp_path):  # noqa: F811
    path = tmp_path / "model.safetensors"
    export_network(G, path)
    kwargs = description(path)["init_kwargs"]
    kwargs["rendering_kwargs"]["superresolution_module"] = "os.system"
    rewrite(path, init_kwargs=kwargs)
    line = refusal(path)
    assert "'os.system', which is not known here" in line and "trust-pickle" not in line


def test_sizes_that_scripts_change_are_bounded(G, tmp_path):  # noqa: F811
    path = tmp_path / "model.safetensors"
    export_network(G, path)
    rewrite(path, attributes=dict(neural_rendering_resolution=2**40))
    assert "numbers above" in refusal(path)
    rewrite(path, attributes=dict(rendering_kwargs=[1]))
    assert "rendering_kwargs" in refusal(path)


def test_tensors_that_do_not_fit(exported):
    whole = safetensors.torch.load_file(exported)
    name = "synthesis.b8.conv1.weight"
    rewrite(exported, {key: tensor for key, tensor in whole.items() if key != name})
    assert f"{name} is missing" in refusal(exported)
    rewrite(exported, dict(whole, more=torch.zeros(1)))
    assert "more has no place" in refusal(exported)
    rewrite(exported, dict(whole, **{name: torch.zeros([0, 2**50])}))
    assert f"{name} is [0, {2**50}] instead of" in refusal(exported)
    rewrite(exported, {str(number): torch.zeros(0) for number in range(10_001)})
    assert "more than 10000 tensors" in refusal(exported)


def test_without_the_package(exported, tiny, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="pip install safetensors"):
        load_network(exported)
    with pytest.raises(UserError, match="pip install safetensors"):
        export_network(tiny, exported)


# Networks that cannot be exported, and files that must stay


def test_a_failed_export_leaves_what_was_there(exported, tiny):  # noqa: F811
    before = {path.name: path.read_bytes() for path in exported.parent.iterdir()}
    unfit = copy.deepcopy(tiny)
    unfit.register_buffer("more", torch.zeros(3))
    with pytest.raises(UserError, match=r"model.safetensors was not written: its tensors .* more has no place"):
        export_network(unfit, exported)
    odd = copy.deepcopy(tiny)
    odd._init_kwargs["mapping_kwargs"] = {"dtype": torch.float32}
    with pytest.raises(UserError, match="was not written: .* cannot be written as JSON: .*dtype"):
        export_network(odd, exported)
    with pytest.raises(UserError, match="does not say how it was constructed"):
        export_network(torch.nn.Linear(2, 2), exported)
    assert {path.name: path.read_bytes() for path in exported.parent.iterdir()} == before


def test_a_full_disk_is_said_in_a_line(exported, tiny, monkeypatch):  # noqa: F811
    def half(path, data):
        with open(path, "wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path.name: path.read_bytes() for path in exported.parent.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match="model.safetensors was not written: No space left on device"):
        export_network(tiny, exported)
    assert {path.name: path.read_bytes() for path in exported.parent.iterdir()} == before


def test_another_json_is_not_replaced(exported, tiny):  # noqa: F811
    export_network(tiny, exported)  # its own is
    labels = exported.with_name("dataset.json")
    labels.write_text('{"labels": []}')
    with pytest.raises(UserError, match="dataset.json was not written by an export"):
        export_network(tiny, labels.with_suffix(SUFFIX))
    assert labels.read_text() == '{"labels": []}' and not labels.with_suffix(SUFFIX).exists()


def test_mistakes_on_the_command_line(exported, tmp_path):
    for words, code, reason in (
        ([tmp_path / "none.pkl", "--out", exported], 1, "none.pkl"),
        ([exported, "--out", tmp_path / "model.pt"], 1, "must end in .safetensors or .pkl"),
        ([exported, "--out", exported, "--key", "D"], 1, "no 'D' in it"),
        ([exported, "--out", exported, "--key", "E"], 2, "'E' is not one of"),
        ([exported], 2, "--out"),
    ):
        got, output = invoke(*words)
        assert got == code and reason in output and "Traceback" not in output
        assert code == 2 or len(output.strip().splitlines()) == 1
