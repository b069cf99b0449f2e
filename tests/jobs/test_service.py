"""The service makes each transition of a run and queues its visitors, here with a quick fake worker."""

import dataclasses
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from colorizer import config
from colorizer.config import TrainConfig, TrainingSpec
from colorizer.errors import ConfigError, ModelError, TrainingError
from colorizer.jobs import database, runs, service, worker
from colorizer.models import library
from tests.trainings import SECONDS, active, finish, learning, names, wait, wait_for, worker_id

# One run


def test_a_run_goes_from_its_start_to_the_library(trainings, spec):
    run_id, key = trainings.start(spec("quick"))
    assert trainings.view(run_id).active
    assert [run.run_id for run in trainings.active_runs()] == [run_id]
    run = finish(trainings, run_id)
    assert (run.state, run.stage, run.message, run.progress) == ("done", "", "", 1.0)
    assert run.spec == spec("quick")
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2, 3, 4]
    assert (run.best_val_loss, run.seconds) == (2 / 40, pytest.approx(0.2))
    assert [epochs for epochs, _ in run.snapshots] == [0, 1, 2, 3, 4]
    assert (run.snapshot_images(4) == 40).all()
    assert names() == {"quick"}
    assert not trainings.active_runs()
    assert [other.run_id for other in trainings.list_runs()] == [run_id]
    with pytest.raises(ModelError, match="A model named quick is already here"):
        trainings.start(spec("quick"))
    trainings.discard(run_id, key)
    assert (names(), trainings.list_runs()) == (set(), [])


@pytest.mark.slow
def test_a_warning_of_the_training_is_the_message_of_its_run_and_stays(trainings, spec):
    run_id, _ = trainings.start(spec("warned"))
    wait(lambda: trainings.view(run_id).message)
    run = finish(trainings, run_id)
    assert (run.state, run.message) == ("done", "The first checkpoint could not be written.")


def test_a_spare_worker_is_used_and_another_waits_only_when_no_run_is_trained(trainings, spec):
    trainings.prepare()
    spare = trainings._spare.process.pid
    run_id, key = trainings.start(spec("long"))
    assert worker_id(trainings, run_id) == spare
    assert os.getpriority(os.PRIO_PROCESS, spare) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    trainings.prepare()
    assert trainings._spare is None
    trainings.discard(run_id, key)
    wait(lambda: trainings.prepare() or trainings._spare)
    assert trainings._spare.process.pid != spare


def test_a_spare_worker_ends_when_nobody_has_asked_for_one_for_a_while(trainings, spec, monkeypatch):
    monkeypatch.setattr(service, "_SPARE_SECONDS", 1.0)
    trainings.prepare()
    spare, begun = trainings._spare, time.monotonic()
    time.sleep(0.7)
    trainings.prepare()  # A page is still open, so the same worker stays longer.
    assert trainings._spare is spare
    wait(lambda: trainings._spare is None)
    assert time.monotonic() - begun >= 1.7
    assert spare.ended()
    run_id, _ = trainings.start(spec("quick"))
    assert finish(trainings, run_id).state == "done"
    assert trainings._spare is None


@pytest.mark.slow
def test_a_dead_spare_is_replaced_when_it_is_needed(trainings, spec):
    trainings.prepare()
    trainings._spare.process.kill()
    trainings._spare.process.wait()
    run_id, _ = trainings.start(spec("quick"))
    assert finish(trainings, run_id).state == "done"


def test_a_stopped_run_keeps_its_model(trainings, spec):
    run_id, key = learning(trainings, spec("long"))
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state == "stopped"
    assert library.find_model("long").card["stopped"]
    trainings.stop(run_id, key)  # A second stop does no harm.


def test_a_discarded_run_leaves_no_folder_no_checkpoint_no_event_and_no_model(trainings, spec, home):
    run_id, key = learning(trainings, spec("long"))
    trainings.discard(run_id, key)
    with pytest.raises(TrainingError, match=rf"There is no training run '{run_id}' here\. It may have been discarded"):
        trainings.view(run_id)
    wait(lambda: not active(trainings))
    assert not [path for path in (home / "runs").iterdir() if path.is_dir()]
    assert [database.query(f"SELECT count(*) FROM {table}")[0][0] for table in ("runs", "events")] == [0, 0]
    assert not names()


