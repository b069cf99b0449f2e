"""Reads photos of many sizes from a folder or a zip: one at a time to measure on, or all into a cache to train on."""

import hashlib
import io
import json
import logging
import operator
import weakref
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from colorizer import config
from colorizer.data.pictures import find_pictures, is_gray
from colorizer.errors import DataError, ImageError
from colorizer.pixels.images import SUFFIXES, decode_image, lay_on_white
from colorizer.storage import replace_folder

MAX_ENTRIES = 100_000  # A zip may list this many files.
SHORT_SIDE, MAX_ASPECT = 192, 2  # Photos are kept at most this large, and cut to at most this aspect ratio.
_MAX_READ = 240 * MAX_ENTRIES  # A zip's list of files and each file in it are read at once if they have at most this.
_MAX_NAMED = 3  # A message names at most this many files that were left out.

_logger = logging.getLogger(__name__)
_OnProgress = Callable[[int, int], None]


def _ignore_progress(done: int, total: int) -> None:
    """Take the numbers of files that are done and that there are, and show nothing."""


@dataclass(frozen=True)
class Photos:
    """Decoded photos of different sizes, one after the other in a flat array.

    Attributes:
        pixels: uint8, flat; photo `i` is `pixels[offsets[i]:offsets[i + 1]]` in the shape (*sizes[i], 3).
        offsets: int64 (N + 1,).
        sizes: int32 (N, 2), heights and widths.
        names: their file names.
    """

    pixels: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pixels[self.offsets[index] : self.offsets[index + 1]].reshape(*self.sizes[index], 3)


def load_photos(path: Path, on_progress: _OnProgress = _ignore_progress) -> Iterator[np.ndarray]:
    """Return an iterator over the photos of a folder or a zip at their own resolution, which decodes one at a time.

    Files that are no picture or are too large are left out; at the end, how many and the first names are logged.

    Args:
        path: a folder, which is searched with all folders below, or a .zip file, which is not trusted.
        on_progress: called with the numbers of files that are done and that there are.

    Returns:
        photos, each uint8 of shape (H, W, 3), in the order of their names; transparent ones are laid on white. At the
        end it raises `DataError` if no file could be used.

    Raises:
        DataError: there is no such folder or zip, or no picture in it; this is checked at once.
    """
    decoded = _decode_all(open_source(path), lambda photo: photo, on_progress)
    return map(operator.itemgetter(1), decoded)  # A generator would hold each photo while the next one is decoded.


def open_photos(path: Path, on_progress: _OnProgress = _ignore_progress) -> Photos:
    """Open the photos of a folder or a zip; the first time they are decoded into a cache in `config.home()`.

    Photos are shrunk to 192 pixels on the shorter side, and their long side is cut to twice that. Files that are no
    picture, are too large, or are gray by nature are left out; how many, and the first names, are logged. A damaged
    cache is made again.

    Args:
        path, on_progress: as in `load_photos`.

    Raises:
        DataError: there is no such folder or zip, it has no usable photo, or the cache cannot be written.
    """
    source = open_source(path)
    cache = config.home() / "data" / "photos" / source.digest()[:32]
    try:
        return _read(cache)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if not isinstance(error, FileNotFoundError):
            _logger.warning("The prepared photos in %s are damaged and are made again.", cache)
    try:
        with replace_folder(cache) as staging:
            _fill(source, staging, on_progress)
        return _read(cache)
    except OSError as error:
        raise DataError(
            f"The photos of {path} could not be prepared in {cache.parent} ({error.strerror or error}). "
            "Free some space, or set COLORIZER_HOME to another folder."
        ) from error


