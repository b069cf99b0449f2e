"""What tests of the training service share: the fake worker, waiting for a run, and a look at what is held."""

import sys
import time

from colorizer.jobs import runs
from colorizer.models import library

SECONDS = 120  # patience, far beyond what is needed
FAKE_WORKER = (sys.executable, "-m", "tests.fake_worker")


def wait(condition):
    """Wait until a condition holds and return its value."""
    end = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
    return value


def wait_for(trainings, run_id, *states):
    """Wait until a run is in one of these states and return its view."""
    wait(lambda: trainings.view(run_id).state in states)
    return trainings.view(run_id)


def finish(trainings, run_id):
    """Wait until a run has ended and its worker is gone."""
    wait_for(trainings, run_id, *runs.ENDED_STATES)
    wait(lambda: run_id not in held(trainings))
    return trainings.view(run_id)


def held(trainings):
    """Ids of the runs in a service's hands."""
    with trainings._lock:
        return [job.run_id for job in trainings._jobs]


def learning(trainings, spec, key=""):
    """Start a run and wait until it has a checkpoint."""
    run_id, key = trainings.start(spec, key)
    wait(lambda: (runs.runs_folder() / run_id / runs.CHECKPOINT).exists() and trainings.view(run_id).epochs)
    return run_id, key


def worker_id(trainings, run_id):
    return trainings._job(run_id).worker.process.pid


def names():
    """Names of the models that were trained here."""
    return {entry.name for entry in library.list_models() if not entry.shipped}
