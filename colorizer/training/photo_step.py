"""The compiled training step of a `backbone`, which learns from crops of photos."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from colorizer.config import ModelConfig, TrainConfig
from colorizer.data.datasets import Dataset
from colorizer.data.photos import Photos, open_photos, split_photos
from colorizer.errors import ConfigError
from colorizer.models.network import split_at_logits
from colorizer.pixels.color import CHROMA_STEP, chroma_bins, chroma_shares
from colorizer.training.crops import REFERENCE_SIZE, CropReader
from colorizer.training.step import Trainer

_CELL = 4  # Logits lie at a quarter of the input's size.
_VALIDATION_BATCH = 32
_RARITY = 0.5  # A bin's weight is the inverse of its share mixed with this much of a uniform share.
_MEAN_WEIGHT = 20.0  # The weight of the squared error of the mean chroma beside the cross-entropy.
_AVERAGE_DECAY = 0.999


class PhotoTrainer(Trainer):
    """Trains the decoder of a `backbone` first, then all of it, and keeps a moving average of the weights.

    An epoch has as many crops as there are photos for training. `steps_per_epoch`, `save` and the rest are those of
    `Trainer`.
    """

    def __init__(
        self, model: keras.Model, model_config: ModelConfig, train_config: TrainConfig, dataset: Dataset
    ) -> None:
        if not train_config.photos:
            raise ConfigError("A backbone learns from photos. Name a folder or a zip with --photos.")
        self._model, self._config, self._hints = model, train_config, model_config.hints
        self._target = model_config.target
        self._photos = open_photos(Path(train_config.photos).expanduser())
        self._train, self._held_out = split_photos(self._photos.names)
        self._reader = CropReader(self._photos, self._train, dataset.train.images, train_config.batch_size)
        self.steps_per_epoch = max(1, len(self._train) // train_config.batch_size)
        self._read, self._paint = split_at_logits(model)
        shares = _measure_shares(self._photos, self._train[::4])
        self._centres, self._shares = chroma_bins(shares, model_config.chroma_bins)
        model.get_layer("bin_centres").set_weights([self._centres[None, None]])
        weights = 1 / ((1 - _RARITY) * self._shares + _RARITY / len(self._shares))
        self._weights = (weights / np.sum(weights * self._shares)).astype(np.float32)
        self._identity = json.dumps([model_config.to_dict(), train_config.to_dict()])
        encoder = [layer for layer in model.layers if layer.name.startswith("backbone_")]
        frozen = {id(variable) for layer in encoder for variable in layer.variables}
        everything = model.trainable_variables
        decoder = [variable for variable in everything if id(variable) not in frozen]
        self._average = [tf.Variable(variable.value) for variable in model.variables]
        self._count = tf.Variable(0.0)
        self._rate_factor = tf.Variable(1.0)
        compiled = functools.partial(tf.function, reduce_retracing=True, autograph=False)
        frozen_steps = self.steps_per_epoch * train_config.frozen_epochs
        later_steps = self.steps_per_epoch * (train_config.epochs - train_config.frozen_epochs)
        self._phases = []
        self._variables = [*model.variables, *self._average, self._count]
        for variables, steps, peak in (
            (decoder, frozen_steps, train_config.learning_rate),
            (everything, later_steps, train_config.fine_tuning_rate),
        ):
            optimizer = self._build_optimizer(peak, steps)
            optimizer.build(variables)
            self._phases.append(compiled(functools.partial(self._photo_step, optimizer, variables)))
            self._variables += optimizer.variables
        self._compiled_error = compiled(self._photo_error)
        self.best = []

    def shuffled_rows(self, epoch: int) -> Iterator[Any]:
        """Return an iterator over the batches of an epoch."""
        self._epoch = epoch
        return self._reader.draw_batches(self.steps_per_epoch, (self._config.seed, epoch))

    def step(self, rows: Any, step: int, rate_factor: float) -> float:
        """Take one optimizer step on a batch and return its loss."""
        self._rate_factor.assign(rate_factor)
        return self._phases[self._epoch >= self._config.frozen_epochs](*rows).numpy()

    def _photo_step(self, optimizer, variables, luminance: tf.Tensor, chroma: tf.Tensor, hints: tf.Tensor) -> tf.Tensor:
        truth = tf.nn.avg_pool2d(chroma, _CELL, _CELL, "VALID")
        distance = -2 * tf.linalg.matmul(truth, self._centres.T) + np.sum(np.square(self._centres), axis=1)
        targets = tf.nn.softmax(distance / (-2 * (CHROMA_STEP / 2) ** 2))
        weights = tf.linalg.matmul(targets, self._weights[:, None])
        with tf.GradientTape() as tape:
            logits = self._read([luminance, hints] if self._hints else luminance, training=True)
            entropy = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            mean = tf.linalg.matmul(tf.nn.softmax(logits), self._centres)
            squared = tf.reduce_mean(tf.reduce_sum(tf.square(mean - truth), axis=-1))
            loss = tf.reduce_mean(weights[..., 0] * entropy) + _MEAN_WEIGHT * squared
        optimizer.apply(tape.gradient(loss, variables), variables)
        # Early on, the average forgets quickly: it is the mean over the last tenth of the steps.
        self._count.assign_add(1.0)
        decay = tf.minimum(_AVERAGE_DECAY, 1 - 10 / (9 + self._count))
        for average, variable in zip(self._average, self._model.variables, strict=True):
            average.assign(decay * average + (1 - decay) * variable.value)
        return squared

    def kept_weights(self) -> list[np.ndarray]:
        """Return the moving average of the weights, which is what is validated and kept."""
        return [average.numpy() for average in self._average]

    def validation_loss(self, on_part: Callable[[], Any]) -> float:
        """Return the mean squared error of the mean chroma, by the averaged weights, on held-out photos."""
        current = self._model.get_weights()
        self._model.set_weights(self.kept_weights())
        total = 0.0
        for start in range(0, len(self._held_out), _VALIDATION_BATCH):
            part = self._held_out[start : start + _VALIDATION_BATCH]
            crops = np.stack([_central_crop(self._photos[index]) for index in part])
            total += float(self._compiled_error(tf.constant(crops))) * len(part)
            on_part()
        self._model.set_weights(current)
        return total / len(self._held_out)

    def _photo_error(self, images: tf.Tensor) -> tf.Tensor:
        luminance, truth = self._to_float(images)
        hints = tf.zeros_like(truth)
        output = self._model([luminance, hints] if self._hints else luminance, training=False)
        return tf.reduce_mean(tf.square(output - truth))


def _measure_shares(photos: Photos, indexes: np.ndarray) -> np.ndarray:
    """Return how frequent each chroma is in photos, shrunk to half of the size at which logits are predicted."""
    crops = (_central_crop(photos[index]) for index in indexes)
    small = [crop[:REFERENCE_SIZE].reshape(32, 4, 32, 4, 3).mean(axis=(1, 3)).astype(np.uint8) for crop in crops]
    return chroma_shares(np.repeat(np.repeat(np.stack(small), 2, axis=1), 2, axis=2))


def _central_crop(photo: np.ndarray) -> np.ndarray:
    """Return the central square of a photo, shrunk to 128 x 128 pixels."""
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = tf.image.resize(photo[top : top + side, left : left + side], (REFERENCE_SIZE,) * 2, antialias=True)
    return np.rint(np.clip(square, 0, 255)).astype(np.uint8)
