"""Defines what a training run is, the transitions between its states, and how a page reads it.

The state of a run, its events and its visitor's wishes are rows of the database. Its snapshots, its checkpoint, its log
and the visitor's picture are files in its folder. The worker that trains holds the lock `turn.lock`: it lets one run
train at a time, and because the system releases it when the worker dies, it also tells whether the run is still alive.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.errors import ConfigError, TrainingError
from colorizer.jobs.database import change, runs_folder, transaction
from colorizer.models import library
from colorizer.storage import write_bytes

ACTIVE_STATES = ("queued", "running", "paused")
ENDED_STATES = ("done", "stopped", "failed", "interrupted")
CHECKPOINT = "checkpoint.npz"
LOG = "worker.log"
_AT_WORK = "state IN ('running', 'paused')"
# Another server may have marked a run as interrupted before this server could say why its worker died.
_NOT_ENDED = f"state = 'queued' OR worker = ? AND ({_AT_WORK} OR state = 'interrupted' AND message = '')"
_NEXT_PLACE = "(SELECT coalesce(max(place), 0) + 1 FROM runs)"
# At the end of a run this file is deleted, so that there is room to write how it ended although the disk is full.
_RESERVE = "reserve"
_RESERVE_BYTES = 128 * 1024
_looking = threading.Lock()


@dataclass(frozen=True)
class RunView:
    """A run as it is now."""

    run_id: str
    spec: TrainingSpec
    created: str  # The time when the visitor started it, as ISO 8601 in UTC.
    state: str  # It is one of ACTIVE_STATES or ENDED_STATES.
    stage: str = ""  # A run at work is `starting`, `training`, `stopping`, `saving` or `measuring`.
    message: str = ""  # This says why it ended as it did.
    position: int = 0  # A queued run has this place in the queue, from 1.
    learning_rate_factor: float = 1.0  # The schedule is multiplied by this.
    step: int = 0  # This many batches are done.
    steps: int = 0  # The whole run has this many batches.
    # It holds at most config.MAX_CURVE_POINTS pairs of epochs and loss, each the mean of neighbouring batches.
    curve: list[tuple[float, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)  # It holds the values of the `loop.Epoch` events.
    snapshots: list[tuple[float, Path]] = field(default_factory=list)  # It holds pairs of epochs and file.

    @property
    def active(self) -> bool:
        """Whether the run waits, runs or is paused."""
        return self.state in ACTIVE_STATES

    @property
    def resumable(self) -> bool:
        """Whether the run can be resumed, from a checkpoint or the start; it cannot after its model was saved."""
        return self.state in ("interrupted", "failed") and self.model() is None

    @property
    def progress(self) -> float:
        """The share of the steps that are done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps > 0 else 0.0

    @property
    def seconds(self) -> float:
        """The training time of the epochs that are done."""
        return sum(epoch["seconds"] for epoch in self.epochs)

    @property
    def best_val_loss(self) -> float | None:
        """The lowest validation loss of any epoch; None before the first epoch is done."""
        return min((epoch["val_loss"] for epoch in self.epochs), default=None)

    def model(self) -> library.ModelEntry | None:
        """Return the library's entry of the model that this run saved, or None where it is not there.

        The run's name alone does not decide it: another training may have saved a model of that name since. The card
        of a model names the run that saved it.
        """
        entry = library.read_entry(library.user_folder() / self.spec.name)
        return entry if not entry.damage and entry.card.get("run") == self.run_id else None

    def snapshot_images(self, index: int) -> np.ndarray:
        """Return the reconstructions of the eight fixed images and of the visitor's, uint8 (8 or 9, 32, 32, 3).

        Raises:
            TrainingError: The file is missing or damaged.
        """
        path = self.snapshots[index][1]
        images = _read_array(path, np.uint8, (8, 32, 32, 3), (9, 32, 32, 3))
        if images is None:
            raise TrainingError(f"{path.name} of the run {self.spec.name} cannot be read. Choose another moment.")
        return images

    def snapshot_logits(self, index: int) -> np.ndarray | None:
        """Return the logits of the visitor's image, or of the frog without one, float16 (16, 16, bins), or None."""
        shape = (16, 16, self.spec.model.chroma_bins)
        logits = _read_array(logits_path(self.snapshots[index][1]), np.float16, shape)
        return logits if logits is not None and np.isfinite(logits).all() else None


def run_folder(run_id: str) -> Path:
    """Return the folder of a run's files."""
    return runs_folder() / config.validate_name(run_id)


def snapshot_path(run_id: str, event: int) -> Path:
    """Return the file of the snapshot that is the event of this id."""
    return run_folder(run_id) / f"snapshot-{event:09}.npy"


def logits_path(snapshot: Path) -> Path:
    """Return the file of the logits that belong to the file of a snapshot of a network with chroma bins."""
    return snapshot.with_suffix(".logits.npy")


def load_picture(run_id: str) -> np.ndarray | None:
    """Return the visitor's image that a run shows in its snapshots, uint8 (32, 32, 3), or None without a sound one."""
    return _read_array(run_folder(run_id) / "picture.npy", np.uint8, (32, 32, 3))


