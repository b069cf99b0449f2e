"""Reads photos of many sizes for training, from a folder or a zip, and keeps them decoded in a memory-mapped cache."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from colorizer import config
from colorizer.errors import DataError, ImageError
from colorizer.pixels.images import SUFFIXES, decode_image, lay_on_white
from colorizer.storage import replace_folder

MAX_ENTRIES = 100_000  # A zip may list this many files.
MAX_PHOTO_BYTES = 20 * 2**20  # A larger file in a zip is left out, and so is one that unpacks to more.
SHORT_SIDE, MAX_ASPECT = 192, 2  # Photos are kept at most this large, and cut to at most this aspect ratio.
_GRAY_SPREAD = 8  # A picture is gray if its channels differ by at most this much, which allows for the noise of JPEG.
_MAX_NAMED = 3  # A message names at most this many files that were left out.

_logger = logging.getLogger(__name__)


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


def open_photos(path: Path, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Photos:
    """Open the photos of a folder or a zip; the first time they are decoded into a cache in `config.home()`.

    Photos are shrunk to 192 pixels on the shorter side, and their long side is cut to twice that. Files that are no
    picture, are too large, or are gray by nature are left out; how many, and the first names, are logged.

    Args:
        path: a folder, or a .zip file, which is not trusted.
        on_progress: called with the numbers of files that are done and that there are.

    Raises:
        DataError: there is no such folder or zip, it has no usable photo, or the cache cannot be written.
    """
    source = _Zip(path) if path.is_file() else _Folder(path)
    cache = config.home() / "data" / "photos" / source.digest[:32]
    if not (cache / "index.json").is_file():
        try:
            with replace_folder(cache) as staging:
                _fill(source, staging, on_progress)
        except OSError as error:
            raise DataError(
                f"The photos of {path} could not be prepared in {cache.parent} ({error.strerror or error}). "
                "Free some space, or set COLORIZER_HOME to another folder."
            ) from error
    return _read(cache)


def _read(cache: Path) -> Photos:
    try:
        index = json.loads((cache / "index.json").read_text())
        sizes = np.array(index["sizes"], np.int32)
        offsets = np.concatenate([[0], np.cumsum(3 * np.prod(sizes, axis=1, dtype=np.int64))])
        pixels = np.memmap(cache / "pixels.bin", np.uint8, "r", shape=(int(offsets[-1]),))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{cache} is damaged ({error}). Delete this folder; it is made again.") from error
    return Photos(pixels, offsets, sizes, index["names"])


def _fill(source: "_Zip | _Folder", folder: Path, on_progress: Callable[[int, int], None]) -> None:
    sizes, names, unusable = [], [], []
    with (folder / "pixels.bin").open("wb") as file:
        for done, name in enumerate(source.names):
            on_progress(done, len(source.names))
            try:
                photo = _shrink(lay_on_white(decode_image(source.read(name))))
            except (ImageError, OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
                unusable.append(f"{name} ({error})")
                continue
            if np.ptp(photo.astype(np.int16), axis=-1).max() <= _GRAY_SPREAD:
                unusable.append(f"{name} (it is gray)")
                continue
            file.write(photo.tobytes())
            sizes.append(photo.shape[:2])
            names.append(name)
    if not names:
        raise DataError(f"{source.path} has no colour photo that can be used, of {len(source.names)} files.")
    if unusable:
        some = "; ".join(unusable[:_MAX_NAMED])
        _logger.warning("%s: %d of %d files left out, such as %s", source.path, len(unusable), len(source.names), some)
    (folder / "index.json").write_text(json.dumps({"sizes": sizes, "names": names}))


def _shrink(photo: np.ndarray) -> np.ndarray:
    """Cut the long side to twice the short one, and shrink the photo to 192 pixels on the short side."""
    image = Image.fromarray(photo)
    width, height = (min(side, MAX_ASPECT * min(image.size)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    scale = min(1.0, SHORT_SIDE / min(width, height))
    size = tuple(max(1, round(side * scale)) for side in (width, height))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height)))


class _Folder:
    """The pictures of a folder and its subfolders."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"There is no folder or zip {path}. Give one with photos in it.")
        self.path = path
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        self.names = [file.relative_to(path).as_posix() for file in files]
        facts = [(name, (path / name).stat().st_size, (path / name).stat().st_mtime_ns) for name in self.names]
        self.digest = hashlib.sha256(repr((path, facts)).encode(errors="surrogateescape")).hexdigest()

    def read(self, name: str) -> bytes:
        with (self.path / name).open("rb") as file:
            return file.read(MAX_PHOTO_BYTES)


class _Zip:
    """The pictures in a zip, which is read in memory: nothing is unpacked to the disk, so no name can climb out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._archive = zipfile.ZipFile(path)
            entries = self._archive.infolist()
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} cannot be read as a zip ({error}). Give a folder or a zip with photos.") from error
        if len(entries) > MAX_ENTRIES:
            raise DataError(f"{path} lists {len(entries):,} files, {MAX_ENTRIES:,} are the most. Split it.")
        self._entries = {entry.filename: entry for entry in entries}
        self.names = sorted(name for name in self._entries if Path(name).suffix.lower() in SUFFIXES)

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        if entry.file_size > MAX_PHOTO_BYTES:
            raise ImageError(f"it unpacks to {entry.file_size / 1e6:.0f} MB")
        with self._archive.open(entry) as file:
            return file.read(MAX_PHOTO_BYTES)


def split_photos(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indexes of the photos for training and for validation; a hash of the name picks 1 in 40."""
    held_out = np.array([hashlib.sha256(name.encode(errors="replace")).digest()[0] * 40 < 256 for name in names])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def iterate(photos: Photos) -> Iterator[np.ndarray]:
    """Return an iterator over all photos, each uint8 (H, W, 3)."""
    return (photos[index] for index in range(len(photos)))
