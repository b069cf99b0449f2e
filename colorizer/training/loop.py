"""Trains a model: `train` blocks until it is done, and reports its progress through a callback."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from colorizer.config import MAX_SNAPSHOTS, ModelConfig, TrainConfig, expand_path
from colorizer.data.datasets import BELIEF_SAMPLE, SNAPSHOT_SAMPLES, Dataset, load_samples
from colorizer.errors import TrainingError
from colorizer.pixels.color import to_luminance, to_uint8
from colorizer.training import backbone, efficientnet
from colorizer.training.networks import build_model, copy_weights, find_encoder, set_known_weights
from colorizer.training.photo_step import PhotoTrainer
from colorizer.training.step import ImageTrainer, split_at_logits

_MAX_CURVE_POINTS = 1000
_LOGIT_STEPS = 16  # The logits of a snapshot are rounded to so many steps for each unit, which halves its file.


@dataclass(frozen=True)
class Batch:
    """Event: a step is done. `loss` is the loss of this batch; `epochs` is a fraction."""

    step: int
    steps: int
    epochs: float
    loss: float


@dataclass(frozen=True)
class Epoch:
    """Event: an epoch is done. `epoch` counts from 1; it is a fraction where the run was stopped within an epoch."""

    epoch: float
    loss: float
    val_loss: float
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """Event: what the network makes of the eight fixed images; the last shows the model that is kept.

    Attributes:
        epochs: number of epochs that are done.
        images: reconstructions, uint8 (8, 32, 32, 3).
        logits: of a network with chroma bins, for the image number `BELIEF_SAMPLE` of the eight, float16 (16, 16,
            bins); for other networks it is empty.
    """

    epochs: float
    images: np.ndarray
    logits: np.ndarray = field(default_factory=lambda: np.empty(0, np.float16))


Event = Batch | Epoch | Snapshot


@dataclass
class TrainResult:
    """The result of `train`.

    Attributes:
        model: the network with the weights of the epoch that has the lowest `val_loss`.
        history: `epoch`, `loss`, `val_loss`, `seconds` of each epoch; `batch_epochs` and `batch_loss`, the loss curve
            of at most 1,000 points, each the mean of neighbouring batches.
        snapshots: those that were reported.
        stopped: whether the run was stopped early.
        seconds: time of the run without pauses.
    """

    model: keras.Model
    history: dict[str, list[float]]
    snapshots: list[Snapshot] = field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0

    @property
    def best(self) -> int:
        """Index in `history` of the epoch whose weights the model has."""
        return int(np.argmin(self.history["val_loss"]))


class _StopQuestion:
    """Asks whether to stop, remembers a yes, and measures how long the answers took."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self.stopped = False
        self.waited = 0.0

    def ask(self) -> bool:
        began = time.perf_counter()
        self.stopped = bool(self._should_stop()) or self.stopped
        self.waited += time.perf_counter() - began
        return self.stopped

    def clock(self) -> float:
        """Return a time in seconds that stands still while an answer is awaited."""
        return time.perf_counter() - self.waited


