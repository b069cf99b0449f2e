"""Training runs: their transitions, how a page reads them, and how the worker that trains one writes it.

The state of a run, its events and its visitor's wishes are rows of the database. Its snapshots, its checkpoint, its log
and the visitor's picture are files in its folder. The worker that trains holds the lock `turn.lock`: it lets one run
train at a time, and because the system releases it when the worker dies, it also tells whether a run is still alive.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import filelock
import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.errors import ConfigError, TrainingError
from colorizer.jobs.database import runs_folder, transaction
from colorizer.models import library
from colorizer.storage import write_bytes

ACTIVE_STATES = ("queued", "running", "paused")
ENDED_STATES = ("done", "stopped", "failed", "interrupted")
CHECKPOINT = "checkpoint.npz"
LOG = "worker.log"
_RESERVE = "reserve"  # Deleting this file makes room to write how a run ended when the disk is full.
_RESERVE_BYTES = 128 * 1024
_UPDATES_PER_SECOND = 10
_LOOKS_PER_SECOND = 50  # The worker looks at the wishes at most this often.
_LOCK_PATIENCE = 2.0  # Seconds; somebody who only looks whether the lock is held holds it for a moment.
_turn_check = threading.Lock()


@dataclass(frozen=True)
class RunView:
    """A run as it is now."""

    run_id: str
    spec: TrainingSpec
    created: str  # When the visitor asked for it: ISO 8601, UTC.
    state: str  # One of ACTIVE_STATES or ENDED_STATES.
    stage: str = ""  # While it runs: `starting`, `training`, `stopping`, `saving` or `measuring`.
    message: str = ""  # Why it ended as it did.
    position: int = 0  # Its place among the runs that wait, from 1.
    learning_rate_factor: float = 1.0  # The schedule is multiplied by this.
    step: int = 0  # The number of batches done.
    steps: int = 0  # The number of batches in the whole run.
    # Pairs of epochs and loss, at most config.MAX_CURVE_POINTS, each the mean of neighbouring batches.
    curve: list[tuple[float, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)  # The values of the `loop.Epoch` events.
    snapshots: list[tuple[float, Path]] = field(default_factory=list)  # Pairs of epochs and file.

    @property
    def active(self) -> bool:
        """Whether the run waits, runs or is paused."""
        return self.state in ACTIVE_STATES

    @property
    def resumable(self) -> bool:
        """Whether it can go on: from its last checkpoint, or from the beginning where it has none."""
        return self.state in ("interrupted", "failed")

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
        """Return the library's entry of the model that this run saved, or None where it is not there (any more).

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
        images = _read_images(path)
        if images is None or images.shape[1:] != (32, 32, 3) or len(images) not in (8, 9):
            raise TrainingError(f"{path.name} of the run {self.spec.name} cannot be read. Choose another moment.")
        return images


def run_folder(run_id: str) -> Path:
    """Return the folder of a run's files."""
    return runs_folder() / config.validate_name(run_id)


def load_picture(run_id: str) -> np.ndarray | None:
    """Return the visitor's image that a run shows in its snapshots, uint8 (32, 32, 3), or None without a sound one."""
    picture = _read_images(run_folder(run_id) / "picture.npy")
    return picture if picture is not None and picture.shape == (32, 32, 3) else None


def _read_images(path: Path) -> np.ndarray | None:
    with contextlib.suppress(Exception), path.open("rb") as file:  # A damaged file raises many kinds of errors.
        images = np.lib.format.read_array(file)
        if images.dtype == np.uint8:
            return images
    return None


def _write_images(path: Path, images: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images)
    write_bytes(path, buffer.getvalue())


# Transitions, each in one transaction


