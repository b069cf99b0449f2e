"""service: every transition of a job, with a quick fake worker that speaks the real protocol."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colorizer import config, library, process, runs, service
from colorizer.config import TrainConfig
from colorizer.errors import ColorizerError, ConfigError, ModelError, TrainingError
from colorizer.service import TrainingService
from colorizer.worker import TrainingSpec

SECONDS = 90  # patience, far beyond what is needed
FAKE_WORKER = (sys.executable, "-m", "tests.fake_worker")
needs_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")


@pytest.fixture
def open_server(home):
    """A function that opens a service with the fake worker; all are closed afterwards."""
    opened = []

    def open_server(command=FAKE_WORKER):
        opened.append(TrainingService(command))
        return opened[-1]

    yield open_server
    for trainings in opened:
        trainings.close()


@pytest.fixture
def trainings(open_server):
    return open_server()


@pytest.fixture
def spec(tiny_model):
    """A function that makes a specification under a name, which tells the fake worker how to behave."""
    return lambda name: TrainingSpec(name, tiny_model, TrainConfig(dataset="synthetic"))


def _wait(condition):
    end = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
    return value


def _wait_for(trainings, run_id, *states):
    """Wait until a run is in one of these states and return its view."""
    _wait(lambda: trainings.view(run_id).state in states)
    return trainings.view(run_id)


def _finish(trainings, run_id):
    """Wait until a run has ended and its worker is gone."""
    _wait_for(trainings, run_id, *runs.ENDED_STATES)
    _wait(lambda: run_id not in _held(trainings))
    return trainings.view(run_id)


def _held(trainings):
    with trainings._lock:
        return [job.run_id for job in trainings._jobs]


def _learning(trainings, spec, key=""):
    """Start a run and wait until it has a checkpoint."""
    run_id, key = trainings.start(spec, key)
    _wait(lambda: (runs.runs_folder() / run_id / runs.CHECKPOINT).exists() and trainings.view(run_id).epochs)
    return run_id, key


def _worker_id(trainings, run_id):
    return trainings._job(run_id).worker.process.pid


def _lives(process_id):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


def _names():
    return {entry.name for entry in library.list_models() if not entry.shipped}


# One run


def test_a_run_goes_from_its_start_to_the_library(trainings, spec):
    run_id, key = trainings.start(spec("quick"))
    assert trainings.view(run_id).active
    assert [run.run_id for run in trainings.active_runs()] == [run_id]
    run = _finish(trainings, run_id)
    assert (run.state, run.stage, run.message, run.progress) == ("done", "", "", 1.0)
    assert run.spec == spec("quick")
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2, 3, 4]
    assert (run.best_val_loss, run.seconds) == (2 / 40, pytest.approx(0.2))
    assert [epochs for epochs, _ in run.snapshots] == [0, 1, 2, 3, 4]
    assert (run.snapshot_images(4) == 40).all()
    assert _names() == {"quick"}
    assert not trainings.active_runs()
    assert [other.run_id for other in trainings.list_runs()] == [run_id]
    with pytest.raises(ModelError, match="A model named quick is already here"):
        trainings.start(spec("quick"))
    trainings.discard(run_id, key)
    assert (_names(), trainings.list_runs()) == (set(), [])


def test_a_spare_worker_is_ready_used_once_and_replaced(trainings, spec, monkeypatch):
    monkeypatch.setattr(service, "_SPARE_DELAY", 0.0)
    trainings.prepare()
    _wait(lambda: trainings.prepared)
    spare = trainings._spare.process.pid
    run_id, _ = trainings.start(spec("long"))
    assert _worker_id(trainings, run_id) == spare
    _wait(lambda: trainings.prepared)
    assert trainings._spare.process.pid != spare
    assert os.getpriority(os.PRIO_PROCESS, spare) == os.getpriority(os.PRIO_PROCESS, 0) + 10


def test_a_dead_spare_is_replaced_when_it_is_needed(trainings, spec):
    trainings.prepare()
    trainings._spare.process.kill()
    trainings._spare.ended.wait()
    run_id, _ = trainings.start(spec("quick"))
    assert _finish(trainings, run_id).state == "done"


def test_a_stopped_run_keeps_its_model(trainings, spec):
    run_id, key = _learning(trainings, spec("long"))
    trainings.stop(run_id, key)
    assert _finish(trainings, run_id).state == "stopped"
    assert library.find_model("long").card["stopped"]
    trainings.stop(run_id, key)  # once more does no harm


def test_a_discarded_run_leaves_neither_run_nor_model(trainings, spec, home):
    run_id, key = _learning(trainings, spec("long"))
    trainings.discard(run_id, key)
    with pytest.raises(TrainingError, match=rf"There is no training run '{run_id}' here\. It may have been discarded"):
        trainings.view(run_id)
    _wait(lambda: not _held(trainings))
    assert not (home / "runs" / run_id).exists()
    assert not _names()


def test_a_run_is_discarded_in_the_middle_of_saving(trainings, spec, home):
    run_id, key = trainings.start(spec("saving"))
    _wait(lambda: trainings.view(run_id).stage == "saving" and list(home.glob("models/.staging-*/model.keras")))
    trainings.discard(run_id, key)
    _wait(lambda: not _held(trainings))
    assert not _names()
    assert not (home / "runs" / run_id).exists()


def test_a_paused_run_waits_and_goes_on(trainings, spec):
    run_id, key = _learning(trainings, spec("long"))
    trainings.pause(run_id, key)
    step = _wait_for(trainings, run_id, "paused").step
    time.sleep(0.3)  # thirty times longer than a step
    assert trainings.view(run_id).step <= step + 1
    trainings.resume(run_id, key)
    _wait(lambda: trainings.view(run_id).step > step + 10)
    assert trainings.view(run_id).state == "running"


def test_a_paused_run_can_be_stopped(trainings, spec):
    run_id, key = _learning(trainings, spec("long"))
    trainings.pause(run_id, key)
    _wait_for(trainings, run_id, "paused")
    trainings.stop(run_id, key)
    assert _finish(trainings, run_id).state == "stopped"
    assert "long" in _names()


def test_the_learning_rate_changes_while_it_learns_and_stays_after_a_restart(trainings, spec):
    run_id, key = _learning(trainings, spec("long"))
    trainings.set_learning_rate_factor(run_id, key, 4)

    def changed():  # the fake loss is the factor divided by the step
        run = trainings.view(run_id)
        return run.learning_rate_factor == 4 and run.curve[-1][1] * run.step > 3.5

    _wait(changed)
    os.kill(_worker_id(trainings, run_id), signal.SIGKILL)
    _finish(trainings, run_id)
    trainings.resume(run_id, key)
    _wait(lambda: trainings.view(run_id).active and changed())
    for factor in (0, 11, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"must be from 0\.01 to 10, received"):
            trainings.set_learning_rate_factor(run_id, key, factor)


@pytest.mark.parametrize("behaviour", ["deaf", "immortal"])
def test_a_worker_that_does_not_stop_is_ended_and_the_run_can_be_resumed(trainings, spec, behaviour, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    run_id, key = _learning(trainings, spec(behaviour))
    trainings.stop(run_id, key)
    run = _finish(trainings, run_id)
    assert (run.state, run.resumable) == ("interrupted", True)
    assert run.message.endswith("was ended. Resume it to go on from its last epoch.")
    assert not _names()


def test_a_worker_that_takes_its_time_to_save_is_not_ended(trainings, spec, home, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0.1)
    run_id, key = trainings.start(spec("saving"))
    _wait(lambda: trainings.view(run_id).stage == "saving")
    trainings.stop(run_id, key)
    time.sleep(0.5)  # five times the patience
    (home / "go").touch()
    assert _finish(trainings, run_id).state == "done"


def test_the_time_limit_stops_a_run_and_says_so(trainings, spec, monkeypatch):
    monkeypatch.setattr(config, "MAX_TRAINING_SECONDS", 0.3)
    monkeypatch.setattr(service, "_SPARE_DELAY", 0.1)
    monkeypatch.setattr(process, "PATIENCE", SECONDS)
    run_id, _ = trainings.start(spec("long"))
    run = _finish(trainings, run_id)
    assert (run.state, run.message) == ("stopped", "It reached the time limit, and what it had learned is kept.")
    assert "long" in _names()


# Queue and visitors


def test_runs_wait_in_order_and_each_gets_its_turn(trainings, spec):
    first, key = _learning(trainings, spec("long"))
    second, third = (trainings.start(spec(name))[0] for name in ("quick-2", "quick-3"))
    assert [(run.run_id, run.state, run.position) for run in trainings.active_runs()] == [
        (first, "running", 0),
        (second, "queued", 1),
        (third, "queued", 2),
    ]
    trainings.stop(first, key)
    _wait(lambda: trainings.view(second).state == "running")
    assert trainings.view(third).position == 1
    assert _finish(trainings, third).state == "done"
    assert trainings.view(second).state == "done"
    assert _names() == {"long", "quick-2", "quick-3"}


def test_a_full_queue_and_a_second_run_of_a_visitor_are_refused(trainings, spec, monkeypatch):
    monkeypatch.setattr(config, "MAX_QUEUED_RUNS", 1)
    run_id, key = trainings.start(spec("long"))
    with pytest.raises(TrainingError, match=r"You have a training under way already \(long\)\. Stop it, or wait"):
        trainings.start(spec("quick"), key)
    with pytest.raises(TrainingError, match=r"A training named long is under way\. Choose another name"):
        trainings.start(spec("long"))
    waiting, _ = trainings.start(spec("long-2"))
    with pytest.raises(TrainingError, match=r"The queue is full: 1 trainings wait already\. Try again later"):
        trainings.start(spec("quick"))
    assert _held(trainings) == [run_id, waiting]
    assert len(trainings.list_runs()) == 2


def test_a_visitor_starts_again_with_the_same_key_after_the_end(trainings, spec):
    first, key = trainings.start(spec("quick-1"))
    _finish(trainings, first)
    second, same = trainings.start(spec("quick-2"), key)
    assert same == key
    assert trainings.may_control(second, key)


@pytest.mark.parametrize("method", ["stop", "discard"])
def test_a_waiting_run_leaves_the_queue(trainings, spec, method):
    first, _ = _learning(trainings, spec("long"))
    second, key = trainings.start(spec("quick"))
    getattr(trainings, method)(second, key)
    assert _held(trainings) == [first]
    if method == "stop":
        run = trainings.view(second)
        assert (run.state, run.message) == ("stopped", "It was stopped before it began: there is nothing to keep.")
    else:
        assert [run.run_id for run in trainings.list_runs()] == [first]


def test_anybody_may_watch_and_only_who_started_it_controls(trainings, spec):
    run_id, key = _learning(trainings, spec("long"))
    _, other = trainings.start(spec("quick"))
    calls = [
        lambda key: trainings.stop(run_id, key),
        lambda key: trainings.discard(run_id, key),
        lambda key: trainings.pause(run_id, key),
        lambda key: trainings.resume(run_id, key),
        lambda key: trainings.set_learning_rate_factor(run_id, key, 1),
    ]
    for call in calls:
        for wrong in (other, "", "schlüssel", "\0", "\ud800"):
            with pytest.raises(TrainingError, match="Somebody else started this run, and only they control it"):
                call(wrong)
    assert trainings.may_control(run_id, key)
    assert trainings.view(run_id).state == "running"


@pytest.mark.parametrize("dataset", ["cifar100:a.npz", "folder:/home"])
def test_a_page_cannot_have_files_of_the_machine_read(trainings, tiny_model, dataset):
    with pytest.raises(TrainingError, match=f"A page cannot train on '{dataset}'. Choose one of cifar10, synthetic"):
        trainings.start(TrainingSpec("spy", tiny_model, TrainConfig(dataset=dataset)))


# Accidents


def test_a_worker_killed_in_an_epoch_gives_a_sentence_and_goes_on_from_its_checkpoint(trainings, spec):
    run_id, key = _learning(trainings, spec("long"))
    os.kill(_worker_id(trainings, run_id), signal.SIGKILL)
    run = _finish(trainings, run_id)
    assert (run.state, run.resumable) == ("failed", True)
    assert run.message.startswith("The training process was killed, as systems do when memory runs out. Resume it")
    assert not _names()
    trainings.resume(run_id, key)
    _wait(lambda: trainings.view(run_id).epochs[-1]["epoch"] > run.epochs[-1]["epoch"])
    resumed = trainings.view(run_id)
    assert [epoch["epoch"] for epoch in resumed.epochs] == list(range(1, len(resumed.epochs) + 1))
    assert sorted(resumed.curve) == resumed.curve
    trainings.stop(run_id, key)
    assert _finish(trainings, run_id).state == "stopped"
    assert library.load_history(library.find_model("long"))["epoch"][0] > 0  # it did not begin again


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("broken", r"The training process ended unexpectedly, with exit code 3\. The run's worker\.log has"),
        ("memory", r"The machine ran out of memory\. Use fewer images, a smaller batch or smaller layers\."),
        pytest.param("full", r"The disk is full \(No space left on device\)\. Free some", marks=needs_full_disk),
        pytest.param("fuller", r"The disk is full \(No space left on device\)\. Free some", marks=needs_full_disk),
    ],
)
def test_a_failed_run_says_why(trainings, spec, behaviour, message, home):
    run_id, _ = trainings.start(spec(behaviour))
    run = _finish(trainings, run_id)
    assert run.state == "failed"
    assert re.match(message, run.message), run.message
    assert not _names()
    assert (home / "runs" / run_id / "worker.log").exists()
    after, _ = trainings.start(spec("quick"))
    assert _finish(trainings, after).state == "done"


def test_a_program_that_cannot_be_started_gives_a_sentence(open_server, spec):
    trainings = open_server(("/nowhere/python",))
    run_id, _ = trainings.start(spec("never"))
    run = trainings.view(run_id)
    assert run.state == "failed"
    assert run.message.startswith("The training could not be started ([Errno 2] No such file or directory")
    assert not _held(trainings)


SERVER = """
import json, sys, time
from colorizer.service import TrainingService
from colorizer.worker import TrainingSpec

