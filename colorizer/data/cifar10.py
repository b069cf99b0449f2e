"""Reads CIFAR-10 from an untrusted archive or folder in the official "python version" layout."""

import io
import pickle
import pickletools
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from colorizer.errors import DataError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_BATCHES = tuple(f"data_batch_{index}" for index in range(1, 6))
_BATCH_IMAGES = 10_000
_MAX_MEMBER_BYTES = 64 * 2**20  # an official batch has 31 MB


def read_batches(source: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read and check the six batches.

    Args:
        source: a tar archive (plain, gz or xz), or the unpacked folder.

    Returns:
        for each of `TRAIN_BATCHES` and `test_batch`, images, uint8 (10000, 32, 32, 3), and labels, uint8 (10000,).

    Raises:
        DataError: it is unreadable, incomplete, mislabelled, or holds anything that CIFAR-10 does not.
    """
    wanted = {*TRAIN_BATCHES, "test_batch", "batches.meta"}
    found: dict[str, dict] = {}
    try:
        for name, raw in _members(source, wanted):
            found[name] = _unpickle(raw, name)
            if len(found) == len(wanted):
                break
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{source} cannot be read as a CIFAR-10 archive ({error}). Give the official python version, "
            "as .tar.gz, .tar.xz or unpacked."
        ) from error
    if missing := sorted(wanted - set(found)):
        raise DataError(f"{source} lacks {missing[0]}. Give the official python version of CIFAR-10.")
    names = found.pop("batches.meta").get(b"label_names")
    if names != [name.encode() for name in CLASS_NAMES]:
        readable = isinstance(names, list) and all(isinstance(name, bytes) for name in names)
        received = b", ".join(names)[:60].decode("ascii", "replace") if readable else "none that can be read"
        raise DataError(f"{source} has other classes than CIFAR-10: {received}. Is it another data set?")
    batches = {name: _check_batch(batch, name) for name, batch in found.items()}
    for split, members in (("training", TRAIN_BATCHES), ("test", ("test_batch",))):
        counts = np.bincount(np.concatenate([batches[name][1] for name in members]), minlength=10)
        if len(set(counts)) != 1:
            raise DataError(
                f"{source} is mislabelled: its {split} images per class are {counts.tolist()}, expected "
                f"{counts.sum() // 10} of each. Get the archive again."
            )
    return batches


def _members(source: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the wanted files of a folder or a tar archive, without unpacking it."""
    if source.is_dir():
        inner = source / "cifar-10-batches-py"
        for path in sorted((inner if inner.is_dir() else source).iterdir()):
            if path.name in wanted and path.is_file():
                _check_size(path.name, path.stat().st_size)
                yield path.name, path.read_bytes()
        return
    with tarfile.open(source, "r|*") as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            _check_size(name, member.size)
            if name in wanted and member.isfile():
                yield name, archive.extractfile(member).read()


def _check_size(name: str, size: int) -> None:
    if size > _MAX_MEMBER_BYTES:
        raise DataError(f"{name} has {size:,} bytes, more than any file of CIFAR-10. Give the official archive.")


class _Inert:
    """Stands in for what a NumPy array is pickled with: keeps what it is given, runs nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BatchUnpickler(pickle.Unpickler):
    """Admits the three names that a NumPy array needs, as inert stand-ins, and nothing else."""

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if f"{module}.{name}" not in ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-10 never does")
        return _Inert


def _unpickle(raw: bytes, name: str) -> dict:
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            # A memo index beyond the file's length would only serve to exhaust memory.
            if opcode.name.endswith("PUT") and argument > len(raw):
                raise pickle.UnpicklingError("its memo is out of range")
        content = _BatchUnpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can raise nearly anything
        reason = str(error)[:200]
        raise DataError(f"{name} is damaged or not from CIFAR-10: {reason}. Get the archive again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{name} holds a {type(content).__name__}, expected a dict. Get the archive again.")
    return content


def _check_batch(batch: dict, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (10000, 32, 32, 3) and labels (10000,), both uint8."""
    data, labels = batch.get(b"data"), batch.get(b"labels")
    shape = (_BATCH_IMAGES, 3072)
    try:
        _, received_shape, array_type, fortran_order, raw = data.state
        code = array_type.arguments[0]
        if received_shape != shape or code not in ("u1", b"u1") or len(raw) != shape[0] * shape[1]:
            raise ValueError
        planes = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran_order else "C")
    except (AttributeError, IndexError, TypeError, ValueError):
        raise DataError(f"{name} does not hold {shape} bytes of images. Get the archive again.") from None
    whole = isinstance(labels, list) and len(labels) == _BATCH_IMAGES
    if not whole or not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise DataError(f"{name} does not hold {_BATCH_IMAGES:,} labels from 0 to 9. Get the archive again.")
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.uint8)
