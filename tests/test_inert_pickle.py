"""Pickles read without running them: the results, the refusals, and that nothing is called."""

import collections
import functools
import io
import os
import pickle
import resource

import numpy as np
import pytest
import torch

from dnnlib import EasyDict
from torch_utils import inert_pickle
from torch_utils.inert_pickle import MAX_INSTRUCTIONS, Name, Record, RefusedName

PROTOCOLS = (2, 3, 4, 5)


def read(content):
    return inert_pickle.read(io.BytesIO(content))


def value_of(obj, protocol=4):
    return inert_pickle.value(read(pickle.dumps(obj, protocol=protocol)))


class Calls:
    """Pickles as the call function(*args)."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


# What comes out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values(protocol):
    shared = [1]
    values = {
        "numbers": [0, -1, 255, 65536, -(2**31), 2**40, -(2**100), 0.5, float("inf"), True, False, None],
        "texts": ["", "ä\n", "x" * 300, "y" * 70000],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "dicts": [{}, {1: 2, None: {"a": ()}}, EasyDict(a=EasyDict(b=1)), collections.OrderedDict(a=1, b=2)],
        "shared": [shared, shared],
    }
    if protocol > 2:
        values |= dict(bytes=[b"", b"abc", b"z" * 300], sets=[set(), {1, 2}])
    result = value_of(values, protocol)
    assert result == values
    assert [type(item) for item in result["dicts"]] == [dict, dict, EasyDict, collections.OrderedDict]
    assert result["shared"][0] is result["shared"][1]


def test_a_list_in_itself():
    loop = [1]
    loop.append(loop)
    result = value_of(loop)
    assert result[0] == 1 and result[1] is result


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
@pytest.mark.parametrize("dtype", "float16 bfloat16 float32 float64 bool uint8 int8 int16 int32 int64".split())
def test_tensors(dtype, protocol):
    x = (torch.arange(12) - 3).reshape(3, 4).to(getattr(torch, dtype))
    tensors = [x, x.T, x[1:, 1], x[1, 1], x[:0], torch.zeros([0], dtype=x.dtype)]
    for result, tensor in zip(value_of(tensors, protocol), tensors):
        assert result.dtype == tensor.dtype and torch.equal(result, tensor) and result.stride() == tensor.stride()


def test_parameters_are_tensors():
    plain, named = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    named.note = "an attribute"
    for result in value_of([plain, named]):
        assert type(result) is torch.Tensor and torch.equal(result, torch.ones(3)) and not result.requires_grad


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_numpy(protocol):
    numbers = value_of([np.float64(1.5), np.float32(0.5), np.int64(-3), np.bool_(True), np.array(7, ">i4")[()]], protocol)
    assert numbers == [1.5, 0.5, -3, True, 7]
    assert not any(isinstance(number, np.generic) for number in numbers)
    array = np.arange(6.0).reshape(2, 3)
    for given in (array, array.T, array.astype(">f4"), np.array(3)):
        result = value_of(given, protocol)
        assert np.array_equal(result, given) and result.dtype == given.dtype


def test_torch_values():
    values = [torch.Size([1, 2]), torch.device("cuda:1"), torch.float16]
    assert value_of(values) == values


def test_other_objects_stay_records(monkeypatch):
    part = torch.nn.Softplus()
    monkeypatch.setattr(torch.nn.Softplus, "__setstate__", lambda self, state: pytest.fail("called"))
    record = read(pickle.dumps(part))
    assert (record.name, record.args) == ("torch.nn.modules.activation.Softplus", ())
    assert record.state["beta"] == 1
    with pytest.raises(ValueError, match="Softplus"):
        inert_pickle.value(record)


# What is refused

CALLS = {
    "posix.system": (os.system, "touch {marker}"),
    "builtins.eval": (eval, "open('{marker}', 'w')"),
    "builtins.exec": (exec, "open('{marker}', 'w')"),
    "builtins.getattr": (getattr, "a", "b"),
    "functools.partial": (functools.partial, os.system, "touch {marker}"),
    "torch.serialization.load": (torch.load, "{marker}"),
    "torch.hub.load_state_dict_from_url": (torch.hub.load_state_dict_from_url, "{marker}"),
    "_io.open": (open, "{marker}", "w"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
@pytest.mark.parametrize("name", CALLS)
def test_calls(tmp_path, name, protocol):
    marker = tmp_path / "was here"
    function, *args = CALLS[name]
    args = [arg.format(marker=marker) if isinstance(arg, str) else arg for arg in args]
    with pytest.raises(RefusedName) as error:
        read(pickle.dumps(Calls(function, *args), protocol=protocol))
    assert error.value.name in (name, name.replace("_io", "io"))
    assert not marker.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("torch", "serialization.load"),  # protocol 4 reaches attributes by dots
        ("training.triplane", "torch.load"),
        ("torch.nn.modules.module", "torch.hub.load"),
        ("torch", "load"),
        ("training", "__builtins__.eval"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch_utils.persistence", "exec"),
        ("dnnlib.util", "construct_class_by_name"),
        ("training triplane", "x"),
        ("trainingx", "y"),
        ("", ""),
    ],
)
def test_names(module, name):
    stack_global = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93."
    with pytest.raises(RefusedName) as error:
        read(stack_global)
    assert error.value.name == f"{module}.{name}"


def test_a_storage_is_not_a_way_to_torch_load(tmp_path):
    marker = tmp_path / "was here"
    load = torch.storage._load_from_bytes
    evil = pickle.dumps(Calls(os.system, f"touch {marker}"))
    with pytest.raises(RefusedName):
        value_of(Calls(load, evil))
    zipped = io.BytesIO()
    torch.save({"a": Calls(os.system, f"touch {marker}")}, zipped)
    with pytest.raises(ValueError):
        value_of(Calls(load, zipped.getvalue()))
    legacy = io.BytesIO()
    torch.save(Calls(os.system, f"touch {marker}"), legacy, _use_new_zipfile_serialization=False)
    with pytest.raises(RefusedName):
        value_of(Calls(load, legacy.getvalue()))
    assert not marker.exists()


SET = b"cbuiltins\nset\n"  # a name that is known


@pytest.mark.parametrize(
    "instructions",
    [
        SET + b"}b.",  # attributes for a class
        SET + b"(lK\x01a.",  # the old instruction for a list
        b"(" + SET + b"o.",  # OBJ
        b"(i__main__\nset\n.",  # INST
        b"Pid\n.",  # PERSID
        b"\x82\x01.",  # EXT1
        b"X\x03\x00\x00\x00abc)R.",  # a call of text
        SET + b"K\x01R.",  # arguments that are no tuple
        SET + b")R)R.",  # a call of an object
        SET + b")RK\x01a.",  # append to an object
        SET + b")RK\x01K\x02s.",  # item of an object
        SET + b")R}b}b.",  # state given twice
        b"](K\x01K\x02u.",  # items of a list
        b"}K\x01a.",  # append to a dict
        b"}(K\x01K\x01tK\x01s.",  # a tuple as a key
        b"}]K\x01s.",  # a list as a key
        b"h\x05.",  # a reference to nothing
        b"K\x01",  # no end
        b".",
        b"R.",
        b"t.",
        b"0.",
    ],
)
def test_instructions(instructions):
    for start in (b"\x80\x02", b"\x80\x04"):
        with pytest.raises(ValueError):
            read(start + instructions)


def test_a_persistent_id_means_nothing():
    with pytest.raises(ValueError, match="persistent id"):
        inert_pickle.value(read(b"\x80\x02K\x01Q."))


@pytest.mark.parametrize("content", [b"", b"\x80", b"a text file\n", b"PK\x03\x04", b"I" + b"9" * 5000 + b"\n.", b"\x00" * 99])
def test_other_files(content):
    with pytest.raises(ValueError):
        read(content)


# Memory


@pytest.fixture
def little_memory():
    """Half a gigabyte more than there is in use now."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "content",
    [
        b"\x8e" + (2**40).to_bytes(8, "little") + b"abc.",  # bytes
        b"\x96" + (2**40).to_bytes(8, "little") + b"abc.",  # bytearray
        b"\x8d" + (2**40).to_bytes(8, "little") + b"abc.",  # text
        b"\x8b" + (2**30).to_bytes(4, "little") + b"abc.",  # a number
        b"\x95" + (2**40).to_bytes(8, "little"),  # a frame
    ],
)
def test_claimed_lengths_allocate_nothing(little_memory, content):
    with pytest.raises(ValueError):
        read(b"\x80\x05" + content)


