"""Keeps the state of all training runs in an SQLite database, and explains the errors of the disk in plain words."""

import atexit
import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colorizer import config
from colorizer.errors import TrainingError

FILE = "runs.sqlite3"
DISK_FULL = "The disk is full, or it refuses to be written to. Free some space, then try again."
_VERSION = 1
_PATIENCE = 10.0  # Seconds to wait while another process writes.
# `spec` is the JSON of a TrainingSpec, `owner` the SHA-256 of a key, and `worker` the number of the worker that trains
# the run or did so last. Runs that wait are trained in the order of `place`. The partial unique index lets only one run
# of a name be under way. AUTOINCREMENT never gives out an id twice, so that a reader who knows the last id it saw
# misses nothing when events are deleted.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, spec TEXT NOT NULL, owner TEXT NOT NULL, created TEXT NOT NULL,
    place INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'queued', stage TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
    pause_wanted INTEGER NOT NULL DEFAULT 0, stop_wanted INTEGER NOT NULL DEFAULT 0,
    learning_rate_factor REAL NOT NULL DEFAULT 1, worker INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS active_names ON runs (name) WHERE state IN ('queued', 'running', 'paused');
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL, epochs REAL NOT NULL, loss REAL NOT NULL, val_loss REAL NOT NULL, seconds REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_a_run ON events (run);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_lock = threading.RLock()
_connection: sqlite3.Connection | None = None
_identity: tuple[Path, int] | None = None  # The path and inode of the file that the connection has open.


def runs_folder() -> Path:
    """Return the folder of the database and of each run's files."""
    return config.home() / "runs"


@contextlib.contextmanager
def transaction(write: bool = True) -> Iterator[sqlite3.Connection]:
    """Yield a connection inside a transaction: all that the block changes becomes visible at once, or nothing does.

    Threads of this process take turns. Readers never wait for writers of other processes. Do not nest transactions.

    Raises:
        TrainingError: The disk is full, read-only or failing, or the database is damaged.
    """
    with _lock:
        try:
            db = _connect()
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield db
                db.commit()
            finally:
                if db.in_transaction:
                    db.rollback()
        except (sqlite3.Error, OSError) as error:
            raise TrainingError(explain(error)) from error


def query(sql: str, *values: Any) -> list[sqlite3.Row]:
    """Return the rows that a statement selects; raises `TrainingError` as `transaction` does."""
    with transaction(write=False) as db:
        return db.execute(sql, values).fetchall()


def change(sql: str, *values: Any) -> int:
    """Execute one statement and return how many rows it changed; raises `TrainingError` as `transaction` does."""
    with transaction() as db:
        return db.execute(sql, values).rowcount


@atexit.register
def close() -> None:
    """Close the connection of this process; the next transaction opens another."""
    global _connection, _identity
    with _lock:
        if _connection is not None:
            _connection.close()
        _connection = _identity = None


def explain(error: BaseException) -> str:
    """Say in plain words what is wrong with the disk or the database, without naming a path of this machine."""
    name, number = getattr(error, "sqlite_errorname", ""), getattr(error, "errno", None)
    if is_disk_full(error) or name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")):
        return DISK_FULL
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")) or number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "The folder of training runs is read-only. Make it writable, then try again."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "Another process is using the training runs at this moment. Try again."
    if isinstance(error, OSError) or name.startswith("SQLITE_IOERR"):
        return f"The disk does not work ({getattr(error, 'strerror', None) or name}). Repair it, then try again."
    return f"The database of training runs is damaged. Move the file {FILE} out of the folder runs, then try again."


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether a full disk is the cause of an error, however deep it is wrapped."""
    while error is not None:
        # HDF5, which writes Keras's files, raises errors that have no number but say the system's words.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", 0))
        if full or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _connect() -> sqlite3.Connection:
    """Return the open connection, or open the file where that was not done or another file has taken its place."""
    global _connection, _identity
    path = runs_folder() / FILE
    with contextlib.suppress(OSError):
        if _connection is not None and _identity == (path, path.stat().st_ino):
            return _connection
    close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _connection = _open(str(path))
        if _connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            _connection.execute("PRAGMA journal_mode = WAL")
            _connection.executescript(_SCHEMA)
        _connection.execute("PRAGMA foreign_keys = ON")
        _connection.execute("PRAGMA synchronous = NORMAL")
        _identity = (path, path.stat().st_ino)
    except (sqlite3.OperationalError, OSError):
        close()
        if not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise
        # SQLite cannot make its files beside the database, but finished runs can be read without them. This connection
        # gets no identity, so that the next transaction finds out whether the disk has become writable.
        _connection = _open(f"{path.as_uri()}?mode=ro&immutable=1")
    return _connection


def _open(name: str) -> sqlite3.Connection:
    options = {"isolation_level": None, "check_same_thread": False, "uri": name.startswith("file:")}
    connection = sqlite3.connect(name, timeout=_PATIENCE, **options)
    connection.row_factory = sqlite3.Row
    return connection