trainings = TrainingService(tuple(json.loads(sys.argv[1])))
run_id, key = trainings.start(TrainingSpec.from_dict(json.loads(sys.argv[2])))
while trainings.view(run_id).stage != sys.argv[3] or trainings.view(run_id).step < 20:
    time.sleep(0.01)
trainings.prepare()
waiting, _ = trainings.start(TrainingSpec.from_dict(json.loads(sys.argv[2]) | {"name": "long-waiting"}))
processes = [trainings._job(run_id).worker.process.pid, trainings._spare.process.pid]
print(json.dumps([run_id, key, waiting, processes]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def start_server(home):
    """A function that starts a server of its own process, which trains; returns it, and what it prints."""
    servers = []

    def start(spec, stage="training", command=FAKE_WORKER):
        arguments = [json.dumps(command), json.dumps(spec.to_dict()), stage]
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments],
            cwd=Path(config.__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        servers.append(server)
        return server, *json.loads(server.stdout.readline())

    yield start
    for server in servers:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.mark.parametrize(("name", "stage"), [("long", "training"), ("saving", "saving")])
def test_a_killed_server_leaves_no_process_no_half_model_and_a_run_to_resume(
    start_server, trainings, spec, home, name, stage
):
    server, run_id, key, waiting, processes = start_server(spec(name), stage)
    assert all(map(_lives, processes))
    server.kill()
    killed = time.monotonic()
    _wait(lambda: not any(map(_lives, processes)))
    assert time.monotonic() - killed < 1
    for interrupted in (run_id, waiting):
        assert trainings.view(interrupted).state == "interrupted"
    before = trainings.view(run_id)
    assert before.curve
    assert not _names()
    assert not trainings.active_runs()
    (home / "go").touch()
    trainings.resume(run_id, key)  # the key still fits
    _wait(lambda: trainings.view(run_id).step > before.step or not trainings.view(run_id).active)
    trainings.stop(run_id, key)
    assert _finish(trainings, run_id).state in ("stopped", "done")
    assert _names() == {name}
    assert library.load_history(library.find_model(name))["epoch"][0] > 0


def test_two_servers_on_one_folder_see_each_other_and_take_turns(start_server, trainings, spec, monkeypatch):
    monkeypatch.setattr(service, "_OTHER_SERVER_DELAY", 0.05)
    server, theirs, key, waiting, _ = start_server(spec("long"))
    assert (trainings.view(theirs).state, trainings.view(waiting).state) == ("running", "queued")
    for control in (trainings.stop, trainings.discard, trainings.pause, trainings.resume):
        with pytest.raises(TrainingError, match=r"Another server is at work on this run\. Control it there"):
            control(theirs, key)
    mine, _ = trainings.start(spec("quick"))
    assert (trainings.view(mine).state, trainings.view(mine).position) == ("queued", 1)
    server.kill()
    assert _finish(trainings, mine).state == "done"
    assert trainings.view(theirs).state == "interrupted"


def test_a_closed_service_leaves_interrupted_runs_that_another_resumes(open_server, spec):
    before, after = open_server(), open_server()
    run_id, key = _learning(before, spec("long"))
    before.start(spec("quick"))
    before.close()
    assert {run.state for run in after.list_runs()} == {"interrupted"}
    after.resume(run_id, key)
    _wait_for(after, run_id, "running")


def test_a_run_folder_that_disappears_harms_nobody(trainings, spec, home):
    run_id, _ = _learning(trainings, spec("long"))
    worker = trainings._job(run_id).worker
    shutil.rmtree(home / "runs" / run_id, ignore_errors=True)
    assert not trainings.active_runs()
    worker.process.kill()
    _wait(lambda: not _held(trainings))
    after, _ = trainings.start(spec("quick"))
    assert _finish(trainings, after).state == "done"


@pytest.mark.parametrize("run_id", ["../../etc", "..", "/etc", "", "A", "a/b", "x" * 60, None, "unknown"])
def test_hostile_and_unknown_run_ids_are_refused(run_id, trainings):
    controls = (trainings.stop, trainings.discard, trainings.pause, trainings.resume)
    for call in (trainings.view, *(functools.partial(control, key="key") for control in controls)):
        with pytest.raises(ColorizerError, match=r"is not a valid name|There is no training run"):
            call(run_id)
    assert not trainings.may_control(run_id, "key")


def test_discarding_an_old_run_spares_another_model_of_its_name(trainings, spec, save_tiny):
    run_id, key = _learning(trainings, spec("long"))
    os.kill(_worker_id(trainings, run_id), signal.SIGKILL)
    _finish(trainings, run_id)
    save_tiny("long")
    trainings.discard(run_id, key)
    assert "long" in _names()


def test_there_is_one_service_for_all():
    assert service.training_service() is service.training_service()
