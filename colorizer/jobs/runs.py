"""Training runs on disk: each is a folder that one worker writes and that any server reads.

It holds `spec.json`, `status.json`, `events.jsonl`, `worker.log`, `checkpoint.npz`, snapshots and perhaps the visitor's
`picture.npy`. The server that has a run in its queue locks `server.lock`, the worker that trains it `worker.lock`: a
run that should be active and has neither lock belonged to a process that is gone.
"""

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.errors import ConfigError, TrainingError
from colorizer.models import library
from colorizer.storage import read_json, replace_folder, write_json

ACTIVE_STATES = ("queued", "running", "paused")
ENDED_STATES = ("done", "stopped", "failed", "interrupted")
CHECKPOINT = "checkpoint.npz"
LOG = "worker.log"
SERVER_LOCK, _WORKER_LOCK = "server.lock", "worker.lock"
_UPDATES_PER_SECOND = 10
_LOCK_PATIENCE = 10.0  # seconds that a worker waits for the last one to let go of the run


@dataclass(frozen=True)
class RunView:
    """A run as its folder shows it now."""

    run_id: str  # its folder's name
    spec: TrainingSpec
    created: str  # when it was asked for, ISO 8601, UTC
    state: str  # one of ACTIVE_STATES or ENDED_STATES
    stage: str = ""  # of a running one: `starting`, `training`, `stopping`, `saving` or `measuring`
    message: str = ""  # why it ended as it did
    position: int = 0  # in the queue, from 1
    learning_rate_factor: float = 1.0  # what the schedule is multiplied by
    step: int = 0  # batches done
    steps: int = 0  # of the whole run
    # Epochs and loss, at most config.MAX_CURVE_POINTS, each the mean of neighbouring batches.
    curve: list[tuple[float, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)  # the `loop.Epoch` events
    snapshots: list[tuple[float, Path]] = field(default_factory=list)  # epochs and file of each

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_STATES

    @property
    def resumable(self) -> bool:
        """Whether it can go on: from its last checkpoint, or from the beginning where it has none."""
        return self.state in ("interrupted", "failed")

    @property
    def progress(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0

    @property
    def seconds(self) -> float:
        """Time of the epochs that are done."""
        return sum(epoch["seconds"] for epoch in self.epochs)

    @property
    def best_val_loss(self) -> float | None:
        return min((epoch["val_loss"] for epoch in self.epochs), default=None)

    def model(self) -> library.ModelEntry | None:
        """Return the library's entry of the model that this run saved, or None where it is not there (any more).

        The run's name alone does not decide it: another training may have saved a model of that name since. The card
        of a model names the run that saved it.
        """
        entry = library.read_entry(library.user_folder() / self.spec.name)
        return entry if not entry.damage and entry.card.get("run") == self.run_id else None

    def snapshot_images(self, index: int) -> np.ndarray:
        """Reconstructions of the eight fixed images and of the visitor's, uint8 (8 or 9, 32, 32, 3).

        Raises:
            TrainingError: the file is missing or damaged.
        """
        path = self.snapshots[index][1]
        images = _read_images(path)
        if images is None or images.shape[1:] != (32, 32, 3) or len(images) not in (8, 9):
            raise TrainingError(f"{path.name} of the run {self.spec.name} cannot be read. Choose another moment.")
        return images


def runs_folder() -> Path:
    """Folder of all runs."""
    return config.home() / "runs"


def list_ids() -> list[str]:
    """Ids of all runs, newest first."""
    names = [path.name for path in runs_folder().glob("*/")]
    return sorted(filter(config.NAME_PATTERN.fullmatch, names), reverse=True)


def create(spec: TrainingSpec, key: str, picture: np.ndarray | None = None) -> str:
    """Create the folder of a queued run that `key` controls, in one step; return its id."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    about = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "owner": hash_key(key)}
    with replace_folder(runs_folder() / run_id) as folder:
        write_json(folder / "spec.json", spec.to_dict() | about)
        write_json(folder / "status.json", {"state": "queued"})
        if picture is not None:
            np.save(folder / "picture.npy", picture)
    return run_id


def load_picture(run_id: str) -> np.ndarray | None:
    """A visitor's own image that a run shows in its snapshots, uint8 (32, 32, 3), or None if it has none to use."""
    picture = _read_images(runs_folder() / run_id / "picture.npy")
    return picture if picture is not None and picture.shape == (32, 32, 3) else None


def _read_images(path: Path) -> np.ndarray | None:
    with contextlib.suppress(Exception), path.open("rb") as file:  # a damaged file raises many kinds of errors
        images = np.lib.format.read_array(file)
        if images.dtype == np.uint8:
            return images
    return None


def change_status(run_id: str, **values: Any) -> None:
    """Change a run's status, in one step."""
    path = runs_folder() / run_id / "status.json"
    write_json(path, read_json(path) | values)


def hash_key(key: str) -> str:
    """SHA-256 of a visitor's key: the disk need not know the key itself."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def take_lock(path: Path, patience: float = 1.0) -> filelock.BaseFileLock:
    """Lock a file until it is released or this process ends; raises `TrainingError` if another one has it."""
    lock = filelock.FileLock(path, timeout=patience, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrainingError(f"Another process holds {path.name}. Wait until it has ended.") from None
    return lock


def _is_locked(path: Path) -> bool:
    try:
        if path.exists():
            take_lock(path, patience=0).release()
        return False
    except TrainingError:
        return True


class RunReader:
    """Reads a run's folder again and again, and each of its events once."""

    def __init__(self, run_id: str) -> None:
        self._folder = runs_folder() / config.validate_name(run_id)
        self._about: dict[str, Any] = {}
        self._offset = 0
        self._step = self._steps = 0
        # Of each kind, the time in epochs, and what belongs to it: a batch's loss, an epoch's event, a snapshot's file.
        self._events: dict[str, list[tuple[float, Any]]] = {"batch": [], "epoch": [], "snapshot": []}

    def owned_by(self, key: str) -> bool:
        """Whether `key` is the one the run was created with; it must have been read."""
        return bool(key) and secrets.compare_digest(str(self._about.get("owner")), hash_key(key))

    def read(self, known_alive: bool = False) -> RunView:
        """Read what is new and return the run.

        Args:
            known_alive: whether its server or worker is known to be there; if not, its locks tell.

        Raises:
            TrainingError: there is no such run, or its folder is damaged.
        """
        name = self._folder.name
        try:
            if not self._about:
                self._about = read_json(self._folder / "spec.json")
            status = read_json(self._folder / "status.json")
            self._read_events()
            return self._view(status, known_alive)
        except FileNotFoundError:
            raise TrainingError(f"There is no training run {name!r} here. It may have been discarded.") from None
        except (ConfigError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"The folder of the run {name!r} is damaged ({error}). Delete it.") from error

    def _view(self, status: dict[str, Any], known_alive: bool) -> RunView:
        state, stage = status["state"], status.get("stage", "")
        if state not in ACTIVE_STATES + ENDED_STATES:
            raise ValueError(f"its state is {state!r}")
        locks = (self._folder / SERVER_LOCK, self._folder / _WORKER_LOCK)
        if state in ACTIVE_STATES and not known_alive and not any(map(_is_locked, locks)):
            state = "done" if stage == "measuring" else "interrupted"  # the model is saved before it is measured
        return RunView(
            run_id=self._folder.name,
            spec=TrainingSpec.from_dict(self._about),
            created=str(self._about.get("created", "")),
            state=state,
            stage=stage if state in ACTIVE_STATES else "",
            message=str(status.get("message", "")),
            learning_rate_factor=float(status.get("learning_rate_factor", 1)),
            step=self._step,
            steps=self._steps,
            curve=self._events["batch"].copy(),
            epochs=[epoch for _, epoch in self._events["epoch"]],
            snapshots=self._events["snapshot"].copy(),
        )

    def _read_events(self) -> None:
        with contextlib.suppress(FileNotFoundError), (self._folder / "events.jsonl").open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]  # the last line may be half-written
            for line in lines:
                self._add(json.loads(line))
            self._offset += sum(len(line) + 1 for line in lines)

    def _add(self, event: dict[str, Any]) -> None:
        """Add an event; what was to come after it is forgotten: a run that was resumed does it again."""
        kind, now = event["event"], event["epoch" if event["event"] == "epoch" else "epochs"]
        for events in self._events.values() if kind == "batch" else (self._events[kind],):
            while events and events[-1][0] >= now:
                events.pop()
        if kind == "batch":
            self._step, self._steps = event["step"], event["steps"]
            curve = self._events["batch"]
            curve.append((now, event["loss"]))
            if len(curve) > config.MAX_CURVE_POINTS:
                pairs = np.array(curve[:-1]).reshape(-1, 2, 2).mean(axis=1)
                curve[:] = [*map(tuple, pairs.tolist()), curve[-1]]
        else:
            self._events[kind].append((now, event if kind == "epoch" else self._folder / event["images"]))


class RunWriter:
    """Writes the folder of a run that `create` made, and holds the worker's lock on it; what is there already, stays.

    `report` is told every status as well, for the disk may be full.
    """

    def __init__(self, folder: Path, report: Callable[[dict[str, Any]], None]) -> None:
        self._lock = take_lock(folder / _WORKER_LOCK, _LOCK_PATIENCE)
        self._folder, self._report = folder, report
        self._status = read_json(folder / "status.json") | {"message": ""}
        self._pending: list[float] = []
        self._last_update = 0.0
        self._events = folder / "events.jsonl"
        with self._events.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a killed worker may have left half a line

    @property
    def learning_rate_factor(self) -> float:
        """What the schedule was last multiplied by."""
        return float(self._status.get("learning_rate_factor", 1))

    def spec(self) -> TrainingSpec:
        return TrainingSpec.from_dict(read_json(self._folder / "spec.json"))

    def update(self, **values: Any) -> None:
        """Change the status, where these values differ from it."""
        status = self._status | values
        if status == self._status:
            return
        self._status = status
        try:
            write_json(self._folder / "status.json", status)
        finally:
            self._report(status)

    def on_event(self, event: Any) -> None:
        """Keep an event; batches are joined so that at most ten updates a second are written."""
        kind, values = type(event).__name__.lower(), dict(vars(event))
        if kind == "batch":
            self._pending.append(values.pop("loss"))
            now = time.monotonic()
            if now - self._last_update < 1 / _UPDATES_PER_SECOND and values["step"] < values["steps"]:
                return
            self._last_update = now
            values["loss"] = float(np.mean(self._pending))
            self._pending.clear()
        elif kind == "snapshot":
            file_name = f"snapshot-{len(list(self._folder.glob('snapshot-*.npy'))):03}.npy"
            staging = self._folder / f".{file_name}"
            np.save(staging, values["images"])
            staging.replace(self._folder / file_name)
            values["images"] = file_name
        with self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind} | values) + "\n")
