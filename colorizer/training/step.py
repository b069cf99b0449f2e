"""What all trainings share, and the training on the images of a data set.

The step is compiled: inside one graph, a batch of uint8 images becomes a loss and new weights.
"""

import abc
import functools
import json
import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from colorizer.config import ModelConfig, TrainConfig, expand_path
from colorizer.data.datasets import Dataset, load_statistics
from colorizer.data.photos import cut_small_crops, open_photos
from colorizer.errors import TrainingError
from colorizer.pixels.color import CHROMA_STEP, LUMINANCE_WEIGHTS, RGB_TO_CHROMA, chroma_bins
from colorizer.training.crops import draw_hints

_VALIDATION_BATCH = 1000
_CROPS_PER_PHOTO = 8  # This many random crops of each photo join the images of the data set.
# The weight of a chroma bin is exp(its distance from gray / this number), for colours get rarer about exponentially
# with that distance.
_RARITY_SCALE = 0.1
_HINTED_SHARE = 0.5  # This share of the images comes with hints, if the model takes any.
_BEST = "best_"  # In a checkpoint, the best epoch's weights have this prefix.


# AutoGraph is off because it warns with Python 3.13 and nothing here needs it.
compile_graph = functools.partial(tf.function, reduce_retracing=True, autograph=False)


def soft_targets(chroma: tf.Tensor, centres: np.ndarray) -> tf.Tensor:
    """Return how much of each chroma belongs to each bin (Zhang et al. 2016, sections 2.1 and 2.2).

    It is a Gaussian of the distance from the bin's centre, with half a grid step as standard deviation, scaled so that
    the bins have a sum of 1.

    Args:
        chroma: float32 (..., 2).
        centres: float32 (bins, 2).

    Returns:
        float32 (..., bins).
    """
    distance = -2 * tf.linalg.matmul(chroma, centres.T) + np.sum(np.square(centres), axis=1)
    return tf.nn.softmax(distance / (-2 * (CHROMA_STEP / 2) ** 2))


def split_at_logits(model: keras.Model) -> tuple[keras.Model, Callable[..., Any]]:
    """Cut a model with chroma bins in two parts, which share its weights.

    Returns:
        a model from luminance (N, H, W, 1), and hints if it takes some, to logits (N, H / s, W / s, bins), and
        a function from luminance and logits to the image.
    """
    centres, enlarge, to_rgb = (model.get_layer(name) for name in ("bin_centres", "chroma", "ycbcr_to_rgb"))

    def paint(luminance: Any, logits: Any) -> Any:
        return to_rgb(keras.ops.concatenate([luminance, enlarge(centres(keras.ops.softmax(logits)))], axis=-1))

    return keras.Model(model.inputs if len(model.inputs) > 1 else model.input, model.get_layer("logits").output), paint