def use_one_core() -> None:
    """Let TensorFlow use one core, in a process beside others that has computed nothing yet."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


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
    on_warning: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Train a model with the mean squared error, or the cross-entropy of its chroma bins, and return it.

    The model has the weights of the epoch with the lowest validation loss. Losses are reported as the mean squared
    error in either case. The same configurations on the same machine give the same history. This function sets Keras's
    global seed.

    Args:
        model_config: what to build.
        train_config: how to train it. Its `dataset` and `init_from` are only names: the arguments `dataset` and
            `source` are used instead.
        dataset: training and validation images.
        on_event: called with every `Batch`, `Epoch` and `Snapshot`.
        should_stop: asked after every batch and during validation. True ends the run and keeps what was learned. The
            call may block, which is how a run is paused; the time until it returns does not count.
        checkpoint: .npz file that is written after every epoch. If it is there and has the same configurations, the
            run goes on from it as if it had not been interrupted.
        source: the model to start from, see `networks.copy_weights`.
        learning_rate_factor: asked before every batch; it multiplies the learning rate from that batch on.
        picture: one more image, uint8 (32, 32, 3), which `on_event` gets after the eight of a snapshot; the logits
            that it gets are of this image.
        on_warning: told once, in a sentence, if a checkpoint cannot be written.

    Raises:
        ConfigError: the encoder of `source` does not fit, or the model cannot learn from photos.
        TrainingError: there are no training images, or a loss is not finite. The checkpoint keeps the last epoch whose
            losses were finite.
    """
    question = _StopQuestion(should_stop)
    started = question.clock()
    keras.utils.set_random_seed(train_config.seed)
    model = build_model(model_config, train_config.precision)
    set_known_weights(model, model_config)
    if train_config.backbone:
        backbone.set_weights(model, efficientnet.read_weights(expand_path(train_config.backbone)))
    if source is not None:
        copy_weights(model, source)
    if train_config.freeze_encoder:
        for layer in find_encoder(model):
            layer.trainable = False
    result = TrainResult(model, {key: [] for key in ("epoch", "loss", "val_loss", "seconds")})
    watched = load_samples().images[list(SNAPSHOT_SAMPLES)]
    watched = to_luminance(watched if picture is None else np.concatenate([watched, picture[None]]))

    read = split_at_logits(model)[0] if model_config.chroma_bins else None

    def look() -> np.ndarray:
        """Return the logits for the frog, and for the visitor's picture if there is one, else for any image."""
        if read is None:
            return np.empty((2, 0), np.float16)
        logits = np.asarray(_run(read, watched[[BELIEF_SAMPLE, -1]], model.name == "backbone"))
        return (np.rint(_LOGIT_STEPS * logits) / _LOGIT_STEPS).astype(np.float16)

    def take_snapshot(epochs: float) -> None:
        images = to_uint8(np.nan_to_num(_predict_small(model, watched)))
        images, logits = np.broadcast_to(images, (*images.shape[:3], 3)), look()
        result.snapshots.append(Snapshot(epochs, images[: len(SNAPSHOT_SAMPLES)], logits[0]))
        on_event(result.snapshots[-1] if picture is None else Snapshot(epochs, images, logits[1]))

    trainer = (PhotoTrainer if model_config.architecture == "backbone" else ImageTrainer)(
        model, model_config, train_config, dataset
    )
    curve: list[float] = []
    if checkpoint is not None and (restored := trainer.restore(checkpoint)):
        progress, snapshots = restored
        result.history, curve = progress["history"], progress["curve"]
        # An earlier version kept no logits; those that are not numbers are not shown.
        unknown = np.full((len(snapshots["epochs"]), *look().shape[1:]), np.nan, np.float16)
        logits = snapshots.get("logits", unknown)
        result.snapshots = list(map(Snapshot, snapshots["epochs"].tolist(), snapshots["images"], logits))
    else:
        take_snapshot(0.0)
    earlier_seconds = sum(result.history["seconds"])
    steps_per_epoch, steps = trainer.steps_per_epoch, trainer.steps_per_epoch * train_config.epochs
    # Early snapshots lie close together, where most is learned, and late ones far apart.
    snapshot_steps = set(np.rint(np.geomspace(1, max(steps, 1), MAX_SNAPSHOTS - 1)).astype(int).tolist())

    def check(loss: float, name: str) -> float:
        if math.isfinite(loss):
            return loss
        kept = f" The checkpoint keeps the weights of epoch {saved:g}." if saved else ""
        raise TrainingError(
            f"The {name} became {loss} at step {len(curve)} of {steps}.{kept} Start again with a smaller learning rate "
            f"than {train_config.learning_rate:g}."
        )

    def validate() -> float:
        return check(trainer.validation_loss(question.ask), "validation loss")

    saved = len(result.history["epoch"])  # The last epoch that the checkpoint has.
    warned = False
    for epoch in range(len(result.history["epoch"]), train_config.epochs):
        epoch_started = question.clock()
        losses = []
        for batch in trainer.draw_batches(epoch):
            step = len(curve) + 1
            curve.append(float(trainer.step(batch, step, learning_rate_factor())))
            losses.append(check(curve[-1], "loss"))
            on_event(Batch(step, steps, step / steps_per_epoch, curve[-1]))
            if question.ask():
                break
            if step in snapshot_steps and step < steps:
                take_snapshot(step / steps_per_epoch)
        done = epoch + 1 if len(losses) == steps_per_epoch else round(len(curve) / steps_per_epoch, 4)
        seconds = question.clock() - epoch_started
        finished = Epoch(done, float(np.mean(losses)), validate(), seconds)
        for key, value in asdict(finished).items():
            result.history[key].append(value)
        if result.best == len(result.history["val_loss"]) - 1:
            trainer.best = trainer.kept_weights()
        on_event(finished)
        if question.stopped:
            break
        if checkpoint is not None:
            snapshots = {key: [getattr(s, key) for s in result.snapshots] for key in ("epochs", "images", "logits")}
            try:
                trainer.save(checkpoint, {"history": result.history, "curve": curve}, **snapshots)
                saved = epoch + 1
            except OSError as error:  # The run goes on: its result may still find room.
                if not warned:
                    on_warning(_explain_lost_checkpoint(checkpoint, error))
                warned = True
    if curve:
        model.set_weights(trainer.best)
        take_snapshot(len(curve) / steps_per_epoch)
    else:
        result.history["val_loss"].append(validate())
        result.history["epoch"].append(0)
    chunks = np.array_split(np.array(curve), min(len(curve), _MAX_CURVE_POINTS)) if curve else []
    ends = np.cumsum([len(chunk) for chunk in chunks]) / steps_per_epoch
    result.history["batch_epochs"] = [round(float(end), 4) for end in ends]
    result.history["batch_loss"] = [round(float(np.mean(chunk)), 7) for chunk in chunks]
    if train_config.precision != "float32":
        result.model = build_model(model_config)
        result.model.set_weights(model.get_weights())
    if model_config.architecture == "backbone":  # Its weights are stored as float16, so they are measured as such.
        result.model.set_weights([weight.astype(np.float16) for weight in result.model.get_weights()])
    result.stopped = question.stopped
    result.seconds = earlier_seconds + question.clock() - started
    return result


def _predict_small(model: keras.Model, luminance: np.ndarray) -> tf.Tensor:
    """Return the images that a network predicts for luminance (N, 32, 32, 1) without hints."""
    enlarged = model.name == "backbone"
    images = _run(model, luminance, enlarged)
    return keras.ops.average_pool(images, 2) if enlarged else images


def _run(model: keras.Model, luminance: np.ndarray, enlarged: bool) -> tf.Tensor:
    """Return the output of a network, or of its part up to the logits, for luminance (N, 32, 32, 1) without hints.

    Args:
        enlarged: whether it sees the luminance at twice the size, as a `backbone` does.
    """
    seen = keras.ops.convert_to_tensor(luminance)
    seen = keras.ops.image.resize(seen, (64, 64), "bicubic") if enlarged else seen
    inputs = seen if len(model.inputs) == 1 else [seen, keras.ops.zeros((*seen.shape[:3], 3))]
    return model(inputs, training=False)


def _explain_lost_checkpoint(path: Path, error: OSError) -> str:
    return (
        f"The checkpoint {path.name} could not be written ({error.strerror or error}). The training goes on, but if it "
        "is interrupted, it can only be resumed from an earlier epoch or from the start. Free some space."
    )
