"""Inference: latency and throughput of every shipped model, beside plain Keras `predict` and the arithmetic limit."""

import statistics
import time
from collections.abc import Callable

import keras
import numpy as np

from colorizer.app.widgets.estimate import count
from colorizer.data import datasets
from colorizer.errors import DataError
from colorizer.models import library
from colorizer.models.colorizer import load
from colorizer.pixels.color import to_luminance
from colorizer.training.export import load_keras_model
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.notebook_epoch import operations_a_second

_CALLS = 50  # of a single image, in a run
_IMAGES = 10_000
_LATENCY_GOALS = {"dense": 2.0, "unet": 10.0}  # milliseconds, by architecture


def measure(runs: int) -> list[Measurement]:
    """Measure every shipped model on CIFAR-10's test images, or on synthetic ones where it is not to be had."""
    luminance = to_luminance(_images())
    shipped = [entry for entry in library.list_models() if entry.shipped]
    return [measurement for entry in shipped for measurement in _measure_model(entry, luminance, runs)]


def _images() -> np.ndarray:
    try:
        return datasets.load_dataset("cifar10").test.images
    except DataError:
        return datasets.draw_synthetic(_IMAGES, seed=1)


def _measure_model(entry: library.ModelEntry, luminance: np.ndarray, runs: int) -> list[Measurement]:
    """In turns with `predict`, which runs a U-Net once on each image; `Colorizer` also runs it on the mirrored one."""
    config, colorizer, model = entry.model_config, load(entry.path), load_keras_model(entry)

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict(images, batch_size=500, verbose=0)

    own: dict[str, list[float]] = {"latency": [], "rate": []}
    plain: dict[str, list[float]] = {"latency": [], "rate": []}
    for answer in (colorizer.predict, predict):
        answer(luminance[:1000])  # trace, and let memory grow
    limits = []
    for _ in range(runs):
        limits.append(operations_a_second())  # each time anew, for on a machine with other work it varies
        for answer, results in ((colorizer.predict, own), (predict, plain)):
            results["latency"].append(_latency(answer, luminance))
            begin = time.perf_counter()
            answer(luminance)
            results["rate"].append(len(luminance) / (time.perf_counter() - begin))
    keras.backend.clear_session()
    operations = count(config)[1] * (2 if config.architecture == "unet" else 1)
    shares = [100 * rate * operations / limit for rate, limit in zip(own["rate"], limits, strict=True)]
    quicker = {key: [a / b for a, b in zip(own[key], plain[key], strict=True)] for key in own}
    name = entry.name
    return [
        Measurement(f"{name}, one image", "ms", own["latency"], at_most=_LATENCY_GOALS.get(config.architecture)),
        Measurement(f"{name}, one image by predict", "ms", plain["latency"]),
        Measurement(f"{name}, one image, share of predict's time", "x", quicker["latency"]),
        Measurement(f"{name}, {_IMAGES:,} images", "images/s", own["rate"]),
        Measurement(f"{name}, {_IMAGES:,} images by predict", "images/s", plain["rate"]),
        Measurement(f"{name}, {_IMAGES:,} images, times predict's rate", "x", quicker["rate"]),
        Measurement("matrix product beside it", "GFLOP/s", [limit / 1e9 for limit in limits]),
        Measurement(f"{name}, share of the matrix product's rate", "%", shares),
    ]


def _latency(answer: Callable[[np.ndarray], np.ndarray], luminance: np.ndarray) -> float:
    """Median milliseconds of a call with one image."""
    milliseconds = []
    for index in range(_CALLS):
        begin = time.perf_counter()
        answer(luminance[index : index + 1])
        milliseconds.append(1000 * (time.perf_counter() - begin))
    return statistics.median(milliseconds)
