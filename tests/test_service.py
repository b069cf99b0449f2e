"""service: real worker processes that finish, are stopped, discarded, killed and orphaned, and hostile run folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from colorizer import library, service
from colorizer.config import TrainConfig
from colorizer.errors import ColorizerError, ModelError, TrainingError
from colorizer.service import TrainingService
from colorizer.worker import TrainingSpec

SECONDS = 60  # patience, far beyond what is needed


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """One home for the module: a worker that waits ready belongs to the home in which it was started."""
    folder = tmp_path_factory.mktemp("service")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(shared_home, monkeypatch):
    monkeypatch.setenv("COLORIZER_HOME", str(shared_home))
    monkeypatch.delenv("COLORIZER_CIFAR10", raising=False)
    return shared_home


@pytest.fixture(scope="module")
def trainings():
    trainings = TrainingService()
    yield trainings
    trainings.close()
    _wait(lambda: not trainings._workers)


def _wait(condition):
    end = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return value


def _finish(trainings, run_id):
    """Wait until a run and its process have ended, and return its last view."""
    _wait(lambda: run_id not in trainings._workers)
    return trainings.view(run_id)


def _start(trainings, spec):
    """Start a run and wait until it learns."""
    run_id, _ = trainings.start(spec)
    _wait(lambda: trainings.view(run_id).batches or not trainings.view(run_id).active)
    assert trainings.view(run_id).state == "training", trainings.view(run_id).message
    return run_id


@pytest.fixture
def long_spec(request, tiny_model):
    """A training that would take hours, named after its test."""
    name = request.node.name.replace("_", "-")[-40:].strip("-")
    return TrainingSpec(name, tiny_model, TrainConfig(dataset="synthetic", epochs=200, batch_size=4))


def _names():
    return {entry.name for entry in library.list_models() if not entry.shipped}


def test_a_run_reaches_the_library_and_is_the_only_one_until_it_ends(trainings, tiny_model):
    spec = TrainingSpec(
        "first", tiny_model, TrainConfig(dataset="synthetic", train_images=256, epochs=2, batch_size=32)
    )
    run_id, key = trainings.start(spec)
    assert trainings.view(run_id).active
    assert trainings.active_run().run_id == run_id
    with pytest.raises(TrainingError, match=r"Another training \(first\) is running, \d+% done\. Start yours when"):
        trainings.start(TrainingSpec("second", tiny_model, spec.train))
    run = _finish(trainings, run_id)
    assert (run.state, run.message, run.active, run.progress) == ("done", "", False, 1.0)
    assert run.spec == spec
    assert run.batches[-1]["step"] == run.batches[-1]["steps"] == 16
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2]
    assert all(batch["loss"] > 0 for batch in run.batches)
    assert [epochs for epochs, _ in run.snapshots][:: len(run.snapshots) - 1] == [0, 2]
    images = run.snapshot_images(0)
    assert (images.shape, images.dtype) == ((8, 32, 32, 3), np.uint8)
    entry = library.find_model("first")
    assert library.load_history(entry)["val_loss"] == [epoch["val_loss"] for epoch in run.epochs]
    assert trainings.active_run() is None
    assert [trainings.may_control(run_id, k) for k in (key, "", "other", key + "x")] == [True, False, False, False]
    with pytest.raises(ModelError, match="A model named first is already here"):
        trainings.start(spec)
    trainings.discard(run_id)
    assert "first" not in _names()


SERVER = """
import json, sys, time
from colorizer.service import TrainingService
from colorizer.worker import TrainingSpec

trainings = TrainingService()
run_id, _ = trainings.start(TrainingSpec.from_dict(json.loads(sys.argv[1])))
while not trainings.view(run_id).batches:
    time.sleep(0.05)
