"""The service survives accidents: killed workers and servers, removed folders, a second server, hostile ids."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from colorizer import config
from colorizer.errors import ColorizerError, TrainingError
from colorizer.jobs import database, runs, worker
from colorizer.models import library
from tests.trainings import FAKE_WORKER, active, finish, learning, names, wait, wait_for, worker_id

pytestmark = pytest.mark.slow


def lives(process_id):
    """Return whether there is a process of this id that is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


def test_a_worker_killed_in_an_epoch_gives_a_sentence_and_goes_on_from_its_checkpoint(trainings, spec):
    run_id, key = learning(trainings, spec("long"))
    os.kill(worker_id(trainings, run_id), signal.SIGKILL)
    run = finish(trainings, run_id)
    assert (run.state, run.resumable) == ("failed", True)
    assert run.message.startswith("The training process was killed, as systems do when memory runs out. Resume it")
    assert not names()
    trainings.resume(run_id, key)
    wait(lambda: trainings.view(run_id).epochs[-1]["epoch"] > run.epochs[-1]["epoch"])
    resumed = trainings.view(run_id)
    assert [epoch["epoch"] for epoch in resumed.epochs] == list(range(1, len(resumed.epochs) + 1))
    assert sorted(resumed.curve) == resumed.curve
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state == "stopped"
    assert library.load_history(library.find_model("long"))["epoch"][0] > 0  # It did not begin again.


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("broken", r"The training process ended unexpectedly, with exit code 3\. The run's worker\.log has"),
        ("memory", r"The machine ran out of memory\. Use fewer images, a smaller batch or smaller layers\."),
        ("diverging", r"The loss became inf\. Start again with a smaller learning rate\."),
        ("full", r"The disk is full, or it refuses to be written to\. Free some space"),
    ],
)
def test_a_failed_run_says_why(trainings, spec, behaviour, message, home):
    run_id, _ = trainings.start(spec(behaviour))
    run = finish(trainings, run_id)
    assert run.state == "failed"
    assert re.match(message, run.message), run.message
    assert not names()
    assert (home / "runs" / run_id / "worker.log").exists()
    after, _ = trainings.start(spec("quick"))
    assert finish(trainings, after).state == "done"


def test_a_program_that_cannot_be_started_gives_a_sentence_without_a_path(open_server, spec):
    trainings = open_server(("/nowhere/python",))
    run_id, _ = trainings.start(spec("never"))
    run = finish(trainings, run_id)
    assert (run.state, run.message) == ("failed", "The server could not train it (No such file or directory).")
    assert not active(trainings)


def test_a_dead_worker_does_not_end_the_queue_where_sigkill_is_unknown(trainings, spec, monkeypatch):
    run_id, _ = learning(trainings, spec("long"))
    process_id = worker_id(trainings, run_id)
    kill = signal.SIGKILL
    with monkeypatch.context() as patch:
        patch.delattr(signal, "SIGKILL")  # Windows has no such signal.
        os.kill(process_id, kill)
        assert finish(trainings, run_id).state == "failed"
    after, _ = trainings.start(spec("quick"))
    assert finish(trainings, after).state == "done"


def test_an_unexpected_error_fails_the_run_and_the_queue_goes_on(trainings, spec, monkeypatch, caplog):
    def explode(self, run_id):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(worker.WorkerProcess, "begin", explode)
        run_id, _ = trainings.start(spec("quick-1"))
        run = finish(trainings, run_id)
    assert (run.state, run.message) == ("failed", "The server could not train it (ZeroDivisionError).")
    assert "ZeroDivisionError" in caplog.text  # The operator sees all of it.
    after, _ = trainings.start(spec("quick-2"))
    assert finish(trainings, after).state == "done"


