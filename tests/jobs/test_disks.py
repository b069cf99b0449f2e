"""The service meets disks that are full or read-only and a damaged database, and its messages name no path."""

import contextlib
import re
import subprocess
import sys

import pytest

from colorizer.errors import DataError, ModelError, TrainingError
from colorizer.jobs import database, worker
from colorizer.jobs.service import TrainingService
from tests.trainings import FAKE_WORKER, finish, learning, wait

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(home):
    """Mount a disk of 2 MB that holds the home, and return a function that fills it."""
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")

    def fill():
        with (home / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    yield fill
    database.close()
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def test_a_disk_that_fills_up_during_a_run_is_named_and_the_run_goes_on_later(small_disk, trainings, spec, home):
    run_id, key = learning(trainings, spec("long"))
    small_disk()
    run = finish(trainings, run_id)
    assert (run.state, run.message) == ("failed", database.DISK_FULL)
    assert run.curve
    with pytest.raises(TrainingError, match="The disk is full"):
        trainings.start(spec("quick"))
    with pytest.raises(TrainingError, match="The disk is full"):
        trainings.resume(run_id, key)
    (home / "ballast").unlink()
    trainings.resume(run_id, key)
    wait(lambda: trainings.view(run_id).step > run.step)
    trainings.stop(run_id, key)
    assert finish(trainings, run_id).state == "stopped"


def test_runs_on_a_disk_that_became_read_only_are_shown_and_not_called_damaged(small_disk, trainings, spec, home):
    run_id, key = trainings.start(spec("quick"))
    finish(trainings, run_id)
    trainings.close()
    remount = ["mount", "-o", "remount,ro", str(home)]
    wait(lambda: not subprocess.run(remount, capture_output=True).returncode)
    run = TrainingService(FAKE_WORKER).view(run_id)
    assert (run.state, len(run.epochs), run.snapshot_images(0).shape) == ("done", 4, (8, 32, 32, 3))
    for change in (lambda: trainings.start(spec("other")), lambda: trainings.discard(run_id, key)):
        with pytest.raises(TrainingError) as caught:
            change()
        assert str(caught.value) == "The folder of training runs is read-only. Make it writable, then try again."
    assert [run.run_id for run in trainings.list_runs()] == [run_id]


@pytest.mark.parametrize("content", [b"nonsense" * 1000, b"", b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_database_gives_a_sentence_and_no_crash(open_server, home, spec, content):
    (home / "runs").mkdir(parents=True)
    (home / "runs" / database.FILE).write_bytes(content)
    trainings = open_server()
    assert (trainings.list_runs(), trainings.active_runs()) == ([], [])
    if content:
        assert trainings.trouble.startswith("The database of training runs is damaged. Move the file runs.sqlite3")
        for call in (lambda: trainings.start(spec("quick")), lambda: trainings.view("unknown")):
            with pytest.raises(TrainingError, match="The database of training runs is damaged"):
                call()
        assert not trainings.may_control("unknown", "key")
        (home / "runs" / database.FILE).unlink()
    run_id, _ = trainings.start(spec("quick"))
    assert finish(trainings, run_id).state == "done"
    assert len(trainings.list_runs()) == 1
    assert not trainings.trouble


def test_messages_to_visitors_name_no_path_of_the_server(home):
    home.mkdir()
    for error in (
        ModelError(f"The model x could not be saved in {home / 'models'} (Permission denied)."),
        DataError("The archive /srv/data/cifar 10/a.tar.gz is damaged."),
        DataError(r"The archive 'C:\\data\\a.tar.gz' is damaged."),
        FileNotFoundError(2, "No such file or directory", "/srv/secret"),
        ValueError("/srv/secret"),
    ):
        assert not re.search(r"srv|secret|data|tmp|home/", worker.explain(error)), worker.explain(error)
    assert worker.explain(ModelError("Use and/or 1/2. See https://keras.io/api.")).endswith("See https://keras.io/api.")
