"""Opens data sets by name: their splits, the built-in samples, and synthetic images from the shipped statistics."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from colorizer import config
from colorizer.config import ASSETS, MAX_LATENT_DIM
from colorizer.data import pictures
from colorizer.data.cifar10 import CLASS_NAMES, SPLIT_SIZES, load_cifar10
from colorizer.data.cifar10 import cifar10_status as cifar10_status
from colorizer.data.cifar10 import download_cifar10 as download_cifar10
from colorizer.errors import ConfigError, DataError
from colorizer.pixels.color import chroma_shares, to_uint8

NUM_SAMPLES = 20
# Snapshots show these built-in samples: a cat, ship, frog, automobile, airplane, truck, dog and horse.
SNAPSHOT_SAMPLES = (0, 1, 4, 6, 10, 11, 12, 13)
BELIEF_SAMPLE = 2  # Of these, the frog is the one whose logits they keep.

STATISTICS_PATH = ASSETS / "cifar10-statistics.npz"
_SYNTHETIC_IMAGES = 20_000


@dataclass(frozen=True)
class Statistics:
    """Second-order statistics of images. The covariance is factors.T @ factors; all arrays are float32.

    Attributes:
        mean: (3072,), the mean image flattened from (32, 32, 3), in [0, 1].
        factors: (512, 3072), the principal axes scaled by their standard deviations.
        shares: (25, 25), how frequent each chroma is, see `color.chroma_shares`.
    """

    mean: np.ndarray
    factors: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, 32, 32, 3), and their labels, uint8 (N,), which index the data set's class names."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A data set with its three splits. `samples` has an empty `train`; without class names all labels are 0."""

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
        name: one of
            `cifar10`: it is prepared on first use, then memory-mapped.
            `samples`: the 20 built-in images, without training images.
            `synthetic`: 20,000 Gaussian training images; the samples serve as validation and test images.
            `cifar100`: the official archive is downloaded on first use; 45,000 of its images are for training.
            `cifar100:PATH`: an .npz file with `x_train` and `x_val`; the latter serves as test images too.
            `folder:PATH`: pictures cut to 32 x 32 pixels and split by file.
            `own`, the pictures of a visitor, is opened by `own_dataset` instead.

    Raises:
        ConfigError: there is no such data set.
        DataError: it is not on this machine, or it is damaged.
    """
    config.validate_dataset(name)
    if name == config.OWN_PICTURES:
        raise ConfigError("The data set own is the pictures that a visitor gave to the page Train. Give folder:PATH.")
    if name == "cifar10":
        splits = {split: Split(*arrays) for split, arrays in load_cifar10().items()}
        return Dataset(name, **splits, class_names=CLASS_NAMES)
    if name not in config.DATASETS:
        return Dataset(name, *map(_unlabelled, pictures.read_splits(name)))
    samples = load_samples()
    if name == "samples":
        return Dataset(name, Split(samples.images[:0], samples.labels[:0]), samples, samples, CLASS_NAMES)
    return Dataset(name, _unlabelled(draw_synthetic(_SYNTHETIC_IMAGES, seed=0)), samples, samples)


def own_dataset(images: np.ndarray) -> Dataset:
    """Return the data set of a visitor's pictures, uint8 (N, 32, 32, 3), as `uploads.read_uploads` ordered them."""
    return Dataset(config.OWN_PICTURES, *map(_unlabelled, pictures.split_ordered(images)))


def num_train_images(name: str) -> int | None:
    """Return how many training images a data set has without opening it; None where only its files can tell."""
    sizes = {"cifar10": SPLIT_SIZES["train"], "cifar100": pictures.CIFAR100_TRAIN, "samples": 0}
    return (sizes | {"synthetic": _SYNTHETIC_IMAGES}).get(name)


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
    """Compute the mean, the top 512 principal factors and the chroma shares of images, uint8 (N, 32, 32, 3)."""
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0, dtype=np.float64) / 255
    covariance = np.zeros((flat.shape[1],) * 2)
    for start in range(0, len(flat), 5000):
        centred = flat[start : start + 5000].astype(np.float32) / 255 - mean.astype(np.float32)
        covariance += centred.T @ centred
    variances, axes = np.linalg.eigh(covariance / len(flat))
    top = np.argsort(variances)[::-1][:MAX_LATENT_DIM]
    factors = np.sqrt(np.maximum(variances[top], 0))[:, None] * axes[:, top].T
    return Statistics(mean.astype(np.float32), factors.astype(np.float32), chroma_shares(images))


def save_statistics(statistics: Statistics, path: Path = STATISTICS_PATH) -> None:
    """Write statistics to an .npz file of 3.1 MB, in which mean and factors are float16."""
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
