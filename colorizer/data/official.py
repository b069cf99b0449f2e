"""Downloads and reads the official "python version" archives of CIFAR-10 and CIFAR-100; their content is untrusted."""

import contextlib
import errno
import gzip
import io
import logging
import lzma
import math
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

from colorizer.errors import DataError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TIMEOUT = 8.0  # A download ends after this many seconds without a byte.
_MAX_UNPACKED_BYTES = 256 * 2**20  # An official archive unpacks to 186 MB.
_MAX_MEMBERS = 100  # An official archive has 9 members.


def download(
    title: str,
    url: str,
    sha256: str,
    folder: Path,
    instead: str,
    on_progress: Callable[[int, int], None] = lambda received, total: None,
) -> Path:
    """Download an archive, unless it is in the folder already, and check it.

    Args:
        title: the data set's name for error messages.
        url: address of the archive.
        sha256: its checksum.
        folder: where the file is put.
        instead: what to do without a download, for error messages: words that can follow "or".
        on_progress: called with the number of bytes received and of all bytes.

    Raises:
        DataError: the archive cannot be downloaded or stored, or is another file than the official one.
    """
    import pooch  # It imports requests, which takes long and is needed here only.

    received = 0

    def update(count: int) -> None:
        nonlocal received
        received = min(received + count, progress.total or math.inf)
        on_progress(received, progress.total)

    # Pooch needs this part of tqdm's interface. It counts whole chunks, and at the end it resets the bar to set the
    # true total; `update` never goes back and never beyond the total.
    progress = SimpleNamespace(total=0, update=update, reset=lambda: None, close=lambda: None)
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(pooch.retrieve(url, f"sha256:{sha256}", path=folder, downloader=downloader))
    except (OSError, ValueError) as error:
        reason, advice = _explain(error, folder, instead)
        raise DataError(f"{title} could not be downloaded from {url} ({reason}). {advice}.") from error


def _explain(error: Exception, folder: Path, instead: str) -> tuple[str, str]:
    """Say why a download failed and what to do, each in a few words."""
    import requests

    told = str(error)[:200]
    if isinstance(error, requests.HTTPError):
        answer = f"{error.response.status_code} {error.response.reason}"
        return f"the server answered {answer}", f"Try again later, or {instead}"
    if isinstance(error, requests.Timeout) or "Read timed out" in told:
        return f"the server sent nothing for {_TIMEOUT:g} seconds", f"Try again later, or {instead}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the end", f"Try again, or {instead}"
    if isinstance(error, requests.ConnectionError):
        return "no connection", f"Check the network, or {instead}"
    if isinstance(error, requests.RequestException):
        return told, f"Check the network, or {instead}"
    if isinstance(error, ValueError):  # Pooch raises it for a wrong checksum.
        return "the checksum of the file received is not the official one", f"Try again, or {instead}"
    if error.errno in _DISK_FULL:
        return "the disk is full", f"Free about 400 MB in {folder}"
    return f"{folder} cannot be written: {error.strerror or told}", "Set COLORIZER_HOME to a folder that can be written"