@pytest.mark.slow
def test_a_model_belongs_to_the_run_that_saved_it_and_not_to_one_of_its_name(trainings, spec):
    first, key = trainings.start(spec("quick"))
    assert finish(trainings, first).model().name == "quick"
    library.delete_model("quick")
    assert trainings.view(first).model() is None
    second, _ = trainings.start(spec("quick"))
    assert finish(trainings, second).model().name == "quick"
    assert trainings.view(first).model() is None
    trainings.discard(first, key)
    assert names() == {"quick"}


@pytest.mark.slow
def test_a_run_is_discarded_in_the_middle_of_saving(trainings, spec, home):
    run_id, key = trainings.start(spec("saving"))
    wait(lambda: trainings.view(run_id).stage == "saving" and list(home.glob("models/.staging-*/model.keras")))
    trainings.discard(run_id, key)
    wait(lambda: not active(trainings))
    assert not names()
    assert not (home / "runs" / run_id).exists()
    (home / "go").touch()


@pytest.mark.slow
def test_a_run_whose_model_is_saved_is_done_although_measuring_it_failed(trainings, spec):
    run_id, _ = trainings.start(spec("unmeasured"))
    run = finish(trainings, run_id)
    assert (run.state, run.message) == ("done", f"Its model is saved, but not measured. {database.DISK_FULL}")
    assert run.model().name == "unmeasured"


@pytest.mark.slow
def test_a_run_whose_model_is_saved_is_not_resumed(trainings, spec):
    run_id, key = trainings.start(spec("quick"))
    finish(trainings, run_id)
    database.change("UPDATE runs SET state = 'interrupted'")  # The server was killed just after the model was saved.
    assert not trainings.view(run_id).resumable
    with pytest.raises(TrainingError, match="The run quick is interrupted: there is nothing to resume"):
        trainings.resume(run_id, key)


def test_a_paused_run_waits_and_goes_on(trainings, spec):
    run_id, key = learning(trainings, spec("long"))
    trainings.pause(run_id, key)
    step = wait_for(trainings, run_id, "paused").step
    time.sleep(0.3)  # A step takes a thirtieth of this.
    assert trainings.view(run_id).step <= step + 1
    trainings.resume(run_id, key)
    wait(lambda: trainings.view(run_id).step > step + 10)
    assert trainings.view(run_id).state == "running"


def test_a_paused_run_can_be_stopped(trainings, spec):
    run_id, key = learning(trainings, spec("long"))
    trainings.pause(run_id, key)
    wait_for(trainings, run_id, "paused")
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state == "stopped"
    assert "long" in names()


@pytest.mark.slow
def test_the_learning_rate_changes_while_it_learns_and_stays_after_a_restart(trainings, spec):
    run_id, key = learning(trainings, spec("long"))
    trainings.set_learning_rate_factor(run_id, key, 4)

    def changed():  # The fake loss is the factor divided by the step.
        run = trainings.view(run_id)
        return run.learning_rate_factor == 4 and run.curve[-1][1] * run.step > 3.5

    wait(changed)
    os.kill(worker_id(trainings, run_id), signal.SIGKILL)
    finish(trainings, run_id)
    trainings.resume(run_id, key)
    wait(lambda: trainings.view(run_id).active and changed())
    for factor in (0, 11, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"must be from 0\.01 to 10, received"):
            trainings.set_learning_rate_factor(run_id, key, factor)


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["deaf", "immortal"])
def test_a_worker_that_does_not_stop_is_ended_and_the_run_can_be_resumed(trainings, spec, behaviour, monkeypatch):
    monkeypatch.setattr(worker, "PATIENCE", 0.2)
    run_id, key = learning(trainings, spec(behaviour))
    trainings.stop(run_id, key)
    run = finish(trainings, run_id)
    assert (run.state, run.resumable) == ("interrupted", True)
    assert run.message.endswith("was ended. Resume it to go on from its last epoch.")
    assert not names()


@pytest.mark.slow
def test_a_worker_that_takes_its_time_to_save_is_not_ended(trainings, spec, home, monkeypatch):
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    run_id, key = trainings.start(spec("saving"))
    wait(lambda: trainings.view(run_id).stage == "saving")
    trainings.stop(run_id, key)
    time.sleep(0.5)  # This is five times the patience.
    (home / "go").touch()
    assert finish(trainings, run_id).state == "done"