SERVER = """
import json, sys, time
from colorizer.jobs.service import TrainingService
from colorizer.config import TrainingSpec

trainings = TrainingService(tuple(json.loads(sys.argv[1])))
run_id, key = trainings.start(TrainingSpec.from_dict(json.loads(sys.argv[2])))
while trainings.view(run_id).stage != sys.argv[3] or trainings.view(run_id).step < 20:
    time.sleep(0.01)
waiting, _ = trainings.start(TrainingSpec.from_dict(json.loads(sys.argv[2]) | {"name": "long-waiting"}))
print(json.dumps([run_id, key, waiting, trainings._worker.process.pid]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def start_server(home):
    """Return a function that starts a server process, which trains; it returns the process and what it prints."""
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
    start_server, open_server, spec, home, name, stage
):
    server, run_id, key, waiting, process = start_server(spec(name), stage)
    assert lives(process)
    server.kill()
    wait(lambda: not lives(process))
    assert not names()
    trainings = open_server()
    before = trainings.view(run_id)
    assert (before.state, before.resumable) == ("interrupted", True)
    assert before.curve
    (home / "go").touch()
    trainings.resume(run_id, key)  # The key still fits.
    # The run that waited comes first: it needs no visitor to go on.
    wait(lambda: trainings.view(waiting).state == "running")
    runs.wish(waiting, stop_wanted=True)
    wait(lambda: trainings.view(run_id).step > before.step or not trainings.view(run_id).active)
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state in ("stopped", "done")
    assert name in names()
    assert library.load_history(library.find_model(name))["epoch"][0] > 0


def test_two_servers_on_one_folder_share_one_queue_and_control_each_others_runs(start_server, trainings, spec):
    server, theirs, key, waiting, _ = start_server(spec("long"))
    assert (trainings.view(theirs).state, trainings.view(waiting).state) == ("running", "queued")
    with pytest.raises(TrainingError, match="A training named long is under way"):
        trainings.start(spec("long"))
    mine, _ = trainings.start(spec("quick"))
    assert [(run.run_id, run.position) for run in trainings.active_runs()] == [(theirs, 0), (waiting, 1), (mine, 2)]
    trainings.pause(theirs, key)
    wait_for(trainings, theirs, "paused")
    trainings.set_learning_rate_factor(theirs, key, 2)
    trainings.resume(theirs, key)
    wait(lambda: (run := trainings.view(theirs)).curve[-1][1] * run.step > 1.5)  # The loss is the factor by the step.
    trainings.stop(theirs, key)
    wait_for(trainings, theirs, "stopped")
    wait(lambda: trainings.view(waiting).state == "running")
    server.kill()
    runs.wish(waiting, stop_wanted=True)  # Either server may have begun it; a run of the killed one ends anyway.
    assert finish(trainings, mine).state == "done"
    assert trainings.view(waiting).state in ("interrupted", "stopped")
    assert "long" in names()


def test_a_run_killed_with_its_server_is_resumed_by_its_owner_on_another(start_server, trainings, spec):
    server, theirs, key, waiting, process = start_server(spec("long"))
    server.kill()
    wait(lambda: not lives(process))
    with pytest.raises(TrainingError, match="Somebody else started this run"):
        trainings.resume(theirs, "another")
    trainings.resume(theirs, key)
    wait(lambda: trainings.view(waiting).state == "running")
    runs.wish(waiting, stop_wanted=True)
    wait(lambda: trainings.view(theirs).state == "running")


def test_a_run_is_discarded_from_another_server(start_server, trainings, spec, home):
    _, theirs, key, waiting, _ = start_server(spec("long"))
    trainings.discard(theirs, key)
    with pytest.raises(TrainingError, match="There is no training run"):
        trainings.view(theirs)
    wait(lambda: trainings.view(waiting).state == "running")
    assert not (home / "runs" / theirs).exists()
    assert not names()


def test_a_closed_service_leaves_an_interrupted_run_that_another_resumes_and_a_queue(open_server, spec):
    before, after = open_server(), open_server()
    run_id, key = learning(before, spec("long"))
    waiting, _ = before.start(spec("quick"))
    before.close()
    assert after.view(run_id).state == "interrupted"
    assert finish(after, waiting).state == "done"
    after.resume(run_id, key)
    wait_for(after, run_id, "running")


def test_a_run_that_was_paused_when_its_server_closed_goes_on_when_it_is_resumed(open_server, spec):
    before, after = open_server(), open_server()
    run_id, key = learning(before, spec("long"))
    before.pause(run_id, key)
    step = wait_for(before, run_id, "paused").step
    before.close()
    assert after.view(run_id).state == "interrupted"
    after.resume(run_id, key)
    wait(lambda: after.view(run_id).step > step + 10)
    assert after.view(run_id).state == "running"


def test_a_run_whose_folder_is_removed_can_be_stopped_and_is_kept(trainings, spec, home):
    run_id, key = learning(trainings, spec("long"))
    shutil.rmtree(home / "runs" / run_id)
    assert active(trainings) == [run_id]
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state == "stopped"
    assert "long" in names()


def test_a_folder_of_runs_that_disappears_harms_nobody(trainings, spec, home):
    run_id, _ = learning(trainings, spec("long"))
    process_id = worker_id(trainings, run_id)
    shutil.rmtree(home / "runs")
    assert not trainings.active_runs()
    wait(lambda: not lives(process_id))
    after, _ = trainings.start(spec("quick"))
    assert finish(trainings, after).state == "done"


@pytest.mark.parametrize("run_id", ["../../etc", "..", "/etc", "", "A", "a/b", "x" * 60, None, "unknown"])
def test_hostile_and_unknown_run_ids_are_refused(run_id, trainings):
    controls = (trainings.stop, trainings.discard, trainings.pause, trainings.resume)
    for call in (trainings.view, *(functools.partial(control, key="key") for control in controls)):
        with pytest.raises(ColorizerError, match=r"is not a valid name|There is no training run"):
            call(run_id)
    assert not trainings.may_control(run_id, "key")


def test_discarding_an_old_run_spares_another_model_of_its_name(trainings, spec, save_tiny):
    run_id, key = learning(trainings, spec("long"))
    os.kill(worker_id(trainings, run_id), signal.SIGKILL)
    finish(trainings, run_id)
    save_tiny("long")
    trainings.discard(run_id, key)
    assert "long" in names()


def test_a_run_whose_settings_are_damaged_fails_and_the_queue_goes_on(open_server, spec):
    first, _ = learning(trainings := open_server(), spec("long"))
    damaged, _ = trainings.start(spec("quick-1"))
    after, _ = trainings.start(spec("quick-2"))
    database.change("UPDATE runs SET spec = '{}' WHERE id = ?", damaged)
    runs.wish(first, stop_wanted=True)
    assert finish(trainings, after).state == "done"
    assert database.query("SELECT state FROM runs WHERE id = ?", damaged)[0]["state"] == "failed"