def create(spec: TrainingSpec, key: str, picture: np.ndarray | None = None) -> str:
    """Queue a new run that `key` controls and return its id; raises `TrainingError` where there is no room for it."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    values = {
        "id": run_id,
        "name": spec.name,
        "spec": json.dumps(spec.to_dict()),
        "owner": hash_key(key),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        with transaction() as db:
            _check_room(db, spec.name, key)
            columns = f"place, {', '.join(values)}"
            db.execute(f"INSERT INTO runs ({columns}) SELECT {_NEXT_PLACE}, ?, ?, ?, ?, ?", list(values.values()))
            _make_folder(run_id)
            if picture is not None:
                _write_images(run_folder(run_id) / "picture.npy", picture)
    except BaseException:
        shutil.rmtree(run_folder(run_id), ignore_errors=True)
        raise
    return run_id


def requeue(run_id: str, key: str) -> None:
    """Queue a run again that has ended; raises `TrainingError` where there is no room for it."""
    with transaction() as db:
        name = db.execute("SELECT name FROM runs WHERE id = ?", [run_id]).fetchone()[0]
        _check_room(db, name, key)
        db.execute(
            "UPDATE runs SET state = 'queued', stage = '', message = '', pause_wanted = 0, stop_wanted = 0, "
            f"stop_reason = '', place = {_NEXT_PLACE} WHERE id = ? AND state NOT IN {ACTIVE_STATES}",
            [run_id],
        )
        _make_folder(run_id)


def wish(run_id: str, **wishes: Any) -> None:
    """Note what a visitor wants of a run that is running or paused, by the columns that hold wishes."""
    settings = ", ".join(f"{column} = :{column}" for column in wishes)
    with transaction() as db:
        db.execute(f"UPDATE runs SET {settings} WHERE id = :id AND {_AT_WORK}", wishes | {"id": run_id})


def end(run_id: str, state: str, message: str, waiting: bool = False) -> bool:
    """Note how a run ended; on a full disk, give up the run's reserve to make room for it.

    Args:
        run_id: The run.
        state: One of ENDED_STATES.
        message: Why it ended so, for the visitor.
        waiting: Whether the run should end from the queue instead of from work.

    Returns:
        Whether the run was waiting, or at work, as `waiting` says.
    """
    # Another server may have found the worker gone before this one could say why.
    known = "state = 'queued'" if waiting else f"({_AT_WORK} OR (state = 'interrupted' AND message = ''))"
    for attempt in ("first", "last"):
        try:
            with transaction() as db:
                changes = "state = ?, stage = '', message = ?"
                done = db.execute(f"UPDATE runs SET {changes} WHERE id = ? AND {known}", [state, message, run_id])
            return done.rowcount > 0
        except TrainingError:
            if attempt == "last":
                raise
        finally:
            with contextlib.suppress(OSError):
                (run_folder(run_id) / _RESERVE).unlink(missing_ok=True)
    raise AssertionError("The last attempt returns or raises.")


def delete(run_id: str) -> None:
    """Delete a run's row and events; a worker that is still at it finds no row and gives up."""
    with transaction() as db:
        db.execute("DELETE FROM runs WHERE id = ?", [run_id])


_AT_WORK = "state IN ('running', 'paused')"
_NEXT_PLACE = "(SELECT coalesce(max(place), 0) + 1 FROM runs)"


def _check_room(db: sqlite3.Connection, name: str, key: str) -> None:
    """Raise the error that says why no run of that name may be queued for `key`, if there is one."""
    lock = _try_turn()
    if lock is not None:
        _note_interrupted(db)
        lock.release()
    active = db.execute(f"SELECT name, owner, state FROM runs WHERE state IN {ACTIVE_STATES}").fetchall()
    if any(name == other for other, _, _ in active):
        raise TrainingError(f"A training named {name} is under way. Choose another name.")
    if mine := [other for other, owner, _ in active if owner == hash_key(key)]:
        raise TrainingError(f"You have a training under way already ({mine[0]}). Stop it, or wait for its end.")
    if len(active) > config.MAX_QUEUED_RUNS:
        raise TrainingError(f"The queue is full: {len(active) - 1} trainings wait already. Try again later.")


