"""Data sets: CIFAR-10 (archive, download, memory-mapped cache), the built-in samples, and synthetic images."""

import contextlib
import errno
import functools
import logging
import math
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from colorizer import config
from colorizer.config import ASSETS, MAX_LATENT_DIM
from colorizer.data import pictures
from colorizer.data.cifar10 import CLASS_NAMES as CLASS_NAMES
from colorizer.data.cifar10 import TRAIN_BATCHES, read_batches
from colorizer.errors import ConfigError, DataError
from colorizer.pixels.color import chroma_shares, to_uint8
from colorizer.storage import replace_folder

NUM_SAMPLES = 20
# Of the built-in samples: cat, ship, frog, automobile, airplane, truck, dog, horse.
SNAPSHOT_SAMPLES = (0, 1, 4, 6, 10, 11, 12, 13)

# Address and SHA-256 of the official archive, as in keras/src/datasets/cifar10.py.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

STATISTICS_PATH = ASSETS / "cifar10-statistics.npz"
_SPLIT_SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}
_SYNTHETIC_IMAGES = 20_000
_prepare_lock = threading.Lock()


@dataclass(frozen=True)
class Statistics:
    """Second-order statistics of images: covariance = factors.T @ factors. All are float32."""

    mean: np.ndarray  # (3072,), an image flattened from (32, 32, 3), in [0, 1]
    factors: np.ndarray  # (512, 3072), principal axes scaled by their standard deviation
    shares: np.ndarray  # (25, 25), how frequent each chroma is, as color.chroma_shares


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, 32, 32, 3), and their labels, uint8 (N,), indices into the data set's class names."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A data set with its three splits; `train` of `samples` is empty, labels without class names are zeros."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """Return the split called `train`, `validation` or `test`."""
        if name not in ("train", "validation", "test"):
            raise ConfigError(f"There is no split {name!r}. Choose train, validation or test.")
        return getattr(self, name)


def load_dataset(name: str) -> Dataset:
    """Open a data set.

    Args:
        name: `cifar10` (memory-mapped, prepared on first use), `samples` (20 built-in images) or `synthetic`
            (20,000 Gaussian training images; validation and test are the samples); or read anew each time, without
            classes: `cifar100` (by Keras, 45,000 images for training), `cifar100:PATH` (an .npz file with `x_train`
            and `x_val`, which serves as test too) and `folder:PATH` (pictures cut to 32 x 32, split by file).

    Raises:
        ConfigError: there is no such data set.
        DataError: it is not on this machine, or damaged.
    """
    config.validate_dataset(name)
    if name == "cifar10":
        return _load_cifar10()
    if name not in config.DATASETS:
        return Dataset(name, *map(_unlabelled, pictures.read_splits(name)))
    samples = load_samples()
    if name == "samples":
        return Dataset(name, Split(samples.images[:0], samples.labels[:0]), samples, samples, CLASS_NAMES)
    return Dataset(name, _unlabelled(draw_synthetic(_SYNTHETIC_IMAGES, seed=0)), samples, samples)


def num_train_images(name: str) -> int | None:
    """Return how many training images a data set has without opening it; None where only its files can tell."""
    sizes = {"cifar10": _SPLIT_SIZES["train"], "synthetic": _SYNTHETIC_IMAGES, "samples": 0, "cifar100": 45_000}
    return sizes.get(name)


def _unlabelled(images: np.ndarray) -> Split:
    return Split(images, np.zeros(len(images), np.uint8))


def load_samples() -> Split:
    """Return the first 20 CIFAR-10 test images, which ship with the package."""
    paths = sorted((ASSETS / "samples").glob("cifar10_*.png"))
    if not paths:
        raise DataError(f"The built-in samples are missing from {ASSETS / 'samples'}. Restore the assets folder.")
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return Split(images, np.array([int(path.stem.rsplit("_", 1)[1]) for path in paths], np.uint8))


def draw_synthetic(num_images: int, seed: int) -> np.ndarray:
    """Draw Gaussian images, uint8 (num_images, 32, 32, 3), with the mean and covariance of CIFAR-10's for training."""
    statistics = load_statistics()
    generator = np.random.default_rng(seed)
    images = np.empty((num_images, 32, 32, 3), np.uint8)
    for start in range(0, num_images, 2000):
        part = images[start : start + 2000]
        latent = generator.standard_normal((len(part), len(statistics.factors)), np.float32)
        values = statistics.mean + latent @ statistics.factors
        part[:] = to_uint8(values).reshape(part.shape)
    return images


def compute_statistics(images: np.ndarray) -> Statistics:
    """Compute mean, top 512 principal factors and chroma shares of images, uint8 (N, 32, 32, 3)."""
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0, dtype=np.float64) / 255
    covariance = np.zeros((flat.shape[1], flat.shape[1]))
    for start in range(0, len(flat), 5000):
        centred = flat[start : start + 5000].astype(np.float32) / 255 - mean.astype(np.float32)
        covariance += centred.T @ centred
    variances, axes = np.linalg.eigh(covariance / len(flat))
    top = np.argsort(variances)[::-1][:MAX_LATENT_DIM]
    factors = np.sqrt(np.maximum(variances[top], 0))[:, None] * axes[:, top].T
    return Statistics(mean.astype(np.float32), factors.astype(np.float32), chroma_shares(images))


def save_statistics(statistics: Statistics, path: Path = STATISTICS_PATH) -> None:
    """Write statistics, mean and factors as float16, 3.1 MB."""
    half = {name: getattr(statistics, name).astype(np.float16) for name in ("mean", "factors")}
    np.savez(path, **half, shares=statistics.shares)


