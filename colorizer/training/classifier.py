"""Trains the classifier of CIFAR-10 images that `models.recognition` asks whether colours help.

`python -m colorizer.training.classifier FOLDER` trains it on the training images and writes `classifier.onnx` and
`classifier.json` into the folder. The same command continues a training that was interrupted.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from colorizer.data.cifar10 import CLASS_NAMES
from colorizer.data.datasets import Split, load_dataset
from colorizer.errors import ColorizerError, TrainingError
from colorizer.models.compact import halve_graph
from colorizer.models.recognition import Classifier
from colorizer.storage import write_json

_WIDTHS = (48, 96, 192)
_SHIFT = 2  # Training images are shifted by at most this many pixels in both directions.
_OPSET = 18
_SEED = 0


def build_classifier(widths: tuple[int, ...] = _WIDTHS) -> keras.Model:
    """Return a residual network (He et al. 2016) from images, float32 (N, 32, 32, 3) in [0, 1], to logits (N, 10).

    Each width adds a convolution that is pooled to half the size, and a convolution with a skip connection.
    """
    images = keras.Input((32, 32, 3), name="image")
    planes = keras.layers.Rescaling(4.0, offset=-2.0)(images)
    planes = _convolve(planes, widths[0] // 2)
    for width in widths:
        planes = _convolve(planes, width, pool=True)
        planes = keras.layers.Add()([planes, _convolve(planes, width)])
    pooled = keras.layers.GlobalMaxPooling2D()(planes)
    return keras.Model(images, keras.layers.Dense(len(CLASS_NAMES), dtype="float32", name="logits")(pooled))


def _convolve(planes: Any, width: int, pool: bool = False) -> Any:
    planes = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(planes)
    if pool:
        planes = keras.layers.MaxPooling2D()(planes)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(planes))


def _batches(split: Split, size: int) -> tf.data.Dataset:
    """Return the batches of an epoch in random order; each image is shifted a little, and half are mirrored."""

    def vary(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.pad(image, [[_SHIFT, _SHIFT], [_SHIFT, _SHIFT], [0, 0]], "REFLECT")
        image = tf.image.random_flip_left_right(tf.image.random_crop(image, (32, 32, 3)))
        return tf.cast(image, tf.float32) / 255, tf.one_hot(label, len(CLASS_NAMES))

    images = tf.data.Dataset.from_tensor_slices((np.asarray(split.images), np.asarray(split.labels)))
    images = images.shuffle(len(split.images)).map(vary, num_parallel_calls=2)
    return images.batch(size, drop_remainder=True).prefetch(4)


def train_classifier(
    train: Split, validation: Split, folder: Path, epochs: int, precision: str = "float32", batch_size: int = 128
) -> bytes:
    """Train a classifier and return it as an ONNX file, whose weights are float16.

    Args:
        train, validation: images with labels; the validation images are only reported on.
        folder: the training can be continued from here if it is interrupted.
        epochs: in all.
        precision: `bfloat16` computes in bfloat16 where that is quicker.
        batch_size: so many images are in a step.

    Raises:
        TrainingError: the exported classifier often disagrees with the trained one.
    """
    keras.utils.set_random_seed(_SEED)
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    model = build_classifier()
    steps = max(1, epochs * (len(train.images) // batch_size))
    rate = keras.optimizers.schedules.CosineDecay(
        1e-3, max(1, steps * 4 // 5), alpha=0, warmup_target=0.05, warmup_steps=max(1, steps // 5)
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=["accuracy"])
    truth = keras.utils.to_categorical(validation.labels, len(CLASS_NAMES))
    model.fit(
        _batches(train, batch_size),
        epochs=epochs,
        shuffle=False,  # The batches are in random order already.
        validation_data=(np.asarray(validation.images, np.float32) / 255, truth),
        validation_batch_size=500,
        callbacks=[keras.callbacks.BackupAndRestore(folder / "backup")],
        verbose=2,
    )
    return _export(model, validation)


def _export(model: keras.Model, validation: Split) -> bytes:
    """Return a classifier as an ONNX file that computes in float32; it has been checked against Keras."""
    import tf2onnx  # This import is slow.

    keras.config.set_dtype_policy("float32")
    exact = build_classifier()
    exact.set_weights(model.get_weights())
    run = tf.function(lambda image: {"logits": exact(image, training=False)}, autograph=False)
    specs = [tf.TensorSpec((None, 32, 32, 3), tf.float32, "image")]
    graph, _ = tf2onnx.convert.from_function(run, specs, opset=_OPSET)
    graph.producer_name, graph.producer_version = "colorizer", ""
    exported = halve_graph(graph.SerializeToString(), rounded=True)
    images = np.asarray(validation.images[:1000], np.float32) / 255
    wanted = np.argmax(exact.predict(images, verbose=0), axis=-1)
    agreed = float(np.mean(Classifier(exported).classify(images) == wanted))
    if agreed < 0.99:
        raise TrainingError(f"The exported classifier agrees with the trained one on only {agreed:.1%} of images.")
    return exported


def main() -> None:
    """Train the classifier on CIFAR-10 and write it into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m colorizer.training.classifier", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="Write the classifier into this folder.")
    parser.add_argument("--epochs", type=int, default=24, help="Train for so many epochs (default 24).")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    chosen = parser.parse_args()
    try:
        dataset = load_dataset("cifar10")
        chosen.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        graph = train_classifier(dataset.train, dataset.validation, chosen.folder, chosen.epochs, chosen.precision)
        (chosen.folder / "classifier.onnx").write_bytes(graph)
        classifier = Classifier(graph)
        measured = {
            split: classifier.accuracy(dataset.split(split).images, dataset.split(split).labels)
            for split in ("validation", "test")
        }
        about = {"epochs": chosen.epochs, "precision": chosen.precision, "seconds": round(time.monotonic() - began)}
        write_json(chosen.folder / "classifier.json", about | {"accuracy": measured, "bytes": len(graph)})
        print(f"{chosen.folder / 'classifier.onnx'}: top-1 {measured['test']:.2%} on the test images")
    except (ColorizerError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
