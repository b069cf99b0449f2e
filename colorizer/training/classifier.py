"""Trains the classifier that tells whether the images of a model are easier to recognise than gray ones.

It is a small residual network (He et al. 2016) and learns from CIFAR-10's own colours. Its graph takes RGB images.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from colorizer.data.datasets import Split
from colorizer.models.compact import halve_graph

_WIDTHS = (64, 128, 192)  # The channels at 16, 8 and 4 pixels.
_BATCH_SIZE = 128
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 0.1, 0.9, 5e-4
_LABEL_SMOOTHING = 0.1
_SHIFT, _HOLE = 4, 8  # Each training image is shifted by up to 4 pixels, and loses a square of 8 x 8.
_OPSET = 18


def train_classifier(
    train: Split,
    validation: Split,
    epochs: int,
    seed: int,
    checkpoint: Path,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, accuracy: None,
) -> bytes:
    """Train a classifier of ten classes and return it as an ONNX file with float16 weights.

    Its input `images` is float32 (N, 32, 32, 3), RGB in [0, 1], and its output `logits` is float32 (N, 10).

    Args:
        train: images and labels to learn from.
        validation: images and labels whose accuracy `on_epoch` gets; nothing is chosen by it.
        epochs: how often each image is seen.
        seed: it makes the result repeatable on the same machine.
        checkpoint: folder that keeps the training's state; a training that was killed goes on from its last epoch.
        on_epoch: called with the number of epochs done, the mean loss of the last one, and the accuracy.
    """
    keras.utils.set_random_seed(seed)
    model = _build()
    steps = len(train.images) // _BATCH_SIZE
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, (epochs - 2) * steps), warmup_target=_LEARNING_RATE, warmup_steps=2 * steps
    )
    model.compile(
        keras.optimizers.SGD(schedule, _MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=_LABEL_SMOOTHING),
        metrics=["accuracy"],
    )
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, logs["loss"], logs["val_accuracy"])
    )
    model.fit(
        _draw_batches(train, seed),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=(_to_float(validation.images), _one_hot(validation.labels)),
        validation_batch_size=500,
        callbacks=[keras.callbacks.BackupAndRestore(str(checkpoint)), report],
        shuffle=False,  # The batches are shuffled already.
        verbose=0,
    )
    return _export(model)


def _build() -> keras.Model:
    layers = keras.layers

    def convolve(features, channels: int, strides: int = 1):
        features = layers.Conv2D(channels, 3, strides, "same", use_bias=False, kernel_initializer="he_normal")(features)
        return layers.Activation("relu")(layers.BatchNormalization()(features))

    inputs = layers.Input((32, 32, 3), name="images")
    features = convolve(layers.Rescaling(4.0, -2.0)(inputs), 32)
    for channels in _WIDTHS:
        features = convolve(features, channels, 2)
        features = layers.Add()([features, convolve(convolve(features, channels), channels)])
    features = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(features))
    return keras.Model(inputs, layers.Dense(10)(features))


def _draw_batches(split: Split, seed: int) -> tf.data.Dataset:
    """Return endless batches of augmented images and labels."""

    def augment(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        padded = tf.pad(image, [[_SHIFT, _SHIFT], [_SHIFT, _SHIFT], [0, 0]], "REFLECT")
        image = tf.image.random_flip_left_right(tf.image.random_crop(padded, (32, 32, 3)))
        start = tf.random.uniform((2, 1), -_HOLE // 2, 32 - _HOLE // 2, tf.int32)
        rows, columns = tf.unstack((tf.range(32) >= start) & (tf.range(32) < start + _HOLE))
        hole = (rows[:, None] & columns[None, :])[..., None]
        return tf.where(hole, 0.5, tf.cast(image, tf.float32) / 255), label

    images = tf.data.Dataset.from_tensor_slices((np.asarray(split.images), _one_hot(split.labels)))
    images = images.shuffle(len(split.images), seed).repeat().map(augment, tf.data.AUTOTUNE)
    return images.batch(_BATCH_SIZE, drop_remainder=True).prefetch(2)


def _to_float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[labels]


def _export(model: keras.Model) -> bytes:
    import tf2onnx  # This import is slow.

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    spec = tf.TensorSpec((None, 32, 32, 3), tf.float32, "images")
    run = tf.function(lambda images: {"logits": model(images, training=False)}, autograph=False)
    graph, _ = tf2onnx.convert.from_function(run, [spec], opset=_OPSET)
    return halve_graph(graph.SerializeToString(), rounded=True)
