"""A backbone learns from photos: its decoder, then all of it, then hints; the average of its weights is kept."""

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from colorizer.config import TrainConfig
from colorizer.errors import ConfigError, DataError
from colorizer.pixels.color import split_luminance, to_luminance
from colorizer.training import backbone
from colorizer.training.crops import draw_hints
from colorizer.training.loop import Batch, Epoch, train
from colorizer.training.networks import build_model
from colorizer.training.photo_step import PhotoTrainer
from tests.training.checks import SMALL_BACKBONE, draw_photos, is_held_out, losses
from tests.training.torch_files import draw_weights

TRAIN = TrainConfig(dataset="synthetic", epochs=2, batch_size=2, learning_rate=2e-3, weight_decay=0.02, frozen_epochs=1)
WITH_HINTS = TRAIN.replace(epochs=3, hint_epochs=1)
STEPS = 4  # There are eight photos for training.


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder with eight smooth photos for training and two for validation, each of 128 x 128 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    draw_photos(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Set COLORIZER_HOME for fixtures of the module, which come before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZER_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def trained(photos, cache, tiny):
    """Train three epochs step by step, and return what the weights and losses were."""
    keras.utils.set_random_seed(0)
    model = build_model(SMALL_BACKBONE)
    backbone.set_weights(model, draw_weights())
    trainer = PhotoTrainer(model, SMALL_BACKBONE, WITH_HINTS.replace(photos=str(photos)), tiny)
    weights, parts, hinted = [model.get_weights()], [], []
    for epoch in range(3):
        for batch in trainer.draw_batches(epoch):
            hinted.append(np.mean(batch[2][..., 2], axis=(1, 2)) > 0)
            trainer.step(batch, len(weights), 1.0)
            weights.append(model.get_weights())
    kept, val_loss = trainer.kept_weights(), trainer.validation_loss(lambda: parts.append(1))
    return SimpleNamespace(
        trainer=trainer, model=model, weights=weights, kept=kept, val_loss=val_loss, parts=parts, hinted=hinted
    )


def _changed(trained, first, last):
    """Return the paths of the weights that changed between two steps."""
    pairs = zip(trained.model.variables, trained.weights[first], trained.weights[last], strict=True)
    return {variable.path for variable, before, after in pairs if not np.array_equal(before, after)}


@pytest.mark.slow
def test_the_decoder_learns_first_then_everything_and_then_hints(trained):
    assert trained.trainer.steps_per_epoch == STEPS and len(trained.weights) == 1 + 3 * STEPS
    backbone_paths = {v.path for v in trained.model.variables if v.path.startswith("backbone_")}
    fixed = {v.path for v in trained.model.variables if v.path.startswith(("bin_centres", "ycbcr_to_rgb"))}
    hints = {v.path for v in trained.model.variables if v.path.startswith("hints_")}
    rest = {v.path for v in trained.model.variables} - backbone_paths - fixed
    assert len(backbone_paths) == 2 * 48
    frozen, everything, last = (_changed(trained, STEPS * epoch, STEPS * (epoch + 1)) for epoch in range(3))
    assert rest - hints <= frozen <= rest
    assert (rest - hints) | backbone_paths <= everything <= rest | backbone_paths
    assert rest - hints <= last <= rest
    assert {path for path in hints if path.endswith("kernel")} <= last
    shares = [np.concatenate(trained.hinted[STEPS * epoch : STEPS * (epoch + 1)]).mean() for epoch in range(3)]
    assert max(shares[:2]) < 0.5 < shares[2]


@pytest.mark.slow
def test_the_kept_weights_are_a_moving_average(trained):
    average = [weight.astype(np.float64) for weight in trained.weights[0]]
    for step, weights in enumerate(trained.weights[1:], 1):
        decay = min(0.999, 1 - 10 / (9 + step))
        average = [decay * mean + (1 - decay) * weight for mean, weight in zip(average, weights, strict=True)]
    bias = trained.model.get_layer("logits").bias
    for variable, kept, mean in zip(trained.model.variables, trained.kept, average, strict=True):
        if variable is bias:  # The rarer a bin is, the more its logit is lowered; frequent bins come first.
            lost = mean - kept
            assert (np.diff(lost) >= -1e-5).all()
            assert lost[0] < 0 < lost[-1]
        else:
            np.testing.assert_allclose(kept, mean, rtol=1e-4, atol=1e-6)
    assert not all(np.array_equal(*pair) for pair in zip(trained.kept, trained.weights[-1], strict=True))


@pytest.mark.slow
def test_the_average_is_validated_on_the_held_out_photos_with_and_without_hints(trained, photos):
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(photos.iterdir()) if is_held_out(path.name)])
    current = trained.model.get_weights()
    for before, after in zip(trained.weights[-1], current, strict=True):
        np.testing.assert_array_equal(before, after)  # The validation leaves the model as it was.
    luminance = to_luminance(images)
    trained.model.set_weights(trained.kept)
    hints = draw_hints(split_luminance(images / np.float32(255))[1], np.zeros(2, np.int32), 1.0).numpy()
    assert hints[..., 2].any(axis=(1, 2)).all()
    outputs = [trained.model([luminance, planes], training=False) for planes in (np.zeros_like(hints), hints)]
    trained.model.set_weights(current)
    assert len(images) == 2 and trained.parts == [1]
    errors = [np.square(output - images / 255).mean() for output in outputs]
    assert trained.val_loss == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.slow
