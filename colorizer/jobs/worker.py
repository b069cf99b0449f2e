"""Starts and runs the worker process: `python -m colorizer.jobs.worker` imports TensorFlow, trains one run and ends.

It reads the id of the run and its own number from stdin. When stdin ends, its server is gone, and it ends at once.
Everything else goes through the database and the run's folder.
"""

import contextlib
import math
import os
import queue
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.errors import ColorizerError, TrainingError
from colorizer.jobs import database, runs

COMMAND = (sys.executable, "-m", "colorizer.jobs.worker")
PATIENCE = 5.0  # A worker that does not stop is terminated after this many seconds, and killed after as many more.
_DISK_REFUSED = 74  # A worker has this exit code if it could not write how its run ended.
_UPDATES_PER_SECOND = 10
_LOOKS_PER_SECOND = 50  # The worker reads at most this often what its visitor asks for.
_LOCK_PATIENCE = 2.0  # The worker waits this many seconds, since a process that tests the lock also holds it briefly.
_PATH = re.compile(r"""(?<![\w:/.])(?:/|[A-Za-z]:\\)[^\s'",;()]{2,}""")


class WorkerProcess:
    """A worker process, as the server starts and controls it."""

    def __init__(self, command: tuple[str, ...]) -> None:
        logs = config.home() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / runs.LOG).open("a") as log:  # With a run, the worker logs into the run's folder.
            self.process = subprocess.Popen(
                command,
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                encoding="utf-8",
                env=os.environ | {"COLORIZER_HOME": str(config.home()), "TF_CPP_MIN_LOG_LEVEL": "3"},
                # Ctrl-C in the server's terminal must not reach the worker. Each system needs one of these two options.
                process_group=0,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def ended(self, patience: float = 0.0) -> bool:
        """Wait up to `patience` seconds for the end of the process; return whether it has ended."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        return True

    def begin(self, run_id: str) -> None:
        """Ask the worker to train a run, and tell it by which number the database is to know it."""
        with contextlib.suppress(OSError, ValueError):  # A worker that has just ended has closed its stdin.
            self.process.stdin.write(f"{run_id} {self.process.pid}\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        """End the process now."""
        if not self.ended():
            self.process.kill()
            self.ended(PATIENCE)

    def explain_end(self) -> str:
        """Say in plain words how the process ended, for a worker that could not report it itself."""
        code = self.process.returncode
        if code == -getattr(signal, "SIGKILL", 9):  # Windows has no such signal.
            return (
                "The training process was killed, as systems do when memory runs out. "
                "Resume it, or start again with fewer images or smaller layers."
            )
        if code == _DISK_REFUSED:
            return database.DISK_FULL
        how = f"by a signal ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
        return f"The training process ended unexpectedly, {how}. The run's {runs.LOG} has the details; resume it."


class RunWriter:
    """A run as its worker sees it, which writes the run's events and reads what the visitor asks for."""

    def __init__(self, run_id: str, worker: int) -> None:
        """Begin a queued run; `begun` stays false if another run is being trained or this one is no longer queued."""
        self.run_id, self.worker, self.begun = run_id, worker, False
        self._state, self.stage = "running", "starting"  # The database holds the same values.
        self._losses: list[float] = []  # The losses of the batches since the last update.
        self._last_update = self._last_look = 0.0
        self.turn = runs.take_turn(_LOCK_PATIENCE)  # The system releases it when this process ends.
        if self.turn is not None:
            with database.transaction() as db:
                runs.note_interrupted(db)
                begin = "UPDATE runs SET state = 'running', stage = 'starting', worker = ?"
                begin += " WHERE id = ? AND state = 'queued'"
                self.begun = db.execute(begin, [worker, run_id]).rowcount > 0

    def spec(self) -> TrainingSpec:
        """Return the specification of the run."""
        return runs.parse_spec(database.query("SELECT spec FROM runs WHERE id = ?", self.run_id)[0]["spec"])

    def set_stage(self, stage: str) -> None:
        """Note what the run is doing now."""
        self._show("running", stage)

    def should_stop(self) -> bool:
        """Return whether the run is to stop; while the visitor wants it to pause, wait."""
        while (wishes := self.wishes())["pause_wanted"] and not wishes["stop_wanted"]:
            self._show("paused", self.stage)
            time.sleep(1 / _LOOKS_PER_SECOND)
        self._show("running", "stopping" if wishes["stop_wanted"] else self.stage)
        return bool(wishes["stop_wanted"])

    def learning_rate_factor(self) -> float:
        """Return the number that the schedule is to be multiplied by."""
        return float(self.wishes()["learning_rate_factor"])

    def wishes(self) -> sqlite3.Row:
        """Return what is wanted of the run; it may be a fiftieth of a second old."""
        if time.monotonic() - self._last_look > 1 / _LOOKS_PER_SECOND:
            columns = "pause_wanted, stop_wanted, message, learning_rate_factor"
            rows = database.query(f"SELECT {columns} FROM runs WHERE id = ?", self.run_id)
            if not rows:
                raise TrainingError("The run was discarded.")
            self._wishes, self._last_look = rows[0], time.monotonic()
        return self._wishes

    def warn(self, text: str) -> None:
        """Show a sentence on the page of the run, unless the disk refuses it."""
        with contextlib.suppress(TrainingError):
            runs.wish(self.run_id, message=text)

    def _show(self, state: str, stage: str) -> None:
        if (state, stage) != (self._state, self.stage):
            database.change("UPDATE runs SET state = ?, stage = ? WHERE id = ?", state, stage, self.run_id)
            self._state, self.stage = state, stage

    def on_event(self, event: Any) -> None:
        """Keep an event of `loop.train`; batches are joined so that at most ten updates a second are written."""
        kind, values = type(event).__name__.lower(), dict(vars(event))
        if kind == "batch":
            self._losses.append(event.loss)
            now = time.monotonic()
            if now - self._last_update < 1 / _UPDATES_PER_SECOND and event.step < event.steps:
                return
            values["loss"], self._last_update = float(np.mean(self._losses)), now
            self._losses.clear()
        values["epochs"] = values.get("epochs", values.get("epoch"))
        numbers = [float(values.get(key, 0)) for key in ("epochs", "loss", "val_loss", "seconds")]
        if wrong := [number for number in numbers if not math.isfinite(number)]:
            raise TrainingError(f"The loss became {wrong[0]}. Start again with a smaller learning rate.")
        with database.transaction() as db:
            insert = "INSERT INTO events (run, kind, epochs, loss, val_loss, seconds) VALUES (?, ?, ?, ?, ?, ?)"
            number = db.execute(insert, [self.run_id, kind, *numbers]).lastrowid
            if kind == "batch":
                update = "UPDATE runs SET step = ?, steps = ? WHERE id = ?"
                db.execute(update, [event.step, event.steps, self.run_id])
            elif kind == "snapshot":
                path = runs.snapshot_path(self.run_id, number)
                runs.write_array(path, event.images)
                if event.logits.size:
                    runs.write_array(runs.logits_path(path), event.logits)
            else:  # The checkpoint comes next, and somebody may have removed the folder.
                runs.run_folder(self.run_id).mkdir(parents=True, exist_ok=True)


def main(train: Callable[..., Any] | None = None) -> None:
    """Run as a worker process; `train`, called in the same way, takes the place of `job.run_training`."""
    if hasattr(os, "nice"):  # Windows does not have this function.
        os.nice(10)  # A lower priority keeps the pages quick.
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        try:
            for line in sys.stdin:
                wanted.put(line.strip())
        finally:
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    if train is None:
        import colorizer.training.loop  # noqa: F401, this import is slow, so it is done while the worker waits.
        from colorizer.training.job import run_training as train

    try:
        run_id, worker = wanted.get().split()
        run = RunWriter(run_id, int(worker))
        if run.begun:
            with contextlib.suppress(OSError):  # The disk may have no room for a log.
                log = os.open(runs.run_folder(run_id) / runs.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.dup2(log, 2)
                os.dup2(log, 1)
            runs.end(run_id, *_train(train, run), run.worker)
    except (ColorizerError, OSError):
        os._exit(_DISK_REFUSED)
    os._exit(0)  # Do not wait for the thread that blocks on stdin.


def _train(train: Callable[..., Any], run: RunWriter) -> tuple[str, str]:
    """Train a run; return the state in which it ends, and why."""
    try:
        entry = train(
            run.spec(),
            run.on_event,
            run.should_stop,
            run.set_stage,
            checkpoint=runs.run_folder(run.run_id) / runs.CHECKPOINT,
            learning_rate_factor=run.learning_rate_factor,
            picture=runs.load_picture(run.run_id),
            own_pictures=runs.load_own_pictures(run.run_id),
            run_id=run.run_id,
            on_warning=run.warn,
        )
        return "stopped" if entry.card["stopped"] else "done", run.wishes()["message"]
    except Exception as error:
        with contextlib.suppress(OSError):  # The log may be on the disk that is full.
            traceback.print_exc()
        if run.stage == "measuring":
            return "done", f"Its model is saved, but not measured. {explain(error)}"
        return "failed", explain(error)


def explain(error: Exception) -> str:
    """Say in plain words why a training failed, without a path of this machine: visitors read it."""
    if database.is_disk_full(error):
        return database.explain(error)
    if isinstance(error, ColorizerError):
        return _PATH.sub("…", str(error).replace(str(config.home()), "COLORIZER_HOME"))
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "The machine ran out of memory. Use fewer images, a smaller batch or smaller layers."
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"Something unexpected went wrong ({reason}). The run's {runs.LOG} has the details."


if __name__ == "__main__":
    main()