def read_pickles(source: Path, title: str, folder: str, wanted: set[str], max_bytes: int) -> dict[str, dict]:
    """Read files of an official archive without running any code that they hold.

    Args:
        source: a tar archive (plain, gz or xz), or the unpacked folder, or the folder that has it inside.
        title: the data set's name for error messages.
        folder: name of the folder in the archive.
        wanted: names of the files to read.
        max_bytes: the largest size that a file of the archive can have.

    Returns:
        the content of each wanted file, a dict with keys of type bytes.

    Raises:
        DataError: the source is unreadable or incomplete, or holds anything that the data set does not.
    """
    found: dict[str, dict] = {}
    try:
        for name, raw in _members(source, title, folder, wanted, max_bytes):
            found[name] = _unpickle(raw, name, title)
            if len(found) == len(wanted):
                break
    except (tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(
            f"{source} cannot be read as a {title} archive ({str(error)[:200]}). Give the official python version, "
            "as .tar.gz, .tar.xz or unpacked."
        ) from error
    if missing := sorted(wanted - set(found)):
        raise DataError(f"{source} lacks {missing[0]}. Give the official python version of {title}.")
    return found


def _members(source: Path, title: str, folder: str, wanted: set[str], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the wanted files of a folder or a tar archive, without unpacking it."""

    def check_size(name: str, size: int) -> None:
        if size > max_bytes:
            raise DataError(
                f"{name[:100]} has {size:,} bytes, more than any file of {title}. Give the official archive."
            )

    if source.is_dir():
        for path in filter(Path.is_file, _unpacked(source, folder, wanted)):
            check_size(path.name, path.stat().st_size)
            yield path.name, path.read_bytes()
        return
    if source.exists() and not source.is_file():
        raise OSError("it is neither a file nor a folder")
    # `tarfile` would copy all that it has decompressed for every member. It is given plain bytes instead.
    with _open_decompressed(source) as file, tarfile.open(fileobj=_LimitedReader(file, title), mode="r|") as archive:
        for count, member in enumerate(archive, 1):
            if count > _MAX_MEMBERS:
                raise DataError(f"{source} has more than {_MAX_MEMBERS} members. Give the official {title} archive.")
            name = member.name.rsplit("/", 1)[-1]
            check_size(name, member.size)
            if name in wanted and member.isfile():
                yield name, archive.extractfile(member).read()


def _unpacked(source: Path, folder: str, wanted: set[str]) -> list[Path]:
    """Return where the wanted files lie if `source` is an unpacked folder, without searching its other folders."""
    inner = source / folder
    return [(inner if inner.is_dir() else source) / name for name in sorted(wanted)]


def _open_decompressed(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    return lzma.open(path) if start == b"\xfd7zXZ\x00" else path.open("rb")


class _LimitedReader:
    """Reads a file, and refuses to read more than an official archive can hold."""

    def __init__(self, file: BinaryIO, title: str) -> None:
        self._file, self._title, self._count = file, title, 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end of the file."""
        raw = self._file.read(size)
        self._count += len(raw)
        if self._count > _MAX_UNPACKED_BYTES:
            raise DataError(
                f"The archive unpacks to more than {_MAX_UNPACKED_BYTES // 10**6} MB, which {self._title} never does. "
                "Give the official archive."
            )
        return raw


class _Inert:
    """Replaces the classes in a pickled NumPy array; it keeps its arguments and runs no code."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Accepts only the three names that a NumPy array needs, and replaces them by `_Inert`."""

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if f"{module}.{name}" not in ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an official archive never does")
        return _Inert


def _unpickle(raw: bytes, name: str, title: str) -> dict:
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            # An honest pickle has fewer memo entries than bytes. A larger index would only exhaust the memory.
            if opcode.name.endswith("PUT") and argument > len(raw):
                raise pickle.UnpicklingError("its memo is out of range")
        content = _InertUnpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # A hostile pickle can raise nearly anything.
        reason = str(error)[:200]
        raise DataError(f"{name} is damaged or not from {title}: {reason}. Get the archive again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{name} holds a {type(content).__name__}, expected a dict. Get the archive again.")
    return content


def check_batch(
    batch: dict, name: str, num_images: int, label_key: bytes, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a file's content, after checking every one of them.

    Args:
        batch: one dict of `read_pickles`.
        name: the file's name for error messages.
        num_images: how many images the file has.
        label_key: the key of the labels.
        num_classes: labels are whole numbers below it.

    Returns:
        images, uint8 (num_images, 32, 32, 3), and labels, uint8 (num_images,).
    """
    data, labels = batch.get(b"data"), batch.get(label_key)
    shape = (num_images, 3072)
    try:
        _, received_shape, array_type, fortran_order, raw = data.state
        if received_shape != shape or array_type.arguments[0] not in ("u1", b"u1"):
            raise ValueError
        planes = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran_order else "C")
    except (AttributeError, IndexError, TypeError, ValueError):
        raise DataError(f"{name} does not hold {shape} bytes of images. Get the archive again.") from None
    whole = isinstance(labels, list) and len(labels) == num_images
    if not whole or not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise DataError(
            f"{name} does not hold {num_images:,} labels from 0 to {num_classes - 1}. Get the archive again."
        )
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.uint8)


def count_bytes(source: Path, folder: str, wanted: set[str]) -> int:
    """Return the size of an archive, or of the wanted files in a folder; a file that cannot be read counts as 0."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        for path in _unpacked(source, folder, wanted) if source.is_dir() else [source]:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total
