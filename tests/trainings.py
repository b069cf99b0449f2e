"""What tests of the training service share: the fake worker, waiting for a run, and a look at what is held."""

import sys
import time

from colorizer.jobs import runs
from colorizer.models import library

SECONDS = 120  # A test waits this long, far longer than is needed.
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
    wait(lambda: run_id != trainings._attended)
    return trainings.view(run_id)


def active(trainings):
    """Return the ids of the runs that are under way, in order."""
    return [run.run_id for run in trainings.active_runs()]


def learning(trainings, spec, key=""):
    """Start a run and wait until it has a checkpoint."""
    run_id, key = trainings.start(spec, key)
    wait(lambda: (runs.run_folder(run_id) / runs.CHECKPOINT).exists() and trainings.view(run_id).epochs)
    return run_id, key


def worker_id(trainings, run_id):
    """Return the process id of the worker that trains a run; a service does not tell it to anybody else."""
    wait(lambda: trainings.view(run_id).state == "running")
    assert trainings._attended == run_id
    return trainings._worker.process.pid


def names():
    """Return the names of the models that were trained here."""
    return {entry.name for entry in library.list_models() if not entry.shipped}