print(run_id, trainings._workers[run_id].pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def server(shared_home, tiny_model):
    """Another server's process, which trains; started first, for it takes its time to import TensorFlow."""
    spec = TrainingSpec("orphan", tiny_model, TrainConfig(dataset="synthetic", epochs=200, batch_size=4))
    environment = {**os.environ, "COLORIZER_HOME": str(shared_home)}
    command = [sys.executable, "-c", SERVER, json.dumps(spec.to_dict())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


def _runs(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_worker_ends_with_its_server_and_the_run_is_interrupted(server):
    run_id, pid = server.stdout.readline().split()
    assert _runs(pid)
    server.kill()
    _wait(lambda: not _runs(pid))
    run = TrainingService().view(run_id)
    assert (run.state, run.active) == ("interrupted", False)
    assert run.batches


def test_a_stopped_run_keeps_its_model(trainings, long_spec):
    run_id = _start(trainings, long_spec)
    trainings.stop(run_id)
    run = _finish(trainings, run_id)
    assert run.state == "stopped"
    assert library.find_model(long_spec.name).card["stopped"]
    trainings.stop(run_id)  # once more does no harm


def test_a_discarded_run_leaves_neither_run_nor_model(trainings, long_spec, home):
    before = _names()
    run_id = _start(trainings, long_spec)
    trainings.discard(run_id)
    assert trainings.active_run() is None
    _wait(lambda: run_id not in trainings._workers)
    assert not (home / "runs" / run_id).exists()
    assert _names() == before
    with pytest.raises(TrainingError, match=rf"There is no training run '{run_id}' here\. It may have been discarded"):
        trainings.view(run_id)


def test_a_killed_worker_gives_a_failed_run_with_a_sentence(trainings, long_spec):
    run_id = _start(trainings, long_spec)
    os.kill(trainings._workers[run_id].pid, signal.SIGKILL)
    run = _finish(trainings, run_id)
    assert (run.state, run.active) == ("failed", False)
    assert run.message == "The training process ended unexpectedly (exit code -9). Start it again."
    assert long_spec.name not in _names()


def test_a_run_that_cannot_train_says_why(trainings, tiny_model):
    run_id, _ = trainings.start(TrainingSpec("no-data", tiny_model, TrainConfig(dataset="cifar10")))
    run = _finish(trainings, run_id)
    assert run.state == "failed"
    assert run.message.startswith("CIFAR-10 is not on this machine.")


@pytest.mark.parametrize("dataset", ["cifar100", "cifar100:a.npz", "folder:/home"])
def test_a_page_cannot_have_files_of_the_machine_read(trainings, tiny_model, dataset):
    with pytest.raises(TrainingError, match=f"A page cannot train on '{dataset}'. Choose one of cifar10, synthetic"):
        trainings.start(TrainingSpec("spy", tiny_model, TrainConfig(dataset=dataset)))


# Run folders written by hand


@pytest.fixture
def write_run(home, tiny_model):
    """A function that writes a run's folder and returns its id."""

    def write(run_id, state, name="somebody", **files):
        folder = home / "runs" / run_id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        spec = TrainingSpec(name, tiny_model, TrainConfig(dataset="synthetic"))
        (folder / "spec.json").write_text(files.get("spec", json.dumps(spec.to_dict())))
        (folder / "status.json").write_text(files.get("status", json.dumps({"state": state})))
        (folder / "events.jsonl").write_text(files.get("events", ""))
        return run_id

    return write


@pytest.mark.parametrize("state", service.ACTIVE_STATES)
def test_a_run_without_a_worker_is_interrupted(write_run, state):
    run_id = write_run("left-over", state)
    assert TrainingService().view(run_id).state == "interrupted"
    assert TrainingService().active_run() is None


def test_a_half_written_line_is_not_read(write_run):
    line = json.dumps({"event": "batch", "step": 1, "steps": 4, "epochs": 0.25, "loss": 0.5})
    run = TrainingService().view(write_run("half", "done", events=f"{line}\n{line[:20]}"))
    assert [batch["step"] for batch in run.batches] == [1]
    assert run.progress == 0.25


@pytest.mark.parametrize(
    "files",
    [
        {"spec": "{"},
        {"spec": "[]"},
        {"spec": "{}"},
        {"status": ""},
        {"status": "[]"},
        {"status": "{}"},
        {"events": "nonsense\n"},
        {"events": "{}\n"},
        {"events": "[]\n"},
        {"events": '{"event": "snapshot"}\n'},
    ],
    ids=str,
)
def test_a_damaged_run_folder_gives_a_sentence(write_run, files):
    with pytest.raises(TrainingError, match=r"The folder of the run 'damaged' is damaged .*Delete it"):
        TrainingService().view(write_run("damaged", "done", **files))


@pytest.mark.parametrize("run_id", ["../../etc", "..", "/etc", "", "A", "a/b", "x" * 60, None, "unknown"])
def test_hostile_and_unknown_run_ids_are_refused(run_id, home):
    trainings = TrainingService()
    for method in (trainings.view, trainings.discard):
        with pytest.raises(ColorizerError, match=r"is not a valid name|There is no training run"):
            method(run_id)
    trainings.stop(run_id)
    assert not trainings.may_control(run_id, "key")
    assert home.is_dir()


@pytest.mark.parametrize("key", ["", "key", "schlüssel", "\0"])
def test_any_text_may_be_tried_as_a_key(key):
    assert TrainingService().may_control("nobody", key) is False


@pytest.mark.parametrize("state", ["failed", "training"])
def test_discarding_an_old_run_spares_a_newer_model_of_its_name(write_run, save_tiny, state):
    save_tiny("reused", replace=True)
    run_id = write_run("old", state, name="reused")  # it never saved a model
    TrainingService().discard(run_id)
    assert "reused" in _names()


def test_a_program_that_cannot_be_started_gives_a_sentence(tiny_model):
    trainings = TrainingService(("/nowhere/python",))
    with pytest.raises(TrainingError, match=r"The training could not be started \(No such file or directory\)"):
        trainings.start(TrainingSpec("never", tiny_model, TrainConfig(dataset="synthetic")))
    assert trainings.active_run() is None


def test_there_is_one_service_for_all():
    assert service.training_service() is service.training_service()