@pytest.mark.slow
def test_the_time_limit_stops_a_run_and_says_so(trainings, spec, monkeypatch):
    monkeypatch.setattr(config, "MAX_TRAINING_SECONDS", 0.3)
    monkeypatch.setattr(worker, "PATIENCE", SECONDS)
    run_id, _ = trainings.start(spec("long"))
    run = finish(trainings, run_id)
    assert (run.state, run.message) == ("stopped", "It reached the time limit, and what it had learned is kept.")
    assert "long" in names()


# Queue and visitors


@pytest.mark.slow
def test_runs_wait_in_order_and_each_gets_its_turn(trainings, spec):
    first, key = learning(trainings, spec("long"))
    second, third = (trainings.start(spec(name))[0] for name in ("quick-2", "quick-3"))
    assert [(run.run_id, run.state, run.position) for run in trainings.active_runs()] == [
        (first, "running", 0),
        (second, "queued", 1),
        (third, "queued", 2),
    ]
    trainings.stop(first, key)
    wait(lambda: trainings.view(second).state == "running")
    assert trainings.view(third).position == 1
    assert finish(trainings, third).state == "done"
    assert trainings.view(second).state == "done"
    assert names() == {"long", "quick-2", "quick-3"}


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
    assert active(trainings) == [run_id, waiting]
    assert len(trainings.list_runs()) == 2


@pytest.mark.slow
def test_a_visitor_starts_again_with_the_same_key_after_the_end(trainings, spec):
    first, key = trainings.start(spec("quick-1"))
    finish(trainings, first)
    second, same = trainings.start(spec("quick-2"), key)
    assert same == key
    assert trainings.may_control(second, key)


@pytest.mark.parametrize("method", ["stop", "discard"])
def test_a_waiting_run_leaves_the_queue(trainings, spec, method):
    first, _ = learning(trainings, spec("long"))
    second, key = trainings.start(spec("quick"))
    getattr(trainings, method)(second, key)
    assert active(trainings) == [first]
    if method == "stop":
        run = trainings.view(second)
        assert (run.state, run.message) == ("stopped", "It was stopped before it began: there is nothing to keep.")
    else:
        assert [run.run_id for run in trainings.list_runs()] == [first]


def test_anybody_may_watch_and_only_who_started_it_controls(trainings, spec):
    run_id, key = learning(trainings, spec("long"))
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


def test_visitors_without_a_key_get_keys_that_open_nothing_of_each_other(trainings, spec):
    (first, one), (second, other) = trainings.start(spec("long-1")), trainings.start(spec("long-2"))
    assert one != other
    assert [trainings.may_control(run_id, key) for run_id in (first, second) for key in (one, other)] == [
        True, False, False, True,
    ]  # fmt: skip


@pytest.mark.slow
def test_many_threads_may_ask_at_once_who_controls_a_run(trainings, spec):
    run_id, key = learning(trainings, spec("long"))

    def ask(number):
        trainings.view(run_id)
        trainings.list_runs()
        return trainings.may_control(run_id, key)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(400)))


def test_own_pictures_are_in_the_folder_of_their_run_and_are_deleted_with_it(trainings, spec, home):
    own = np.arange(25 * 3072, dtype=np.uint64).reshape(25, 32, 32, 3).astype(np.uint8)
    mine = spec("long")
    mine = dataclasses.replace(mine, train=mine.train.replace(dataset="own"))
    with pytest.raises(TrainingError, match="There are no pictures to learn from"):
        trainings.start(mine)
    run_id, key = trainings.start(mine, own_pictures=own)
    np.testing.assert_array_equal(runs.load_own_pictures(run_id), own)
    assert list(home.rglob("own.npy")) == [home / "runs" / run_id / "own.npy"]
    trainings.discard(run_id, key)
    wait(lambda: not list(home.rglob("own.npy")))


@pytest.mark.parametrize("dataset", ["cifar100:a.npz", "folder:/home"])
def test_a_page_cannot_have_files_of_the_machine_read(trainings, tiny_model, dataset):
    with pytest.raises(TrainingError, match=f"A page cannot train on '{dataset}'. Choose one of cifar10, synthetic"):
        trainings.start(TrainingSpec("spy", tiny_model, TrainConfig(dataset=dataset)))
