"""Finds and downloads CIFAR-10, and prepares it once as arrays that are then memory-mapped."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from colorizer import config
from colorizer.data import official
from colorizer.errors import ColorizerError, ConfigError, DataError
from colorizer.storage import replace_folder

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_BATCHES = tuple(f"data_batch_{index}" for index in range(1, 6))
SPLIT_SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}

# The address and the SHA-256 of the official archive are those in keras/src/datasets/cifar10.py.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

_FOLDER = "cifar-10-batches-py"
_WANTED = {*TRAIN_BATCHES, "test_batch", "batches.meta"}
_MAX_MEMBER_BYTES = 64 * 2**20  # An official batch has 31 MB.
_threads = threading.Lock()

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images, uint8 (N, 32, 32, 3), and labels, uint8 (N,), by the name of the split or of the batch."""


def read_batches(source: Path) -> Arrays:
    """Read and check the six batches of a tar archive (plain, gz or xz) or of the unpacked folder.

    Returns:
        images and labels of each of `TRAIN_BATCHES` and of `test_batch`, 10,000 each.

    Raises:
        DataError: the source is unreadable, incomplete or mislabelled, or holds something that CIFAR-10 does not.
    """
    found = official.read_pickles(source, "CIFAR-10", _FOLDER, _WANTED, _MAX_MEMBER_BYTES)
    names = found.pop("batches.meta").get(b"label_names")
    if names != [name.encode() for name in CLASS_NAMES]:
        readable = isinstance(names, list) and all(isinstance(name, bytes) for name in names)
        received = b", ".join(names)[:60].decode("ascii", "replace") if readable else "none that can be read"
        raise DataError(f"{source} has other classes than CIFAR-10: {received}. Is it another data set?")
    batches = {name: official.check_batch(batch, name, 10_000, b"labels", 10) for name, batch in found.items()}
    for split, members in (("training", TRAIN_BATCHES), ("test", ("test_batch",))):
        counts = np.bincount(np.concatenate([batches[name][1] for name in members]), minlength=10)
        if len(set(counts)) != 1:
            raise DataError(
                f"{source} is mislabelled: its {split} images per class are {counts.tolist()}, expected "
                f"{counts.sum() // 10} of each. Get the archive again."
            )
    return batches


def cifar10_status() -> dict[str, Any]:
    """Say where CIFAR-10 would come from now, by names and sizes of files alone; this never raises.

    Returns:
        dict with `state` (`prepared`; `found` if COLORIZER_CIFAR10 names a file or folder with content; `invalid` if
        it names anything else; or `missing`), `path` and `bytes`.
    """
    cache, source = "", os.environ.get("COLORIZER_CIFAR10")
    with contextlib.suppress(ColorizerError, OSError):
        cache = _cache_folder()
        if _open_cache(cache) is not None:
            size = sum(file.stat().st_size for file in cache.iterdir())
            return {"state": "prepared", "path": str(cache), "bytes": size}
    if not source:
        return {"state": "missing", "path": str(cache), "bytes": 0}
    try:
        path = config.expand_path(source)
    except ConfigError:
        return {"state": "invalid", "path": source, "bytes": 0}
    size = official.count_bytes(path, _FOLDER, _WANTED)
    return {"state": "found" if size else "invalid", "path": str(path), "bytes": size}


def download_cifar10(on_progress: Callable[[int, int], None] = lambda received, total: None) -> None:
    """Download the official archive (170 MB), check it and prepare it.

    Args:
        on_progress: called with the number of bytes received and of all bytes.

    Raises:
        DataError: the archive cannot be downloaded or stored, or is another file than the official one.
    """
    folder = config.home() / "downloads"
    with _preparing():
        if _open_cache(_cache_folder()) is None:  # Another visitor's download may have just ended.
            try:
                instead = "set COLORIZER_CIFAR10 to an archive you have"
                _prepare(official.download("CIFAR-10", CIFAR10_URL, CIFAR10_SHA256, folder, instead, on_progress))
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def load_cifar10() -> Arrays:
    """Memory-map the splits `train`, `validation` and `test`; on first use they are prepared, which takes seconds.

    Raises:
        DataError: CIFAR-10 is not on this machine, or its source is damaged, or it cannot be stored.
    """
    folder = _cache_folder()
    if splits := _open_cache(folder):
        return splits
    source = os.environ.get("COLORIZER_CIFAR10")
    if not source:
        raise DataError(
            "CIFAR-10 is not on this machine. Run 'python -m colorizer data --download', or set COLORIZER_CIFAR10 "
            "to the official archive or its unpacked folder."
        )
    try:
        path = config.expand_path(source)
    except ConfigError as error:
        raise DataError(f"COLORIZER_CIFAR10 names no archive: {error}") from None
    with _preparing():
        if _open_cache(folder) is None:  # Another thread or process may have prepared it meanwhile.
            _prepare(path)
    if splits := _open_cache(folder):
        return splits
    raise DataError(f"The prepared CIFAR-10 in {folder} cannot be read. Delete that folder and try again.")


def _cache_folder() -> Path:
    return config.home() / "data" / "cifar10"


def _open_cache(folder: Path) -> Arrays | None:
    """Memory-map the prepared arrays, or return None if they are not there or not whole."""
    splits = {}
    with contextlib.suppress(OSError, ValueError, EOFError):
        for name, size in SPLIT_SIZES.items():
            images = np.load(folder / f"{name}_images.npy", mmap_mode="r")
            labels = np.load(folder / f"{name}_labels.npy")
            if images.shape == (size, 32, 32, 3) and images.dtype == np.uint8 and labels.shape == (size,):
                splits[name] = images, labels
    return splits if len(splits) == len(SPLIT_SIZES) else None


@contextlib.contextmanager
def _preparing() -> Iterator[None]:
    """Let one thread of one process prepare at a time, and delete what killed processes left half prepared."""
    folder = _cache_folder().parent
    with _threads, contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(folder / ".lock"))
        except OSError as error:
            raise _storage_error(error) from error
        # Whoever prepares holds the lock, so the process that began any staging folder found here is dead.
        for leftover in folder.glob(".staging-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _prepare(source: Path) -> None:
    """Read an archive or folder and put the cache in place in one step, or not at all."""
    batches = read_batches(source)
    images, labels = (np.concatenate([batches[name][part] for name in TRAIN_BATCHES]) for part in (0, 1))
    train, validation = np.split(np.random.default_rng(0).permutation(len(images)), [SPLIT_SIZES["train"]])
    arrays = {
        "train": (images[train], labels[train]),
        "validation": (images[validation], labels[validation]),
        "test": batches["test_batch"],
    }
    try:
        with replace_folder(_cache_folder()) as staging:
            for name, (split_images, split_labels) in arrays.items():
                np.save(staging / f"{name}_images.npy", split_images)
                np.save(staging / f"{name}_labels.npy", split_labels)
    except OSError as error:
        raise _storage_error(error) from error


def _storage_error(error: OSError) -> DataError:
    return DataError(
        f"CIFAR-10 could not be prepared in {_cache_folder()} ({error.strerror or error}). Free about 200 MB there, "
        "or set COLORIZER_HOME to another folder."
    )
