"""Reads images from other sources: CIFAR-100, an .npz file, or a folder of pictures. All of them are untrusted."""

import hashlib
import logging
import math
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from colorizer import config
from colorizer.config import MAX_TRAIN_IMAGES
from colorizer.data import official
from colorizer.errors import DataError, ImageError
from colorizer.pixels.images import SUFFIXES, decode_file, lay_on_white

Splits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Training, validation and test images, each uint8 of shape (N, 32, 32, 3)."""

# The address and the SHA-256 of the official archive are those in keras/src/datasets/cifar100.py.
CIFAR100_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
CIFAR100_SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
CIFAR100_TRAIN = 45_000  # The other 5,000 of the 50,000 training images are for validation.
_CIFAR100_MAX_BYTES = 192 * 2**20  # The largest official file has 155 MB.

_logger = logging.getLogger(__name__)
_GRAY_SPREAD = 8  # A picture is gray if its channels differ by at most this much, which allows for the noise of JPEG.


def read_splits(name: str) -> Splits:
    """Read a data set called `cifar100`, `cifar100:PATH` or `folder:PATH`; see `datasets.load_dataset`."""
    kind, _, path = name.partition(":")
    if kind == "folder":
        return _split_folder(config.expand_path(path))
    return _read_npz(config.expand_path(path)) if path else _read_cifar100()


def load_pictures(folder: Path, size: int) -> tuple[np.ndarray, list[str]]:
    """Decode every colour picture in a folder and its subfolders, cut to its central square.

    Files that cannot be read and pictures that are gray by nature are left out; how many is logged.

    Args:
        folder: where to look, for files with the endings of `images.SUFFIXES`.
        size: height and width of the result, in pixels.

    Returns:
        images, uint8 of shape (N, size, size, 3), and the path of each relative to the folder, in sorted order.

    Raises:
        DataError: there is no such folder, or no usable picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give one with pictures in it.")
    paths, pictures, unreadable = find_pictures(folder), {}, 0
    for path in paths:
        try:
            image = lay_on_white(decode_file(path))
        except (ImageError, OSError):
            unreadable += 1
            continue
        square = np.asarray(ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC))
        if not is_gray(square):
            pictures[path.relative_to(folder).as_posix()] = square
    unused = len(paths) - len(pictures)
    told = f"{unreadable} cannot be read, {unused - unreadable} are gray by nature"
    if not pictures:
        raise DataError(f"{folder} has no colour picture that can be used: of {len(paths)} files {told}.")
    if unused:
        _logger.warning("%s: %d of %d pictures left out: %s", folder, unused, len(paths), told)
    names = sorted(pictures)
    return np.stack([pictures[name] for name in names]), names


def find_pictures(folder: Path) -> list[Path]:
    """Return the files with the endings of `images.SUFFIXES` in a folder and its subfolders, in sorted order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def is_gray(image: np.ndarray) -> bool:
    """Return whether an image, uint8 (H, W, 3), is gray by nature: no pixel has channels that differ visibly."""
    return bool(np.ptp(image.astype(np.int16), axis=-1).max() <= _GRAY_SPREAD)


def _split_folder(folder: Path) -> Splits:
    """Split a folder's pictures by a hash of their names: a tenth is for validation and a tenth for the test."""
    images, names = load_pictures(folder, 32)
    if len(names) < 3:
        raise DataError(f"{folder} has {len(names)} usable pictures, 3 are the least. Add some in colour.")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(os.fsencode(names[index])).digest())
    return split_ordered(images[order])


def split_ordered(images: np.ndarray) -> Splits:
    """Split images in a random order: a tenth is for validation, the next tenth for the test, the rest for training."""
    tenth = max(1, len(images) // 10)
    return images[2 * tenth :], images[:tenth], images[tenth : 2 * tenth]


def _read_npz(path: Path) -> Splits:
    """Read `x_train` and `x_val`; the validation images serve as test images, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            train, validation = (_read_array(archive, name) for name in ("x_train", "x_val"))
    except Exception as error:  # A damaged zip raises many kinds of error.
        raise DataError(
            f"{path} cannot be used ({error}). Give an .npz file with x_train and x_val, both uint8 of shape "
            f"(N, 32, 32, 3) with at most {MAX_TRAIN_IMAGES:,} images."
        ) from error
    return train, validation, validation


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read images from an .npz file; its header is checked first, and nothing is unpickled."""
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it has no {name}")
    with archive.open(f"{name}.npy") as file:
        np.lib.format.read_magic(file)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.uint8 or shape[1:] != (32, 32, 3) or not 1 <= shape[0] <= MAX_TRAIN_IMAGES:
            raise ValueError(f"its {name} is {dtype} of shape {shape}")
        raw = file.read(math.prod(shape))
    if len(raw) != math.prod(shape):
        raise ValueError(f"its {name} is cut off")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _read_cifar100() -> Splits:
    """Read CIFAR-100 and split its training images by CIFAR-10's fixed seed; it is downloaded on first use."""
    folder = config.home() / "data" / "cifar100"
    instead = "name a file: cifar100:PATH, an .npz with x_train and x_val"
    archive = official.download("CIFAR-100", CIFAR100_URL, CIFAR100_SHA256, folder, instead)
    found = official.read_pickles(archive, "CIFAR-100", "cifar-100-python", {"train", "test"}, _CIFAR100_MAX_BYTES)
    images, test = (
        official.check_batch(found[name], name, number, b"fine_labels", 100)[0]
        for name, number in (("train", 50_000), ("test", 10_000))
    )
    train, validation = np.split(np.random.default_rng(0).permutation(len(images)), [CIFAR100_TRAIN])
    return images[train], images[validation], test
