"""A job takes a specification, as JSON or as a command line, checks it first, and runs one whole training."""

import io
import json
import shlex
import shutil
import zipfile

import h5py
import numpy as np
import pytest

from colorizer import config
from colorizer.app import cli
from colorizer.config import MAX_SNAPSHOTS, ModelConfig, TrainConfig, TrainingSpec
from colorizer.errors import ColorizerError, ConfigError, DataError, ModelError, TrainingError
from colorizer.models import library
from colorizer.pixels.images import PHOTOS
from colorizer.presets import PRESETS
from colorizer.training import job, loop
from colorizer.training.job import run_training, training_command
from colorizer.training.loop import Batch, Epoch, Snapshot
from tests.training.checks import KilledError, kill_after

OVERRIDES = [
    ("notebook", {"target": "gray", "latent_dim": 512}, {}),
    ("notebook", {"encoder_widths": (), "decoder_widths": (7, 9)}, {"learning_rate": 1e-5}),
    ("notebook", {"output_activation": "linear", "linear_path": True}, {"schedule": "cosine", "flips": True}),
    ("dense", {"linear_path": True}, {"flips": False, "shift": 0, "seed": 7, "train_images": 500}),
    ("linear", {"latent_dim": 512}, {"dataset": "synthetic", "weight_decay": 1}),
    ("unet", {}, {"dataset": "folder:my photos", "init_from": "unet", "freeze_encoder": True}),
    (None, {}, {}),
    (None, {"encoder_widths": (3,), "activation": "tanh"}, {"epochs": 1}),
]


def _spec(preset, model=None, train=None):
    base = PRESETS.get(preset)
    model_config, train_config = (base.model, base.train) if base else (ModelConfig(), TrainConfig())
    return TrainingSpec("mine", model_config.replace(**model or {}), train_config.replace(**train or {}), preset)


SPECS = pytest.mark.parametrize(
    "spec",
    [pytest.param(_spec(preset), id=preset) for preset in PRESETS]
    + [pytest.param(_spec(*override), id=f"override-{index}") for index, override in enumerate(OVERRIDES)],
)


@SPECS
def test_a_specification_survives_json(spec):
    assert TrainingSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@SPECS
def test_the_command_line_of_a_specification_trains_the_same(spec, monkeypatch):
    parsed = []

    def capture(specification, *_):
        parsed.append(specification)
        raise ColorizerError("far enough")

    monkeypatch.setattr(job, "run_training", capture)
    words = shlex.split(training_command(spec))
    assert words[:4] == ["python", "-m", "colorizer", "train"]
    cli.main(words[3:])
    ((name, model, train),) = [(p.name, p.model, p.train) for p in parsed]
    assert (name, model, train) == (spec.name, spec.model, spec.train)


@pytest.mark.parametrize(
    "change", [{"name": "../evil"}, {"model": []}, {"model": {"depth": 1}}, {"train": {"epochs": 10**6}}]
)
def test_a_hostile_specification_is_refused(change):
    with pytest.raises(ConfigError):
        TrainingSpec.from_dict(_spec("linear").to_dict() | change)


@pytest.fixture
def tiny_spec(tiny_model):
    return TrainingSpec("mine", tiny_model, TrainConfig(dataset="synthetic", train_images=256, epochs=1, batch_size=32))