def split_photos(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indexes of the photos for training and for validation; a hash of the name picks 1 in 40."""
    held_out = np.array([hashlib.sha256(name.encode(errors="replace")).digest()[0] * 40 < 256 for name in names])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def cut_small_crops(photos: Photos, per_photo: int, seed: int) -> np.ndarray:
    """Cut random squares out of photos, with half to all of the shorter side, and shrink them to 32 x 32 pixels.

    Returns:
        uint8 of shape (per_photo * len(photos), 32, 32, 3); the same seed gives the same crops.
    """
    generator = np.random.default_rng(seed)
    crops = np.empty((per_photo * len(photos), 32, 32, 3), np.uint8)
    for row, (side, top, left) in enumerate(generator.random((len(crops), 3))):
        image = Image.fromarray(photos[row % len(photos)])
        side = (0.5 + side / 2) * min(image.size)
        top, left = top * (image.height - side), left * (image.width - side)
        box = (left, top, left + side, top + side)
        crops[row] = np.asarray(image.resize((32, 32), Image.Resampling.BOX, box))
    return crops


def _read(cache: Path) -> Photos:
    """Read a cache; one that is missing raises `FileNotFoundError`, and a damaged one several other errors."""
    index = json.loads((cache / "index.json").read_text())
    names, sizes = index["names"], np.array(index["sizes"], np.int32)
    if sizes.shape != (len(names), 2) or sizes.min() < 1 or not all(isinstance(name, str) for name in names):
        raise ValueError("its index is damaged")
    offsets = np.concatenate([[0], np.cumsum(3 * np.prod(sizes, axis=1, dtype=np.int64))])
    pixels = np.memmap(cache / "pixels.bin", np.uint8, "r")
    if len(pixels) != offsets[-1]:
        raise ValueError("its pixels are cut off")
    return Photos(pixels, offsets, sizes, names)


def _fill(source: "_Folder | _Zip", folder: Path, on_progress: _OnProgress) -> None:
    sizes, names = [], []
    with (folder / "pixels.bin").open("wb") as file:
        for name, photo in _decode_all(source, _shrink, on_progress):
            file.write(photo.tobytes())
            sizes.append(photo.shape[:2])
            names.append(name)
    (folder / "index.json").write_text(json.dumps({"sizes": sizes, "names": names}))


def _decode_all(
    source: "_Folder | _Zip", prepare: Callable[[np.ndarray], np.ndarray], on_progress: _OnProgress
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each photo and what `prepare` makes of it; see `load_photos` for those that cannot be used."""
    unusable = []
    for done, name in enumerate(source.names):
        on_progress(done, len(source.names))
        try:
            photo = prepare(lay_on_white(decode_image(source.read(name))))
        except Exception as error:  # A damaged zip raises many kinds of error.
            unusable.append(f"{name!r} ({str(error) or type(error).__name__})")
            continue
        yield name, photo
        del photo  # The next photo is decoded before this name is used again.
    on_progress(len(source.names), len(source.names))
    some = "; ".join(unusable[:_MAX_NAMED])
    if len(unusable) == len(source.names):
        raise DataError(f"{source.path} has no photo that can be used, of {len(unusable)} files, such as {some}.")
    if unusable:
        _logger.warning("%s: %d of %d files left out, such as %s", source.path, len(unusable), len(source.names), some)


def _shrink(photo: np.ndarray) -> np.ndarray:
    """Cut the long side to twice the short one, and shrink the photo to 192 pixels on the short side.

    Raises:
        ImageError: the photo is gray by nature.
    """
    image = Image.fromarray(photo)
    width, height = (min(side, MAX_ASPECT * min(image.size)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    scale = min(1.0, SHORT_SIDE / min(width, height))
    size = tuple(max(1, round(side * scale)) for side in (width, height))
    small = np.asarray(image.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height)))
    if is_gray(small):
        raise ImageError("it is gray")
    return small


def open_source(path: Path) -> "_Folder | _Zip":
    """Return the pictures of a folder or of a zip, which have `names` and can be `read` as bytes.

    Raises:
        DataError: there is no such folder or zip, or no picture in it.
    """
    source = _Zip(path) if path.is_file() else _Folder(path)
    if not source.names:
        raise DataError(f"There are no pictures in {path}. Name a folder or a zip with some.")
    return source


class _Folder:
    """The pictures of a folder and its subfolders."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"There is no folder or zip {path}. Give one with photos in it.")
        self.path = path
        self.names = [file.relative_to(path).as_posix() for file in find_pictures(path)]

    def digest(self) -> str:
        """Return a hash of the path and of the names, sizes and times of all pictures, as hexadecimal digits."""
        facts = [
            (name, (self.path / name).stat().st_size, (self.path / name).stat().st_mtime_ns) for name in self.names
        ]
        return hashlib.sha256(repr((self.path, facts)).encode(errors="surrogateescape")).hexdigest()

    def read(self, name: str) -> bytes:
        with (self.path / name).open("rb") as file:
            return file.read(config.MAX_UPLOAD_BYTES + 1)  # One byte more shows that the file is too large.


class _Zip:
    """The pictures in a zip, which is read in memory: nothing is unpacked to the disk, so no name can climb out.

    Of several entries with the same name, the last one counts, as it would when the zip is unpacked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = _BoundedFile(io.FileIO(path))
            weakref.finalize(self, file.close)
            self._archive = zipfile.ZipFile(file)
            entries = self._archive.infolist()
        except Exception as error:  # A damaged zip raises many kinds of error.
            raise DataError(f"{path} cannot be read as a zip ({error}). Give a folder or a zip with photos.") from error
        if len(entries) > MAX_ENTRIES:
            raise DataError(f"{path} lists {len(entries):,} files, {MAX_ENTRIES:,} are the most. Split it.")
        self._entries = {entry.filename: entry for entry in entries}
        self.names = sorted(name for name in self._entries if name.lower().endswith(SUFFIXES))  # Folders end in "/".

    def digest(self) -> str:
        """Return the SHA-256 of the file, as hexadecimal digits."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        if entry.flag_bits & 1:
            raise ImageError("it is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Python unpacks a block of the other methods as a whole, however large it becomes.
            raise ImageError("it is compressed by another method than deflate")
        if entry.file_size > config.MAX_UPLOAD_BYTES:
            raise ImageError(f"it unpacks to {entry.file_size / 1e6:.0f} MB")
        with self._archive.open(entry) as file:
            return file.read(config.MAX_UPLOAD_BYTES)


class _BoundedFile(io.BufferedReader):
    """A file that refuses to read very much at once, as `zipfile` does with a list of files of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ:
            raise ValueError(f"it asks for {size / 1e6:.0f} MB at once")
        return super().read(size)
