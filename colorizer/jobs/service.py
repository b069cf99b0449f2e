"""Training jobs: a worker process for each, one at a time, a short queue behind it; the disk is the truth."""

import contextlib
import secrets
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import filelock
import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.errors import ConfigError, TrainingError
from colorizer.jobs import runs, worker
from colorizer.jobs.runs import RunReader, RunView
from colorizer.jobs.worker import WorkerProcess
from colorizer.models import library
from colorizer.storage import delete_folder

_SPARE_DELAY = 3.0  # seconds from the start of a run to that of the next spare, which would slow its first steps
_OTHER_SERVER_DELAY = 1.0  # seconds between looks whether another server's run has ended


@dataclass(eq=False)
class _Job:
    """A run in this server's hands."""

    run_id: str
    name: str
    owner: str
    lock: filelock.BaseFileLock
    worker: WorkerProcess | None = None
    turn: filelock.BaseFileLock | None = None  # held while it is the one run on this machine's library


class TrainingService:
    """Queues, starts, controls and watches training runs; one object serves all visitors of a server.

    Anybody may watch a run; only who has the key that started it controls it. `command` starts a worker process.
    """

    def __init__(self, command: tuple[str, ...] = worker.COMMAND) -> None:
        self._command = command
        self._lock = threading.RLock()
        self._spare: WorkerProcess | None = None
        self._jobs: list[_Job] = []  # the first is running or about to, the others wait
        self._thread: threading.Thread | None = None  # works off the jobs, while there are any
        self._readers: dict[str, RunReader] = {}
        self._unwritten: dict[str, dict[str, str]] = {}  # ends of runs that a full disk has no room for
        self._closed = False

    def prepare(self) -> None:
        """Keep one worker ready that has TensorFlow imported already."""
        with self._lock, contextlib.suppress(OSError):  # start says so
            if not self._closed and (self._spare is None or self._spare.ended.is_set()):
                self._spare = WorkerProcess(self._command)

    @property
    def prepared(self) -> bool:
        """Whether the spare worker has TensorFlow imported."""
        spare = self._spare
        return spare is not None and spare.ready.is_set()

    def view(self, run_id: str) -> RunView:
        """Read a run, whoever started it.

        Raises:
            TrainingError: there is no such run, or its folder is damaged.
        """
        with self._lock:
            job = self._job(run_id)
            reader = self._readers.pop(run_id, None) or RunReader(run_id)
            run = reader.read(known_alive=job is not None)
            self._readers[run_id] = reader  # unless it is damaged
            if job is not None and run.state == "queued":
                run = replace(run, position=self._jobs.index(job) + (self._jobs[0].worker is None))
            return replace(run, **self._unwritten.get(run_id, {}))

    def list_runs(self) -> list[RunView]:
        """All runs that can be read, newest first."""
        return self._views(runs.list_ids())

    def active_runs(self) -> list[RunView]:
        """The run that this server is working on, then those that wait, in order."""
        return [run for run in self._views([job.run_id for job in self._jobs.copy()]) if run.active]

    def _views(self, run_ids: list[str]) -> list[RunView]:
        views = []
        for run_id in run_ids:
            with contextlib.suppress(TrainingError):  # damaged, or just discarded
                views.append(self.view(run_id))
        return views

    def may_control(self, run_id: str, key: str) -> bool:
        """Whether `key` is the one that started this run."""
        try:
            self.view(run_id)
            return self._readers[run_id].owned_by(key)
        except (ConfigError, TrainingError):
            return False

    def start(self, spec: TrainingSpec, key: str = "", picture: np.ndarray | None = None) -> tuple[str, str]:
        """Start a run, or queue it behind the one that is running.

        Args:
            spec: what to train.
            key: the visitor's, from an earlier start; without one, a new visitor is assumed.
            picture: the visitor's own image, uint8 (32, 32, 3), colorized in every snapshot.

        Returns:
            The run's id, and the key that controls it.

        Raises:
            TrainingError: the visitor has a run already, the queue is full, the disk refuses, or the data set is none
                that a page may offer.
            ModelError: the name is taken.
        """
        # Visitors do not read this machine's files.
        if spec.train.dataset not in config.PAGE_DATASETS or spec.train.photos:
            raise TrainingError(
                f"A page cannot train on {spec.train.photos or spec.train.dataset!r}. "
                f"Choose one of {', '.join(config.PAGE_DATASETS)}."
            )
        key = key or secrets.token_urlsafe(12)
        with self._lock:
            self._check_room(spec.name, key)
            try:
                run_id = runs.create(spec, key, picture)
            except OSError as error:
                raise TrainingError(f"The training could not be started ({error.strerror or error}).") from error
            self._enqueue(run_id, spec.name, key)
        return run_id, key

    def resume(self, run_id: str, key: str) -> None:
        """Let a paused run go on; queue one again that was interrupted or failed, from its last checkpoint."""
        with self._lock:
            if self._send(run_id, key, paused=False):
                return
            run = self.view(run_id)
            if not run.resumable:
                raise TrainingError(f"The run {run.spec.name} is {run.state}: there is nothing to resume.")
            self._check_room(run.spec.name, key)
            try:
                runs.change_status(run_id, state="queued", message="")
            except OSError as error:
                raise TrainingError(f"The training could not be resumed ({error.strerror or error}).") from error
            self._unwritten.pop(run_id, None)
            self._enqueue(run_id, run.spec.name, key)

    def pause(self, run_id: str, key: str) -> None:
        """Hold a running one after its current batch."""
        self._send(run_id, key, paused=True)

    def set_learning_rate_factor(self, run_id: str, key: str, factor: float) -> None:
        """Multiply the schedule of a running one by `factor` from its next batch on."""
        low, high = config.LEARNING_RATE_FACTORS
        if not low <= factor <= high:
            raise ConfigError(f"The factor on the learning rate must be from {low:g} to {high:g}, received {factor!r}.")
        self._send(run_id, key, learning_rate_factor=factor)

    def stop(self, run_id: str, key: str) -> None:
        """End a run after its current batch and keep what it learned; one that waits leaves the queue."""
        with self._lock:
            job = self._controlled(run_id, key)
            if job is not None and job.worker is not None:
                job.worker.stop()
            elif job is not None:
                self._end(job, "stopped", "It was stopped before it began: there is nothing to keep.")

    def discard(self, run_id: str, key: str) -> None:
        """End a run and delete it, with the model that it saved."""
        with self._lock:
            job = self._controlled(run_id, key)
            if job is not None:
                self._drop(job)
            with contextlib.suppress(TrainingError):
                run = RunReader(run_id).read(known_alive=True)
                if (entry := run.model()) is not None:
                    library.delete_model(entry.name)
            self._readers.pop(run_id, None)
            self._unwritten.pop(run_id, None)
            delete_folder(runs.runs_folder() / run_id)

    def close(self) -> None:
        """End every worker, the spare one too; what they did not finish is interrupted."""
        with self._lock:
            self._closed = True
            for job in self._jobs[::-1]:
                self._drop(job)
            if self._spare is not None:
                self._spare.kill()

    def _job(self, run_id: str) -> _Job | None:
        return next((job for job in self._jobs if job.run_id == run_id), None)

    def _controlled(self, run_id: str, key: str) -> _Job | None:
        """The job of a run that `key` controls, or None if it is not in this server's hands."""
        run, job = self.view(run_id), self._job(run_id)
        if not self.may_control(run_id, key):
            raise TrainingError("Somebody else started this run, and only they control it. Start one of your own.")
        if job is None and run.active:
            raise TrainingError("Another server is at work on this run. Control it there.")
        return job

    def _send(self, run_id: str, key: str, **wishes: Any) -> bool:
        """Tell a run's worker, if it has one, what is wanted; return whether the run is in this server's hands."""
        with self._lock:
            job = self._controlled(run_id, key)
            if job is not None and job.worker is not None:
                job.worker.send(**wishes)
            return job is not None

    def _check_room(self, name: str, key: str) -> None:
        """Raise the error that says why no training of that name may be queued for `key`, if there is one."""
        library.check_name_is_free(name)
        if any(job.name == name for job in self._jobs):
            raise TrainingError(f"A training named {name} is under way. Choose another name.")
        if mine := [job.name for job in self._jobs if job.owner == runs.hash_key(key)]:
            raise TrainingError(f"You have a training under way already ({mine[0]}). Stop it, or wait for its end.")
        if len(self._jobs) > config.MAX_QUEUED_RUNS:
            raise TrainingError(f"The queue is full: {len(self._jobs) - 1} trainings wait already. Try again later.")

    def _enqueue(self, run_id: str, name: str, key: str) -> None:
        lock = runs.take_lock(runs.runs_folder() / run_id / runs.SERVER_LOCK)
        self._jobs.append(_Job(run_id, name, runs.hash_key(key), lock))
        self._launch_first()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Train one job after the other; a thread that ends with the queue."""
        while True:
            with self._lock:
                if not self._jobs:
                    self._thread = None  # the next job brings another
                    return
                job = self._jobs[0]
                self._launch_first()
            if job.worker is not None:
                self._attend(job, job.worker)
            elif job in self._jobs:
                time.sleep(_OTHER_SERVER_DELAY)

    def _launch_first(self) -> None:
        """Give the first job a worker, if it has none and no other server's run is under way."""
        job = self._jobs[0]
        if job.worker is not None:
            return
        try:
            job.turn = runs.take_lock(runs.runs_folder() / ".turn.lock", patience=0)
            runs.change_status(job.run_id, state="running", stage="starting", message="")
            spare, self._spare = self._spare, None
            ready = spare is not None and spare.process.poll() is None
            job.worker = spare if ready else WorkerProcess(self._command)
            job.worker.send(folder=str(runs.runs_folder() / job.run_id))
        except TrainingError:
            pass  # another server's run has its turn
        except (OSError, ValueError) as error:
            self._end(job, "failed", f"The training could not be started ({error}).")

    def _attend(self, job: _Job, worker: WorkerProcess) -> None:
        """Wait for a worker's end, ask for it at the time limit, and record it."""
        worker.ended.wait(_SPARE_DELAY)
        self.prepare()
        if not worker.ended.wait(config.MAX_TRAINING_SECONDS - _SPARE_DELAY):
            worker.stop("It reached the time limit, and what it had learned is kept.")
            worker.ended.wait()
        with self._lock:
            if job in self._jobs:  # else it is discarded
                self._end(job, *worker.explain_end(runs.runs_folder() / job.run_id))

    def _end(self, job: _Job, state: str, message: str) -> None:
        """Write how a run ended, or keep it in mind where the disk is full, and let go of it."""
        try:
            runs.change_status(job.run_id, state=state, message=message)
        except ValueError:
            pass  # the folder is damaged, which its view will say
        except OSError:
            self._unwritten[job.run_id] = {"state": state, "message": message, "stage": ""}
        self._drop(job)

    def _drop(self, job: _Job) -> None:
        """Let go of a job: end its worker, release its locks."""
        self._jobs.remove(job)
        if job.worker is not None:
            job.worker.kill()
        for lock in (job.lock, job.turn):
            if lock is not None:
                lock.release()


_service = TrainingService()  # a module's own object, which no visitor's 'clear cache' can drop


def training_service() -> TrainingService:
    """The server's one service."""
    return _service
