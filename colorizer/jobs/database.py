"""The SQLite database of training runs: the one home for their state, and the one place where disk errors get words."""

import atexit
import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from colorizer import config
from colorizer.errors import TrainingError

FILE = "runs.sqlite3"
_VERSION = 1
_PATIENCE = 10.0  # Seconds to wait while another process writes.
# A partial unique index lets any number of runs that have ended share a name, but only one that has not. AUTOINCREMENT
# never gives out an id twice, so a reader that knows the last id it saw misses nothing when events are deleted.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,  -- This is the JSON of a TrainingSpec.
    owner TEXT NOT NULL,  -- This is the SHA-256 of the visitor's key.
    created TEXT NOT NULL,
    place INTEGER NOT NULL,  -- Runs that wait are trained in this order.
    state TEXT NOT NULL DEFAULT 'queued',
    stage TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    pause_wanted INTEGER NOT NULL DEFAULT 0,
    stop_wanted INTEGER NOT NULL DEFAULT 0,
    stop_reason TEXT NOT NULL DEFAULT '',
    learning_rate_factor REAL NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS active_names ON runs (name) WHERE state IN ('queued', 'running', 'paused');
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,  -- It is batch, epoch or snapshot.
    epochs REAL NOT NULL,  -- This is how many epochs were done.
    loss REAL NOT NULL DEFAULT 0,
    val_loss REAL NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_a_run ON events (run);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if hasattr(errno, "EDQUOT") else (errno.ENOSPC, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

_lock = threading.RLock()
_connection: sqlite3.Connection | None = None
_identity: tuple[str, int] | None = None  # The path and inode of the file that the connection has open.


def runs_folder() -> Path:
    """Return the folder of the database and of each run's files."""
    return config.home() / "runs"


@contextlib.contextmanager
def transaction(write: bool = True) -> Iterator[sqlite3.Connection]:
    """Yield a connection inside a transaction: all that the block does becomes visible at once, or not at all.

    Threads of this process take turns. Transactions cannot be nested.

    Args:
        write: Whether the block changes anything. Readers never wait for writers of other processes.

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


def close() -> None:
    """Close the connection of this process; the next transaction opens another."""
    global _connection, _identity
    with _lock:
        if _connection is not None:
            _connection.close()
        _connection = _identity = None


atexit.register(close)


def explain(error: BaseException) -> str:
    """Say in one sentence or two what is wrong with the disk or the database, without naming a path of this machine."""
    name = getattr(error, "sqlite_errorname", "")
    if is_disk_full(error) or name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")):
        return "The disk is full, or it refuses to be written to. Free some space, then try again."
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")) or _has_number(error, _READ_ONLY):
        return "The folder of training runs is read-only. Make it writable, then try again."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "Another process is using the training runs at this moment. Try again."
    if isinstance(error, OSError) or name.startswith("SQLITE_IOERR"):
        reason = getattr(error, "strerror", None) or name or type(error).__name__
        return f"The disk of the training runs does not work ({reason}). Repair it, then try again."
    return f"The database of training runs is damaged. Move the file {FILE} out of the folder runs, then try again."


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether a full disk is the cause of an error, however deep it is wrapped."""
    while error is not None:
        # HDF5, which writes Keras's files, raises errors that have no number but say the system's words.
        if _has_number(error, _DISK_FULL) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_number(error: BaseException, numbers: tuple[int, ...]) -> bool:
    return isinstance(error, OSError) and error.errno in numbers


def _connect() -> sqlite3.Connection:
    """Return the open connection, or open the file anew where it is another one than before."""
    global _connection, _identity
    path = runs_folder() / FILE
    with contextlib.suppress(OSError):
        if _connection is not None and _identity == (str(path), path.stat().st_ino):
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
        _connection.execute("SELECT id FROM runs LIMIT 1")
        _identity = (str(path), path.stat().st_ino)
    except (sqlite3.OperationalError, OSError):
        close()
        if not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise
        # SQLite cannot make the files that it keeps beside the database. The finished runs can be read all the same;
        # this connection has no identity, so the next transaction looks whether the disk has become writable.
        _connection = _open(f"{path.as_uri()}?mode=ro&immutable=1")
    return _connection


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, uri=uri.startswith("file:")
    )
    connection.row_factory = sqlite3.Row
    return connection