def test_a_training_from_specification_to_library(tiny_spec):
    events, stages = [], []
    entry = run_training(tiny_spec, events.append, lambda: False, stages.append)
    assert entry == library.find_model("mine")
    assert stages == ["training", "saving", "measuring"]
    assert [type(event) for event in events if not isinstance(event, Snapshot)] == [Batch] * 8 + [Epoch]
    card = entry.card
    assert (entry.model_config, entry.train_config) == (tiny_spec.model, tiny_spec.train)
    assert card["name"] == "mine"
    assert card["command"] == training_command(tiny_spec)
    assert card["parameters"] == 1024 * 8 + 8 + 8 * 4 + 4 + 4 * 8 + 8 + 8 * 3072 + 3072
    assert (card["epochs_done"], card["stopped"]) == (1, False)
    assert (card["best_epoch"], card["best_val_loss"]) == (1, pytest.approx(events[-2].val_loss))
    assert card["seconds"] > 0
    assert {"tensorflow", "keras", "numpy", "python"} <= set(card["versions"])
    assert {"system", "processor", "cores"} <= set(card["machine"])
    assert set(card["metrics"]) == {"samples"}  # CIFAR-10 is not prepared here.
    assert card["metrics"]["samples"]["gray_copy"]["mse"] == pytest.approx(0.0061, abs=1e-4)
    history = library.load_history(entry)
    assert history["batch_loss"] == pytest.approx([e.loss for e in events if isinstance(e, Batch)], abs=1e-6)
    snapshots = library.load_arrays(entry, "snapshots.npz")
    assert 2 <= len(snapshots["epochs"]) == len(snapshots["images"]) <= MAX_SNAPSHOTS
    assert snapshots["images"].shape[1:] == (8, 32, 32, 3)
    predictions = library.load_arrays(entry, "predictions.npz")
    assert predictions["samples"].shape == (20, 32, 32, 3)
    assert predictions["samples_mse"].mean() == pytest.approx(entry.metric("samples"), rel=1e-5)
    for photo in PHOTOS:
        assert predictions[f"photo_{photo}"].shape == (32, 32, 2)
        assert np.isfinite(predictions[f"photo_{photo}"]).all()
    with zipfile.ZipFile(entry.path / "model.keras") as archive:
        assert "optimizer" not in h5py.File(io.BytesIO(archive.read("model.weights.h5")))


@pytest.mark.parametrize("dataset", ["synthetic", "samples"])
def test_the_gray_copy_of_a_built_in_data_set_is_that_of_the_samples(tiny_spec, dataset):
    train = tiny_spec.train.replace(dataset=dataset, epochs=0)
    entry = run_training(TrainingSpec("mine", tiny_spec.model, train), *[lambda *_: False] * 3)
    assert entry.gray_copy_loss == entry.card["metrics"]["samples"]["gray_copy"]["mse"]


def test_a_training_starts_from_a_model_of_the_library(tiny_spec, save_tiny):
    save_tiny("first")
    train = tiny_spec.train.replace(init_from="first", epochs=0)
    entry = run_training(TrainingSpec("second", tiny_spec.model, train), *[lambda *_: False] * 3)
    assert entry.metric("samples") == library.find_model("first").metric("samples")
    (library.find_model("first").path / "model.keras").write_bytes(b"")
    with pytest.raises(ModelError, match="The model first is damaged"):
        run_training(TrainingSpec("third", tiny_spec.model, train), *[lambda *_: False] * 3)
    assert not (library.user_folder() / "third").exists()


def test_a_stopped_training_is_kept_and_says_so(tiny_spec, tmp_path):
    entry = run_training(tiny_spec, lambda event: None, lambda: True, lambda stage: None, tmp_path)
    assert entry.path == tmp_path / "mine"
    assert entry.card["stopped"]
    assert len(library.load_history(entry)["batch_loss"]) == 1


def test_what_cannot_start_is_refused_before_the_work(tiny_spec, save_tiny):
    save_tiny("mine")
    with pytest.raises(ModelError, match="A model named mine is already here"):
        run_training(tiny_spec, untouched, untouched, untouched)
    missing = TrainingSpec("other", tiny_spec.model, TrainConfig(dataset="cifar10"))
    with pytest.raises(DataError, match="CIFAR-10 is not on this machine"):
        run_training(missing, untouched, untouched, untouched)


def untouched(*_):
    raise AssertionError("it started")


@pytest.mark.parametrize("place", ["home", "checkpoints"])
def test_a_folder_that_cannot_be_written_is_told_before_the_work(tiny_spec, home, place):
    home.mkdir()
    (home / ("models" if place == "home" else place)).write_text("a file is in the way")
    checkpoint = job.checkpoint_path(tiny_spec)
    with pytest.raises(TrainingError, match=r"The folder .* cannot be written \(File exists\), so nothing could"):
        run_training(tiny_spec, untouched, untouched, untouched, checkpoint=checkpoint)


