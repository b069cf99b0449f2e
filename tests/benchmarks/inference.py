"""Inference: latency and throughput of every shipped model, beside plain Keras `predict` and the arithmetic limit."""

import statistics
import time
from collections.abc import Callable

import keras
import numpy as np

from colorizer.data import datasets
from colorizer.errors import DataError
from colorizer.models import library
from colorizer.models.colorizer import load
from colorizer.pixels.color import to_luminance
from colorizer.training.export import load_keras_model
from colorizer.training.shapes import count
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.notebook_epoch import operations_a_second
from tests.benchmarks.photo import make_jpeg

_HINTS = 5  # in a run
_CALLS = 50  # of a single image, in a run
_IMAGES = 10_000
_LATENCY_GOALS = {"linear": 0.1, "dense": 0.4, "unet": 2.0, "unet-vivid": 2.5}  # milliseconds
_WORKING_SIZE, _PHOTO_GOAL = 192, 30.0  # pixels of a side at which colorist sees a photo, and milliseconds for it


def measure(runs: int) -> list[Measurement]:
    """Measure every shipped model on CIFAR-10's test images, or on synthetic ones where it is not to be had."""
    luminance = to_luminance(_images())
    shipped = [entry for entry in library.list_models() if entry.shipped]
    measured = [measurement for entry in shipped for measurement in _measure_model(entry, luminance, runs)]
    return [*measured, _measure_photo(runs), *_measure_asking(runs)]


def _measure_asking(runs: int) -> list[Measurement]:
    """Milliseconds of the server until a photo of 12 megapixels follows a new hint, and until a belief is described."""
    from colorizer.app.widgets import state

    entry, picture, plain = library.find_model("colorist"), make_jpeg(4000, 3000), state.PhotoSettings()
    state.colorize(entry, picture, plain)
    state.belief(entry, picture, plain).at(0.5, 0.5, 0.4).describe()
    followed, described = [], []
    for number in range(_HINTS * runs):
        begin = time.perf_counter()
        state.colorize(entry, picture, plain._replace(hints=((1000 + number, 900, "#a0522d"),)))
        followed.append(1000 * (time.perf_counter() - begin))
        begin = time.perf_counter()
        state.belief(entry, picture, plain).at(0.3, number / (_HINTS * runs), 0.4).describe()
        described.append(1000 * (time.perf_counter() - begin))
    return [
        Measurement("a photo of 12 megapixels follows a hint", "ms", followed, at_most=150),
        Measurement("the belief at a pixel", "ms", described, at_most=50),
    ]


def _measure_photo(runs: int) -> Measurement:
    """Milliseconds of the network of `colorist` on a photo at its working size, with the mirrored pass."""
    colorist = load("colorist")
    square = np.random.default_rng(0).random((_CALLS, _WORKING_SIZE, _WORKING_SIZE, 1), np.float32)
    colorist.predict(square[:1])
    values = [_latency(colorist.predict, square) for _ in range(runs)]
    return Measurement(f"colorist, a photo at {_WORKING_SIZE} pixels", "ms", values, at_most=_PHOTO_GOAL)


def _images() -> np.ndarray:
    try:
        return datasets.load_dataset("cifar10").test.images
    except DataError:
        return datasets.draw_synthetic(_IMAGES, seed=1)


def _measure_model(entry: library.ModelEntry, luminance: np.ndarray, runs: int) -> list[Measurement]:
    """In turns with `predict`, which runs a U-Net once on each image; `Colorizer` also runs it on the mirrored one.

    A network with a backbone sees the images enlarged to 64 x 64 pixels, and fewer of them.
    """
    config, colorizer, model = entry.model_config, load(entry.path), load_keras_model(entry)
    enlarge, passes = 2 if config.architecture == "backbone" else 1, 2 if entry.any_size else 1
    luminance = luminance[:: enlarge**4]

    def predict(images: np.ndarray) -> np.ndarray:
        images = images.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
        hints = np.zeros((*images.shape[:3], 3), np.float32)
        return model.predict([images, hints] if config.hints else images, batch_size=500 // enlarge**2, verbose=0)

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
    operations = count(config)[1] * passes
    shares = [100 * rate * operations / limit for rate, limit in zip(own["rate"], limits, strict=True)]
    quicker = {key: [a / b for a, b in zip(own[key], plain[key], strict=True)] for key in own}
    passed = [passes * ratio for ratio in quicker["rate"]]
    name, num = entry.name, len(luminance)
    return [
        Measurement(f"{name}, one image", "ms", own["latency"], at_most=_LATENCY_GOALS.get(name)),
        Measurement(f"{name}, one image by predict", "ms", plain["latency"]),
        Measurement(f"{name}, one image, share of predict's time", "x", quicker["latency"]),
        Measurement(f"{name}, {num:,} images", "images/s", own["rate"]),
        Measurement(f"{name}, {num:,} images by predict", "images/s", plain["rate"]),
        Measurement(f"{name}, {num:,} images, times predict's rate, each pass counted", "x", passed, at_least=1.0),
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
