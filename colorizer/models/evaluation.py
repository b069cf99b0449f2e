"""Predicts the images of a data set, keeps the result on disk, and compares a model's metrics with the gray copy's."""

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colorizer.config import MAX_LATENT_DIM
from colorizer.data.cifar10 import CLASS_NAMES
from colorizer.data.datasets import NUM_SAMPLES, Dataset, Split, load_statistics
from colorizer.errors import ModelError
from colorizer.models import library, linear
from colorizer.models.checks import check_chroma
from colorizer.models.colorizer import Colorizer
from colorizer.models.recognition import load_classifier
from colorizer.models.scale import VIVIDNESS_LEVELS, nearest_level
from colorizer.pixels.color import YCBCR_TO_RGB, gray_copy, split_luminance, to_luminance, to_uint8
from colorizer.pixels.metrics import METRICS, colorfulness, compute_metrics, gray_copy_metrics, image_mse
from colorizer.storage import read_json, replace_folder, write_json

_PART = 1000  # Images are predicted this many at a time, to bound memory.
_write_lock = threading.Lock()


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for a split: images, uint8 (N, 32, 32, 3), and the `mse` of each, float64 (N,).

    For a model with chroma bins, both have one more axis in front, for the `VIVIDNESS_LEVELS`.
    """

    images: np.ndarray
    mse: np.ndarray

    def at(self, vividness: float) -> "Predictions":
        """Return the predictions at the level nearest to `vividness`; without levels, return all."""
        if self.mse.ndim == 1:
            return self
        level = nearest_level(vividness)
        return Predictions(self.images[level], self.mse[level])


def measure(
    colorizer: Colorizer,
    dataset: Dataset,
    split: str,
    vividness: float | None = None,
    strength: float = 1.0,
    recognise: bool = False,
) -> dict[str, Any]:
    """Measure a model on a split of a data set.

    Args:
        colorizer: the model.
        dataset, split: what to measure on.
        vividness, strength: as in `Colorizer.predict`.
        recognise: also ask the classifier, which takes longer than the other metrics.

    Returns:
        dict with
        `images` (how many),
        `model` and `gray_copy` (each a dict of every metric),
        `delta_colorfulness` (the colorfulness of the predictions minus that of the originals),
        `classes` and `gray_copy_classes` (the `mse` of both on the images of each class; empty for a data set without
        class names), and
        with `recognise`, `recognition` for images of CIFAR-10: the share of the `original` images, of the `gray_copy`
        and of the `model`'s predictions whose class the shipped classifier names, its top-1 accuracy.

    Raises:
        ConfigError: a setting is out of its range.
        ModelError: the classifier is missing or damaged.
    """
    part = dataset.split(split)
    images, labels = part.images, part.labels
    classes = np.unique(labels) if dataset.class_names else ()
    prediction = colorizer.predict(to_luminance(images), vividness, strength)

    def by_class(mse: np.ndarray) -> dict[str, float]:
        return {dataset.class_names[label]: float(mse[labels == label].mean()) for label in classes}

    metrics = compute_metrics(prediction, images)
    measured = {
        "images": len(images),
        "model": metrics,
        "gray_copy": _gray_copy_metrics(dataset.name, split, images),
        "delta_colorfulness": metrics["colorfulness"] - float(np.mean(colorfulness(images))),
        "classes": by_class(image_mse(prediction, images)),
        "gray_copy_classes": by_class(image_mse(gray_copy(images), images)),
    }
    if recognise and dataset.class_names == CLASS_NAMES:
        baselines = _recognised_baselines(dataset.name, split, part)
        measured["recognition"] = baselines | {"model": load_classifier().accuracy(prediction, labels)}
    return measured


def measure_baselines(images: np.ndarray) -> dict[str, dict[str, float]]:
    """Measure two predictions that need no network, on images, uint8 (N, 32, 32, 3).

    Returns:
        for `mean chroma` (every pixel gets the training images' mean chroma) and `closed form` (the best linear map
        from luminance to chroma), a dict of every metric.
    """
    statistics, luminance = load_statistics(), to_luminance(images)
    mean_chroma = split_luminance(statistics.mean.reshape(1, 1024, 3))[1].mean(axis=(0, 1))
    regression = linear.solve(statistics.mean, statistics.factors, "chroma")
    chroma = regression.decode(regression.encode(luminance, MAX_LATENT_DIM))
    chosen = {"mean chroma": mean_chroma, "closed form": chroma}
    return {name: compute_metrics(luminance + part @ YCBCR_TO_RGB[1:], images) for name, part in chosen.items()}


def closed_form_losses(images: np.ndarray, target: str, latent_dims: Iterable[int]) -> list[float]:
    """Return the loss of CIFAR-10's best linear autoencoder at each `latent_dim`, as a training would report it.

    It is the mean squared error of the output before it is clipped.

    Args:
        images: uint8 of shape (N, 32, 32, 3).
        target: `rgb`, `chroma` or `gray`, as in `ModelConfig`.
        latent_dims: widths of the bottleneck, each up to `MAX_LATENT_DIM`.
    """
    statistics, luminance = load_statistics(), to_luminance(images)
    solution = linear.solve(statistics.mean, statistics.factors, target)
    truth = luminance if target == "gray" else images.astype(np.float32) / 255

    losses = []
    for latent_dim in latent_dims:
        output = solution.decode(solution.encode(luminance, latent_dim))
        if target == "chroma":
            output = luminance + output @ YCBCR_TO_RGB[1:]
        losses.append(float(np.mean(np.square(output - truth))))
    return losses


def _gray_copy_metrics(dataset: str, split: str, images: np.ndarray) -> dict[str, float]:
    """Return the gray copy's metrics."""
    return _kept("gray-copy", dataset, split, images, list(METRICS), lambda: gray_copy_metrics(images))


