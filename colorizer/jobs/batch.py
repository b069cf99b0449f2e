"""Colorizes many pictures: decides which file becomes which, and works on several at a time."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from colorizer.errors import ColorizerError, ImageError
from colorizer.models.colorizer import Colorizer
from colorizer.models.credit import credit
from colorizer.pixels.images import SUFFIXES, decode_file, encode_png
from colorizer.storage import write_bytes

_THREADS = 2  # With dense, two threads do a quarter more small pictures a second than one; four are no better.
_MISSING = "There is no such file."


@dataclass(frozen=True)
class PictureFile:
    """A file of a plan, before or after it was colorized."""

    source: Path
    target: Path  # The result is written to this PNG file.
    error: str | None = None  # This sentence says why it failed.
    skipped: bool = False  # It is true if the target existed before and is kept.


def plan_files(paths: Iterable[str | Path], output: Path, overwrite: bool = False) -> list[PictureFile]:
    """Decide which file becomes which, without reading any.

    Folders are searched recursively for names that end in one of `SUFFIXES`. Hidden files, the output folder and links
    to folders are left out. A picture in a given folder keeps its place below `output`. `photo.jpg` becomes
    `photo.png`; where several files would become that, each keeps its full name, as in `photo.jpg.png`. A file named
    twice is taken once.

    Args:
        paths: files and folders. An empty path must be given as text, since `Path("")` is the current folder.
        output: the folder for the results, which need not exist.
        overwrite: whether to replace targets that exist, instead of skipping their files.

    Returns:
        the files in the order of `paths`, those of a folder sorted. Entries with an `error` stand for folders without
        pictures, and for files whose target is also that of another file, or would overwrite one of the files.

    Raises:
        ImageError: a path is empty, or the output is a file.
    """
    if output.exists() and not output.is_dir():
        raise ImageError(f"The output {output} is a file. Give a folder for the results.")
    found: dict[Path, PictureFile] = {}
    for path in paths:
        if not str(path):
            raise ImageError("An empty path was given. Give the path of a picture or of a folder of pictures.")
        for file in _find(Path(path), output):
            found.setdefault(Path(os.path.realpath(file.source.parent), file.source.name), file)
    files = [file for file in found.values() if not file.error]
    sources = {_identity(file.source) for file in files} - {None}
    # Some file systems treat names as the same that differ only in case.
    short = Counter(str(file.target.with_suffix(".png")).casefold() for file in files)

    def name_target(file: PictureFile) -> Path:
        target = file.target.with_suffix(".png")
        return target if short[str(target).casefold()] == 1 else target.with_name(f"{file.target.name}.png")

    targets = Counter(map(name_target, files))

    def settle(file: PictureFile) -> PictureFile:
        target = name_target(file)
        there, error = _identity(target), None
        if targets[target] > 1:
            error = f"Another file would also become {target}. Rename one of them, or colorize them in two runs."
        elif there in sources:
            error = f"The result would overwrite {target}, one of the files. Choose another output folder."
        return PictureFile(file.source, target, error, bool(there) and target.is_file() and not overwrite)

    return [file if file.error else settle(file) for file in found.values()]


def colorize_files(colorizer: Colorizer, files: Iterable[PictureFile], **settings: Any) -> Iterator[PictureFile]:
    """Colorize the files of a plan with settings of `Colorizer.colorize`; yield each when it is done, in order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(partial(colorize_file, colorizer, **settings), files)


def colorize_file(colorizer: Colorizer, file: PictureFile, **settings: Any) -> PictureFile:
    """Colorize one file of a plan and write its target in one step; return the file, with its `error` if it failed."""
    if file.error or file.skipped:
        return file
    try:
        if not file.source.is_file():
            raise ImageError(_MISSING)
        result = colorizer.colorize(decode_file(file.source), **settings)
        file.target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file.target, encode_png(result, credit(colorizer.name, **settings)))
    except ColorizerError as error:
        return replace(file, error=str(error))
    except OSError as error:
        return replace(file, error=f"It cannot be read or written ({error.strerror or error}).")
    except Exception as error:  # A MemoryError, for example, must not cost the other files.
        return replace(file, error=f"This picture cannot be colorized: {error!r}.")
    return file


def _find(path: Path, output: Path) -> Iterable[PictureFile]:
    """Return the files that a given path stands for; each target still has the suffix of its source."""
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises an error for a name that is too long.
        return [PictureFile(path, output / path.name, None if os.path.isfile(path) else _MISSING)]  # noqa: PTH113 - too.
    results = _identity(output)
    if _identity(path) == results:
        return [PictureFile(path, output, "This is the output folder. Choose another one for the results.")]
    files: list[PictureFile] = []
    errors: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=errors.append):
        folders[:] = [name for name in folders if name[0] != "." and _identity(Path(folder, name)) != results]
        chosen = [Path(folder, name) for name in names if name[0] != "." and name.lower().endswith(SUFFIXES)]
        files += [PictureFile(source, output / source.relative_to(path)) for source in chosen]
    files += [PictureFile(Path(error.filename), output, str(error)) for error in errors]
    nothing = [PictureFile(path, output, "There are no pictures in this folder.")]
    return sorted(files, key=lambda file: file.source) or nothing


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a path, which all names of one file share, or None if nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