class Trainer(abc.ABC):
    """What all trainers share: optimizers, validation, checkpoints and the weights of the best epoch.

    Args:
        model: the network, which is trained in place.
        model_config, train_config: what it is, and how it is trained.
        validation: uint8 (N, H, W, 3), the images to validate on.
        validation_batch: so many of them are validated at once.

    Attributes:
        steps_per_epoch: number of batches in an epoch.
        best: weights of the best epoch, which the loop sets and a checkpoint keeps; empty before the first epoch.
    """

    steps_per_epoch: int

    def __init__(
        self,
        model: keras.Model,
        model_config: ModelConfig,
        train_config: TrainConfig,
        validation: np.ndarray,
        validation_batch: int,
    ) -> None:
        self._model, self._config, self._target = model, train_config, model_config.target
        self._validation, self._validation_batch = validation, validation_batch
        self._identity = json.dumps([model_config.to_dict(), train_config.to_dict()])
        self._variables = list(model.variables)  # A checkpoint has these in this order.
        self._rate_factor = tf.Variable(1.0)
        self._compiled_error = compile_graph(self._squared_error)
        self.best: list[np.ndarray] = []

    @abc.abstractmethod
    def draw_batches(self, epoch: int) -> Iterable[Any]:
        """Return the batches of an epoch, which `step` takes one by one."""

    @abc.abstractmethod
    def step(self, batch: Any, step: int, rate_factor: float) -> float:
        """Take one optimizer step on a batch and return its loss.

        Args:
            batch: one of `draw_batches`.
            step: number of the step, which counts from 1.
            rate_factor: multiplies the learning rate.
        """

    def _add_optimizer(self, variables: list[Any], peak: float, steps: int) -> keras.optimizers.Optimizer:
        """Return an optimizer of these variables for so many steps; checkpoints keep its state from now on."""
        optimizer = self._build_optimizer(peak, steps)
        optimizer.build(variables)
        self._variables += optimizer.variables
        return optimizer

    def _build_optimizer(self, peak: float, steps: int) -> keras.optimizers.Optimizer:
        config, schedule = self._config, lambda step: peak
        if config.schedule == "cosine":
            warmup = max(1, min(steps // 20, 200))
            schedule = keras.optimizers.schedules.CosineDecay(
                peak / 20, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup
            )

        def rate() -> tf.Tensor:
            return schedule(optimizer.iterations) * self._rate_factor

        if not config.weight_decay:
            optimizer = keras.optimizers.Adam(rate, epsilon=config.epsilon)
        else:
            optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, epsilon=config.epsilon)
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer

    def save(self, path: Path, progress: dict[str, Any], **arrays: np.ndarray) -> None:
        """Write a checkpoint in one step, or raise `OSError` and leave the last one.

        Args:
            path: .npz file to write.
            progress: JSON-ready values of the loop.
            arrays: arrays of the loop, which are saved beside all variables and the best weights.
        """
        state = np.array(json.dumps([self._identity, progress]))
        variables = {f"variable_{index}": variable.numpy() for index, variable in enumerate(self._variables)}
        best = {f"{_BEST}{index}": weight for index, weight in enumerate(self.best)}
        staging = path.with_suffix(".staging.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.savez(staging, state=state, **variables, **best, **arrays)
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)

    def restore(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Go back to a checkpoint of the same configurations.

        Returns:
            progress and arrays as given to `save`, or None if there is no checkpoint that can be used.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = dict(file)
            identity, progress = json.loads(str(arrays.pop("state")))
            values = [arrays.pop(f"variable_{index}") for index in range(len(self._variables))]
            best = [arrays.pop(f"{_BEST}{index}") for index in range(len(self._model.weights))]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if identity != self._identity:
            return None
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        self.best = best
        return progress, arrays

    def _to_float(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the luminance (N, H, W, 1) of images, and the target: RGB, or for `gray` the luminance."""
        rgb = tf.cast(images, tf.float32) / 255
        luminance = tf.linalg.matmul(rgb, LUMINANCE_WEIGHTS[:, None])
        return luminance, luminance if self._target == "gray" else rgb

    def kept_weights(self) -> list[np.ndarray]:
        """Return the weights that `validation_loss` measures, and that are kept of the best epoch."""
        return self._model.get_weights()

    def validation_loss(self, on_part: Callable[[], Any]) -> float:
        """Return the mean squared error of the unclipped output; `on_part` is called after every batch."""
        total = 0.0
        for start in range(0, len(self._validation), self._validation_batch):
            part = self._validation[start : start + self._validation_batch]
            total += float(self._compiled_error(tf.constant(part))) * len(part)
            on_part()
        return total / len(self._validation)

    def _squared_error(self, images: tf.Tensor) -> tf.Tensor:
        """Return the error; for a model that takes hints, the mean of the errors without hints and with them."""
        luminance, truth = self._to_float(images)
        if len(self._model.inputs) == 1:
            inputs = [luminance]
        else:
            hints = draw_hints(tf.linalg.matmul(truth, RGB_TO_CHROMA), tf.zeros(2, tf.int32), 1.0)
            inputs = [[luminance, tf.zeros_like(hints)], [luminance, hints]]
        return tf.reduce_mean([tf.square(self._model(one, training=False) - truth) for one in inputs])


class ImageTrainer(Trainer):
    """Trains a network on the images of a data set, all of one size; see `Trainer`."""

    def __init__(
        self, model: keras.Model, model_config: ModelConfig, train_config: TrainConfig, dataset: Dataset
    ) -> None:
        super().__init__(model, model_config, train_config, dataset.validation.images, _VALIDATION_BATCH)
        images = dataset.train.images[: train_config.train_images or None]
        if train_config.epochs and not len(images):
            raise TrainingError(f"The data set {dataset.name} has no training images. Choose cifar10 or synthetic.")
        self._num_images = len(images)
        self._batch_size = max(1, min(train_config.batch_size, len(images)))
        self._crops_per_batch = 0
        if train_config.photos:
            self._crops_per_batch = min(round(train_config.photo_share * self._batch_size), self._batch_size - 1)
        self.steps_per_epoch = max(1, len(images) // (self._batch_size - self._crops_per_batch))
        self._bins = None
        if model_config.chroma_bins:
            self._read, self._paint = split_at_logits(model)
            centres, shares = chroma_bins(load_statistics().shares, model_config.chroma_bins)
            weights = np.exp(np.linalg.norm(centres, axis=1) / _RARITY_SCALE)
            self._bins = centres, (weights / np.sum(weights * shares)).astype(np.float32)
        if not train_config.epochs:
            return
        if self._crops_per_batch:
            photos = open_photos(expand_path(train_config.photos))
            images = np.concatenate([images, cut_small_crops(photos, _CROPS_PER_PHOTO, train_config.seed)])
        self._images = images  # They may be mapped from a file, of which each batch reads its rows.
        steps = self.steps_per_epoch * train_config.epochs
        self._optimizer = self._add_optimizer(model.trainable_variables, train_config.learning_rate, steps)
        self._compiled_step = compile_graph(self._step)

    def draw_batches(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch's batches, int32 (steps, batch_size); an incomplete last batch is left out.

        Every image of the data set has one turn. Crops of photos, which are the last rows, are drawn at random.
        """
        generator = np.random.default_rng([self._config.seed, epoch])
        shape = (self.steps_per_epoch, self._batch_size - self._crops_per_batch)
        rows = generator.permutation(self._num_images)[: math.prod(shape)].reshape(shape)
        if self._crops_per_batch:
            crops = generator.integers(self._num_images, len(self._images), (len(rows), self._crops_per_batch))
            rows = np.hstack([rows, crops])
        return rows.astype(np.int32)

    def step(self, batch: np.ndarray, step: int, rate_factor: float) -> float:
        """Take one optimizer step on the images of those rows and return their loss."""
        self._rate_factor.assign(rate_factor)
        return self._compiled_step(tf.constant(self._images[batch]), tf.constant(step, tf.int32)).numpy()

    def _step(self, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        luminance, truth = self._to_float(self._augment(images, step))
        with tf.GradientTape() as tape:
            if self._bins is None:
                loss = tf.reduce_mean(tf.square(self._model(luminance, training=True) - truth))
                objective = loss
            else:
                logits = self._read(self._with_hints(luminance, truth, step), training=True)
                objective = self._cross_entropy(logits, truth)
                loss = tf.reduce_mean(tf.square(self._paint(luminance, logits) - truth))
        variables = self._model.trainable_variables
        self._optimizer.apply(tape.gradient(objective, variables), variables)
        return loss

    def _with_hints(self, luminance: tf.Tensor, truth: tf.Tensor, step: tf.Tensor) -> Any:
        """Return the inputs of the network, which are the luminance and, if it takes them, hints drawn at random."""
        if len(self._model.inputs) == 1:
            return luminance
        seed = tf.stack([tf.constant(self._config.seed), step])
        return [luminance, draw_hints(tf.linalg.matmul(truth, RGB_TO_CHROMA), seed, _HINTED_SHARE)]

    def _cross_entropy(self, logits: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        """Return the cross-entropy with soft targets, in which rare colours have larger weights."""
        centres, weights = self._bins
        targets = soft_targets(tf.nn.avg_pool2d(tf.linalg.matmul(truth, RGB_TO_CHROMA), 2, 2, "VALID"), centres)
        return -tf.reduce_mean(tf.reduce_sum(weights * targets * tf.nn.log_softmax(logits), axis=-1))

    def _augment(self, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Shift each image by an offset of its own, mirrored at its edges, and flip half of the images."""
        if not self._config.shift and not self._config.flips:
            return images
        seed = tf.stack([tf.constant(self._config.seed), step])
        limit, shape = self._config.shift, (2, self._batch_size, 1)
        offsets = tf.random.stateless_uniform(shape, seed, -limit, limit + 1, tf.int32)
        rows, columns = tf.unstack(31 - tf.abs(31 - tf.abs(tf.range(32) + offsets)))  # Each is (N, 32).
        if self._config.flips:
            columns = tf.where(tf.random.stateless_uniform((self._batch_size, 1), seed) < 0.5, columns, 31 - columns)
        pixels = rows[:, :, None] * 32 + columns[:, None, :]
        return tf.gather(tf.reshape(images, (self._batch_size, 1024, 3)), pixels, batch_dims=1)
