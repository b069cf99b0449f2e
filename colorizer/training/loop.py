"""train(): a blocking function that fits a model and reports its progress through a callback."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from colorizer.config import MAX_SNAPSHOTS, ModelConfig, TrainConfig
from colorizer.data.datasets import SNAPSHOT_SAMPLES, Dataset, load_samples, load_statistics
from colorizer.errors import TrainingError
from colorizer.models import linear
from colorizer.pixels.color import LUMINANCE_WEIGHTS, chroma_bins, to_luminance, to_uint8
from colorizer.training import transfer
from colorizer.training.networks import INPUT_MEAN, INPUT_SCALE, build_model
from colorizer.training.step import Trainer

_MAX_CURVE_POINTS = 1000


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
    """What `train` returns."""

    model: keras.Model
    # `epoch`, `loss`, `val_loss`, `seconds`, and the curve `batch_epochs`, `batch_loss` (at most 1,000 points, each the
    # mean of neighbouring batches).
    history: dict[str, list[float]]
    snapshots: list[Snapshot] = field(default_factory=list)
    stopped: bool = False  # whether the run was stopped early
    seconds: float = 0.0  # wall time of the run


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    dataset: Dataset,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    source: keras.Model | None = None,
    learning_rate_factor: Callable[[], float] = lambda: 1.0,
    picture: np.ndarray | None = None,
) -> TrainResult:
    """Train a model with the mean squared error, or the cross-entropy of its chroma bins, and return it.

    Losses are reported as the mean squared error in either case. The same configurations on the same machine give the
    same history. Sets Keras's global seed.

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
        picture: one more image, uint8 (32, 32, 3), shown to `on_event` after the eight of a snapshot.

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
    watched = load_samples().images[list(SNAPSHOT_SAMPLES)]
    watched = to_luminance(watched if picture is None else np.concatenate([watched, picture[None]]))

    def take_snapshot(epochs: float) -> None:
        images = to_uint8(np.nan_to_num(model(watched, training=False)))
        images = np.broadcast_to(images, (*images.shape[:3], 3))
        result.snapshots.append(Snapshot(epochs, images[: len(SNAPSHOT_SAMPLES)]))
        on_event(result.snapshots[-1] if picture is None else Snapshot(epochs, images))

    trainer = Trainer(model, model_config, train_config, dataset)
    curve: list[float] = []
    if checkpoint is not None and (restored := trainer.restore(checkpoint)):
        progress, snapshots = restored
        result.history, curve = progress["history"], progress["curve"]
        result.snapshots = list(map(Snapshot, snapshots["epochs"].tolist(), snapshots["images"]))
    else:
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
            snapshots = {key: [getattr(s, key) for s in result.snapshots] for key in ("epochs", "images")}
            trainer.save(checkpoint, {"history": result.history, "curve": curve}, **snapshots)
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
