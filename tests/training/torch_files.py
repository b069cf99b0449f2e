"""Writes files of PyTorch's first format, sound and hostile ones, from the bytes of pickle instructions."""

import struct

import numpy as np

from colorizer.training.efficientnet import list_convolutions
from colorizer.training.torch_file import MAGIC

PROTOCOL = b"\x80\x02"
STORAGE_TYPES = {"<f4": "FloatStorage", "<i8": "LongStorage"}


def text(value):
    """Return the instruction that makes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value):
    """Return the instruction that makes a whole number."""
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def numbers(values):
    """Return the instructions that make a tuple of whole numbers."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def name(module, function):
    """Return the instruction that asks for a class or function."""
    return f"c{module}\n{function}\n".encode()


def storage(key="0", length=6, kind="FloatStorage"):
    """Return the instructions that name a storage."""
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + integer(length) + b"NtQ"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, stored=None):
    """Return the instructions that make a tensor, which by default fits six numbers."""
    arguments = (storage() if stored is None else stored) + integer(offset) + numbers(shape) + numbers(strides)
    rest = b"\x89" + name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + rest + b"tR"


def dictionary(tensors):
    """Return the pickle of a dictionary of tensors, which are instructions, as PyTorch writes it."""
    items = b"".join(text(key) + value for key, value in tensors.items())
    return PROTOCOL + name("collections", "OrderedDict") + b")R(" + items + b"u."


def torch_file(tensors, storages):
    """Return a file with the pickle `tensors`, and with these arrays by their keys."""
    start = MAGIC + PROTOCOL + b"M\xe9\x03." + PROTOCOL + b"}."
    keys = PROTOCOL + b"](" + b"".join(map(text, storages)) + b"e."
    parts = [struct.pack("<q", array.size) + array.tobytes("A") for array in storages.values()]
    return start + tensors + keys + b"".join(parts)


def write_arrays(arrays):
    """Return a file with these arrays, each with a storage of its own, in an order in which the strides matter."""
    tensors, storages = {}, {}
    for key, array in arrays.items():
        stored = array.copy(order="F")
        identity = storage(key, array.size, STORAGE_TYPES[array.dtype.str])
        tensors[key] = tensor(array.shape, [step // array.itemsize for step in stored.strides], 0, identity)
        storages[key] = stored
    return torch_file(dictionary(tensors), storages)


def draw_weights(seed=0):
    """Return random weights of EfficientNet-Lite0 by their published names, with which signals keep their size."""
    generator, weights = np.random.default_rng(seed), {}
    for part in list_convolutions():
        shape = part.outputs, part.inputs, part.kernel, part.kernel
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{part.weights}.weight"] = (spread * generator.standard_normal(shape)).astype(np.float32)
        for key, (low, high) in {
            "weight": (0.8, 1.2),
            "bias": (-0.2, 0.2),
            "running_mean": (-0.2, 0.2),
            "running_var": (0.5, 1.5),
        }.items():
            weights[f"{part.normalization}.{key}"] = generator.uniform(low, high, part.outputs).astype(np.float32)
        weights[f"{part.normalization}.num_batches_tracked"] = np.array(7, np.int64)
    return weights