def load_own_pictures(run_id: str) -> np.ndarray | None:
    """Return the pictures that a visitor gave to a run to learn from, uint8 (N, 32, 32, 3), or None."""
    counts = range(config.MIN_OWN_PICTURES, config.MAX_OWN_PICTURES + 1)
    return _read_array(run_folder(run_id) / "own.npy", np.uint8, *((count, 32, 32, 3) for count in counts))


def _read_array(path: Path, dtype: type, *shapes: tuple[int, ...]) -> np.ndarray | None:
    """Return the array of an .npy file, or None unless it is sound and has this dtype and one of these shapes."""
    with contextlib.suppress(Exception), path.open("rb") as file:  # A damaged file raises many kinds of errors.
        array = np.lib.format.read_array(file)
        if array.dtype == dtype and array.shape in shapes:
            return array
    return None


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array to an .npy file in one step, into a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


# Transitions: each is one transaction, and raises `TrainingError` where the disk refuses it.


def create(spec: TrainingSpec, key: str, picture: np.ndarray | None = None, own: np.ndarray | None = None) -> str:
    """Queue a new run that `key` controls and return its id; raises `TrainingError` where there is no room for it."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with _queueing(run_id, spec.name, key) as db:
            columns = "place, id, name, spec, owner, created"
            values = [run_id, spec.name, json.dumps(spec.to_dict()), hash_key(key), now]
            db.execute(f"INSERT INTO runs ({columns}) SELECT {_NEXT_PLACE}, ?, ?, ?, ?, ?", values)
            for name, array in (("picture.npy", picture), ("own.npy", own)):
                if array is not None:
                    write_array(run_folder(run_id) / name, array)
    except BaseException:
        shutil.rmtree(run_folder(run_id), ignore_errors=True)
        raise
    return run_id


def requeue(run_id: str, name: str, key: str) -> None:
    """Queue the run of that name again after its end; raises `TrainingError` where there is no room for it."""
    with _queueing(run_id, name, key) as db:
        fresh = "state = 'queued', stage = '', message = '', pause_wanted = 0, stop_wanted = 0"
        db.execute(f"UPDATE runs SET {fresh}, place = {_NEXT_PLACE} WHERE id = ?", [run_id])


@contextlib.contextmanager
def _queueing(run_id: str, name: str, key: str) -> Iterator[sqlite3.Connection]:
    """Yield a transaction that may queue a run of that name for `key`, or raise the error that says why it may not."""
    with transaction() as db:
        if not turn_is_taken():
            note_interrupted(db)
        active = db.execute(f"SELECT name, owner FROM runs WHERE state IN {ACTIVE_STATES}").fetchall()
        if any(run["name"] == name for run in active):
            raise TrainingError(f"A training named {name} is under way. Choose another name.")
        if mine := [run["name"] for run in active if run["owner"] == hash_key(key)]:
            raise TrainingError(f"You have a training under way already ({mine[0]}). Stop it, or wait for its end.")
        if len(active) > config.MAX_QUEUED_RUNS:
            raise TrainingError(f"The queue is full: {len(active) - 1} trainings wait already. Try again later.")
        run_folder(run_id).mkdir(parents=True, exist_ok=True)
        # The bytes are random, because some disks store zeros in no space at all.
        write_bytes(run_folder(run_id) / _RESERVE, os.urandom(_RESERVE_BYTES))
        yield db


def wish(run_id: str, **wishes: float | str) -> None:
    """Note what is wanted of a run that is running or paused, in the columns of these names."""
    columns = ", ".join(f"{column} = ?" for column in wishes)
    change(f"UPDATE runs SET {columns} WHERE id = ? AND {_AT_WORK}", *wishes.values(), run_id)


def end(run_id: str, state: str, message: str, worker: int = 0) -> bool:
    """Note that a run ended in `state` and why, if it waited or that worker trained it; return whether it did.

    A server whose worker came too late must not end a run that the worker of another server trains.
    """
    with contextlib.suppress(OSError):
        (run_folder(run_id) / _RESERVE).unlink(missing_ok=True)
    update = f"UPDATE runs SET state = ?, stage = '', message = ? WHERE id = ? AND ({_NOT_ENDED})"
    return change(update, state, message, run_id, worker) > 0


def note_interrupted(db: sqlite3.Connection) -> None:
    """Mark every run that is being trained as interrupted; call this only if no other worker holds the lock."""
    # A run that was being measured counts as done, because its model is saved already.
    state = "CASE stage WHEN 'measuring' THEN 'done' ELSE 'interrupted' END"
    db.execute(f"UPDATE runs SET state = {state}, stage = '', message = '' WHERE {_AT_WORK}")


def hash_key(key: str) -> str:
    """Return the SHA-256 of a visitor's key, so that the key itself is not stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def take_turn(patience: float = 0.0) -> filelock.BaseFileLock | None:
    """Take the lock that lets one run train at a time; return None if it is not free within `patience` seconds."""
    lock = filelock.FileLock(runs_folder() / "turn.lock", thread_local=False)
    with contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=patience)
        return lock
    return None


