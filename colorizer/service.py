"""Training jobs: a worker process for each, one at a time, with its run in a folder that any page can read."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from colorizer import config, library
from colorizer.errors import TrainingError
from colorizer.storage import write_json
from colorizer.worker import TrainingSpec

WORKER_COMMAND = (sys.executable, "-m", "colorizer.worker")
ACTIVE_STATES = ("starting", "training", "saving", "measuring")
_STOP_PATIENCE = 5.0  # seconds from terminate to kill


@dataclass(frozen=True)
class RunView:
    """A run as its folder shows it now.

    Attributes:
        run_id: folder name.
        spec: what is trained.
        state: one of `ACTIVE_STATES`, or `done`, `stopped`, `failed`, `interrupted`.
        message: why it failed.
        batches, epochs: the `Batch` and `Epoch` events, as dicts.
        snapshots: epochs and file of each snapshot.
    """

    run_id: str
    spec: TrainingSpec
    state: str
    message: str = ""
    batches: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    snapshots: list[tuple[float, Path]] = field(default_factory=list)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_STATES

    @property
    def progress(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        if not self.batches:
            return 0.0
        return self.batches[-1]["step"] / self.batches[-1]["steps"]

    def snapshot_images(self, index: int) -> np.ndarray:
        """Reconstructions of the eight fixed images, uint8 (8, 32, 32, 3)."""
        return np.load(self.snapshots[index][1])


def runs_folder() -> Path:
    """Folder of all runs."""
    return config.home() / "runs"


class TrainingService:
    """Starts, stops and watches training runs; one object serves all visitors of a server."""

    def __init__(self, command: tuple[str, ...] = WORKER_COMMAND) -> None:
        self._command = command
        self._lock = threading.RLock()
        self._spare: subprocess.Popen | None = None
        self._workers: dict[str, subprocess.Popen] = {}
        self._keys: dict[str, str] = {}
        self._discarded: set[str] = set()
        self._closed = False

    def prepare(self) -> None:
        """Keep one worker ready that has TensorFlow imported already."""
        with self._lock:
            if not self._closed and (self._spare is None or self._spare.poll() is not None):
                self._spare = self._spawn()

    def _spawn(self) -> subprocess.Popen:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        log_folder = config.home() / "logs"
        log_folder.mkdir(parents=True, exist_ok=True)
        with (log_folder / "worker.log").open("a") as log:
            return subprocess.Popen(
                self._command,
                cwd=Path(__file__).resolve().parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                env=environment,
            )

    def start(self, spec: TrainingSpec) -> tuple[str, str]:
        """Start a run; return its id, and the key that lets its owner control it.

        Raises:
            TrainingError: another run is active, or the data set is none that a page may offer.
            ModelError: the name is taken.
        """
        library.check_name_is_free(spec.name)
        if spec.train.dataset not in config.DATASETS or spec.train.photos:  # visitors do not read this machine's files
            raise TrainingError(
                f"A page cannot train on {spec.train.photos or spec.train.dataset!r}. "
                f"Choose one of {', '.join(config.DATASETS)}."
            )
        with self._lock:
            if (active := self.active_run()) is not None:
                raise TrainingError(
                    f"Another training ({active.spec.name}) is running, {active.progress:.0%} done. "
                    "Start yours when it has finished."
                )
            run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
            folder = runs_folder() / run_id
            try:
                folder.mkdir(parents=True)
                write_json(folder / "spec.json", spec.to_dict())
                write_json(folder / "status.json", {"state": "starting"})
                self.prepare()
                worker, self._spare = self._spare, None
                worker.stdin.write(json.dumps({"run": str(folder)}) + "\n")
                worker.stdin.flush()
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise TrainingError(f"The training could not be started ({error.strerror or error}).") from error
            self._workers[run_id] = worker
            self._keys[run_id] = key = secrets.token_urlsafe(12)
        threading.Thread(target=self._after, args=(run_id, worker), daemon=True).start()
        return run_id, key

    def _after(self, run_id: str, worker: subprocess.Popen) -> None:
        """Wait for a worker's end, tidy up after it and prepare the next one."""
        worker.wait()
        worker.stdin.close()
        with self._lock, contextlib.suppress(TrainingError, OSError):  # its folder is gone, or the disk is full
            del self._workers[run_id]
            if run_id in self._discarded:
                self._remove(run_id)
            elif read_run(run_id, alive=True).active:  # it died without a word
                reason = f"The training process ended unexpectedly (exit code {worker.returncode}). Start it again."
                write_json(runs_folder() / run_id / "status.json", {"state": "failed", "message": reason})
        self.prepare()

    def active_run(self) -> RunView | None:
        """The run that this server is working on, if any."""
        with self._lock:
            for run_id in self._workers:
                with contextlib.suppress(TrainingError):  # its folder is gone
                    run = read_run(run_id, alive=True)
                    if run.active and run_id not in self._discarded:
                        return run
        return None

    def view(self, run_id: str) -> RunView:
        """Read a run; one that should be active but has no worker here is `interrupted`."""
        with self._lock:
            return read_run(run_id, alive=run_id in self._workers)

    def may_control(self, run_id: str, key: str) -> bool:
        """Whether `key` is the one that `start` gave out for this run."""
        return bool(key) and secrets.compare_digest(self._keys.get(run_id, "").encode(), key.encode())

    def stop(self, run_id: str) -> None:
        """Ask a run to end after its current batch; what it learned is kept."""
        with self._lock:
            worker = self._workers.get(run_id)
        if worker is not None:
            try:
                worker.stdin.write("stop\n")
                worker.stdin.flush()
            except OSError:
                pass  # it has just ended

    def discard(self, run_id: str) -> None:
        """End a run and delete it, with its model if that is already saved."""
        config.validate_name(run_id)
        with self._lock:
            worker = self._workers.get(run_id)
            self._discarded.add(run_id)
            if worker is None:
                self._remove(run_id)
                return
        worker.terminate()
        try:
            worker.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()

    def close(self) -> None:
        """End every worker, the spare one too."""
        with self._lock:
            self._closed = True
            workers = [*self._workers.values(), *([self._spare] if self._spare else [])]
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdin.close()

    def _remove(self, run_id: str) -> None:
        run = read_run(run_id, alive=True)
        saved = run.state in ("saving", "measuring", "done", "stopped")
        if saved and any(entry.name == run.spec.name and not entry.shipped for entry in library.list_models()):
            library.delete_model(run.spec.name)
        shutil.rmtree(runs_folder() / run_id, ignore_errors=True)


