"""The server's training service: it controls the runs of its visitors and trains those that wait, one after another."""

import contextlib
import logging
import secrets
import threading
import time

import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.errors import ColorizerError, ConfigError, TrainingError
from colorizer.jobs import database, runs, worker
from colorizer.jobs.runs import RunReader, RunView
from colorizer.jobs.worker import WorkerProcess
from colorizer.models import library
from colorizer.storage import delete_folder

_log = logging.getLogger(__name__)
_SPARE_SECONDS = 300.0  # A spare worker ends when nobody has asked for one for this many seconds.
_LOOK_DELAY = 0.2  # The server checks the run that is being trained at this interval in seconds.
_OTHER_SERVER_DELAY = 1.0  # It checks this often, in seconds, whether another server's run ended.
_DISK_DELAY = 30.0  # If the end of a run cannot be written, the run is tried again after this many seconds.
_PROGRESS = "SELECT stage, stop_wanted, worker FROM runs WHERE id = ?"
_FORCED = f"It did not stop within {worker.PATIENCE:.0f} seconds and was ended."


class TrainingService:
    """Queues, starts, controls and watches training runs; one object serves all visitors of a server.

    Anybody may watch a run. Only a visitor who has its key can control it, on any server that uses this folder.
    """

    def __init__(self, command: tuple[str, ...] = worker.COMMAND) -> None:
        """Create a service that starts its worker processes by `command`."""
        self._command = command
        self._lock = threading.RLock()
        self._spare: WorkerProcess | None = None
        self._spare_until = 0.0  # The time until which a spare is kept.
        self._spare_timer: threading.Timer | None = None
        self._thread: threading.Thread | None = None  # It trains the runs that wait, while there are any.
        self._worker: WorkerProcess | None = None  # It trains the run `_attended`.
        self._attended: str | None = None
        self._reader = RunReader()
        self._closing = threading.Event()
        self.trouble = ""  # This says why the database could not be read, and is empty if it could.

    def prepare(self) -> None:
        """Keep one worker ready for five minutes, which has TensorFlow imported already.

        While a run is being trained there is none: two workers would take the memory of a small machine.
        """
        with self._lock, contextlib.suppress(OSError, ColorizerError):  # A run that cannot start says why.
            if self._closing.is_set() or self._attended is not None:
                return
            self._spare_until = time.monotonic() + _SPARE_SECONDS
            if self._spare is None or self._spare.ended():
                self._spare = WorkerProcess(self._command)
            if self._spare_timer is None:
                self._end_spare_later(_SPARE_SECONDS)

    def _end_spare_later(self, seconds: float) -> None:
        self._spare_timer = threading.Timer(seconds, self._end_spare)
        self._spare_timer.daemon = True
        self._spare_timer.start()

    def _end_spare(self) -> None:
        """End the spare worker if its time is over, or look again when it will be."""
        with self._lock:
            self._spare_timer = None
            left = self._spare_until - time.monotonic()
            if left > 0 and not self._closing.is_set():
                self._end_spare_later(left)
            elif self._spare is not None:
                self._spare.kill()
                self._spare = None

    def view(self, run_id: str) -> RunView:
        """Read a run, whoever started it.

        Raises:
            TrainingError: There is no such run, or it is damaged, or the database cannot be read.
            ConfigError: `run_id` cannot be the id of a run.
        """
        return self._read(config.validate_name(run_id))[0]

    def list_runs(self) -> list[RunView]:
        """Return all runs that can be read, newest first; `trouble` says why if the database cannot be read."""
        try:
            found, self.trouble = self._read(), ""
            return found
        except ColorizerError as error:
            self.trouble = str(error)
            return []

    def _read(self, run_id: str | None = None) -> list[RunView]:
        found = self._reader.read(run_id, self._attended)
        if any(run.state == "queued" for run in found):
            self._wake()  # It may have been queued on a server that is gone.
        return found

    def active_runs(self) -> list[RunView]:
        """Return the run that is being trained, then those that wait, in order."""
        return sorted((run for run in self.list_runs() if run.active), key=lambda run: run.position)

    def may_control(self, run_id: str, key: str) -> bool:
        """Return whether `key` is the one that started this run."""
        owned = "SELECT id FROM runs WHERE id = ? AND owner = ?"
        with contextlib.suppress(ColorizerError):
            return bool(key and database.query(owned, run_id, runs.hash_key(key)))
        return False

    def start(
        self,
        spec: TrainingSpec,
        key: str = "",
        picture: np.ndarray | None = None,
        own_pictures: np.ndarray | None = None,
    ) -> tuple[str, str]:
        """Start a run, or queue it behind the one that is being trained.

        Args:
            spec: What to train.
            key: The key that an earlier start gave to this visitor's session; without one, a new visitor is assumed.
                It must not come from an address that somebody else may have written.
            picture: The visitor's own image, uint8 (32, 32, 3), colorized in every snapshot.
            own_pictures: For the data set `own`, what to learn from, uint8 (N, 32, 32, 3). They are in the run's
                folder and are deleted with it.

        Returns:
            The run's id, and the key that controls it.

        Raises:
            TrainingError: The visitor has a run already, the queue is full, the disk refuses, a page may not offer
                the data set, or there are no pictures for the data set `own`.
            ModelError: The name is taken.
        """
        # Visitors must not make the server read files of this machine.
        if spec.train.dataset not in config.PAGE_DATASETS or spec.train.photos or spec.train.backbone:
            raise TrainingError(
                f"A page cannot train on {spec.train.photos or spec.train.backbone or spec.train.dataset!r}. "
                f"Choose one of {', '.join(config.PAGE_DATASETS)}."
            )
        if spec.train.dataset == config.OWN_PICTURES and own_pictures is None:
            raise TrainingError("There are no pictures to learn from. Upload some of your own, or choose a data set.")
        key = key or secrets.token_urlsafe(12)
        library.check_name_is_free(spec.name)
        run_id = runs.create(spec, key, picture, own_pictures)
        self._wake()
        return run_id, key

    def resume(self, run_id: str, key: str) -> None:
        """Let a paused run go on; queue one again that was interrupted or failed, from its last checkpoint."""
        run = self._controlled(run_id, key)
        if run.active:
            runs.wish(run_id, pause_wanted=False)
            return
        if not run.resumable:
            raise TrainingError(f"The run {run.spec.name} is {run.state}: there is nothing to resume.")
        library.check_name_is_free(run.spec.name)
        runs.requeue(run_id, run.spec.name, key)
        self._wake()

    def pause(self, run_id: str, key: str) -> None:
        """Let a run that is being trained wait after its current batch."""
        self._controlled(run_id, key)
        runs.wish(run_id, pause_wanted=True)

    def set_learning_rate_factor(self, run_id: str, key: str, factor: float) -> None:
        """Multiply the schedule of a run that is being trained by `factor` from its next batch on."""
        low, high = config.LEARNING_RATE_FACTORS
        if not low <= factor <= high:
            raise ConfigError(f"The factor on the learning rate must be from {low:g} to {high:g}, received {factor!r}.")
        self._controlled(run_id, key)
        runs.wish(run_id, learning_rate_factor=float(factor))

    def stop(self, run_id: str, key: str) -> None:
        """End a run after its current batch and keep what it learned; one that waits leaves the queue."""
        reason = "It was stopped before it began: there is nothing to keep."
        waits = self._controlled(run_id, key).state == "queued"
        if not waits or not runs.end(run_id, "stopped", reason):
            runs.wish(run_id, stop_wanted=True)

    def discard(self, run_id: str, key: str) -> None:
        """End a run and delete it, with the model that it saved."""
        run = self._controlled(run_id, key)
        database.change("DELETE FROM runs WHERE id = ?", run_id)
        with self._lock:
            if self._attended == run_id and self._worker is not None:
                self._worker.kill()
        # Another server's worker sees that its row is gone and gives up, or its server ends it.
        patience = time.monotonic() + worker.PATIENCE
        while run.state in ("running", "paused") and runs.turn_is_taken() and time.monotonic() < patience:
            time.sleep(_LOOK_DELAY)
        if (entry := run.model()) is not None:
            library.delete_model(entry.name)
        delete_folder(runs.run_folder(run_id))

    def close(self) -> None:
        """End every worker, the spare one too; the run that was being trained is interrupted, the others wait on."""
        with self._lock:
            self._closing.set()
            if self._spare_timer is not None:
                self._spare_timer.cancel()
            for process in (self._worker, self._spare):
                if process is not None:
                    process.kill()
            thread = self._thread
        if thread is not None:
            thread.join(worker.PATIENCE)
        database.close()

    def _controlled(self, run_id: str, key: str) -> RunView:
        """Return a run that `key` controls; raise `TrainingError` where it does not."""
        run = self.view(run_id)
        if not self.may_control(run_id, key):
            raise TrainingError("Somebody else started this run, and only they control it. Start one of your own.")
        return run

    def _wake(self) -> None:
        """Have the runs that wait trained, whichever server queued them."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """Train one run after another until none waits; an error ends a run, but never this thread."""
        delay = 0.0
        while not self._closing.wait(delay):
            run_id, delay = "", _OTHER_SERVER_DELAY
            try:
                with self._lock:
                    waiting = database.query("SELECT id FROM runs WHERE state = 'queued' ORDER BY place LIMIT 1")
                    if not waiting:
                        self._thread = None  # The next queued run starts a new thread.
                        return
                run_id = waiting[0]["id"]
                if not runs.turn_is_taken():
                    self._train(run_id)
                    delay = 0.0
            except Exception as error:
                _log.exception("The run %s could not be trained.", run_id)
                reason = getattr(error, "strerror", None) or type(error).__name__
                process_id = self._worker.process.pid if self._worker else 0
                try:
                    runs.end(run_id, "failed", f"The server could not train it ({reason}).", process_id)
                except ColorizerError:
                    delay = _DISK_DELAY
            if self._worker is not None:
                self._worker.kill()
            self._worker = self._attended = None

    def _train(self, run_id: str) -> None:
        """Have a worker train a run, wait for its end, and note how it ended if it could not do that itself."""
        with self._lock:
            if self._closing.is_set():
                return
            ready = self._spare is not None and not self._spare.ended()
            process, self._spare = self._spare if ready else WorkerProcess(self._command), None
            self._worker, self._attended = process, run_id
        process.begin(run_id)
        forced = self._attend(run_id, process)
        if process.process.returncode == 0 or self._closing.is_set():
            return
        found = database.query(_PROGRESS, run_id)
        state, message = "failed", process.explain_end()
        if found and found[0]["stage"] == "measuring":
            state, message = "done", f"Its model is saved, but not measured. {message}"
        elif forced and (runs.run_folder(run_id) / runs.CHECKPOINT).exists():
            state, message = "interrupted", f"{_FORCED} Resume it to go on from its last epoch."
        elif forced:
            state, message = "stopped", f"{_FORCED} No epoch was complete, so nothing is kept."
        runs.end(run_id, state, message, process.process.pid)

    def _attend(self, run_id: str, process: WorkerProcess) -> bool:
        """Wait for a worker's end; return whether it had to be terminated because it did not stop when asked."""
        begun, asked, forced = time.monotonic(), None, False
        while not process.ended(_LOOK_DELAY):
            now = time.monotonic()
            with contextlib.suppress(TrainingError):  # The worker gets the same error and reports it.
                found = database.query(_PROGRESS, run_id)
                if not found:  # It was discarded on another server.
                    process.process.kill()
                elif found[0]["worker"] != process.process.pid:  # It has not begun, or another server trains it.
                    continue
                elif now - begun > config.MAX_TRAINING_SECONDS and not found[0]["stop_wanted"]:
                    reason = "It reached the time limit, and what it had learned is kept."
                    runs.wish(run_id, stop_wanted=True, message=reason)
                elif found[0]["stop_wanted"] and found[0]["stage"] in ("starting", "training"):
                    asked = asked or now
                    if now - asked > worker.PATIENCE:
                        forced = True
                        (process.process.terminate if now - asked < 2 * worker.PATIENCE else process.process.kill)()
        return forced


_service = TrainingService()  # It belongs to the module, so that no visitor's 'clear cache' can drop it.


def training_service() -> TrainingService:
    """Return the server's one service."""
    return _service
