"""runs: folders written by hand, read once and a little at a time, with all that can be wrong with them."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from colorizer import config
from colorizer.config import TrainConfig, TrainingSpec
from colorizer.errors import ColorizerError, TrainingError
from colorizer.jobs import runs
from colorizer.jobs.runs import RunReader, RunWriter


@pytest.fixture
def run_id(home, tiny_model):
    """A queued run."""
    return runs.create(TrainingSpec("mine", tiny_model, TrainConfig(dataset="synthetic")), "key")


@pytest.fixture
def folder(home, run_id):
    return home / "runs" / run_id


def _batch(step, steps=1000, loss=0.5):
    return {"event": "batch", "step": step, "steps": steps, "epochs": step / 10, "loss": loss}


def _write(folder, *events, mode="a"):
    with (folder / "events.jsonl").open(mode) as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


@pytest.mark.parametrize("state", runs.ACTIVE_STATES)
def test_a_run_without_a_server_or_worker_is_interrupted(run_id, folder, state):
    runs.change_status(run_id, state=state)
    assert RunReader(run_id).read().state == "interrupted"
    assert RunReader(run_id).read(known_alive=True).state == state
    for name in ("server.lock", "worker.lock"):
        lock = runs.take_lock(folder / name)
        assert RunReader(run_id).read().state == state
        with pytest.raises(TrainingError, match=rf"Another process holds {name}\. Wait until it has ended"):
            runs.take_lock(folder / name, patience=0)
        lock.release()


def test_a_run_that_was_being_measured_is_done(run_id):
    runs.change_status(run_id, state="running", stage="measuring")
    assert RunReader(run_id).read().state == "done"


def test_what_is_new_is_read_once(run_id, folder, monkeypatch):
    reader, read = RunReader(run_id), []
    monkeypatch.setattr(reader, "_add", lambda event, add=reader._add: (read.append(event["step"]), add(event)))
    assert reader.read().curve == []
    for steps in ([1, 2], [], [3]):
        _write(folder, *map(_batch, steps))
        reader.read()
    assert read == [1, 2, 3]
    assert reader.read().curve == [(0.1, 0.5), (0.2, 0.5), (0.3, 0.5)]


def test_a_half_written_line_waits_for_its_end(run_id, folder):
    reader, line = RunReader(run_id), json.dumps(_batch(2)) + "\n"
    _write(folder, _batch(1))
    with (folder / "events.jsonl").open("a") as file:
        file.write(line[:20])
        file.flush()
        assert reader.read().step == 1
        file.write(line[20:])
    assert reader.read().step == 2


@pytest.mark.parametrize("at_once", [True, False])
def test_a_long_run_is_thinned_and_keeps_its_shape(run_id, folder, at_once):
    reader, count = RunReader(run_id), 5000
    for part in np.array_split(np.arange(1, count + 1), 1 if at_once else 50):
        _write(folder, *(_batch(int(step), count, 1 / step) for step in part))
        curve = reader.read().curve
        assert len(curve) <= config.MAX_CURVE_POINTS
    assert len(curve) >= config.MAX_CURVE_POINTS // 2
    assert curve[-1] == (count / 10, 1 / count)
    epochs, losses = np.array(curve).T
    assert (np.diff(epochs) > 0).all()
    assert (np.diff(losses) < 0).all()


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(run_id, folder):
    reader = RunReader(run_id)
    for step in range(1, 26):
        _write(folder, _batch(step, loss=1))
        if step % 10 == 0:
            _write(folder, {"event": "epoch", "epoch": step // 10, "loss": 1, "val_loss": 1, "seconds": 2})
            _write(folder, {"event": "snapshot", "epochs": step / 10, "images": f"{step}.npy"})
    assert (len(reader.read().curve), reader.read().seconds) == (25, 4)
    _write(folder, *(_batch(step, loss=3) for step in range(11, 15)))
    for run in (reader.read(), RunReader(run_id).read()):
        assert [loss for _, loss in run.curve] == [1] * 10 + [3] * 4
        assert [epoch["epoch"] for epoch in run.epochs] == [1]
        assert [epochs for epochs, _ in run.snapshots] == [1]
        assert (run.step, run.progress) == (14, 0.014)


def test_a_writer_goes_on_after_half_a_line_and_joins_batches(run_id, folder):
    _write(folder, _batch(1))
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "ba')
    reported = []
    run = RunWriter(folder, reported.append)
    kinds = {name: type(name, (SimpleNamespace,), {}) for name in ("Batch", "Snapshot")}
    for step in range(2, 1001):
        run.on_event(kinds["Batch"](step=step, steps=1000, epochs=step / 10, loss=float(step)))
    for value in (1, 2):
        run.on_event(kinds["Snapshot"](epochs=99 + value, images=np.full((8, 32, 32, 3), value, np.uint8)))
    run.update(state="running")
    run.update(state="running")
    assert [status["state"] for status in reported] == ["running"]
    view = RunReader(run_id).read()
    assert (view.state, view.step) == ("running", 1000)
    assert [step for step, _ in view.curve][:2] == [0.1, 0.2]
    assert 3 <= len(view.curve) < 100
    assert [view.snapshot_images(index).mean() for index in (0, 1)] == [1, 2]


@pytest.mark.parametrize(
    "files",
    [
        {"spec.json": "{"},
        {"spec.json": "[]"},
        {"spec.json": "{}"},
        {"spec.json": "\udcff"},
        {"spec.json": '{"name": "x", "model": {"of_another_version": 1}, "train": {}, "preset": null}'},
        {"spec.json": '{"name": "../x", "model": {}, "train": {}, "preset": null}'},
        {"status.json": ""},
        {"status.json": "[]"},
        {"status.json": "{}"},
        {"status.json": '{"state": "flying"}'},
        {"status.json": '{"state": "done", "learning_rate_factor": "much"}'},
        {"events.jsonl": "nonsense\n"},
        {"events.jsonl": "{}\n"},
        {"events.jsonl": "[]\n"},
        {"events.jsonl": '{"event": "snapshot"}\n'},
        {"events.jsonl": '{"event": "batch", "step": "many", "steps": 1}\n'},
    ],
    ids=str,
)
def test_a_damaged_folder_gives_a_sentence_and_harms_no_other(run_id, folder, files, tiny_model):
    from colorizer.jobs.service import TrainingService

    other = runs.create(TrainingSpec("other", tiny_model, TrainConfig(dataset="synthetic")), "key")
    trainings = TrainingService()
    trainings.view(run_id)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    for _ in range(2):
        with pytest.raises(ColorizerError, match=rf"The folder of the run '{run_id}' is damaged .*Delete it"):
            RunReader(run_id).read()
    if "spec.json" not in files:  # which is read once
        with pytest.raises(ColorizerError, match="is damaged"):
            trainings.view(run_id)
    assert [run.run_id for run in TrainingService().list_runs()] == [other]


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
def test_a_damaged_snapshot_gives_a_sentence(run_id, folder, content):
    _write(folder, _batch(1), {"event": "snapshot", "epochs": 1, "images": "snapshot-000.npy"})
    for change in (folder / "snapshot-000.npy").write_bytes, lambda _: (folder / "snapshot-000.npy").unlink():
        change(content)
        with pytest.raises(TrainingError, match=r"snapshot-000.npy of the run .* cannot be read. Choose another"):
            RunReader(run_id).read().snapshot_images(0)


def test_only_the_key_of_its_creation_owns_a_run(run_id, folder):
    reader = RunReader(run_id)
    reader.read()
    assert [reader.owned_by(key) for key in ("key", "", "other", "\ud800")] == [True, False, False, False]
    assert "key" not in json.loads((folder / "spec.json").read_text()).values()


def test_what_is_no_run_is_not_listed(home, run_id):
    (home / "runs" / ".staging-abc").mkdir()
    (home / "runs" / "A file").write_text("")
    assert runs.list_ids() == [run_id]