def _make_folder(run_id: str) -> None:
    folder = run_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    # The bytes are random, since some disks store zeros in no space at all.
    write_bytes(folder / _RESERVE, os.urandom(_RESERVE_BYTES))


def hash_key(key: str) -> str:
    """Return the SHA-256 of a visitor's key: the disk need not know the key itself."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


# The turn


def _try_turn(patience: float = 0.0) -> filelock.BaseFileLock | None:
    """Take the lock that lets one run train at a time; return None where another process has it."""
    with _turn_check:  # Two threads that only look would otherwise take each other for a worker.
        lock = filelock.FileLock(runs_folder() / "turn.lock", thread_local=False)
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=patience)
            return lock
    return None


def turn_is_taken() -> bool:
    """Return whether a worker on this machine's folder is training at this moment."""
    try:
        lock = _try_turn()
    except OSError:  # Nobody can train on a disk that cannot be written.
        return False
    if lock is not None:
        lock.release()
    return lock is None


def _note_interrupted(db: sqlite3.Connection) -> None:
    """Say of the runs whose worker is gone that they are interrupted; the caller holds the turn."""
    # The model is in the library before it is measured.
    db.execute(
        "UPDATE runs SET state = CASE stage WHEN 'measuring' THEN 'done' ELSE 'interrupted' END, stage = '' "
        f"WHERE {_AT_WORK}"
    )


# Reading


def next_queued() -> str | None:
    """Return the id of the run that waits longest, or None where no run waits."""
    with transaction(write=False) as db:
        row = db.execute("SELECT id FROM runs WHERE state = 'queued' ORDER BY place LIMIT 1").fetchone()
    return row and row[0]


def progress(run_id: str) -> sqlite3.Row | None:
    """Return `state`, `stage` and `stop_wanted` of a run, or None where it was discarded."""
    with transaction(write=False) as db:
        return db.execute("SELECT state, stage, stop_wanted FROM runs WHERE id = ?", [run_id]).fetchone()


def is_owner(run_id: str, key: str) -> bool:
    """Return whether `key` is the one that a run was created with."""
    with transaction(write=False) as db:
        row = db.execute("SELECT owner FROM runs WHERE id = ?", [run_id]).fetchone()
    return bool(key and row) and secrets.compare_digest(str(row[0]).encode(), hash_key(key).encode())


def _snapshot_name(number: int) -> str:
    return f"snapshot-{number:09}.npy"


class _Events:
    """The events of one run, as far as they were read."""

    def __init__(self) -> None:
        # For each kind, pairs of the time in epochs and what belongs to it: a loss, an epoch's values, a file's name.
        self.known: dict[str, list[tuple[float, Any]]] = {"batch": [], "epoch": [], "snapshot": []}

    def add(self, number: int, kind: str, epochs: float, loss: float, val_loss: float, seconds: float) -> None:
        """Add an event and forget what came after its time before: a resumed run does that part again."""
        if kind not in self.known or not all(map(math.isfinite, (epochs, loss, val_loss, seconds))):
            return
        for events in self.known.values() if kind == "batch" else (self.known[kind],):
            while events and events[-1][0] >= epochs:
                events.pop()
        if kind == "batch":
            curve = self.known["batch"]
            curve.append((epochs, loss))
            if len(curve) > config.MAX_CURVE_POINTS:
                pairs = np.array(curve[:-1]).reshape(-1, 2, 2).mean(axis=1)
                curve[:] = [*map(tuple, pairs.tolist()), curve[-1]]
        elif kind == "epoch":
            epoch = int(epochs) if epochs == int(epochs) else epochs
            values = {"epoch": epoch, "loss": loss, "val_loss": val_loss, "seconds": seconds}
            self.known["epoch"].append((epochs, values))
        else:
            self.known["snapshot"].append((epochs, _snapshot_name(number)))


