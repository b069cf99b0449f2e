"""A training is repeatable and reports honest losses, events in order, snapshots and errors; it stops and pauses."""

import time

import keras
import numpy as np
import pytest

from colorizer.config import MAX_SNAPSHOTS, ModelConfig
from colorizer.data import datasets
from colorizer.errors import TrainingError
from colorizer.models.belief import softmax
from colorizer.pixels.color import split_luminance, to_luminance, to_uint8
from colorizer.training.loop import Batch, Epoch, Snapshot, train
from colorizer.training.networks import build_model
from tests.training.checks import losses, mse


@pytest.mark.slow
def test_the_same_seed_gives_the_same_history_and_another_seed_does_not(tiny, tiny_model, tiny_train):
    config = tiny_train.replace(flips=True, shift=2)
    first, again = (train(tiny_model, config, tiny) for _ in range(2))
    assert losses(first.history) == losses(again.history)
    for one, other in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    other = train(tiny_model, config.replace(seed=1), tiny)
    assert other.history["batch_loss"] != first.history["batch_loss"]


def test_events_come_in_order(tiny, tiny_model, tiny_train):
    events = []
    result = train(tiny_model, tiny_train, tiny, events.append)
    kinds = "".join({Batch: "b", Epoch: "e", Snapshot: "s"}[type(event)] for event in events)
    assert kinds[0] == kinds[-1] == "s"
    assert kinds.replace("s", "") == "bbbbebbbbe"
    batches = [event for event in events if isinstance(event, Batch)]
    assert [batch.step for batch in batches] == list(range(1, 9))
    assert [batch.epochs for batch in batches] == [step / 4 for step in range(1, 9)]
    assert {batch.steps for batch in batches} == {8}
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert [epoch.loss for epoch in epochs] == pytest.approx(
        [np.mean([b.loss for b in batches[:4]]), np.mean([b.loss for b in batches[4:]])]
    )
    for key in ("epoch", "loss", "val_loss", "seconds"):
        assert result.history[key] == [getattr(epoch, key) for epoch in epochs]
    assert result.history["batch_loss"] == pytest.approx([batch.loss for batch in batches], abs=1e-6)
    assert result.history["batch_epochs"] == [batch.epochs for batch in batches]
    assert not result.stopped
    assert result.seconds > sum(result.history["seconds"])


@pytest.mark.parametrize("target", ["rgb", "chroma", "gray"])
def test_losses_are_the_mean_squared_error_of_the_images(tiny, tiny_model, tiny_train, target):
    config = tiny_model.replace(target=target)
    keras.utils.set_random_seed(tiny_train.seed)
    untrained = build_model(config)
    batches = []
    result = train(config, tiny_train.replace(batch_size=64, epochs=1), tiny, batches.append)
    assert batches[1].loss == pytest.approx(mse(untrained, tiny.train.images, target), rel=1e-4)
    assert result.history["val_loss"][0] == pytest.approx(mse(result.model, tiny.validation.images, target), rel=1e-4)


@pytest.mark.parametrize("target", ["rgb", "chroma", "gray"])
def test_the_loss_falls(tiny, tiny_model, tiny_train, target):
    config = tiny_train.replace(epochs=30, learning_rate=3e-3)
    history = train(tiny_model.replace(target=target), config, tiny).history
    assert history["loss"][-1] < 0.95 * history["loss"][0]
    if target != "chroma":  # Chroma starts at the gray copy, and 64 images teach too little.
        assert history["val_loss"][-1] < history["val_loss"][0]


