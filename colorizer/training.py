"""train(): a blocking function that fits a model and reports its progress through a callback."""

import contextlib
import dataclasses
import json
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from colorizer import linear, transfer
from colorizer.color import CHROMA_STEP, LUMINANCE_WEIGHTS, RGB_TO_CHROMA, chroma_bins, to_luminance, to_uint8
from colorizer.config import MAX_SNAPSHOTS, ModelConfig, TrainConfig
from colorizer.data import SNAPSHOT_SAMPLES, Dataset, load_samples, load_statistics
from colorizer.errors import ConfigError, TrainingError
from colorizer.models import INPUT_MEAN, INPUT_SCALE, build_model, split_at_logits
from colorizer.sources import load_pictures

_VALIDATION_BATCH = 1000
_MAX_CURVE_POINTS = 1000
_PHOTO_SIZE = 128  # pixels of a side at which photos are kept for training; crops of them are seen at 64
# Chroma bins are weighted by exp(distance from gray / this): colours get rarer about exponentially with that distance.
_RARITY_SCALE = 0.1


@dataclass(frozen=True)
class Batch:
    """Event: one step is done. `loss` is that batch's own, not a running mean; `epochs` is a fraction."""

    step: int
    steps: int
    epochs: float
    loss: float


@dataclass(frozen=True)
class Epoch:
    """Event: an epoch is done; `epoch` counts from 1, and is a fraction where the run was stopped."""

    epoch: float
    loss: float
    val_loss: float
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """Event: reconstructions of the eight fixed images, uint8 (8, 32, 32, 3)."""

    epochs: float
    images: np.ndarray


Event = Batch | Epoch | Snapshot


@dataclass
class TrainResult:
    """What `train` returns.

    Attributes:
        model: the trained Keras model.
        history: dict of lists: `epoch`, `loss`, `val_loss`, `seconds`, and the curve `batch_epochs`, `batch_loss`
            (at most 1,000 points, each the mean of neighbouring batches).
        snapshots: the `Snapshot` events.
        stopped: whether the run was stopped early.
        seconds: wall time of the run.
    """

    model: keras.Model
    history: dict[str, list[float]]
    snapshots: list[Snapshot] = field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    dataset: Dataset,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    source: keras.Model | None = None,
    learning_rate_factor: Callable[[], float] = lambda: 1.0,
) -> TrainResult:
    """Train a model with the mean squared error, or the cross-entropy of its chroma bins, and return it.

    Losses are reported as the mean squared error in either case.

    The images stay uint8; rows are gathered, mirrored, shifted and turned into luminance and float inside the graph.
    The same configurations on the same machine give the same history. Sets Keras's global seed.

    Args:
        model_config: what to build.
        train_config: how to train it; its `dataset` and `init_from` are not read, `dataset` and `source` are used.
        dataset: training and validation images.
        on_event: called with every `Batch`, `Epoch` and `Snapshot`.
        should_stop: asked after every batch and while validating; True ends the run and keeps what was learned. It may
            take its time, which is how a run is paused; that time is not counted.
        checkpoint: .npz file written after every epoch; if it is there, from the same configurations, the run goes on
            from it as if it had not been interrupted.
        source: the model to start from, see `transfer.copy_weights`.
        learning_rate_factor: asked before every batch; multiplies the learning rate from that batch on.

    Raises:
        ConfigError: the encoder of `source` is another one, or the model cannot learn from photos.
        TrainingError: there are no training images, or the loss is no longer finite.
    """
    started = time.perf_counter()
    keras.utils.set_random_seed(train_config.seed)
    model = build_model(model_config, train_config.precision)
    _set_known_weights(model, model_config)
    if source is not None:
        transfer.copy_weights(model, source)
    if train_config.freeze_encoder:
        for layer in transfer.find_encoder(model):
            layer.trainable = False
    result = TrainResult(model, {key: [] for key in ("epoch", "loss", "val_loss", "seconds")})
    samples = to_luminance(load_samples().images[list(SNAPSHOT_SAMPLES)])

    def take_snapshot(epochs: float) -> None:
        images = to_uint8(np.nan_to_num(model(samples, training=False)))
        snapshot = Snapshot(epochs, np.broadcast_to(images, (*images.shape[:3], 3)))
        result.snapshots.append(snapshot)
        on_event(snapshot)

    trainer = _Trainer(model, model_config, train_config, dataset)
    curve: list[float] = []
    if checkpoint is None or not trainer.restore(checkpoint, result, curve):
        take_snapshot(0.0)
    steps_per_epoch, steps = trainer.steps_per_epoch, trainer.steps_per_epoch * train_config.epochs
    # Early snapshots close together, where most is learned, later ones far apart.
    snapshot_steps = set(np.rint(np.geomspace(1, max(steps, 1), MAX_SNAPSHOTS - 1)).astype(int).tolist())
    for epoch in range(len(result.history["epoch"]), train_config.epochs):
        epoch_started = time.perf_counter()
        losses = []
        for rows in trainer.shuffled_rows(epoch):
            step = len(curve) + 1
            loss = float(trainer.step(rows, step, learning_rate_factor()))
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss became {loss} at step {step} of {steps}. Start again with a smaller learning rate "
                    f"than {train_config.learning_rate:g}."
                )
            losses.append(loss)
            curve.append(loss)
            on_event(Batch(step, steps, step / steps_per_epoch, loss))
            asked = time.perf_counter()
            result.stopped = should_stop()
            waited = time.perf_counter() - asked
            started, epoch_started = started + waited, epoch_started + waited
            if result.stopped:
                break
            if step in snapshot_steps and step < steps:
                take_snapshot(step / steps_per_epoch)
        seconds = time.perf_counter() - epoch_started
        done = round(len(curve) / steps_per_epoch, 4) if result.stopped else epoch + 1
        finished = Epoch(done, float(np.mean(losses)), trainer.validation_loss(should_stop), seconds)
        for key, value in dataclasses.asdict(finished).items():
            result.history[key].append(value)
        on_event(finished)
        if result.stopped:
            break
        if checkpoint is not None:
            trainer.save(checkpoint, result, curve)
    if curve:
        take_snapshot(len(curve) / steps_per_epoch)
    else:
        result.history["val_loss"].append(trainer.validation_loss(should_stop))
        result.history["epoch"].append(0)
    chunks = np.array_split(np.array(curve), min(len(curve), _MAX_CURVE_POINTS)) if curve else []
    ends = np.cumsum([len(chunk) for chunk in chunks]) / steps_per_epoch
    result.history["batch_epochs"] = [round(float(end), 4) for end in ends]
    result.history["batch_loss"] = [round(float(np.mean(chunk)), 7) for chunk in chunks]
    if train_config.precision != "float32":
        result.model = build_model(model_config)
        result.model.set_weights(model.get_weights())
    result.seconds = max(time.perf_counter() - started, sum(result.history["seconds"]))
    return result


