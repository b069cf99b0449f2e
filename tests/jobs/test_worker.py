"""The service drives the real worker: one run from end to end, a stop, a full disk, a resume, and its protocol."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from colorizer import config
from colorizer.config import TrainConfig, TrainingSpec
from colorizer.jobs import database
from colorizer.jobs.service import TrainingService
from colorizer.models import library
from tests.trainings import FAKE_WORKER, SECONDS, finish, wait, worker_id

FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))  # There is room for events, but not for a model.
from colorizer.jobs.worker import main
main()
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """Return one home for the module, since a spare worker belongs to the home in which it was started."""
    return tmp_path_factory.mktemp("process")


@pytest.fixture(autouse=True)
def home(shared_home, monkeypatch):
    monkeypatch.setenv("COLORIZER_HOME", str(shared_home))
    monkeypatch.delenv("COLORIZER_CIFAR10", raising=False)
    return shared_home


@pytest.fixture(scope="module", autouse=True)
def small_disk(shared_home):
    """Return a service whose workers find the disk full; the import of TensorFlow begins at once."""
    trainings = TrainingService((sys.executable, "-c", FULL_DISK))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZER_HOME", str(shared_home))
        patch.delenv("COLORIZER_CIFAR10", raising=False)
        trainings.prepare()
    yield trainings
    trainings.close()


@pytest.fixture(scope="module")
def trainings(small_disk):
    trainings = TrainingService()
    yield trainings
    trainings.close()


def _spec(name, model, **changes):
    return TrainingSpec(
        name, model, TrainConfig(**{"dataset": "synthetic", "train_images": 256, "batch_size": 32} | changes)
    )


def test_a_run_reaches_the_library(trainings, tiny_model):
    spec = _spec("first", tiny_model, epochs=2)
    run_id, key = trainings.start(spec)
    run = finish(trainings, run_id)
    assert (run.state, run.message, run.progress, run.step) == ("done", "", 1.0, 16)
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2]
    assert [epochs for epochs, _ in run.snapshots][:: len(run.snapshots) - 1] == [0, 2]
    images = run.snapshot_images(0)
    assert (images.shape, images.dtype) == ((8, 32, 32, 3), np.uint8)
    entry = library.find_model("first")
    assert library.load_history(entry)["val_loss"] == [epoch["val_loss"] for epoch in run.epochs]
    trainings.discard(run_id, key)
    assert not any(entry.name == "first" for entry in library.list_models())


def test_a_run_that_is_stopped_is_kept(trainings, tiny_model):
    spec = _spec("stopped", tiny_model, train_images=0, epochs=config.MAX_EPOCHS)
    run_id, key = trainings.start(spec)
    wait(lambda: trainings.view(run_id).step > 10)
    trainings.pause(run_id, key)
    wait(lambda: trainings.view(run_id).state == "paused")
    trainings.set_learning_rate_factor(run_id, key, 0.1)
    trainings.resume(run_id, key)
    wait(lambda: trainings.view(run_id).learning_rate_factor == 0.1)
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state == "stopped"
    assert library.find_model("stopped").card["stopped"]


def test_a_killed_run_that_is_resumed_equals_one_that_was_not(trainings, tiny_model):
    spec = _spec("resumed", tiny_model, epochs=40, flips=True, schedule="cosine")
    run_id, key = trainings.start(spec)
    wait(lambda: len(trainings.view(run_id).epochs) > 2)
    os.kill(worker_id(trainings, run_id), signal.SIGKILL)
    run = finish(trainings, run_id)
    assert run.state == "failed"
    assert len(run.epochs) < 40
    trainings.resume(run_id, key)
    resumed = finish(trainings, run_id)
    assert resumed.state == "done"
    whole = finish(trainings, trainings.start(_spec("whole", tiny_model, **spec.train.to_dict()))[0])
    one, other = (library.load_history(library.find_model(name)) for name in ("resumed", "whole"))
    for key in ("epoch", "loss", "val_loss", "batch_epochs", "batch_loss"):
        assert one[key] == other[key]
    assert [epoch["val_loss"] for epoch in resumed.epochs] == [epoch["val_loss"] for epoch in whole.epochs]


def test_a_full_disk_and_missing_data_are_said_in_words(trainings, small_disk, tiny_model):
    missing, _ = trainings.start(TrainingSpec("no-data", tiny_model, TrainConfig(dataset="cifar10")))
    run = finish(trainings, missing)
    assert run.state == "failed"
    assert run.message.startswith("CIFAR-10 is not on this machine.")
    large = tiny_model.replace(encoder_widths=(512,), decoder_widths=(512,))
    run_id, _ = small_disk.start(_spec("no-room", large, epochs=1))
    run = finish(small_disk, run_id)
    assert (run.state, run.message) == ("failed", database.DISK_FULL)
    assert not any(entry.name == "no-room" for entry in library.list_models())


def test_the_process_ends_with_its_standard_input():
    with subprocess.Popen(FAKE_WORKER, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        worker.stdin.close()
        assert worker.wait(SECONDS) == 1
