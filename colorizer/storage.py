"""Writes files and folders in one step, so that readers see the old one or the new one and never half of one."""

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STAGING = ".staging-"  # A folder or file that is being written or deleted.
_OLD = ".old-"  # A folder that is being replaced; its own name follows after 32 hexadecimal digits and a hyphen.
_KILLED_AFTER = 600  # A staging folder untouched for this many seconds belongs to a process that was killed.
_LOST_AFTER = 30  # The same for a folder that is being replaced, which takes milliseconds.
_MAX_JSON_BYTES = 1024 * 1024
_MAX_JSON_DEPTH = 32
_MAX_JSON_INTEGER = 2**63


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` at the end of the block, if nothing went wrong.

    If anything goes wrong, `target` stays what it was. What killed processes left beside it is cleaned up first.
    Any `OSError` of the disk is passed on.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clean_up(target.parent)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target.parent))
    old = target.with_name(f"{_OLD}{uuid.uuid4().hex}-{target.name}")
    try:
        staging.chmod(0o755)
        yield staging
        try:
            if target.exists():
                os.utime(target)  # The age of `old` then counts from here, see `clean_up`.
                target.rename(old)
            staging.rename(target)
        except BaseException:
            with contextlib.suppress(OSError):  # If even this fails, `clean_up` puts it back later.
                old.rename(target)
            raise
        _remove(old)
    finally:
        _remove(staging)


def clean_up(folder: Path) -> None:
    """Finish what killed processes left in `folder`: put back what they were replacing, delete what they were writing.

    A process that is killed between the two renames of `replace_folder` leaves the whole old folder under another
    name and nothing under its own.
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
    """Return what is in `folder` under names with that prefix and was not touched for so long, the youngest first."""
    ages = {}
    for path in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # Another process has just finished.
            ages[path] = time.time() - path.lstat().st_mtime
    return sorted((path for path, age in ages.items() if age > seconds), key=ages.__getitem__)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Delete a folder, of which readers see all or nothing; of a link, only the link is deleted."""
    staging = folder.with_name(f"{_STAGING}{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(staging)
    _remove(staging)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    staging = path.with_name(f"{_STAGING}{uuid.uuid4().hex}")
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
        ValueError: the file is no JSON object, larger than 1 MB, nested more than 32 deep, or has an integer of more
            than 64 bits, with which other code would overflow.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is too large")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_int=_parse_integer)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    level, depth = [value], 0
    while level := [part for value in level for part in (value.values() if isinstance(value, dict) else value)
                    if isinstance(part, dict | list)]:  # fmt: skip
        depth += 1
        if depth == _MAX_JSON_DEPTH:
            raise ValueError(f"{path.name} is nested too deeply")
    return value


def _parse_integer(digits: str) -> int:
    value = int(digits) if len(digits) < 30 else _MAX_JSON_INTEGER
    if abs(value) >= _MAX_JSON_INTEGER:
        raise ValueError(f"a number has {len(digits)} digits, which is too many")
    return value