def test_the_loss_of_a_batch_falls_when_it_is_repeated(trained):
    batch = next(trained.trainer.draw_batches(0))
    losses = [trained.trainer.step(batch, step, 1.0) for step in range(40)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(photos, tiny, tmp_path):
    settings = TRAIN.replace(photos=str(photos), schedule="cosine", batch_size=4)
    checkpoint, after_one_epoch = tmp_path / "run.npz", tmp_path / "epoch.npz"

    def copy_checkpoint(event):
        if isinstance(event, Batch) and event.epochs > 1 and not after_one_epoch.exists():
            shutil.copy(checkpoint, after_one_epoch)

    whole = train(SMALL_BACKBONE, settings, tiny, copy_checkpoint, checkpoint=checkpoint)
    events = []
    resumed = train(SMALL_BACKBONE, settings, tiny, events.append, checkpoint=after_one_epoch)
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [2]
    assert losses(resumed.history) == losses(whole.history)
    for one, other in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_new_model_gets_the_bins_of_the_photos_and_another_keeps_its_own(photos, tiny):
    settings, model = TRAIN.replace(photos=str(photos)), build_model(SMALL_BACKBONE)
    PhotoTrainer(model, SMALL_BACKBONE, settings, tiny)
    chosen = model.get_layer("bin_centres").get_weights()[0][0, 0]
    assert len(np.unique(chosen, axis=0)) == 16
    np.testing.assert_allclose(chosen / 0.04, np.rint(chosen / 0.04), atol=1e-3)
    own = chosen[::-1].astype(np.float16).astype(np.float32)  # A saved backbone has float16 weights.
    model.get_layer("bin_centres").set_weights([own[None, None]])
    PhotoTrainer(model, SMALL_BACKBONE, settings, tiny)
    np.testing.assert_array_equal(model.get_layer("bin_centres").get_weights()[0][0, 0], own)


def test_photos_are_needed_also_for_validation(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"A backbone learns from photos\. Name a folder or a zip with --photos"):
        train(SMALL_BACKBONE, TRAIN, tiny)
    Image.fromarray(np.full((8, 8, 3), (200, 20, 20), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"About 1 in 40 photos is for validation, and of 1 it is 0\. Give more"):
        train(SMALL_BACKBONE, TRAIN.replace(photos=str(tmp_path)), tiny)
