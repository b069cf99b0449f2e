"""service: accidents: killed workers and servers, a full disk, two servers on one folder, hostile ids."""

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

from colorizer import config
from colorizer.errors import ColorizerError, TrainingError
from colorizer.jobs import runs, service
from colorizer.jobs.runs import RunReader
from colorizer.models import library
from tests.fake_worker import find_no_room
from tests.trainings import FAKE_WORKER, finish, held, learning, names, wait, wait_for, worker_id


def lives(process_id):
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
    assert library.load_history(library.find_model("long"))["epoch"][0] > 0  # it did not begin again


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("broken", r"The training process ended unexpectedly, with exit code 3\. The run's worker\.log has"),
        ("memory", r"The machine ran out of memory\. Use fewer images, a smaller batch or smaller layers\."),
        ("full", r"The disk is full \(No space left on device\)\. Free some"),
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


def test_an_end_that_the_disk_has_no_room_for_is_known_while_the_server_lives(trainings, spec, monkeypatch):
    run_id, _ = trainings.start(spec("full"))
    monkeypatch.setattr(runs, "write_json", find_no_room)
    run = finish(trainings, run_id)
    assert (run.state, run.message[:16]) == ("failed", "The disk is full")
    assert RunReader(run_id).read().state == "interrupted"  # as another server sees it


def test_a_program_that_cannot_be_started_gives_a_sentence(open_server, spec):
    trainings = open_server(("/nowhere/python",))
    run_id, _ = trainings.start(spec("never"))
    run = trainings.view(run_id)
    assert run.state == "failed"
    assert run.message.startswith("The training could not be started ([Errno 2] No such file or directory")
    assert not held(trainings)


SERVER = """
import json, sys, time
from colorizer.jobs.service import TrainingService
from colorizer.config import TrainingSpec

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
    assert all(map(lives, processes))
    server.kill()
    killed = time.monotonic()
    wait(lambda: not any(map(lives, processes)))
    assert time.monotonic() - killed < 1
    for interrupted in (run_id, waiting):
        assert trainings.view(interrupted).state == "interrupted"
    before = trainings.view(run_id)
    assert before.curve
    assert not names()
    assert not trainings.active_runs()
    (home / "go").touch()
    trainings.resume(run_id, key)  # the key still fits
    wait(lambda: trainings.view(run_id).step > before.step or not trainings.view(run_id).active)
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state in ("stopped", "done")
    assert names() == {name}
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
    assert finish(trainings, mine).state == "done"
    assert trainings.view(theirs).state == "interrupted"


def test_a_closed_service_leaves_interrupted_runs_that_another_resumes(open_server, spec):
    before, after = open_server(), open_server()
    run_id, key = learning(before, spec("long"))
    before.start(spec("quick"))
    before.close()
    assert {run.state for run in after.list_runs()} == {"interrupted"}
    after.resume(run_id, key)
    wait_for(after, run_id, "running")


def test_a_run_folder_that_disappears_harms_nobody(trainings, spec, home):
    run_id, _ = learning(trainings, spec("long"))
    worker = trainings._job(run_id).worker
    shutil.rmtree(home / "runs" / run_id, ignore_errors=True)
    assert not trainings.active_runs()
    worker.process.kill()
    wait(lambda: not held(trainings))
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


def test_there_is_one_service_for_all():
    assert service.training_service() is service.training_service()