def _set_known_weights(model: keras.Model, config: ModelConfig) -> None:
    """Set the weights that follow from statistics of images: principal components, the closed form, chroma bins."""
    if not config.linear_path and not config.input_components and not config.chroma_bins:
        return
    statistics = load_statistics()
    if config.chroma_bins:
        centres, _ = chroma_bins(statistics.shares, config.chroma_bins)
        model.get_layer("bin_centres").set_weights([centres[None, None]])
        return
    layers = {layer.name: layer for layer in model.layers}
    luminance_factors = statistics.factors.reshape(len(statistics.factors), 1024, 3) @ LUMINANCE_WEIGHTS
    luminance_mean = statistics.mean.reshape(1024, 3) @ LUMINANCE_WEIGHTS

    def set_centred(layer: keras.Layer, kernel: np.ndarray) -> None:
        """Make `layer`, which sees (y - INPUT_MEAN) / INPUT_SCALE, compute (y - mean image) @ kernel."""
        layer.set_weights([kernel * INPUT_SCALE, (INPUT_MEAN - luminance_mean) @ kernel])

    if config.input_components:
        _, strengths, axes = np.linalg.svd(luminance_factors, full_matrices=False)
        strengths, axes = strengths[: config.input_components], axes[: config.input_components]
        # Half-way between plain and whitened components, an eighth of the way down at unit variance.
        scales = np.sqrt(strengths / strengths[len(strengths) // 8]) / strengths
        set_centred(layers["input_components"], axes.T * scales)
    if config.linear_path:
        solution = linear.solve(statistics.mean, statistics.factors, config.target)
        encoder, decoder = solution.encoder[:, : config.latent_dim], solution.decoder[: config.latent_dim]
        spread = np.linalg.norm(luminance_factors @ encoder, axis=0)  # standard deviation of each latent number
        set_centred(layers["linear_encoder"], encoder / spread)
        decoder = decoder * spread[:, None]
        if config.output_components:
            axes = statistics.factors[: config.output_components]
            axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
            layers["output_components"].set_weights([axes, statistics.mean])
            layers["linear_decoder"].set_weights([decoder @ axes.T, np.zeros(len(axes))])
        else:
            layers["linear_decoder"].set_weights([decoder, solution.output_mean])
    for name in ("encoder_output", "decoder_output"):
        # Beside a linear path the hidden layers start at zero; predicted chroma starts near gray.
        if name in layers and (config.linear_path or (config.target == "chroma" and name == "decoder_output")):
            layers[name].set_weights([0.1 * weight * (not config.linear_path) for weight in layers[name].get_weights()])


class _Trainer:
    """The compiled training step and validation pass over one data set."""

    def __init__(
        self, model: keras.Model, model_config: ModelConfig, train_config: TrainConfig, dataset: Dataset
    ) -> None:
        self._model, self._config, self._target = model, train_config, model_config.target
        num_images = min(len(dataset.train.images), train_config.train_images or len(dataset.train.images))
        if train_config.epochs and not num_images:
            raise TrainingError(f"The data set {dataset.name} has no training images. Choose cifar10 or synthetic.")
        self._num_images = num_images
        self._batch_size = max(1, min(train_config.batch_size, num_images))
        self.steps_per_epoch = max(1, num_images // self._batch_size)
        self._validation = dataset.validation.images
        self._bins = None
        if model_config.chroma_bins:
            self._read, self._paint = split_at_logits(model)
            centres, shares = chroma_bins(load_statistics().shares, model_config.chroma_bins)
            weights = np.exp(np.linalg.norm(centres, axis=1) / _RARITY_SCALE)
            self._bins = centres, (weights / np.sum(weights * shares)).astype(np.float32)
        self._compiled_error = tf.function(self._squared_error, reduce_retracing=True)
        self._identity = [model_config.to_dict(), train_config.to_dict()]
        self._identity = json.loads(json.dumps(self._identity))  # tuples as lists, as a checkpoint has them
        self._variables = list(model.variables)
        if not train_config.epochs:
            return
        self._images = tf.constant(dataset.train.images[:num_images])
        self._photos = None
        if train_config.photos:
            if model_config.architecture != "unet" or model_config.chroma_bins:
                raise ConfigError("photos needs a unet without chroma_bins, which takes images of any size.")
            photos, _ = load_pictures(Path(train_config.photos), _PHOTO_SIZE)
            self._photos = tf.constant(photos)
        self._rate_factor = tf.Variable(1.0)
        self._optimizer = self._build_optimizer()
        self._optimizer.build(model.trainable_variables)
        self._variables += self._optimizer.variables
        self._compiled_step = tf.function(self._step, reduce_retracing=True)

    def _build_optimizer(self) -> keras.optimizers.Optimizer:
        config, schedule = self._config, lambda step: self._config.learning_rate
        if config.schedule == "cosine":
            steps = self.steps_per_epoch * config.epochs
            warmup = max(1, min(steps // 20, 200))
            peak = config.learning_rate
            schedule = keras.optimizers.schedules.CosineDecay(
                peak / 20, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup
            )

        def rate() -> tf.Tensor:
            return schedule(optimizer.iterations) * self._rate_factor

        # The gradients of a mean over 3,072 values are small beside Adam's default epsilon, which `notebook` keeps.
        if not config.weight_decay:
            optimizer = keras.optimizers.Adam(rate)
        else:
            optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, epsilon=1e-9)
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer

    def save(self, path: Path, result: TrainResult, curve: list[float]) -> None:
        """Write a checkpoint: all variables, the history, the curve and the snapshots."""
        state = {"identity": self._identity, "history": result.history, "curve": curve}
        arrays = {f"variable_{index}": variable.numpy() for index, variable in enumerate(self._variables)}
        arrays["snapshot_epochs"] = np.array([snapshot.epochs for snapshot in result.snapshots])
        arrays["snapshot_images"] = np.stack([snapshot.images for snapshot in result.snapshots])
        staging = path.with_suffix(".staging.npz")
        with contextlib.suppress(OSError):  # a full disk must not end the run that it is there to save
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(staging, state=np.array(json.dumps(state)), **arrays)
            staging.replace(path)

    def restore(self, path: Path, result: TrainResult, curve: list[float]) -> bool:
        """Go back to a checkpoint of the same configurations; False if there is none that can be used."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                state = json.loads(str(file["state"]))
                if state["identity"] != self._identity:
                    return False
                values = [file[f"variable_{index}"] for index in range(len(self._variables))]
                snapshots = list(zip(file["snapshot_epochs"].tolist(), file["snapshot_images"], strict=True))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        result.history.update(state["history"])
        result.snapshots.extend(Snapshot(epochs, images) for epochs, images in snapshots)
        curve.extend(state["curve"])
        return True

    def shuffled_rows(self, epoch: int) -> np.ndarray:
        """Row indices of an epoch's batches, int32 (steps, batch_size); the remainder is left out."""
        order = np.random.default_rng([self._config.seed, epoch]).permutation(self._num_images)
        return order[: self.steps_per_epoch * self._batch_size].reshape(self.steps_per_epoch, -1).astype(np.int32)

    def step(self, rows: np.ndarray, step: int, rate_factor: float) -> float:
        """Take one optimizer step on those rows and return the batch's loss."""
        self._rate_factor.assign(rate_factor)
        return self._compiled_step(tf.constant(rows), tf.constant(step, tf.int32)).numpy()

    def _step(self, rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        luminance, truth = self._to_float(self._augment(tf.gather(self._images, rows), step))
        with tf.GradientTape() as tape:
            if self._bins is None:
                loss = tf.reduce_mean(tf.square(self._model(luminance, training=True) - truth))
                objective = loss
                if self._photos is not None:
                    luminance, larger = self._to_float(self._larger_images(rows, step))
                    objective += tf.reduce_mean(tf.square(self._model(luminance, training=True) - larger))
            else:
                logits = self._read(luminance, training=True)
                objective = self._cross_entropy(logits, truth)
                loss = tf.reduce_mean(tf.square(self._paint(luminance, logits) - truth))
        variables = self._model.trainable_variables
        self._optimizer.apply(tape.gradient(objective, variables), variables)
        return loss

    def _larger_images(self, rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Random crops of photos, and as many images of the batch enlarged, (batch_size / 8, 64, 64, 3)."""
        count = max(1, self._batch_size // 16)
        seed = tf.stack([tf.constant(self._config.seed + 1), step])
        chosen = tf.random.stateless_uniform((count,), seed, 0, len(self._photos), tf.int32)
        side, top, left, flip = tf.unstack(tf.random.stateless_uniform((4, count), seed))
        side = 0.5 + side / 2  # of the photo's, so that crops are shrunk, never enlarged
        top, left = top * (1 - side), left * (1 - side)
        right = left + side
        left, right = tf.where(flip < 0.5, left, right), tf.where(flip < 0.5, right, left)
        boxes = tf.stack([top, left, top + side, right], axis=1)
        crops = tf.image.crop_and_resize(tf.gather(self._photos, chosen), boxes, tf.range(count), (64, 64))
        enlarged = tf.image.resize(tf.gather(self._images, rows[:count]), (64, 64), "bicubic")
        return tf.clip_by_value(tf.concat([crops, enlarged], axis=0), 0, 255)

    def _cross_entropy(self, logits: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        """Cross-entropy with soft targets, rare colours weighted up (Zhang et al. 2016, sections 2.1 and 2.2).

        The target of a pixel is a Gaussian over the bins' distances, its standard deviation half a grid step.
        """
        centres, weights = self._bins
        chroma = tf.nn.avg_pool2d(tf.linalg.matmul(truth, RGB_TO_CHROMA), 2, 2, "VALID")
        distance = -2 * tf.linalg.matmul(chroma, centres.T) + np.sum(np.square(centres), axis=1)
        targets = tf.nn.softmax(distance / (-2 * (CHROMA_STEP / 2) ** 2))
        return -tf.reduce_mean(tf.reduce_sum(weights * targets * tf.nn.log_softmax(logits), axis=-1))

    def _augment(self, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Shift each image by its own offset, mirrored at the edges, and flip half of them: one gather."""
        if not self._config.shift and not self._config.flips:
            return images
        seed = tf.stack([tf.constant(self._config.seed), step])
        limit, shape = self._config.shift, (2, self._batch_size, 1)
        offsets = tf.random.stateless_uniform(shape, seed, -limit, limit + 1, tf.int32)
        rows, columns = tf.unstack(31 - tf.abs(31 - tf.abs(tf.range(32) + offsets)))  # (N, 32) each
        if self._config.flips:
            columns = tf.where(tf.random.stateless_uniform((self._batch_size, 1), seed) < 0.5, columns, 31 - columns)
        pixels = rows[:, :, None] * 32 + columns[:, None, :]
        return tf.gather(tf.reshape(images, (self._batch_size, 1024, 3)), pixels, batch_dims=1)

    def _to_float(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return luminance (N, 32, 32, 1) and the target, RGB or luminance, of uint8 images."""
        rgb = tf.cast(images, tf.float32) / 255
        luminance = tf.linalg.matmul(rgb, LUMINANCE_WEIGHTS[:, None])
        return luminance, luminance if self._target == "gray" else rgb

    def validation_loss(self, on_part: Callable[[], Any]) -> float:
        """Mean squared error over the validation images, unclipped; `on_part` is called after every thousand."""
        total = 0.0
        for start in range(0, len(self._validation), _VALIDATION_BATCH):
            part = self._validation[start : start + _VALIDATION_BATCH]
            total += float(self._compiled_error(tf.constant(part))) * len(part)
            on_part()
        return total / len(self._validation)

    def _squared_error(self, images: tf.Tensor) -> tf.Tensor:
        luminance, truth = self._to_float(images)
        return tf.reduce_mean(tf.square(self._model(luminance, training=False) - truth))