def _recognised_baselines(dataset: str, split: str, part: Split) -> dict[str, float]:
    """Return the share of the originals and of their gray copies whose class the classifier names."""
    classifier = load_classifier()

    def compute() -> dict[str, float]:
        shown = {"original": part.images, "gray_copy": to_uint8(gray_copy(part.images))}
        return {name: classifier.accuracy(images, part.labels) for name, images in shown.items()}

    name = f"recognised-{classifier.checksum:08x}"
    return _kept(name, dataset, split, part.images, ["original", "gray_copy"], compute)


def _kept(
    name: str, dataset: str, split: str, images: np.ndarray, keys: list[str], compute: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Return numbers that depend on no model. Those of CIFAR-10 are kept on disk, since its images never change."""
    if dataset != "cifar10":
        return compute()
    path = library.predictions_folder() / f"{name}-{dataset}-{split}-{zlib.crc32(images[-1000:]):08x}.json"
    with contextlib.suppress(OSError, ValueError):
        stored = read_json(path)
        if set(stored) == set(keys):
            return stored
    computed = compute()
    with contextlib.suppress(OSError):  # On a full or read-only disk, this is computed again at the next start.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, computed)
    return computed


def predict_split(colorizer: Colorizer, split: Split) -> Predictions:
    """Run a model over a split."""
    images, mse = [], []
    for start in range(0, len(split.images), _PART):
        part = split.images[start : start + _PART]
        prediction = colorizer.predict(to_luminance(part), colorizer.levels)
        images.append(to_uint8(prediction))
        mse.append(image_mse(prediction, part))
    return Predictions(np.concatenate(images, axis=-4), np.concatenate(mse, axis=-1))


def stored_predictions(entry: library.ModelEntry, dataset: str, split: str) -> Predictions | None:
    """Return predictions from disk, without TensorFlow; None if they were not kept or are damaged.

    Those on `samples` come with the model, and `store_predictions` writes the others.
    """
    try:
        if dataset == "samples":
            arrays = library.load_arrays(entry, "predictions.npz")
            stored = Predictions(arrays["samples"], arrays["samples_mse"])
        else:
            folder = _folder(entry, dataset, split)
            stored = Predictions(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "mse.npy"))
    except (ModelError, KeyError, OSError, ValueError, EOFError):
        return None
    num_images = NUM_SAMPLES if dataset == "samples" else stored.mse.shape[-1]
    shape = (len(VIVIDNESS_LEVELS), num_images) if stored.mse.ndim == 2 else (num_images,)
    fits = stored.mse.shape == shape and stored.images.shape == (*shape, 32, 32, 3) and stored.images.dtype == np.uint8
    return stored if fits else None


def stored_chroma(entry: library.ModelEntry, photo: str) -> np.ndarray | None:
    """Return the chroma of a sample photo that was saved with a model, as `Colorizer.colorize` takes it, or None."""
    try:
        return check_chroma(library.load_arrays(entry, "predictions.npz")[f"photo_{photo}"])
    except (ModelError, KeyError, ValueError):
        return None


def store_predictions(colorizer: Colorizer, dataset: str, split: str, images: Split) -> Predictions:
    """Run a model over a split and keep the result on disk, in one step."""
    with _write_lock:
        stored = stored_predictions(colorizer.entry, dataset, split)
        if stored is not None:  # Another thread was quicker.
            return stored
        predictions = predict_split(colorizer, images)
        folder = _folder(colorizer.entry, dataset, split)
        # On a full or read-only disk, this is computed again at the next start.
        with contextlib.suppress(OSError), replace_folder(folder) as staging:
            np.save(staging / "images.npy", predictions.images)
            np.save(staging / "mse.npy", predictions.mse)
        return predictions


def _folder(entry: library.ModelEntry, dataset: str, split: str) -> Path:
    return library.predictions_folder() / f"{entry.name}-{entry.checksum[:16]}-{dataset}-{split}"
