"""Images from elsewhere: Keras's CIFAR-100, an .npz file, a folder of pictures; all of them untrusted."""

import contextlib
import hashlib
import logging
import math
import os
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from colorizer.config import MAX_TRAIN_IMAGES
from colorizer.errors import DataError, ImageError
from colorizer.pixels.images import SUFFIXES, decode_file, lay_on_white

Splits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Training, validation and test images, each uint8 of shape (N, 32, 32, 3)."""

_TIMEOUT = 8  # seconds without a byte from the network
_VALIDATION_IMAGES = 5_000  # of CIFAR-100's 50,000 for training
_GRAY_SPREAD = 8  # largest difference between the channels of a picture that is gray by nature, noise of JPEG included


def read_splits(name: str) -> Splits:
    """Read a data set called `cifar100`, `cifar100:PATH` or `folder:PATH`; see `datasets.load_dataset`."""
    kind, _, path = name.partition(":")
    if kind == "folder":
        return _split_folder(Path(path).expanduser())
    return _read_npz(Path(path).expanduser()) if path else _read_cifar100()


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
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    pictures, unreadable = {}, 0
    for path in paths:
        try:
            image = lay_on_white(decode_file(path))
        except (ImageError, OSError):
            unreadable += 1
            continue
        square = np.asarray(ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC))
        if np.ptp(square.astype(np.int16), axis=-1).max() > _GRAY_SPREAD:
            pictures[path.relative_to(folder).as_posix()] = square
    told = f"{unreadable} cannot be read, {len(paths) - unreadable - len(pictures)} are gray by nature"
    if not pictures:
        raise DataError(f"{folder} has no colour picture that can be used: of {len(paths)} files {told}.")
    if len(pictures) < len(paths):
        logging.getLogger(__name__).warning(
            "%s: %d of %d pictures left out: %s", folder, len(paths) - len(pictures), len(paths), told
        )
    names = sorted(pictures)
    return np.stack([pictures[name] for name in names]), names


def load_photos(folder: Path) -> Iterator[np.ndarray]:
    """Yield all pictures in a folder and its subfolders at their own size, decoded one at a time.

    Returns:
        an iterator over images, uint8 of shape (H, W, 3) or (H, W, 4); a picture that cannot be read raises
        `ImageError` when its turn comes.

    Raises:
        ImageError: there is no picture, which is checked at once.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(f"There are no pictures in {folder}. Name a folder with some.")

    def decode(path: Path) -> np.ndarray:
        try:
            return decode_file(path)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    return map(decode, paths)


def _split_folder(folder: Path) -> Splits:
    """Part a folder's pictures by a hash of their names: a tenth for validation, a tenth for the test, the rest."""
    images, names = load_pictures(folder, 32)
    if len(names) < 3:
        raise DataError(f"{folder} has {len(names)} usable pictures, 3 are the least. Add some in colour.")
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(os.fsencode(names[index])).digest())
    tenth = max(1, len(names) // 10)
    return images[order[2 * tenth :]], images[order[:tenth]], images[order[tenth : 2 * tenth]]


def _read_npz(path: Path) -> Splits:
    """Read `x_train` and `x_val`; the latter serve as validation and test images."""
    try:
        with zipfile.ZipFile(path) as archive:
            train, validation = (_read_array(archive, name) for name in ("x_train", "x_val"))
    except Exception as error:  # a damaged zip raises many kinds
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
    """Let Keras read, or download, CIFAR-100, and part its training images as CIFAR-10's by a fixed seed."""
    import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where progress belongs
            (images, _), (test, _) = keras.datasets.cifar100.load_data()
    except Exception as error:  # Keras raises a bare Exception without a network, and others for damaged files
        raise DataError(
            f"CIFAR-100 could not be downloaded by Keras ({str(error)[:200]}). Check the network, or name a file: "
            "cifar100:PATH, an .npz with x_train and x_val."
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:-_VALIDATION_IMAGES]], images[order[-_VALIDATION_IMAGES:]], test