class RunReader:
    """Reads runs again and again, and each of their events once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, _Events] = {}
        self._last = 0  # The id of the last event that was read.
        self._folder: Path | None = None

    def read(self, run_id: str | None = None, attended: str | None = None) -> list[RunView]:
        """Return that run, or all runs that can be read, newest first.

        Args:
            run_id: The run to read; None reads all.
            attended: The id of a run that counts as alive although its worker may just have ended.

        Raises:
            TrainingError: The database cannot be read, or there is no such run, or its row is damaged.
        """
        which, values = ("WHERE id = ?", [config.validate_name(run_id)]) if run_id is not None else ("", [])
        ahead = "(SELECT count(*) FROM runs AS other WHERE other.state = 'queued' AND other.place <= runs.place)"
        with self._lock, transaction(write=False) as db:
            rows = db.execute(f"SELECT *, {ahead} AS position FROM runs {which} ORDER BY place DESC", values).fetchall()
            self._read_events(db)
            views = []
            alive = any(row["state"] in ("running", "paused") for row in rows) and turn_is_taken()
            for row in rows:
                try:
                    views.append(self._view(row, alive or row["id"] == attended))
                except (ConfigError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    if run_id is not None:
                        raise TrainingError(f"The run {run_id!r} is damaged. Start another training.") from error
        if run_id is not None and not views:
            raise TrainingError(f"There is no training run {run_id!r} here. It may have been discarded.")
        return views

    def _read_events(self, db: sqlite3.Connection) -> None:
        if self._folder != runs_folder():
            self._events, self._last, self._folder = {}, 0, runs_folder()
        columns = "id, run, kind, epochs, loss, val_loss, seconds"
        for number, run_id, *values in db.execute(
            f"SELECT {columns} FROM events WHERE id > ? ORDER BY id", [self._last]
        ):
            self._events.setdefault(run_id, _Events()).add(number, *values)
            self._last = number

    def _view(self, row: sqlite3.Row, alive: bool) -> RunView:
        state, stage, folder = row["state"], row["stage"], run_folder(row["id"])
        if state not in ACTIVE_STATES + ENDED_STATES:
            raise ValueError(f"its state is {state!r}")
        if state in ("running", "paused") and not alive:
            state = "done" if stage == "measuring" else "interrupted"
        events = self._events.get(row["id"], _Events()).known
        return RunView(
            run_id=row["id"],
            spec=_parse_spec(row["spec"]),
            created=str(row["created"]),
            state=state,
            stage=str(stage) if state in ACTIVE_STATES else "",
            message=str(row["message"]),
            position=row["position"] if state == "queued" else 0,
            learning_rate_factor=float(row["learning_rate_factor"]),
            step=int(row["step"]),
            steps=int(row["steps"]),
            curve=events["batch"].copy(),
            epochs=[epoch for _, epoch in events["epoch"]],
            snapshots=[(epochs, folder / name) for epochs, name in events["snapshot"]],
        )


@lru_cache(maxsize=1000)
def _parse_spec(text: str) -> TrainingSpec:
    return TrainingSpec.from_dict(json.loads(text))


# The worker's side


class RunWriter:
    """A run in the hands of the worker that trains it: it holds the turn, writes what happens and reads the wishes."""

    def __init__(self, run_id: str, turn: filelock.BaseFileLock) -> None:
        self.run_id = run_id
        self._turn = turn  # The lock is released when the process ends.
        self._losses: list[float] = []  # The losses of the batches since the last update.
        self._last_update = self._last_look = 0.0
        self._paused = self._stopping = False
        with transaction(write=False) as db:
            self.spec = _parse_spec(db.execute("SELECT spec FROM runs WHERE id = ?", [run_id]).fetchone()[0])

    @classmethod
    def begin(cls, run_id: str) -> Self | None:
        """Take the turn for a run that waits; return None where another run is at work or this one waits no more."""
        turn = _try_turn(_LOCK_PATIENCE)
        if turn is None:
            return None
        with transaction() as db:
            _note_interrupted(db)
            begin = "UPDATE runs SET state = 'running', stage = 'starting' WHERE id = ? AND state = 'queued'"
            begun = db.execute(begin, [run_id]).rowcount
        if begun:
            return cls(run_id, turn)
        turn.release()
        return None

    def set_stage(self, stage: str) -> None:
        """Note what the run is doing now."""
        self._update(state="running", stage=stage)

    def should_stop(self) -> bool:
        """Return whether a visitor wants the run to stop; while the visitor wants it to pause, wait."""
        while self._look()["pause_wanted"] and not self._wishes["stop_wanted"]:
            if not self._paused:
                self._update(state="paused")
            self._paused = True
            time.sleep(1 / _LOOKS_PER_SECOND)
        if self._paused:
            self._update(state="running")
            self._paused = False
        if self._wishes["stop_wanted"] and not self._stopping:
            self.set_stage("stopping")
            self._stopping = True
        return self._stopping

    def learning_rate_factor(self) -> float:
        """Return what the schedule is to be multiplied by."""
        return float(self._look()["learning_rate_factor"])

    def stop_reason(self) -> str:
        """Return why the run was asked to stop, if something other than the visitor asked."""
        return str(self._look()["stop_reason"])

    def _look(self) -> sqlite3.Row:
        """Return the visitor's wishes, which may be a fiftieth of a second old."""
        if time.monotonic() - self._last_look > 1 / _LOOKS_PER_SECOND:
            with transaction(write=False) as db:
                columns = "pause_wanted, stop_wanted, stop_reason, learning_rate_factor"
                self._wishes = db.execute(f"SELECT {columns} FROM runs WHERE id = ?", [self.run_id]).fetchone()
            self._last_look = time.monotonic()
        if self._wishes is None:
            raise TrainingError("The run was discarded.")
        return self._wishes

    def _update(self, **values: Any) -> None:
        settings = ", ".join(f"{column} = :{column}" for column in values)
        with transaction() as db:
            db.execute(f"UPDATE runs SET {settings} WHERE id = :id", values | {"id": self.run_id})

    def on_event(self, event: Any) -> None:
        """Keep an event of `loop.train`; batches are joined so that at most ten updates a second are written."""
        kind, values = type(event).__name__.lower(), dict(vars(event))
        values["epochs"] = values.pop("epoch", None) or values.get("epochs", 0.0)
        if kind == "batch":
            self._losses.append(values["loss"])
            now = time.monotonic()
            if now - self._last_update < 1 / _UPDATES_PER_SECOND and values["step"] < values["steps"]:
                return
            self._last_update = now
            values["loss"] = float(np.mean(self._losses))
            self._losses.clear()
        columns = [key for key in ("epochs", "loss", "val_loss", "seconds") if key in values]
        if wrong := next((key for key in columns if not math.isfinite(values[key])), None):
            raise TrainingError(
                f"The {wrong} became {values[wrong]} after {values['epochs']:.3g} epochs. "
                "Start again with a smaller learning rate."
            )
        with transaction() as db:
            names, marks = ", ".join(["run", "kind", *columns]), ", ".join("?" * (len(columns) + 2))
            row = [self.run_id, kind, *(float(values[key]) for key in columns)]
            number = db.execute(f"INSERT INTO events ({names}) VALUES ({marks})", row).lastrowid
            if kind == "batch":
                change = "UPDATE runs SET step = ?, steps = ? WHERE id = ?"
                db.execute(change, [values["step"], values["steps"], self.run_id])
                return
            # Somebody may have removed the folder, which the checkpoint after an epoch needs as well.
            run_folder(self.run_id).mkdir(parents=True, exist_ok=True)
            if kind == "snapshot":
                _write_images(run_folder(self.run_id) / _snapshot_name(number), values["images"])
