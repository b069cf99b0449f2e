"""Turns pictures that a visitor uploads, also those in zips, into training images. None of them is trusted."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colorizer.config import MAX_OWN_PICTURES, MIN_OWN_PICTURES
from colorizer.data.photos import open_source
from colorizer.data.pictures import is_gray
from colorizer.errors import DataError
from colorizer.pixels.images import cut_small, decode_image, lay_on_white


@dataclass(frozen=True)
class OwnPictures:
    """Pictures of a visitor, cut to small squares.

    Attributes:
        images: uint8 (N, 32, 32, 3), in the order of a hash of their names.
        unreadable: how many files could not be read.
        gray: how many pictures were left out since they have no colour to learn from.
    """

    images: np.ndarray
    unreadable: int
    gray: int


def read_uploads(
    files: Sequence[tuple[str, bytes]], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> OwnPictures:
    """Decode uploaded pictures, one at a time.

    Args:
        files: name and content of each file; a name that ends in .zip is a zip with pictures.
        on_progress: called with the numbers of pictures that are done and that there are.

    Raises:
        DataError: there are too many pictures, too few that can be used, or a zip cannot be read.
    """
    images, unreadable, gray = {}, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        sources = [_list(name, content, Path(folder) / f"{place}.zip") for place, (name, content) in enumerate(files)]
        total = sum(len(names) for names, _ in sources)
        if total > MAX_OWN_PICTURES:
            raise DataError(f"These are {total:,} pictures, and {MAX_OWN_PICTURES} are the most. Leave some out.")
        pictures = ((place, name, read) for place, (names, read) in enumerate(sources) for name in names)
        for done, (place, name, read) in enumerate(pictures):
            on_progress(done, total)
            try:
                small = cut_small(lay_on_white(decode_image(read(name))))
            except Exception:  # A damaged zip raises many kinds of errors.
                unreadable += 1
                continue
            if is_gray(small):
                gray += 1
            else:
                images[place, name] = small
    if len(images) < MIN_OWN_PICTURES:
        left_out = f"{unreadable} cannot be read, {gray} are gray by nature"
        raise DataError(
            f"Of {total} pictures, {len(images)} can be used ({left_out}), and {MIN_OWN_PICTURES} are the least. "
            "Add some in colour."
        )
    order = sorted(images, key=lambda key: hashlib.sha256(repr(key).encode(errors="replace")).digest())
    return OwnPictures(np.stack([images[key] for key in order]), unreadable, gray)


def _list(name: str, content: bytes, place: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """Return the names of the pictures in an uploaded file, and a function that reads one of them.

    Args:
        name: name of the file.
        content: what is in it.
        place: where a zip is written while it is read.
    """
    if not name.lower().endswith(".zip"):
        return [name], lambda _: content
    place.write_bytes(content)
    try:
        source = open_source(place)
    except DataError as error:
        raise DataError(str(error).replace(str(place), name)) from error
    return source.names, source.read