def turn_is_taken() -> bool:
    """Return whether a worker is training at this moment; no worker can on a disk that cannot be written."""
    # Only one thread looks at a time, because two would take each other for a worker.
    with _looking, contextlib.suppress(OSError):
        if lock := take_turn():
            lock.release()
        return lock is None
    return False


class RunReader:
    """Reads runs again and again, and each of their events once."""

    def __init__(self) -> None:
        self._source: sqlite3.Connection | None = None
        self._last = 0  # The id of the last event that was read.
        # For each run and kind, pairs of the time in epochs and a batch's loss, an epoch's values or a snapshot's file.
        self._events: dict[str, dict[str, list[tuple[float, Any]]]] = {}

    def read(self, run_id: str | None = None, attended: str | None = None) -> list[RunView]:
        """Return one run, or all that can be read, newest first.

        Args:
            run_id: The run to read; None reads all.
            attended: The id of a run that counts as alive although its worker may just have ended.

        Raises:
            TrainingError: The database cannot be read, or there is no such run, or it is damaged.
        """
        which, values = ("WHERE id = ?", [run_id]) if run_id is not None else ("", [])
        ahead = "(SELECT count(*) FROM runs AS other WHERE other.state = 'queued' AND other.place <= runs.place)"
        views = []
        with transaction(write=False) as db:  # It also keeps other threads from reading at the same time.
            rows = db.execute(f"SELECT *, {ahead} AS position FROM runs {which} ORDER BY rowid DESC", values).fetchall()
            self._read_events(db)
            if run_id is None:
                self._events = {row["id"]: self._events[row["id"]] for row in rows if row["id"] in self._events}
            taken = any(row["state"] in ("running", "paused") for row in rows) and turn_is_taken()
            for row in rows:
                try:
                    views.append(self._view(row, taken or row["id"] == attended))
                except (ConfigError, ValueError, KeyError, TypeError, RecursionError) as error:
                    if run_id is not None:
                        raise TrainingError(f"The run {run_id!r} is damaged. Start another training.") from error
        if run_id is not None and not views:
            raise TrainingError(f"There is no training run {run_id!r} here. It may have been discarded.")
        return views

    def _read_events(self, db: sqlite3.Connection) -> None:
        if self._source is not db:  # Another file has taken the place of the one that was read.
            self._source, self._last, self._events = db, 0, {}
        new = "SELECT id, run, kind, epochs, loss, val_loss, seconds FROM events WHERE id > ? ORDER BY id"
        for event, run_id, kind, *numbers in db.execute(new, [self._last]):
            self._last = event
            known = self._events.setdefault(run_id, {"batch": [], "epoch": [], "snapshot": []})
            if kind in known and all(map(math.isfinite, numbers)):
                epochs, loss, val_loss, seconds = numbers
                epoch = int(epochs) if epochs.is_integer() else epochs
                values = {"epoch": epoch, "loss": loss, "val_loss": val_loss, "seconds": seconds}
                content = {"batch": loss, "epoch": values, "snapshot": snapshot_path(run_id, event)}
                _add_event(known, kind, epochs, content[kind])

    def _view(self, row: sqlite3.Row, alive: bool) -> RunView:
        state = row["state"]
        if state not in ACTIVE_STATES + ENDED_STATES:
            raise ValueError(f"its state is {state!r}")
        if state in ("running", "paused") and not alive:
            state = "done" if row["stage"] == "measuring" else "interrupted"
        events = self._events.get(row["id"], {})
        return RunView(
            run_id=row["id"],
            spec=parse_spec(row["spec"]),
            created=row["created"],
            state=state,
            stage=row["stage"] if state in ACTIVE_STATES else "",
            message=row["message"] if state == row["state"] else "",
            position=row["position"] if state == "queued" else 0,
            learning_rate_factor=row["learning_rate_factor"],
            step=row["step"],
            steps=row["steps"],
            curve=events.get("batch", []).copy(),
            epochs=[epoch for _, epoch in events.get("epoch", [])],
            snapshots=events.get("snapshot", []).copy(),
        )


def _add_event(known: dict[str, list[tuple[float, Any]]], kind: str, epochs: float, content: Any) -> None:
    """Add an event and drop the events after its time, because a resumed run repeats that part."""
    for events in known.values() if kind == "batch" else (known[kind],):
        while events and events[-1][0] >= epochs:
            events.pop()
    known[kind].append((epochs, content))
    if kind == "batch" and len(known[kind]) > config.MAX_CURVE_POINTS:
        pairs = np.array(known[kind][:-1]).reshape(-1, 2, 2).mean(axis=1)
        known[kind][:] = [*map(tuple, pairs.tolist()), known[kind][-1]]


@lru_cache(maxsize=1000)
def parse_spec(text: str) -> TrainingSpec:
    """Return the specification that a row of the database holds as JSON; raises one of several errors if damaged."""
    return TrainingSpec.from_dict(json.loads(text))
