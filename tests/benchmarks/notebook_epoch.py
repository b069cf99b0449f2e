"""One process of its own: epochs of the `notebook` preset on 45,000 images, by this package or by plain Keras `fit`.

`python -m tests.benchmarks.notebook_epoch package|fit` prints the seconds of each epoch, the first left out, the peak
memory, and for `package` the floating-point operations of an epoch and those that a matrix product does in a second.
"""

import json
import resource
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from colorizer.data import datasets
from colorizer.pixels.color import to_luminance
from colorizer.presets import get_preset
from colorizer.training.loop import Epoch, train
from colorizer.training.networks import build_model

EPOCHS = 3  # the first one traces the graph
PRESET = get_preset("notebook")
MATRIX_SIZE, PRODUCTS = 2048, 20


def train_with_package(images: datasets.Dataset) -> list[float]:
    """Seconds of the training steps of each epoch."""
    seconds = []

    def keep(event: object) -> None:
        if isinstance(event, Epoch):
            seconds.append(event.seconds)

    train(PRESET.model, PRESET.train.replace(epochs=EPOCHS), images, keep)
    return seconds


def train_with_fit(images: datasets.Dataset) -> list[float]:
    """The same network and optimizer on float32 arrays."""
    truth = np.asarray(images.train.images, np.float32)
    truth /= 255
    luminance = to_luminance(images.train.images)
    model = build_model(PRESET.model)
    model.compile(keras.optimizers.Adam(PRESET.train.learning_rate), "mse")
    marks = []
    mark = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: marks.append(time.perf_counter()),
        on_epoch_end=lambda *_: marks.append(time.perf_counter()),
    )
    model.fit(luminance, truth, batch_size=PRESET.train.batch_size, epochs=EPOCHS, verbose=0, callbacks=[mark])
    return [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]


def operations_of_an_epoch(num_images: int) -> float:
    """Floating-point operations of all matrix products, forward and backward, of an epoch."""
    kernels = [int(np.prod(weight.shape)) for weight in build_model(PRESET.model).weights if len(weight.shape) == 2]
    # Output, gradient of the kernel and gradient of the input, which the first layer does not need.
    products = 3 * sum(kernels) - kernels[0]
    batch = PRESET.train.batch_size
    return 2.0 * products * (num_images // batch * batch)


def operations_a_second() -> float:
    """What a product of two large float32 matrices reaches here; the median of many."""
    matrix = tf.random.normal((MATRIX_SIZE, MATRIX_SIZE))
    seconds = []
    for _ in range(PRODUCTS):
        begin = time.perf_counter()
        tf.linalg.matmul(matrix, matrix).numpy()
        seconds.append(time.perf_counter() - begin)
    return 2.0 * MATRIX_SIZE**3 / float(np.median(seconds))


def main(way: str) -> None:
    images = datasets.load_dataset("cifar10")
    seconds = train_with_package(images) if way == "package" else train_with_fit(images)
    result = {"seconds": seconds[1:], "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if way == "package":
        result["operations"] = operations_of_an_epoch(len(images.train.images))
        result["operations_a_second"] = operations_a_second()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
