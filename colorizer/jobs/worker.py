"""The worker process, both ends: `python -m colorizer.jobs.worker` imports TensorFlow, does one run and ends.

It speaks JSON, one object a line. On stdin it is told what the server wants, any of the fields of `_Wishes`. On stdout
it reports `{"report": "ready"}` and `{"report": "status", "status": {...}}`. The end of stdin, which is the end of its
server, ends it at once. Progress goes to the run's folder, stderr to the log there.
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from colorizer import config
from colorizer.errors import ColorizerError
from colorizer.jobs import runs

COMMAND = (sys.executable, "-m", "colorizer.jobs.worker")
PATIENCE = 5.0  # seconds from asking to terminate, and from there to kill
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WorkerProcess:
    """The server's end: sends wishes, and remembers what is reported."""

    def __init__(self, command: tuple[str, ...]) -> None:
        logs = config.home() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / runs.LOG).open("a") as log:  # until it has a run, whose folder has its own
            self.process = subprocess.Popen(
                command,
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                env=os.environ | {"COLORIZER_HOME": str(config.home()), "TF_CPP_MIN_LOG_LEVEL": "3"},
                process_group=0,  # Ctrl-C in the server's terminal is not meant for it
            )
        self.ready = threading.Event()  # set when TensorFlow is imported
        self.obeyed = threading.Event()  # set when it has left, or is leaving, the training
        self.ended = threading.Event()  # set when it is gone
        self._forced = False  # whether it had to be terminated
        self.status: dict[str, Any] = {}  # the last one it reported
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                report = json.loads(line)
                if report["report"] == "ready":
                    self.ready.set()
                else:
                    self.status = report["status"]
                    if self.status.get("stage") not in ("starting", "training"):
                        self.obeyed.set()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.obeyed.set()
        self.ended.set()

    def send(self, **wishes: Any) -> None:
        """Tell it what is wanted; one that has just ended does not mind."""
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(wishes) + "\n")
            self.process.stdin.flush()

    def stop(self, message: str = "") -> None:
        """Ask it to stop and keep what it learned; terminate it after five seconds, and kill it after five more."""
        self.send(stopped=True, message=message)

        def escalate() -> None:
            for end in (self.process.terminate, self.process.kill):
                if self.obeyed.wait(PATIENCE):
                    return
                self._forced = True
                end()

        threading.Thread(target=escalate, daemon=True).start()

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.ended.wait(PATIENCE)

    def explain_end(self, folder: Path) -> tuple[str, str]:
        """State of the run in that folder, now that its process has ended, in order or not, and why in plain words."""
        if self.status.get("state") in runs.ENDED_STATES:
            return self.status["state"], self.status["message"]
        saved, code = self.status.get("stage") == "measuring", self.process.returncode
        if self._forced and not saved:
            text = f"It did not stop within {PATIENCE:.0f} seconds and was ended"
            if (folder / runs.CHECKPOINT).exists():
                return "interrupted", f"{text}. Resume it to go on from its last epoch."
            return "stopped", f"{text}. No epoch was complete, so nothing is kept."
        how = f"by a signal ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
        reason = f"The training process ended unexpectedly, {how}. The run's {runs.LOG} has the details; resume it."
        if code == -signal.SIGKILL:
            reason = "The training process was killed, as systems do when memory runs out. "
            reason += "Resume it, or start again with fewer images or smaller layers."
        return ("done", f"Its model is saved, but not measured. {reason}") if saved else ("failed", reason)


class _Wishes:
    """What the server wants: a thread of its own listens, the training looks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.folder = ""  # of the run to do
        self.paused = self.stopped = False
        self.message = ""  # why it is stopped
        self.learning_rate_factor: float | None = None

    def listen(self, lines: TextIO) -> None:
        """Note wishes to the end of stdin, then end the process."""
        try:
            for line in lines:
                with self._changed:
                    vars(self).update(json.loads(line))
                    self._changed.notify_all()
        finally:
            os._exit(1)

    def wait(self, condition: Callable[[], Any]) -> None:
        with self._changed:
            self._changed.wait_for(condition)


def main(train: Callable[..., Any] | None = None) -> None:
    """Run as a process, see the module's docstring; `train`, called alike, takes the place of `job.run_training`."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no report
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)  # the pages stay quick
    wishes = _Wishes()
    threading.Thread(target=wishes.listen, args=(sys.stdin,), daemon=True).start()

    def report(kind: str, **values: Any) -> None:
        print(json.dumps({"report": kind} | values), file=reports, flush=True)

    if train is None:
        import colorizer.training.loop  # noqa: F401, the slow import, done before there is work
        from colorizer.training.job import run_training as train

    report("ready")
    wishes.wait(lambda: wishes.folder)
    log = os.open(Path(wishes.folder) / runs.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    os.dup2(log, 1)
    ending = _run(train, wishes, lambda status: report("status", status=status))
    report("status", status=ending)
    os._exit(0)  # do not wait for the thread that blocks on stdin


def _run(train: Callable[..., Any], wishes: _Wishes, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train, and return the last status, which may not be on the disk if that is full."""
    run = None
    try:
        run = runs.RunWriter(Path(wishes.folder), report)

        def should_stop() -> bool:
            if wishes.paused and not wishes.stopped:
                run.update(state="paused")
                wishes.wait(lambda: wishes.stopped or not wishes.paused)
                run.update(state="running")
            if wishes.stopped:
                run.update(stage="stopping")
            return wishes.stopped

        def learning_rate_factor() -> float:
            if wishes.learning_rate_factor is not None:
                run.update(learning_rate_factor=wishes.learning_rate_factor)
            return run.learning_rate_factor

        entry = train(
            run.spec(),
            run.on_event,
            should_stop,
            lambda stage: run.update(state="running", stage=stage),
            checkpoint=Path(wishes.folder) / runs.CHECKPOINT,
            learning_rate_factor=learning_rate_factor,
            picture=runs.load_picture(Path(wishes.folder).name),
            run_id=Path(wishes.folder).name,
        )
        ending = {"state": "stopped" if entry.card["stopped"] else "done", "message": wishes.message}
    except Exception as error:
        traceback.print_exc()
        ending = {"state": "failed", "message": _explain(error)}
    with contextlib.suppress(OSError):  # the server is told as well
        if run is not None:
            run.update(**ending)
    return ending


def _explain(error: Exception) -> str:
    """Say in plain words why a training failed."""
    if isinstance(error, ColorizerError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "The machine ran out of memory. Use fewer images, a smaller batch or smaller layers."
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return f"The disk is full ({error.strerror}). Free some space, then resume the run."
    return f"Something unexpected went wrong: {str(error)[:200]}. The run's {runs.LOG} has the details."


if __name__ == "__main__":
    main()