@pytest.fixture(scope="module")
def base_history(tiny, tiny_model, tiny_train):
    return train(tiny_model, tiny_train, tiny).history


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 5e-3},
        {"schedule": "cosine"},
        {"weight_decay": 0.5},
        {"epsilon": 1e-3},
        {"flips": True},
        {"shift": 4},
        {"batch_size": 8},
        {"train_images": 32},
        {"epochs": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_has_an_effect(tiny, tiny_model, tiny_train, base_history, change):
    changed = train(tiny_model, tiny_train.replace(**change), tiny).history
    assert np.isfinite(changed["val_loss"]).all()
    assert changed["val_loss"][-1] != base_history["val_loss"][-1]


def test_a_stop_is_honoured_within_a_batch_and_keeps_a_model(tiny, tiny_model, tiny_train):
    events = []
    result = train(tiny_model, tiny_train, tiny, events.append, lambda: True)
    assert [type(event) for event in events] == [Snapshot, Batch, Epoch, Snapshot]
    assert result.stopped
    assert len(result.history["batch_loss"]) == len(result.history["val_loss"]) == 1
    assert result.history["val_loss"][0] == pytest.approx(mse(result.model, tiny.validation.images), rel=1e-4)


def test_a_stop_within_validation_ends_the_run_after_it(tiny, tiny_model, tiny_train):
    """A stop is asked for once, in the validation of the last epoch, after all of its batches."""
    answers, asked = iter([False] * 9 + [True]), []

    def should_stop():
        asked.append(next(answers, False))
        return asked[-1]

    result = train(tiny_model, tiny_train, tiny, should_stop=should_stop)
    assert (len(asked), result.stopped) == (10, True)  # There are 4 batches and one part of validation in each epoch.
    assert result.history["epoch"] == [1, 2]
    answers, asked = iter([False] * 4 + [True]), []
    result = train(tiny_model, tiny_train, tiny, should_stop=should_stop)
    assert (result.stopped, result.history["epoch"]) == (True, [1])
    assert mse(result.model, tiny.validation.images) == pytest.approx(result.history["val_loss"][0], rel=1e-4)


@pytest.mark.slow
def test_weight_decay_leaves_epsilon_as_it_is_set(tiny, tiny_model, tiny_train):
    """A decay of nearly nothing changes nothing, at any epsilon."""
    for epsilon in (1e-9, 1e-3):
        config = tiny_train.replace(epsilon=epsilon)
        plain, decayed = (train(tiny_model, config.replace(weight_decay=decay), tiny).history for decay in (0, 1e-9))
        assert decayed["batch_loss"] == pytest.approx(plain["batch_loss"], rel=1e-5)


def test_snapshots_show_the_model_as_it_learns(tiny, tiny_model, tiny_train, samples):
    snapshots = []
    result = train(
        tiny_model, tiny_train.replace(epochs=20), tiny, lambda e: isinstance(e, Snapshot) and snapshots.append(e)
    )
    assert 10 <= len(snapshots) <= MAX_SNAPSHOTS
    assert result.snapshots == snapshots
    epochs = [snapshot.epochs for snapshot in snapshots]
    assert epochs == sorted(set(epochs))
    assert (epochs[0], epochs[-1]) == (0, 20)
    assert {(snapshot.images.shape, str(snapshot.images.dtype)) for snapshot in snapshots} == {
        ((8, 32, 32, 3), "uint8")
    }
    eight = to_luminance(samples.images[list(datasets.SNAPSHOT_SAMPLES)])
    np.testing.assert_array_equal(snapshots[-1].images, to_uint8(np.asarray(result.model(eight))))
    assert (snapshots[0].images != snapshots[-1].images).any()


def test_a_picture_of_the_visitors_is_shown_after_the_eight_and_not_kept(tiny, tiny_model, tiny_train, samples):
    shown, picture = [], samples.images[11]
    result = train(
        tiny_model, tiny_train, tiny, lambda e: isinstance(e, Snapshot) and shown.append(e.images), picture=picture
    )
    assert {images.shape for images in shown} == {(9, 32, 32, 3)}
    assert {snapshot.images.shape for snapshot in result.snapshots} == {(8, 32, 32, 3)}
    expected = to_uint8(np.asarray(result.model(to_luminance(picture[None]))))[0]
    np.testing.assert_allclose(shown[-1][-1].astype(int), expected, atol=1)


def test_a_long_run_has_at_most_30_snapshots(tiny, tiny_model, tiny_train):
    result = train(tiny_model, tiny_train.replace(epochs=50), tiny)
    assert len(result.history["batch_loss"]) == 200
    assert len(result.snapshots) <= 30


def test_the_curve_is_thinned_to_means_of_neighbouring_batches(tiny, tiny_model, tiny_train, monkeypatch):
    losses = []
    monkeypatch.setattr("colorizer.training.loop._MAX_CURVE_POINTS", 4)
    history = train(tiny_model, tiny_train, tiny, lambda e: isinstance(e, Batch) and losses.append(e.loss)).history
    assert history["batch_loss"] == pytest.approx(np.reshape(losses, (4, 2)).mean(axis=1), abs=1e-6)
    assert history["batch_epochs"] == [0.5, 1.0, 1.5, 2.0]


def test_gray_snapshots_have_three_equal_channels(tiny, tiny_model, tiny_train):
    images = train(tiny_model.replace(target="gray"), tiny_train, tiny).snapshots[-1].images
    assert images.shape == (8, 32, 32, 3)
    assert (images == images[..., :1]).all()


def test_a_data_set_without_training_images_is_refused(tiny_model, tiny_train):
    with pytest.raises(TrainingError, match=r"The data set samples has no training images\. Choose cifar10"):
        train(tiny_model, tiny_train, datasets.load_dataset("samples"))


def test_a_batch_larger_than_the_data_set_is_made_smaller(tiny, tiny_model, tiny_train):
    history = train(tiny_model, tiny_train.replace(batch_size=4096), tiny).history
    assert len(history["batch_loss"]) == 2


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_given_up(tiny, tiny_train):
    deep = ModelConfig(latent_dim=64, encoder_widths=(64,) * 8, decoder_widths=(64,) * 8)
    with pytest.raises(
        TrainingError,
        match=r"The loss became (inf|nan) at step \d+ of 160\. Start again with a smaller learning rate than 1",
    ):
        train(deep, tiny_train.replace(epochs=10, batch_size=4, learning_rate=1.0), tiny)


def test_a_model_without_finite_losses_is_no_result_even_without_training(tiny, tiny_model, tiny_train):
    source = build_model(tiny_model)
    source.set_weights([np.full(weight.shape, np.inf) for weight in source.get_weights()])
    with pytest.raises(TrainingError, match="The validation loss became nan"):
        train(tiny_model, tiny_train.replace(epochs=0), tiny, source=source)


@pytest.mark.parametrize(
    "changes", [{}, pytest.param({"schedule": "cosine", "weight_decay": 0.1}, marks=pytest.mark.slow)]
)
def test_the_factor_multiplies_the_learning_rate_from_the_next_batch_on(tiny, tiny_model, tiny_train, changes):
    config = tiny_train.replace(learning_rate=1e-3, **changes)
    doubled = config.replace(learning_rate=2e-3)
    usual = train(tiny_model, config, tiny).history
    halved = train(tiny_model, doubled, tiny, learning_rate_factor=lambda: 0.5).history
    assert halved["batch_loss"] == pytest.approx(usual["batch_loss"], rel=1e-5)
    factors = iter([1.0] * 3 + [1e-6] * 100)
    frozen = train(tiny_model, config, tiny, learning_rate_factor=lambda: next(factors)).history
    assert frozen["batch_loss"][:4] == usual["batch_loss"][:4]  # The fourth loss is measured before its step.
    assert frozen["batch_loss"][4:] != usual["batch_loss"][4:]


@pytest.mark.slow
def test_a_pause_is_no_time_of_the_training(tiny, tiny_model, tiny_train):
    """The first answer of each kind is a long pause: after a batch, and during the last validation."""
    answers = iter([1.0] + [0.0] * 8 + [1.0])

    def wait():
        time.sleep(next(answers))
        return False

    began = time.perf_counter()
    result = train(tiny_model, tiny_train, tiny, should_stop=wait)
    whole = time.perf_counter() - began
    assert next(answers, None) is None
    assert sum(result.history["seconds"]) <= result.seconds <= whole - 2


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_small_unet_learns_to_beat_the_gray_copy(tiny, tiny_train, dropout):
    config = ModelConfig(architecture="unet", latent_dim=32, target="chroma", dropout=dropout)
    result = train(config, tiny_train.replace(epochs=20, learning_rate=3e-3, schedule="cosine"), tiny)
    gray_copy = np.square(tiny.validation.images / 255 - to_luminance(tiny.validation.images)).mean()
    assert result.history["val_loss"][-1] < gray_copy


VIVID = ModelConfig(architecture="unet", latent_dim=16, target="chroma", chroma_bins=16)


@pytest.mark.slow
def test_chroma_bins_learn_by_cross_entropy_and_report_the_mean_squared_error(tiny, tiny_train):
    config = tiny_train.replace(epochs=3, learning_rate=3e-3)
    result = train(VIVID, config, tiny)
    assert result.history["loss"][-1] < result.history["loss"][0]
    assert min(result.history["val_loss"]) == pytest.approx(mse(result.model, tiny.validation.images), rel=1e-4)


@pytest.mark.slow
def test_snapshots_keep_the_logits_of_one_image_from_which_its_colours_follow(tiny, tiny_train, samples, tmp_path):
    """The frog's are kept; who watches with a picture of their own gets those of that picture."""
    picture, seen, checkpoint = samples.images[1], [], tmp_path / "run.npz"
    stop = iter([False] * 5 + [True])
    first = {"checkpoint": checkpoint, "picture": picture, "should_stop": lambda: next(stop, True)}
    train(VIVID, tiny_train, tiny, **first)
    on_event = lambda event: isinstance(event, Snapshot) and seen.append(event)  # noqa: E731
    result = train(VIVID, tiny_train, tiny, on_event, checkpoint=checkpoint, picture=picture)
    frog = samples.images[datasets.SNAPSHOT_SAMPLES[datasets.BELIEF_SAMPLE]]
    centres = result.model.get_layer("bin_centres").get_weights()[0][0, 0]
    for snapshot, image, colored in (
        (result.snapshots[-1], frog, result.snapshots[-1].images[datasets.BELIEF_SAMPLE]),
        (result.snapshots[0], frog, result.snapshots[0].images[datasets.BELIEF_SAMPLE]),
        (seen[-1], picture, seen[-1].images[8]),
    ):
        assert (snapshot.logits.shape, snapshot.logits.dtype) == ((16, 16, 16), np.float16)
        mean = softmax(snapshot.logits.astype(np.float32)) @ centres
        chroma = split_luminance(np.asarray(colored) / np.float32(255))[1]
        quarters = chroma.reshape(16, 2, 16, 2, 2).mean(axis=(1, 3))
        kept = to_luminance(image).reshape(16, 2, 16, 2) < 0.9  # Bright colours leave the gamut and are cut.
        assert np.abs(mean - quarters)[kept.all(axis=(1, 3))].mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("bins", [0, 16])
def test_bfloat16_gives_a_float32_model_that_learned_about_the_same(bins, tiny, tiny_train):
    config = VIVID.replace(chroma_bins=bins)
    full, half = (train(config, tiny_train.replace(precision=name), tiny) for name in ("float32", "bfloat16"))
    assert {layer.compute_dtype for layer in half.model.layers} == {"float32"}
    assert half.history["val_loss"][-1] == pytest.approx(full.history["val_loss"][-1], rel=0.02)
    assert min(half.history["val_loss"]) == pytest.approx(mse(half.model, tiny.validation.images), rel=0.02)
    assert keras.config.dtype_policy().name == "float32"
