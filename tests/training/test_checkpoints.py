"""The best epoch's weights are kept, and a run goes on from its checkpoint after a crash or a full disk."""

import itertools
import resource

import numpy as np
import pytest

from colorizer.config import ModelConfig
from colorizer.data import datasets
from colorizer.errors import TrainingError
from colorizer.pixels.color import to_luminance, to_uint8
from colorizer.training.loop import Epoch, train
from tests.training.checks import KilledError, kill_after, losses, mse


@pytest.fixture
def overfitted(tiny_train):
    """Return settings whose validation loss is lowest in an early epoch: the learning rate explodes after two."""
    steps = itertools.count(1)
    return tiny_train.replace(epochs=4), lambda: 1.0 if next(steps) <= 8 else 3000.0


def test_the_weights_of_the_best_epoch_are_kept(tiny, tiny_model, overfitted):
    config, factor = overfitted
    result = train(tiny_model, config, tiny, learning_rate_factor=factor)
    val_losses = result.history["val_loss"]
    assert val_losses[result.best] == min(val_losses) < val_losses[-1] / 1.01
    assert mse(result.model, tiny.validation.images) == pytest.approx(min(val_losses), rel=1e-4)
    eight = to_luminance(tiny.validation.images[list(datasets.SNAPSHOT_SAMPLES)])
    np.testing.assert_array_equal(result.snapshots[-1].images, to_uint8(np.asarray(result.model(eight))))


def test_a_resumed_run_remembers_the_best_epoch(tiny, tiny_model, overfitted, tmp_path):
    config, factor = overfitted
    checkpoint = tmp_path / "run.npz"
    with pytest.raises(KilledError):
        train(tiny_model, config, tiny, kill_after(3), checkpoint=checkpoint, learning_rate_factor=factor)
    result = train(tiny_model, config, tiny, checkpoint=checkpoint, learning_rate_factor=lambda: 3000.0)
    assert result.best < 3
    assert mse(result.model, tiny.validation.images) == pytest.approx(min(result.history["val_loss"]), rel=1e-4)


def test_a_run_that_diverges_at_its_last_step_fails_and_keeps_the_last_finite_epoch(
    tiny, tiny_model, tiny_train, tmp_path
):
    steps, events, checkpoint = itertools.count(1), [], tmp_path / "run.npz"
    config = tiny_train.replace(learning_rate=1.0)
    match = (
        r"The validation loss became (inf|nan) at step 8 of 8\. The checkpoint keeps the weights of epoch 1\. "
        "Start again with a smaller learning rate than 1"
    )
    with pytest.raises(TrainingError, match=match):
        factors = {"learning_rate_factor": lambda: 1e-3 if next(steps) < 8 else 1e30}
        train(tiny_model, config, tiny, events.append, checkpoint=checkpoint, **factors)
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1]
    resumed = train(tiny_model, config, tiny, checkpoint=checkpoint, learning_rate_factor=lambda: 1e-3)
    assert resumed.history["epoch"] == [1, 2]
    assert np.isfinite(resumed.history["val_loss"]).all()


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_leaves_no_half_file(
    tiny, tiny_model, tiny_train, tmp_path
):
    warnings, sizes = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, sizes[1]))
    try:
        result = train(tiny_model, tiny_train, tiny, checkpoint=tmp_path / "run.npz", on_warning=warnings.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
    assert result.history["epoch"] == [1, 2]
    (warning,) = warnings
    assert warning.startswith("The checkpoint run.npz could not be written (File too large). The training goes on")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def killed_run(tiny, tiny_model, tiny_train, tmp_path):
    """Return the settings and the checkpoint of a run of 4 epochs that was killed in its third."""
    config, checkpoint = tiny_train.replace(epochs=4, flips=True, shift=1), tmp_path / "folder" / "run.npz"
    with pytest.raises(KilledError):
        train(tiny_model, config, tiny, kill_after(2), checkpoint=checkpoint)
    return config, checkpoint


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, tiny_model, killed_run):
    config, checkpoint = killed_run
    events = []
    resumed = train(tiny_model, config, tiny, events.append, checkpoint=checkpoint)
    whole = train(tiny_model, config, tiny)
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [3, 4]
    assert losses(resumed.history) == losses(whole.history)
    assert [snapshot.epochs for snapshot in resumed.snapshots] == [snapshot.epochs for snapshot in whole.snapshots]
    for one, other in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_not_used(tiny, tiny_model, killed_run):
    config, checkpoint = killed_run
    other = train(tiny_model, config.replace(seed=5), tiny, checkpoint=checkpoint)
    assert other.history["epoch"] == [1, 2, 3, 4]
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    whole = train(tiny_model, config, tiny, checkpoint=checkpoint)
    assert whole.history["epoch"] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_has_no_logits_and_goes_on(tiny, tiny_train, tmp_path):
    vivid = ModelConfig(architecture="unet", latent_dim=16, target="chroma", chroma_bins=9)
    checkpoint, config = tmp_path / "run.npz", tiny_train.replace(epochs=3)
    with pytest.raises(KilledError):
        train(vivid, config, tiny, kill_after(2), checkpoint=checkpoint)
    with np.load(checkpoint) as file:
        arrays = {key: file[key] for key in file.files if key != "logits"}
    np.savez(checkpoint, **arrays)
    result = train(vivid, config, tiny, checkpoint=checkpoint)
    assert result.history["epoch"] == [1, 2, 3]
    shapes = {snapshot.logits.shape for snapshot in result.snapshots}
    assert shapes == {(16, 16, 9)}
    assert np.isnan(result.snapshots[0].logits).all() and np.isfinite(result.snapshots[-1].logits).all()
