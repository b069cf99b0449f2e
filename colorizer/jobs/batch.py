"""Many pictures: which file becomes which, and colorizing them, several at a time."""

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
from colorizer.pixels.images import SUFFIXES, decode_file, encode_png
from colorizer.storage import write_bytes

_THREADS = 2  # a quarter more small pictures a second with dense than one; four are no better


@dataclass(frozen=True)
class PictureFile:
    """A file to colorize, or one that was."""

    source: Path
    target: Path  # a PNG file
    error: str | None = None  # why it failed
    skipped: bool = False  # its target was there before and is kept


def plan_files(paths: Iterable[Path], output: Path, overwrite: bool = False) -> list[PictureFile]:
    """Decide which file becomes which, without reading any.

    Folders are searched recursively for names that end in one of `SUFFIXES`, without hidden ones, the output folder and
    links to folders. What is below a given folder keeps its place below `output`; `photo.jpg` becomes `photo.png`, or,
    where several would, each keeps its full name: `photo.jpg.png`. A file named twice is taken once.

    Args:
        paths: files and folders.
        output: folder, which need not be there yet.
        overwrite: whether to make a target again that is there, instead of skipping its file.

    Returns:
        the files in the order given, those of a folder sorted; also, each with its `error`, folders without pictures,
        and files whose target is that of another as well, or would overwrite one of the files.
    """
    found: dict[Path, PictureFile] = {}
    for path in paths:
        for file in _find(path, output):
            found.setdefault(Path(os.path.realpath(file.source.parent), file.source.name), file)
    files = [file for file in found.values() if not file.error]
    sources = {_identity(file.source) for file in files} - {None}
    # Some file systems take names for the same that differ in case only.
    short = Counter(str(file.target.with_suffix(".png")).casefold() for file in files)

    def name_target(file: PictureFile) -> Path:
        target = file.target.with_suffix(".png")
        return target if short[str(target).casefold()] == 1 else target.with_name(f"{file.target.name}.png")

    targets = Counter(map(name_target, files))

    def settle(file: PictureFile) -> PictureFile:
        target = name_target(file)
        there, error = _identity(target), None
        if targets[target] > 1:
            error = f"Another file would become {target} too. Rename one of them, or colorize it apart."
        elif there in sources:
            error = f"The result would overwrite {target}, one of the files. Choose another output folder."
        return PictureFile(file.source, target, error, bool(there) and target.is_file() and not overwrite)

    return [file if file.error else settle(file) for file in found.values()]


def colorize_files(colorizer: Colorizer, files: Iterable[PictureFile], **settings: Any) -> Iterator[PictureFile]:
    """Colorize the files of a plan, with the settings of `Colorizer.colorize`; yield each in turn when it is done."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(partial(colorize_file, colorizer, **settings), files)


def colorize_file(colorizer: Colorizer, file: PictureFile, **settings: Any) -> PictureFile:
    """Colorize a file of a plan, its target written in one step; one that fails is returned with its `error`."""
    if file.error or file.skipped:
        return file
    try:
        if not file.source.is_file():
            raise ImageError("There is no such file.")
        result = colorizer.colorize(decode_file(file.source), **settings)
        file.target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file.target, encode_png(result))
    except (ColorizerError, OSError) as error:
        return replace(file, error=str(error))
    return file


def _find(path: Path, output: Path) -> Iterable[PictureFile]:
    """The files that a given path stands for, each with its own suffix still on its target."""
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        return [PictureFile(path, output / path.name)]
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
    """What all names of a file or folder have in common; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
