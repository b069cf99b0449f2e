"""worker: specifications as JSON and as a command line, and one whole training from specification to library."""

import io
import json
import shlex
import zipfile

import h5py
import numpy as np
import pytest

from colorizer.app import cli
from colorizer.config import MAX_SNAPSHOTS, ModelConfig, TrainConfig, TrainingSpec
from colorizer.errors import ColorizerError, ConfigError, DataError, ModelError
from colorizer.models import library
from colorizer.pixels.images import PHOTOS
from colorizer.presets import PRESETS
from colorizer.training import job
from colorizer.training.job import run_training, training_command
from colorizer.training.loop import Batch, Epoch, Snapshot

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
    assert stages == ["training", "saving"]
    assert [type(event) for event in events if not isinstance(event, Snapshot)] == [Batch] * 8 + [Epoch]
    card = entry.card
    assert (entry.model_config, entry.train_config) == (tiny_spec.model, tiny_spec.train)
    assert card["name"] == "mine"
    assert card["command"] == training_command(tiny_spec)
    assert card["parameters"] == 1024 * 8 + 8 + 8 * 4 + 4 + 4 * 8 + 8 + 8 * 3072 + 3072
    assert (card["epochs_done"], card["stopped"]) == (1, False)
    assert card["best_val_loss"] == pytest.approx(events[-2].val_loss)
    assert card["seconds"] > 0
    assert {"tensorflow", "keras", "numpy", "python"} <= set(card["versions"])
    assert {"system", "processor", "cores"} <= set(card["machine"])
    assert set(card["metrics"]) == {"samples"}  # CIFAR-10 is not prepared here
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
    def untouched(*_):
        raise AssertionError("it started")

    save_tiny("mine")
    with pytest.raises(ModelError, match="A model named mine is already here"):
        run_training(tiny_spec, untouched, untouched, untouched)
    missing = TrainingSpec("other", tiny_spec.model, TrainConfig(dataset="cifar10"))
    with pytest.raises(DataError, match="CIFAR-10 is not on this machine"):
        run_training(missing, untouched, untouched, untouched)