def test_a_disk_without_room_is_told_before_the_work(tiny_spec, monkeypatch, home):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    with pytest.raises(TrainingError, match=r"The disk of .* has 5 MB free, and this training needs \d+ MB\. Free"):
        run_training(tiny_spec, untouched, untouched, untouched, checkpoint=job.checkpoint_path(tiny_spec))


def test_two_trainings_of_one_name_cannot_run_at_once(tiny_spec, home):
    second = []

    def train_again(event):
        if not second:
            second.append(event)
            with pytest.raises(TrainingError, match=r"Another process is training mine now\. Wait until it has ended"):
                run_training(tiny_spec, untouched, untouched, untouched)

    run_training(tiny_spec, train_again, lambda: False, lambda stage: None, checkpoint=job.checkpoint_path(tiny_spec))
    assert second
    left = [path.name for path in home.rglob("*") if path.is_file() and path.parent.name != "mine"]
    assert left == []  # Neither a lock nor a checkpoint stays.


def test_a_diverged_training_puts_nothing_into_the_library(tiny_spec, home):
    with pytest.raises(TrainingError, match="became"):
        run_training(tiny_spec, *[lambda *_: False] * 3, learning_rate_factor=lambda: 1e30)
    assert all(entry.shipped for entry in library.list_models())
    assert not list((home / "models").iterdir())


@pytest.mark.slow
def test_a_training_without_a_name_is_found_by_the_same_command(tiny_spec, run, monkeypatch, home):
    command = ["train", "--preset", "notebook", "--dataset", "synthetic", "--train-images", "64", "--batch-size", "16"]
    command += ["--encoder-widths", "8", "--decoder-widths", "8", "--epochs", "3"]
    names, original = iter(["notebook-20260101-000000", "notebook-20260101-000001"]), loop.train

    def kill(*arguments):
        return original(*arguments[:3], kill_after(2, arguments[3]), *arguments[4:])

    monkeypatch.setattr(config, "default_name", lambda preset: next(names))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", kill)
        with pytest.raises(KilledError):
            run(*command)
    (checkpoint,) = (home / "checkpoints").iterdir()
    code, _, progress = run(*command)
    assert code == 0
    assert "epoch 3" in progress and "epoch 2" not in progress  # It went on from the second epoch.
    assert not checkpoint.exists()
    other = tiny_spec.train.replace(seed=1)
    specs = [
        TrainingSpec("dense-20260101-000000", tiny_spec.model, train, "dense") for train in (tiny_spec.train, other)
    ]
    assert len({job.checkpoint_path(spec) for spec in specs}) == 2


def test_the_cards_of_shipped_models_have_the_loss_of_the_weights_that_are_saved():
    for entry in (entry for entry in library.list_models() if entry.shipped):
        history = library.load_history(entry)
        place = history["epoch"].index(entry.card["best_epoch"])
        # The older models were saved after their last epoch.
        assert place == len(history["epoch"]) - 1 or history["val_loss"][place] == min(history["val_loss"])
        assert entry.card["best_val_loss"] == history["val_loss"][place]


@pytest.mark.slow
def test_a_model_learns_from_the_pictures_of_a_visitor(home, tiny_model):
    own = np.random.default_rng(0).integers(0, 256, (25, 32, 32, 3)).astype(np.uint8)
    spec = TrainingSpec("mine", tiny_model, TrainConfig(dataset="own", epochs=1, batch_size=8))
    entry = run_training(spec, lambda event: None, lambda: False, lambda stage: None, own_pictures=own)
    assert entry.card["metrics"]["own_validation"]["images"] == 2
    assert entry.train_config.dataset == "own"
    with pytest.raises(ConfigError, match="Give folder:PATH"):
        run_training(spec, lambda event: None, lambda: False, lambda stage: None, replace=True)
