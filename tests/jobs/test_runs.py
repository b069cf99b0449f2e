"""Runs are rows of the database, which are read a little at a time, whatever is wrong with them."""

import io

import numpy as np
import pytest

from colorizer import config
from colorizer.config import TrainConfig, TrainingSpec
from colorizer.errors import ColorizerError, TrainingError
from colorizer.jobs import database, runs
from colorizer.jobs.runs import RunReader
from colorizer.jobs.worker import RunWriter
from tests.fake_worker import Batch, Epoch, Snapshot
from tests.trainings import wait


@pytest.fixture
def run_id(home, tiny_model):
    """Return the id of a queued run."""
    return runs.create(TrainingSpec("mine", tiny_model, TrainConfig(dataset="synthetic")), "key")


def view(run_id):
    return RunReader().read(run_id)[0]


def insert(run_id, kind, epochs, loss=0.5, val_loss=1.0, seconds=2.0):
    columns = "run, kind, epochs, loss, val_loss, seconds"
    database.change(
        f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?)", run_id, kind, epochs, loss, val_loss, seconds
    )


def update(run_id, **values):
    for column, value in values.items():
        database.change(f"UPDATE runs SET {column} = ? WHERE id = ?", value, run_id)


def test_a_run_at_work_without_a_worker_is_interrupted_and_one_that_waits_waits(run_id):
    assert view(run_id).state == "queued"
    for state in ("running", "paused"):
        update(run_id, state=state)
        assert view(run_id).state == "interrupted"
        turn = runs.take_turn()
        assert view(run_id).state == state
        assert runs.take_turn() is None
        turn.release()
        assert RunReader().read(run_id, attended=run_id)[0].state == state


def test_a_run_that_was_being_measured_is_done(run_id):
    update(run_id, state="running", stage="measuring")
    assert view(run_id).state == "done"


def test_a_reader_sees_what_is_new_and_only_that(run_id):
    reader = RunReader()
    assert reader.read(run_id)[0].curve == []
    insert(run_id, "batch", 0.1)
    assert reader.read(run_id)[0].curve == [(0.1, 0.5)]
    database.change("UPDATE events SET loss = 9")  # A reader does not look at this event again.
    insert(run_id, "batch", 0.2)
    assert reader.read(run_id)[0].curve == [(0.1, 0.5), (0.2, 0.5)]


def test_events_after_those_of_a_discarded_run_are_not_missed(run_id, tiny_model):
    reader = RunReader()
    insert(run_id, "batch", 0.1)
    reader.read()
    database.change("DELETE FROM runs")
    other = runs.create(TrainingSpec("other", tiny_model, TrainConfig(dataset="synthetic")), "key")
    insert(other, "batch", 0.1)
    assert reader.read(other)[0].curve == [(0.1, 0.5)]


def test_a_reader_starts_anew_when_the_database_was_moved_away(run_id, tiny_model, home):
    reader = RunReader()
    insert(run_id, "batch", 0.1)
    reader.read()
    database.close()
    (home / "runs" / database.FILE).rename(home / "damaged")
    other = runs.create(TrainingSpec("mine", tiny_model, TrainConfig(dataset="synthetic")), "key")
    insert(other, "batch", 0.1)
    assert [run.curve for run in reader.read()] == [[(0.1, 0.5)]]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_long_run_is_thinned_and_keeps_its_shape(run_id, at_once):
    reader, count = RunReader(), 5000
    for part in np.array_split(np.arange(1, count + 1), 1 if at_once else 50):
        for step in part:
            insert(run_id, "batch", int(step) / 10, 1 / int(step))
        curve = reader.read(run_id)[0].curve
        assert len(curve) <= config.MAX_CURVE_POINTS
    assert len(curve) >= config.MAX_CURVE_POINTS // 2
    assert curve[-1] == (count / 10, 1 / count)
    epochs, losses = np.array(curve).T
    assert (np.diff(epochs) > 0).all()
    assert (np.diff(losses) < 0).all()


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(run_id):
    reader = RunReader()
    for step in range(1, 26):
        insert(run_id, "batch", step / 10, 1.0)
        if step % 10 == 0:
            insert(run_id, "epoch", step / 10)
            insert(run_id, "snapshot", step / 10)
    assert (len((run := reader.read(run_id)[0]).curve), run.seconds) == (25, 4)
    for step in range(11, 15):
        insert(run_id, "batch", step / 10, 3.0)
    for run in (reader.read(run_id)[0], view(run_id)):
        assert [loss for _, loss in run.curve] == [1] * 10 + [3] * 4
        assert [epoch["epoch"] for epoch in run.epochs] == [1]
        assert [epochs for epochs, _ in run.snapshots] == [1]


