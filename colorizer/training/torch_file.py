"""Reads tensors from a file of PyTorch's first format, without PyTorch, from sources that are not trusted.

Such a file is five pickles followed by raw numbers. An interpreter of the few pickle instructions that tensors need
reads it. It knows no classes and calls no functions by name, so nothing in the file can be executed.
"""

import io
import math
import pickletools
import warnings
from typing import Any, NamedTuple

import numpy as np

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # Every file starts with this number, as a pickle.
_MAX_INSTRUCTIONS = 50_000  # The pickles of EfficientNet-Lite0 have 11,325 instructions.
_MAX_SIDES = 4
_DICTIONARY, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_TYPES = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """Read a dictionary of float32 and int64 tensors; the arrays are views, so they take no more memory than `data`.

    Raises:
        ValueError: the file is damaged, or it holds anything else; the message is a clause with the subject "it".
    """
    file, storages = io.BytesIO(data), {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Damaged text can have wrong escapes, of which Python warns.
            for _ in range(3):  # The magic number, a protocol version, and facts about the machine.
                _read_pickle(file, {})
            tensors, keys = _read_pickle(file, storages), _read_pickle(file, {})
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError("its pickle is damaged") from error
    if type(tensors) is not dict or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it holds no dictionary of tensors")
    if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
        raise ValueError("it has no list of its numbers")
    for key in keys:
        storage, length = storages[key], int.from_bytes(file.read(8), "little")
        numbers = file.read(storage.length * storage.dtype.itemsize) if length == storage.length else b""
        if len(numbers) != length * storage.dtype.itemsize:
            raise ValueError("it has fewer numbers than it states")
        storage.values = np.frombuffer(numbers, storage.dtype)
    return {name: tensor.read() for name, tensor in tensors.items()}


class _Name(str):
    """The name of a class or function that the file asks for, like `torch FloatStorage`."""


class _Name(str):
    """The name of a class or function that the file asks for, like `torch FloatStorage`."""


class _Storage:
    """A flat array that follows the pickles."""

    def __init__(self, name: Any, key: Any, length: Any) -> None:
        if not isinstance(name, _Name) or name not in _TYPES or type(key) is not str or type(length) is not int:
            raise ValueError("it has a tensor of an unknown type")
        self.dtype, self.length = _TYPES[name], length
        self.values: np.ndarray | None = None


class _Tensor(NamedTuple):
    """A part of a storage, which is read when its numbers are there. The strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Return a read-only view of the storage."""
        values = self.storage.values
        last = self.offset + sum((side - 1) * step for side, step in zip(self.shape, self.strides, strict=True))
        if values is None or last >= len(values) or math.prod(self.shape) > len(values):
            raise ValueError("it has a tensor that reaches outside its numbers")
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


def _call(name: Any, arguments: Any) -> Any:
    """Make what a pickle calls by this name: an empty dictionary, or a tensor."""
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise ValueError("it calls something that has no name")
    if name == _DICTIONARY and not arguments:
        return {}
    if name != _TENSOR or len(arguments) < 4:
        raise ValueError("it makes something else than tensors")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("it has a tensor without numbers or without a shape")
    if not len(shape) == len(strides) <= _MAX_SIDES:
        raise ValueError(f"it has a tensor with more than {_MAX_SIDES} sides, or a side without a stride")
    if not all(type(number) is int and 0 <= number <= storage.length for number in (offset, *shape, *strides)):
        raise ValueError("it has a tensor that reaches outside its numbers")
    return _Tensor(storage, offset, shape, strides)


def _set_items(target: Any, items: list[Any]) -> None:
    if type(target) is not dict or not all(type(key) is str for key in items[::2]):
        raise ValueError("it holds a dictionary with other keys than text")
    target.update(zip(items[::2], items[1::2], strict=True))


def _read_pickle(file: io.BytesIO, storages: dict[str, _Storage]) -> Any:
    """Interpret one pickle of text, whole numbers, tuples, lists, dictionaries and tensors.

    The instructions are those of the module `pickletools`.

    Args:
        file: where to read; afterwards it stands behind the pickle.
        storages: gets the storages that the pickle names.

    Raises:
        ValueError: the pickle is damaged, or it holds anything else.
        IndexError, KeyError, TypeError: the pickle uses values that it has not made.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if count == _MAX_INSTRUCTIONS:
            raise ValueError("its pickle is too long")
        match instruction.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction.name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1":
                stack.append((stack.pop(),))
            case "TUPLE2":
                stack[-2:] = [(stack[-2], stack[-1])]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = pop_to_mark()
                _set_items(stack[-1], items)
            case "APPENDS":
                items = pop_to_mark()
                if type(stack[-1]) is not list:
                    raise ValueError("it appends to something else than a list")
                stack[-1].extend(items)
            case "GLOBAL":
                if argument not in (_DICTIONARY, _TENSOR, *_TYPES):
                    name = argument.replace(" ", ".")
                    raise ValueError(f"it asks for {ascii(name)[1:-1][:60]}, and only tensors are allowed")
                stack.append(_Name(argument))
            case "REDUCE":
                arguments, name = stack.pop(), stack.pop()
                stack.append(_call(name, arguments))
            case "BINPERSID":
                # PyTorch names a storage by the word "storage", its type, its key, its device and its length.
                identity = stack.pop()
                if not isinstance(identity, tuple) or len(identity) < 5:
                    raise ValueError("it names a storage in an unknown way")
                storage = _Storage(identity[1], identity[2], identity[4])
                stack.append(storages.setdefault(identity[2], storage))
            case "BUILD":
                stack.pop()  # This state of the dictionary counts versions, which nothing here needs.
            case name:
                raise ValueError(f"it holds the pickle instruction {name}, which no tensor needs")
    raise ValueError("its pickle has no end")