def read_run(run_id: str, alive: bool) -> RunView:
    """Read a run's folder.

    Args:
        run_id: folder name, checked.
        alive: whether its worker is known to be running.

    Raises:
        TrainingError: there is no such run, or its folder is damaged.
    """
    folder = runs_folder() / config.validate_name(run_id)
    try:
        spec = TrainingSpec.from_dict(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        state = status["state"] if alive or status["state"] not in ACTIVE_STATES else "interrupted"
        events = _read_events(folder / "events.jsonl")
        batches = [event for event in events if event["event"] == "batch"]
        epochs = [event for event in events if event["event"] == "epoch"]
        snapshots = [(event["epochs"], folder / event["images"]) for event in events if event["event"] == "snapshot"]
        return RunView(run_id, spec, state, status.get("message", ""), batches, epochs, snapshots)
    except FileNotFoundError:
        raise TrainingError(f"There is no training run {run_id!r} here. It may have been discarded.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"The folder of the run {run_id!r} is damaged ({error}). Delete it.") from error


def _read_events(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # The last line may be half-written.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


_service: TrainingService | None = None
_service_lock = threading.Lock()


def training_service() -> TrainingService:
    """The server's one service; a module's own object, which no visitor's 'clear cache' can drop."""
    global _service
    with _service_lock:
        if _service is None:
            _service = TrainingService()
    return _service