def test_a_reference_with_a_large_number_is_just_a_number(little_memory):
    assert read(b"\x80\x02K\x01r\xff\xff\xff\x7f.") == 1


def test_small_content_cannot_be_multiplied(little_memory):
    side = 2**11
    blob = io.BytesIO()
    torch.save(torch.zeros(side * side)._typed_storage(), blob, _use_new_zipfile_serialization=False)
    blob = blob.getvalue()  # 16 MB

    def tensor(size, stride, offset=0):
        storage = Calls(torch.storage._load_from_bytes, blob)
        return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})

    many = value_of([tensor((side, side), (1, side)) for _ in range(100)])
    assert len({item.data_ptr() for item in many}) == 1 and torch.equal(many[99], torch.zeros(side, side))
    for too_many in (tensor((2**40,), (0,)), tensor((1,), (1,), offset=side * side), tensor((-1,), (1,))):
        with pytest.raises(ValueError):
            value_of(too_many)
    with pytest.raises(ValueError):
        value_of(Calls(set, list(range(1000))))
    doubled = []
    for _ in range(100):
        doubled = [doubled, doubled]  # 2**100 lists, were they copied one by one
    assert len(value_of(doubled)) == 2


def test_no_end_of_instructions():
    with pytest.raises(ValueError, match="instructions"):
        read(b"\x80\x04" + b"N" * (MAX_INSTRUCTIONS + 1) + b".")


def test_depth():
    depth = 10_000
    nested = read(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    with pytest.raises(RecursionError):
        inert_pickle.value(nested)
    assert isinstance(read(b"\x80\x02" + SET * 2 + b"."), Name) and isinstance(read(b"\x80\x02" + SET + b")R."), Record)
