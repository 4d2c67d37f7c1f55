"""Reads pickles without running anything in them.

`read` follows the instructions of a pickle but calls nothing: where the file asks for a call or an object, the result contains
a `Record` of the request.  `value` converts records of tensors and numbers to the real thing, using only code of this project.
Callers decide what to do with other records.

Names are checked against a list, so a file that asks for anything unusual is refused at once.  Memory use is bounded by the
size of the file and by `MAX_INSTRUCTIONS`: nothing is allocated just because the file says so, and no content is allocated
twice.
"""

import collections
import io
import math
import pickletools
import re
from typing import Any, BinaryIO, Callable

import numpy as np
import torch

from dnnlib import EasyDict

MAX_INSTRUCTIONS = 5_000_000  # a large snapshot has about 100,000


class RefusedName(Exception):
    """A pickle asks for a name that is not on the list.  `name` holds it as 'module.name'."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


class Name:
    """A class or function that a pickle refers to."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class Record:
    """An object of a pickle in terms of its instructions: the call `name(*args)`, and the `state` passed to it, or None."""

    __slots__ = ("name", "args", "state")

    def __init__(self, name: str, args: tuple):
        self.name = name
        self.args = args
        self.state: Any = None


def read(stream: BinaryIO) -> Any:
    """Read the pickle at the position of `stream`, as plain values, containers, `Name` and `Record`.

    `stream` is a memory map or BytesIO and ends up behind the pickle.  Raises RefusedName for a name that is not on the list,
    and ValueError if the data are damaged or not a pickle of protocol 2 or later.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_INSTRUCTIONS:
                raise ValueError(f"it has more than {MAX_INSTRUCTIONS} instructions")
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, OverflowError):
        raise ValueError("its instructions are inconsistent") from None
    return machine.result


# Names

_DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool)}
_DTYPES |= {str(dtype): dtype for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)}
_STORAGES = {  # names of storage classes, as the bytes of a tensor mention them
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
}
_DICTS = {"collections.OrderedDict": collections.OrderedDict, "dnnlib.EasyDict": EasyDict, "dnnlib.util.EasyDict": EasyDict}
PERSISTENT_OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
# Objects that networks of this family store by name.  They are recorded, never imported.
_PARTS = re.compile(r"(training|torch\.nn\.modules)(\.[A-Za-z_]\w*)+")


def _check_name(module: str, name: str) -> Name:
    full = f"{module}.{name}"
    listed = full in _DICTS or full in CONVERSIONS or full in _DTYPES or full in _STORAGES or full in _ARGUMENTS
    if "." in name or not (listed or full == PERSISTENT_OBJECT or _PARTS.fullmatch(full)):
        raise RefusedName(full)
    return Name(full)


# Pickle's stack machine, without its calls

_LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SCALARS = (str, int, float, bool, bytes, type(None))


class _Machine:
    """Builds the content of a pickle, one instruction at a time.  Types are compared exactly, so no stored method can run."""

    def __init__(self):
        self.result: Any = None
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each open mark
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one instruction, named as in `pickletools`.  Raises ValueError for those that snapshots do not contain."""
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self._stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            self._stack.append(tuple(self._pop(_TUPLES[opcode])))
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise ValueError(f"unexpected instruction {opcode}")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _stop(self, _: Any) -> None:
        self.result = self._stack.pop()

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _tuple(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items))

    def _frozenset(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append(frozenset(map(_scalar, items)))

    # References

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    # Containers

    def _extend(self, items: list[Any]) -> None:
        _require(type(self._stack[-1]) is list)
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        _require(type(target) in (dict, *_DICTS.values()))
        for key, item in zip(items[::2], items[1::2]):
            target[_scalar(key)] = item

    def _add(self, _: Any) -> None:
        items = self._pop_to_mark()
        _require(type(self._stack[-1]) is set)
        self._stack[-1].update(map(_scalar, items))

    # Names and objects

    def _global(self, text: str) -> None:
        self._stack.append(_check_name(*text.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        _require(type(module) is str and type(name) is str)
        self._stack.append(_check_name(module, name))

    def _call(self, _: Any) -> None:
        name, args = self._pop(2)
        _require(type(name) is Name and type(args) is tuple)
        container = _DICTS.get(name.text) if args == () else None
        self._stack.append(Record(name.text, args) if container is None else container())

    def _build(self, _: Any) -> None:
        target, state = self._pop(2)
        _require(type(target) is Record and target.state is None)
        target.state = state
        self._stack.append(target)

    def _persistent(self, _: Any) -> None:
        self._stack.append(Record("a persistent id", (self._stack.pop(),)))


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "STOP": _Machine._stop,
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "FROZENSET": _Machine._frozenset,
    "MEMOIZE": _Machine._memoize,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "APPEND": lambda machine, _: machine._extend(machine._pop(1)),
    "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "SETITEM": lambda machine, _: machine._update(machine._pop(2)),
    "SETITEMS": lambda machine, _: machine._update(machine._pop_to_mark()),
    "ADDITEMS": _Machine._add,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}


def _require(condition: bool) -> None:
    if not condition:
        raise TypeError


def _scalar(key: Any) -> Any:
    """`key`, provided that it is safe to hash: a deeply nested tuple would overflow the interpreter's stack."""
    _require(type(key) in _SCALARS)
    return key


# Conversion of records


def value(item: Any) -> Any:
    """Convert the records in `item` to tensors, arrays and numbers, in new containers.

    Parameters become plain tensors, NumPy numbers become Python numbers, and arrays are read-only.  Raises ValueError for
    records of other objects, and RecursionError if the nesting is too deep.
    """
    try:
        return _Values().of(item)
    except RecursionError:
        raise
    except (TypeError, IndexError, KeyError, AttributeError, OverflowError, RuntimeError):
        raise ValueError("one of its values is inconsistent") from None


class _Values:
    """Converts items, each of them once."""

    def __init__(self):
        self._done: dict[int, Any] = {}  # results by the identity of the item
        self._storages: dict[int, torch.Tensor] = {}  # storages by the identity of their bytes

    def of(self, item: Any) -> Any:
        kind = type(item)
        if kind in _SCALARS or kind in (bytearray, set, frozenset):
            return item
        if id(item) not in self._done:
            if kind is list or kind in (dict, *_DICTS.values()):
                self._done[id(item)] = result = kind()  # registered before its content, which may contain the item itself
                if kind is list:
                    result.extend(map(self.of, item))
                else:
                    result.update((key, self.of(content)) for key, content in item.items())
            elif kind is tuple:
                self._done[id(item)] = tuple(map(self.of, item))
            elif kind is Record and item.name in CONVERSIONS:
                state = () if item.state is None else (item.state,)
                self._done[id(item)] = CONVERSIONS[item.name](self, *item.args, *state)
            elif kind is Name and item.text in _DTYPES:
                self._done[id(item)] = _DTYPES[item.text]
            else:
                raise ValueError(f"{item.name if kind is Record else item.text} is where a value should be")
        return self._done[id(item)]

    def parameter(self, data: Record, *_: Any) -> torch.Tensor:
        """The tensor of a parameter, without its `requires_grad` and hooks."""
        return self.of(data)

    def tensor(self, storage: Record, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
        """A tensor as a view of its storage."""
        memory = self.of(storage)
        _require(all(type(number) is int and number >= 0 for number in (offset, *size, *stride)))
        _require(math.prod(size) <= memory.numel())  # with strides of 0, one number could become a huge tensor
        return memory.as_strided(size, stride, offset)

    def storage(self, content: bytes) -> torch.Tensor:
        """The numbers [n] of a storage in the old format of torch.save, which pickled tensors contain."""
        _require(type(content) is bytes)
        if id(content) in self._storages:  # another tensor shares the storage
            return self._storages[id(content)]
        stream = io.BytesIO(content)
        try:
            magic, version, system, record, keys = (read(stream) for _ in range(5))
        except ValueError:
            raise ValueError("one of its tensors is damaged") from None
        if (magic, version, system["little_endian"]) != (_TORCH_MAGIC, _TORCH_VERSION, True) or len(keys) != 1:
            raise ValueError("one of its tensors has an unknown format")
        _, kind, _, _, _, part_of_another = record.args[0]
        _require(part_of_another is None)
        dtype, start = _STORAGES[kind.text], stream.tell() + 8
        count = int.from_bytes(content[start - 8 : start], "little")
        _require(start + count * dtype.itemsize <= len(content))
        memory = torch.empty([count], dtype=dtype)
        memory.view(torch.uint8).numpy()[:] = np.frombuffer(content, np.uint8, count * dtype.itemsize, start)
        self._storages[id(content)] = memory
        return memory

    def size(self, numbers: tuple) -> torch.Size:
        _require(len(numbers) <= _MAX_SET)
        return torch.Size(self.of(numbers))

    def device(self, *args: Any) -> torch.device:
        return torch.device(*args)

    def set(self, items: Any = ()) -> set:
        _require(len(items) <= _MAX_SET)
        return set(map(_scalar, items))

    def numpy_dtype(self, code: str, *state: Any) -> np.dtype:
        """The dtype with a code such as 'f8'.  Its byte order is in the state: (version, order, ...)."""
        _require(type(code) is str and re.fullmatch(r"b1|[iuf][1248]", code) is not None)
        return np.dtype(code).newbyteorder(state[-1][1] if state and type(state[-1]) is tuple else "|")

    def numpy_scalar(self, dtype: Record, content: bytes) -> Any:
        """A NumPy number as a Python number."""
        return np.frombuffer(content, self.of(dtype), 1)[0].item()

    def numpy_array(self, _kind: Name, _shape: tuple, _code: bytes, state: tuple) -> np.ndarray:
        _version, shape, dtype, columns_first, content = state
        return self.numpy_buffer(content, dtype, shape, "F" if columns_first else "C")

    def numpy_buffer(self, content: bytes | bytearray, dtype: Record, shape: tuple, order: str) -> np.ndarray:
        return np.frombuffer(content, self.of(dtype)).reshape(shape, order=order)


_MAX_SET = 64  # many objects can share one list of items, but the sets that networks store are empty or small
_TORCH_MAGIC, _TORCH_VERSION = 0x1950A86A20F9469CFC6C, 1001
CONVERSIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_parameter": _Values.parameter,
    "torch._utils._rebuild_parameter_with_state": _Values.parameter,
    "torch._utils._rebuild_tensor_v2": _Values.tensor,
    "torch.storage._load_from_bytes": _Values.storage,
    "torch.Size": _Values.size,
    "torch.device": _Values.device,
    "builtins.set": _Values.set,
    "numpy.dtype": _Values.numpy_dtype,
}
for _module in ("numpy.core", "numpy._core"):  # before numpy 2.0, and since
    CONVERSIONS[f"{_module}.multiarray.scalar"] = _Values.numpy_scalar
    CONVERSIONS[f"{_module}.multiarray._reconstruct"] = _Values.numpy_array
    CONVERSIONS[f"{_module}.numeric._frombuffer"] = _Values.numpy_buffer
_ARGUMENTS = ("numpy.ndarray",)  # passed as arguments, never called
