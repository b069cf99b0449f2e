"""The compiled step augments images, makes soft targets of chroma bins, crops photos, and leaves no memory behind."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from colorizer.config import ModelConfig
from colorizer.data import datasets
from colorizer.pixels.color import chroma_bins, split_luminance
from colorizer.training.loop import train
from colorizer.training.networks import build_model
from colorizer.training.step import ImageTrainer

UNET = ModelConfig(architecture="unet", latent_dim=16, target="chroma")
VIVID = UNET.replace(chroma_bins=16)


@pytest.mark.parametrize(("flips", "shift"), [(False, 0), (True, 0), (False, 2), (True, 2)])
def test_augmentation_moves_and_mirrors_each_image_by_itself(tiny, tiny_model, tiny_train, flips, shift):
    config = tiny_train.replace(flips=flips, shift=shift, batch_size=64)
    trainer = ImageTrainer(build_model(tiny_model), tiny_model, config, tiny)
    images = tiny.train.images
    padded = np.pad(images, [(0, 0), (shift, shift), (shift, shift), (0, 0)], "reflect")
    found = []
    for step in (1, 2):
        augmented = np.asarray(trainer._augment(tf.constant(images), tf.constant(step)))
        for before, after in zip(padded, augmented, strict=True):
            places = itertools.product(range(2 * shift + 1), range(2 * shift + 1), (1, -1))
            matches = [
                (top, left, mirror)
                for top, left, mirror in places
                if (before[top : top + 32, left : left + 32][:, ::mirror] == after).all()
            ]
            assert len(matches) == 1
            found += matches
    assert {mirror for _, _, mirror in found} == ({1, -1} if flips else {1})
    for axis in (0, 1):
        assert {match[axis] for match in found} == set(range(2 * shift + 1))
    assert (found[:64] != found[64:]) == (flips or shift > 0)  # Each step draws anew.


def test_soft_targets_and_weights_are_those_of_the_paper(tiny, tiny_train):
    trainer = ImageTrainer(build_model(VIVID), VIVID, tiny_train, tiny)
    truth = tiny.validation.images[:2] / np.float32(255)
    logits = np.random.default_rng(0).standard_normal((2, 16, 16, 16)).astype(np.float32)
    centres, shares = chroma_bins(datasets.load_statistics().shares, 16)
    chroma = split_luminance(truth)[1].reshape(2, 16, 2, 16, 2, 2).mean(axis=(2, 4))
    distance = np.linalg.norm(chroma[..., None, :] - centres, axis=-1)
    targets = np.exp(-0.5 * (distance / 0.02) ** 2)
    targets /= targets.sum(axis=-1, keepdims=True)
    weights = np.exp(10 * np.linalg.norm(centres, axis=-1))
    weights /= (weights * shares).sum()
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -(weights * targets * np.log(chances)).sum(axis=-1).mean()
    assert float(trainer._cross_entropy(tf.constant(logits), tf.constant(truth))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_hints_change_what_is_learned_but_not_what_an_untrained_network_says(tiny, tiny_train):
    plain, hinted = (train(VIVID.replace(hints=hints), tiny_train, tiny) for hints in (False, True))
    losses = [result.history["batch_loss"][0] for result in (plain, hinted)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)  # Their kernel starts at zero.
    assert np.abs(hinted.model.get_layer("hints_1").kernel).max() > 1e-4
    assert np.isfinite(hinted.history["val_loss"]).all()


@pytest.fixture
def photos(tmp_path):
    """Return a folder with twelve smooth colour pictures of several sizes."""
    generator = np.random.default_rng(0)
    for number in range(12):
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8))
        small.resize((150 + 10 * number, 140), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.png")
    return str(tmp_path)


def test_crops_of_photos_are_a_share_of_each_batch(tiny, tiny_train, photos):
    config = tiny_train.replace(photos=photos, batch_size=16, photo_share=0.25)
    trainer = ImageTrainer(build_model(UNET), UNET, config, tiny)
    rows, num_images = trainer.draw_batches(0), len(tiny.train.images)
    assert rows.shape == (num_images // 12, 16)
    assert len(np.unique(rows[:, :12])) == rows[:, :12].size
    assert rows[:, :12].max() < num_images <= rows[:, 12:].min()
    np.testing.assert_array_equal(rows, trainer.draw_batches(0))
    assert (rows != trainer.draw_batches(1)).any()


@pytest.mark.slow
def test_photos_change_what_is_learned(tiny, tiny_train, photos):
    plain, mixed = (train(UNET, tiny_train.replace(photos=folder), tiny) for folder in ("", photos))
    assert mixed.history["batch_loss"][-1] != pytest.approx(plain.history["batch_loss"][-1], rel=1e-5)


@pytest.mark.slow
def test_the_largest_seed_takes_photos_dropout_and_augmentation(tiny, tiny_train, photos):
    config = tiny_train.replace(seed=2**31 - 1, photos=photos, flips=True, shift=1, epochs=1)
    history = train(UNET.replace(dropout=0.2), config, tiny).history
    assert np.isfinite(history["batch_loss"]).all()


def test_a_training_that_is_over_leaves_no_images_behind(tiny, tiny_model, tiny_train):
    config = tiny_model.replace(activation="gelu")  # TensorFlow keeps the graph of its gradient for ever.
    trainer = ImageTrainer(build_model(config), config, tiny_train, tiny)
    trainer.step(trainer.draw_batches(0)[0], 1, 1.0)
    images = weakref.ref(trainer._images)
    del trainer
    gc.collect()
    assert images() is None
