"""The training of a `backbone`, which learns from crops of photos. Its step is compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from colorizer.config import ModelConfig, TrainConfig
from colorizer.data.datasets import Dataset
from colorizer.data.photos import Photos
from colorizer.pixels.color import CHROMA_CELLS, CHROMA_STEP, YCBCR_TO_RGB, chroma_bins, chroma_shares
from colorizer.training.crops import REFERENCE_SIZE, Batch, CropReader
from colorizer.training.inputs import open_training_photos
from colorizer.training.step import Trainer, compile_graph, soft_targets, split_at_logits

_CELL = 4  # Logits lie at a quarter of the input's size.
_VALIDATION_BATCH = 32
_RARITY = 0.5  # A bin's weight is the inverse of its share mixed with this much of a uniform share.
_MEAN_WEIGHT = 20.0  # The weight of the squared error of the mean chroma beside the cross-entropy.
_AVERAGE_DECAY = 0.999
_HINTED_SHARES = 0.2, 0.75  # Before the last phase and in it, these shares of the crops have hints.
_HINT_RATE = 0.5  # The last phase's peak learning rate is this share of the first phase's.
_ON_GRID = 0.05  # A number of grid steps is whole up to this difference, which is larger than that of float16.


class PhotoTrainer(Trainer):
    """Trains a `backbone` in three phases, and keeps a moving average of the weights.

    The first phase trains the decoder, the second all layers. The third trains the decoder with hints in most crops.

    An epoch has as many crops of 128 x 128 pixels as there are photos for training; see `crops.CropReader`.
    """

    def __init__(
        self, model: keras.Model, model_config: ModelConfig, train_config: TrainConfig, dataset: Dataset
    ) -> None:
        photos, train, held_out = open_training_photos(train_config)
        validation = np.stack([_central_crop(photos[index]) for index in held_out])
        super().__init__(model, model_config, train_config, validation, _VALIDATION_BATCH)
        small_images = dataset.train.images[: train_config.train_images or None]
        self._reader = CropReader(photos, train, small_images, train_config.batch_size, train_config.flips)
        self.steps_per_epoch = max(1, len(train) // train_config.batch_size)
        self._hints = model_config.hints
        self._read, _ = split_at_logits(model)
        # A quarter of the photos is enough to measure how frequent colours are.
        self._centres, shares = _choose_bins(model, _measure_shares(photos, train[::4]), model_config.chroma_bins)
        weights = 1 / ((1 - _RARITY) * shares + _RARITY / len(shares))
        self._bin_weights = (weights / np.sum(weights * shares)).astype(np.float32)
        self._average = [tf.Variable(variable.value) for variable in model.variables]
        self._count = tf.Variable(0.0)
        self._variables += [*self._average, self._count]
        decoder, everything = _decoder_variables(model), model.trainable_variables
        frozen, hinted = train_config.frozen_epochs, train_config.hint_epochs
        self._phases = [
            self._compile_phase(decoder, train_config.learning_rate, frozen),
            self._compile_phase(everything, train_config.fine_tuning_rate, train_config.epochs - frozen - hinted),
            self._compile_phase(decoder, _HINT_RATE * train_config.learning_rate, hinted),
        ]
        self._phase = 0

    def _compile_phase(self, variables: list[Any], peak: float, epochs: int) -> Callable[..., tf.Tensor]:
        """Return the step of some epochs, which trains these variables with an optimizer of its own."""
        optimizer = self._add_optimizer(variables, peak, self.steps_per_epoch * epochs)
        return compile_graph(lambda *batch: self._step(optimizer, variables, *batch))

    def draw_batches(self, epoch: int) -> Iterator[Batch]:
        """Return an iterator over the batches of an epoch; `step` then trains what this epoch trains."""
        config = self._config
        self._phase = (epoch >= config.frozen_epochs) + (epoch >= config.epochs - config.hint_epochs)
        hinted_share = _HINTED_SHARES[self._phase == 2]
        return self._reader.draw_batches(self.steps_per_epoch, (config.seed, epoch), hinted_share)

    def step(self, batch: Batch, step: int, rate_factor: float) -> float:
        """Take one optimizer step and return the mean squared error of the mean colour at a quarter of the size."""
        self._rate_factor.assign(rate_factor)
        return self._phases[self._phase](*batch).numpy()

    def _step(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: list[Any],
        luminance: tf.Tensor,
        chroma: tf.Tensor,
        hints: tf.Tensor,
    ) -> tf.Tensor:
        truth = tf.nn.avg_pool2d(chroma, _CELL, _CELL, "VALID")
        targets = soft_targets(truth, self._centres)
        weights = tf.linalg.matmul(targets, self._bin_weights[:, None])
        with tf.GradientTape() as tape:
            logits = self._read([luminance, hints] if self._hints else luminance, training=True)
            entropy = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            mean = tf.linalg.matmul(tf.nn.softmax(logits), self._centres)
            squared = tf.reduce_mean(tf.reduce_sum(tf.square(mean - truth), axis=-1))
            loss = tf.reduce_mean(weights[..., 0] * entropy) + _MEAN_WEIGHT * squared
        optimizer.apply(tape.gradient(loss, variables), variables)
        # With this decay, the first weights are forgotten early: the average is about that of the last tenth of steps.
        self._count.assign_add(1.0)
        decay = tf.minimum(_AVERAGE_DECAY, 1 - 10 / (9 + self._count))
        for average, variable in zip(self._average, self._model.variables, strict=True):
            average.assign(decay * average + (1 - decay) * variable.value)
        return tf.reduce_mean(tf.square(tf.linalg.matmul(mean - truth, YCBCR_TO_RGB[1:])))

    def kept_weights(self) -> list[np.ndarray]:
        """Return what is validated and kept: the moving average of the weights, with an honest belief.

        A loss with weights teaches a belief that is too large by those weights. Their logarithms are taken off the
        logits, so that rare colours are believed in as often as they are true.
        """
        bias = self._model.get_layer("logits").bias
        rarity = np.log(self._bin_weights)
        pairs = zip(self._average, self._model.variables, strict=True)
        return [average.numpy() - rarity if variable is bias else average.numpy() for average, variable in pairs]

    def validation_loss(self, on_part: Callable[[], Any]) -> float:
        """Return the mean squared error of the output, by the averaged weights, on the held-out photos."""
        current = self._model.get_weights()
        self._model.set_weights(self.kept_weights())
        try:
            return super().validation_loss(on_part)
        finally:
            self._model.set_weights(current)


def _decoder_variables(model: keras.Model) -> list[Any]:
    backbone = [layer for layer in model.layers if layer.name.startswith("backbone_")]
    frozen = {id(variable) for layer in backbone for variable in layer.variables}
    return [variable for variable in model.trainable_variables if id(variable) not in frozen]


def _choose_bins(model: keras.Model, shares: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Set the model's bins to the most frequent chroma, and return their centres and shares as `chroma_bins` does.

    The logits of a model to start from belong to its own bins, so it keeps them. Such bins lie on the grid, and the
    random ones of a new model do not.
    """
    layer = model.get_layer("bin_centres")
    grid = layer.get_weights()[0][0, 0] / CHROMA_STEP
    if np.abs(grid - np.rint(grid)).max() < _ON_GRID:
        rows, columns = np.rint(grid).astype(int).T + CHROMA_CELLS // 2
        centres, chosen = (np.rint(grid) * CHROMA_STEP).astype(np.float32), shares[rows, columns]
        return centres, chosen / chosen.sum()
    centres, chosen = chroma_bins(shares, num_bins)
    layer.set_weights([centres[None, None]])
    return centres, chosen


def _measure_shares(photos: Photos, indexes: np.ndarray) -> np.ndarray:
    """Return how frequent each chroma is in photos at the size at which logits are predicted, as `chroma_shares`."""
    side = REFERENCE_SIZE // _CELL
    crops = (_central_crop(photos[index]).reshape(side, _CELL, side, _CELL, 3) for index in indexes)
    small = np.stack([crop.mean(axis=(1, 3)).astype(np.uint8) for crop in crops])
    return chroma_shares(np.repeat(np.repeat(small, 2, axis=1), 2, axis=2))  # `chroma_shares` halves the size.


def _central_crop(photo: np.ndarray) -> np.ndarray:
    """Return the central square of a photo, shrunk to 128 x 128 pixels."""
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = tf.image.resize(photo[top : top + side, left : left + side], (REFERENCE_SIZE,) * 2, antialias=True)
    return np.rint(np.clip(square, 0, 255)).astype(np.uint8)
