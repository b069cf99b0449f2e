"""Writes files and folders in one step, so that a reader sees either the old or the new content, never a part."""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STAGING = ".staging-"  # The name of a folder or file begins like this while it is written or deleted.
# The name of a folder begins like this while it is replaced. 32 hexadecimal digits, a hyphen and its own name follow.
_OLD = ".old-"
_KILLED_AFTER = 600  # A staging folder untouched for this many seconds belongs to a process that was killed.
_LOST_AFTER = 30  # This is the same for a folder that is being replaced, which normally takes milliseconds.
_MAX_JSON_BYTES = 1024 * 1024
_MAX_JSON_DEPTH = 32
_MAX_JSON_INTEGER = 2**63


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` at the end of the block, if nothing went wrong.

    If anything goes wrong, `target` stays unchanged. What killed processes left beside it is cleaned up first.
    Any `OSError` is passed on.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clean_up(target.parent)
    staging = _staging_beside(target)
    old = target.with_name(f"{_OLD}{uuid.uuid4().hex}-{target.name}")
    try:
        staging.mkdir()
        yield staging
        try:
            if target.exists():
                os.utime(target)  # `clean_up` measures the age of `old` from this moment.
                target.rename(old)
            staging.rename(target)
        except BaseException:
            with contextlib.suppress(OSError):  # If even this fails, `clean_up` restores the folder later.
                old.rename(target)
            raise
        _remove(old)
    finally:
        _remove(staging)


def clean_up(folder: Path) -> None:
    """Clean up after killed processes: restore the folders that they were replacing, and delete unfinished ones.

    A process that is killed between the two renames of `replace_folder` leaves the complete old folder under
    a temporary name, and no folder under its own name.
    """
    for old in _leftovers(folder, _OLD, _LOST_AFTER):
        target = old.with_name(old.name[len(_OLD) + 33 :])
        with contextlib.suppress(OSError):  # The disk may be read-only, or another process cleans up as well.
            if target.name and not target.exists():
                old.rename(target)
            else:
                _remove(old)
    for staging in _leftovers(folder, _STAGING, _KILLED_AFTER):
        _remove(staging)


def _leftovers(folder: Path, prefix: str, seconds: float) -> list[Path]:
    """Return the entries of `folder` that begin with `prefix` and are older than `seconds`, the youngest first."""
    ages = {}
    for path in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # Another process has just renamed or deleted it.
            ages[path] = time.time() - path.lstat().st_mtime
    return sorted((path for path, age in ages.items() if age > seconds), key=ages.__getitem__)


def _staging_beside(path: Path) -> Path:
    return path.with_name(f"{_STAGING}{uuid.uuid4().hex}")


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Delete a folder in one step, so that readers see all of it or nothing. A link is deleted, not its target."""
    staging = _staging_beside(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(staging)
    _remove(staging)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    staging = _staging_beside(path)
    try:
        staging.write_bytes(content)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file in one step."""
    write_bytes(path, (json.dumps(value, indent=indent) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file that may hold anything.

    Raises:
        ValueError: the file holds no JSON object, is larger than 1 MB, is nested more than 32 deep, or has an integer
            of more than 64 bits, which would overflow in other code.
        OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a file")  # Reading a pipe or a device might never end.
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is too large")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_int=_parse_integer)
        too_deep = _depth(value) > _MAX_JSON_DEPTH
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ValueError(f"{path.name} is nested too deeply")
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value


def _depth(value: Any) -> int:
    """Return how deeply lists and objects are nested in a JSON value."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _parse_integer(digits: str) -> int:
    value = int(digits) if len(digits) < 30 else _MAX_JSON_INTEGER
    if abs(value) >= _MAX_JSON_INTEGER:
        raise ValueError(f"a number has {len(digits)} digits, which is too many")
    return value
