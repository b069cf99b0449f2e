"""Writes files and folders in one step: readers see the old one or the new one, never a half."""

import contextlib
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PREFIX = ".staging-"
_MAX_JSON_BYTES = 1024 * 1024
_KILLED_AFTER = 600  # seconds after which a staging folder is taken for that of a process that was killed


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` at the end of the block, if nothing went wrong.

    What killed processes left beside it is cleaned up. Any `OSError` of the disk is passed on.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished
            if time.time() - leftover.stat().st_mtime > _KILLED_AFTER:
                shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    try:
        staging.chmod(0o755)
        yield staging
        old = target.with_name(f"{staging.name}-old")
        if target.exists():
            target.rename(old)
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Delete a folder; readers see all of it or nothing."""
    staging = folder.with_name(f"{_PREFIX}{folder.name}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(staging)
    shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    staging = path.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
    try:
        staging.write_bytes(content)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file in one step."""
    write_bytes(path, (json.dumps(value, indent=indent) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file that may be anything; what is none raises `ValueError`."""
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is too large")
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value