@functools.lru_cache(maxsize=1)
def load_statistics() -> Statistics:
    """Read the statistics that ship with the package; a missing or damaged file raises `DataError`."""
    try:
        with np.load(STATISTICS_PATH, allow_pickle=False) as file:
            return Statistics(*(file[name].astype(np.float32) for name in ("mean", "factors", "shares")))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{STATISTICS_PATH} is missing or damaged ({error}). Restore the assets folder.") from error


def cifar10_status() -> dict[str, Any]:
    """Say where CIFAR-10 would come from now.

    Returns:
        dict with `state` (`prepared`, `found`: COLORIZER_CIFAR10 names a source, or `missing`), `path` and `bytes`.
    """
    cache = _cache_folder()
    if _open_cache(cache) is not None:
        return {"state": "prepared", "path": str(cache), "bytes": sum(file.stat().st_size for file in cache.iterdir())}
    if source := os.environ.get("COLORIZER_CIFAR10"):
        path = Path(source).expanduser()
        files = [path] if path.is_file() else path.glob("**/*_batch*")
        return {"state": "found", "path": str(path), "bytes": sum(file.stat().st_size for file in files)}
    return {"state": "missing", "path": str(cache), "bytes": 0}


def download_cifar10(on_progress: Callable[[int, int], None] = lambda received, total: None) -> Dataset:
    """Download the official archive (170 MB), check it and prepare it.

    Args:
        on_progress: called with bytes received and bytes in all.

    Raises:
        DataError: there is no network, or what came is not the official archive.
    """
    import pooch  # brings requests, which listing and decoding need not wait for

    received = 0

    def update(count: int) -> None:
        nonlocal received
        received = min(received + count, progress.total or math.inf)
        on_progress(received, progress.total)

    # The part of tqdm's interface that pooch needs. It counts whole chunks, then starts again to set the true total,
    # which is kept here all along.
    progress = SimpleNamespace(total=0, update=update, reset=lambda: None, close=lambda: None)
    pooch.get_logger().setLevel(logging.WARNING)
    folder = config.home() / "downloads"
    try:
        with _prepare_lock:
            if _open_cache(_cache_folder()) is None:  # else another visitor's download has just ended
                downloader = pooch.HTTPDownloader(progressbar=progress, timeout=8)
                archive = pooch.retrieve(CIFAR10_URL, f"sha256:{CIFAR10_SHA256}", path=folder, downloader=downloader)
                _prepare(Path(archive))
                shutil.rmtree(folder, ignore_errors=True)
    except (OSError, ValueError) as error:
        reason = "the file received is not the official one" if isinstance(error, ValueError) else "no connection"
        if getattr(error, "errno", None) == errno.ENOSPC:
            reason = "the disk is full"
        raise DataError(
            f"CIFAR-10 could not be downloaded from {CIFAR10_URL} ({reason}). Check the network, or set "
            "COLORIZER_CIFAR10 to an archive you have."
        ) from error
    return _load_cifar10()


def _cache_folder() -> Path:
    return config.home() / "data" / "cifar10"


def _load_cifar10() -> Dataset:
    folder = _cache_folder()
    if dataset := _open_cache(folder):
        return dataset
    source = os.environ.get("COLORIZER_CIFAR10")
    if not source:
        raise DataError(
            "CIFAR-10 is not on this machine. Run 'python -m colorizer data --download', or set COLORIZER_CIFAR10 "
            "to the official archive or its unpacked folder."
        )
    with _prepare_lock:
        if _open_cache(folder) is None:  # else another thread has prepared it meanwhile
            _prepare(Path(source).expanduser())
    if dataset := _open_cache(folder):
        return dataset
    raise DataError(f"The prepared CIFAR-10 in {folder} cannot be read. Delete that folder and try again.")


def _open_cache(folder: Path) -> Dataset | None:
    """Memory-map the prepared arrays, or return None if they are not there or not whole."""
    splits = {}
    with contextlib.suppress(OSError, ValueError, EOFError):
        for name, size in _SPLIT_SIZES.items():
            images = np.load(folder / f"{name}_images.npy", mmap_mode="r")
            labels = np.load(folder / f"{name}_labels.npy")
            if images.shape == (size, 32, 32, 3) and images.dtype == np.uint8 and labels.shape == (size,):
                splits[name] = Split(images, labels)
    return Dataset("cifar10", **splits, class_names=CLASS_NAMES) if len(splits) == len(_SPLIT_SIZES) else None


def _prepare(source: Path) -> None:
    """Read an archive or folder and put the cache in place in one step, or not at all."""
    batches = read_batches(source)
    images = np.concatenate([batches[name][0] for name in TRAIN_BATCHES])
    labels = np.concatenate([batches[name][1] for name in TRAIN_BATCHES])
    train, validation = np.split(np.random.default_rng(0).permutation(len(images)), [_SPLIT_SIZES["train"]])
    arrays = {
        "train": (images[train], labels[train]),
        "validation": (images[validation], labels[validation]),
        "test": batches["test_batch"],
    }
    target = _cache_folder()
    try:
        with replace_folder(target) as staging:
            for name, (split_images, split_labels) in arrays.items():
                np.save(staging / f"{name}_images.npy", split_images)
                np.save(staging / f"{name}_labels.npy", split_labels)
    except OSError as error:
        raise DataError(
            f"CIFAR-10 could not be prepared in {target} ({error.strerror or error}). Free about 200 MB there, "
            "or set COLORIZER_HOME to another folder."
        ) from error