def test_a_writer_joins_batches_and_keeps_snapshots_apart(run_id):
    run = RunWriter(run_id, 7)
    for step in range(1, 1001):
        run.on_event(Batch(step, 1000, step / 10, float(step)))
    for value in (1, 2):
        run.on_event(Snapshot(99 + value, np.full((8, 32, 32, 3), value, np.uint8)))
    run.set_stage("training")
    seen = view(run_id)
    assert seen.snapshot_logits(0) is None
    assert (seen.state, seen.stage, seen.step, seen.progress) == ("running", "training", 1000, 1)
    assert 2 <= len(seen.curve) < 100
    assert [seen.snapshot_images(index).mean() for index in (0, 1)] == [1, 2]


@pytest.mark.slow
def test_only_one_worker_has_the_turn_and_it_begins_only_what_waits(run_id):
    first = RunWriter(run_id, 7)
    assert first.begun
    assert first.spec().name == "mine"
    assert not RunWriter(run_id, 7).begun
    first.turn.release()  # The system does this when a worker dies.
    for other in (run_id, "unknown"):
        late = RunWriter(other, 7)
        assert not late.begun
        late.turn.release()
    assert view(run_id).state == "interrupted"


def test_a_run_is_ended_by_its_own_worker_and_not_by_one_that_came_too_late(run_id):
    run = RunWriter(run_id, 7)
    assert run.begun
    assert not runs.end(run_id, "failed", "The late worker was killed.", 8)
    assert not runs.end(run_id, "stopped", "It waits no more.")
    assert view(run_id).state == "running"
    assert runs.end(run_id, "failed", "It was killed.", 7)
    assert (view(run_id).state, view(run_id).message) == ("failed", "It was killed.")


def test_a_stop_is_heeded_at_any_moment_also_between_the_last_batch_and_the_end(run_id, trainings):
    run = RunWriter(run_id, 7)
    run.set_stage("training")
    assert not run.should_stop()
    run.on_event(Batch(1, 1, 1.0, 0.5))
    run.on_event(Epoch(1, 0.5, 0.5, 1.0))
    trainings.stop(run_id, "key")
    wait(run.should_stop)
    assert view(run_id).stage == "stopping"


def test_a_worker_of_a_discarded_run_gives_up(run_id):
    run = RunWriter(run_id, 7)
    database.change("DELETE FROM runs")
    with pytest.raises(TrainingError, match="The run was discarded"):
        run.should_stop()
    with pytest.raises(TrainingError):
        run.on_event(Snapshot(0.0, np.zeros((8, 32, 32, 3), np.uint8)))
    assert not list(runs.run_folder(run_id).glob("snapshot-*"))


@pytest.mark.parametrize(
    "values",
    [
        {"spec": "{"},
        {"spec": "[]"},
        {"spec": "{}"},
        {"spec": "[" * 100_000},
        {"spec": '{"name": "x", "model": {"of_another_version": 1}, "train": {}, "preset": null}'},
        {"spec": '{"name": "../x", "model": {}, "train": {}, "preset": null}'},
        {"state": "flying"},
        {"state": ""},
    ],
    ids=lambda values: str(values)[:60],
)
def test_a_damaged_row_gives_a_sentence_and_harms_no_other(run_id, values, tiny_model, trainings):
    update(run_id, state="done")
    other = runs.create(TrainingSpec("other", tiny_model, TrainConfig(dataset="synthetic")), "key")
    update(other, state="done")
    trainings.view(run_id)
    update(run_id, **values)
    with pytest.raises(ColorizerError, match=rf"The run '{run_id}' is damaged\. Start another training"):
        trainings.view(run_id)
    assert [run.run_id for run in trainings.list_runs()] == [other]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_events_that_are_no_events_are_left_out(run_id, value):
    insert(run_id, "batch", 0.1)
    insert(run_id, "nonsense", 0.2)
    if value != "nan":  # SQLite has no such number.
        insert(run_id, "batch", 0.3, float(value))
        insert(run_id, "epoch", float(value))
    run = view(run_id)
    assert (run.curve, run.epochs) == ([(0.1, 0.5)], [])


def test_a_run_of_an_earlier_version_is_no_run(home, run_id, trainings):
    folder = home / "runs" / "20260101-000000-abcdef"
    folder.mkdir()
    (folder / "spec.json").write_text("{}")
    (folder / "status.json").write_text('{"state": "running"}')
    assert [run.run_id for run in trainings.list_runs()] == [run_id]


def test_only_the_key_of_its_creation_owns_a_run_and_the_disk_does_not_know_it(run_id, trainings):
    assert [trainings.may_control(run_id, key) for key in ("key", "", "other", "\ud800")] == [True, False, False, False]
    assert "key" not in tuple(database.query("SELECT * FROM runs")[0])


def _npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


PICTURE = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


DAMAGED = pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"PK\3\4 nonsense",
        b"\x93NUMPY",
        _npy(PICTURE)[:-1],
        _npy(PICTURE).replace(b"(32, 32, 3)", b"(((((((((((", 1),
        _npy(PICTURE[:16]),
        _npy(PICTURE.astype(np.float32)),
        _npy(np.array([PICTURE, None], object), allow_pickle=True),
    ],
    ids=["empty", "text", "zip", "magic", "short", "header", "shape", "dtype", "pickle"],
)


@DAMAGED
def test_a_damaged_picture_is_none(tiny_model, home, content):
    run_id = runs.create(TrainingSpec("mine", tiny_model, TrainConfig(dataset="synthetic")), "key", PICTURE)
    np.testing.assert_array_equal(runs.load_picture(run_id), PICTURE)
    (home / "runs" / run_id / "picture.npy").write_bytes(content)
    assert runs.load_picture(run_id) is None


@DAMAGED
def test_logits_are_kept_with_a_snapshot_and_damaged_ones_are_none(home, tiny_model, content):
    model = tiny_model.replace(architecture="unet", target="chroma", chroma_bins=9)
    run_id = runs.create(TrainingSpec("mine", model, TrainConfig(dataset="synthetic")), "key")
    logits = np.arange(16 * 16 * 9, dtype=np.float16).reshape(16, 16, 9)
    RunWriter(run_id, 7).on_event(Snapshot(1.0, np.zeros((8, 32, 32, 3), np.uint8), logits))
    np.testing.assert_array_equal(view(run_id).snapshot_logits(0), logits)
    (path,) = runs.run_folder(run_id).glob("*.logits.npy")
    for damage in (content, _npy(logits[:, :8]), _npy(logits * np.float16(np.nan))):
        path.write_bytes(damage)
        assert view(run_id).snapshot_logits(0) is None


def _npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@DAMAGED
def test_a_damaged_snapshot_gives_a_sentence(run_id, content):
    insert(run_id, "snapshot", 1.0)
    run = view(run_id)
    path = run.snapshots[0][1]
    for change in path.write_bytes, lambda _: path.unlink():
        change(content)
        with pytest.raises(TrainingError, match=r"snapshot-0*1\.npy of the run .* cannot be read. Choose another"):
            run.snapshot_images(0)
