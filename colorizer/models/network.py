"""Runs the network of a saved model. Outside of `training`, only this file and `library` import TensorFlow."""

import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_MAX_ENTROPY = 3.0  # A belief with this entropy in bits, or more, gets the whole boost.
_TINY = 1e-9  # It keeps the logarithm of a chance of zero finite.
_importing = threading.Lock()


def import_tensorflow_quietly() -> None:
    """Import TensorFlow, and hide the messages on missing GPUs that its C++ code writes straight to the terminal."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow

        tensorflow.config.list_logical_devices()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def limit_tensorflow() -> None:
    """Limit TensorFlow to one core, in a process that has not used it yet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def import_keras() -> None:
    """Import Keras and TensorFlow before a network is loaded, one thread at a time.

    Two threads that import at once can each find half of a module.
    """
    with _importing:
        _import_keras()


@functools.cache
def _import_keras() -> None:
    """Import Keras, and keep it from slowing down every page.

    After each run of a script, Streamlit collects garbage, which takes 0.4 s with TensorFlow's objects in the heap. It
    also clears the session of Keras, and with it the state of a model that another visitor's thread is just loading.
    """
    import keras

    keras.backend.clear_session = lambda free_memory=True: None
    gc.collect()
    gc.freeze()


class Network:
    """A Keras model compiled for inference; safe to call from several threads. The model itself is left as it was.

    A convolutional network runs on the images and on their mirror images, and the two predictions are averaged.

    Attributes:
        vivid: whether the network chooses among chroma bins.
        hints: whether the network takes hints.
    """

    def __init__(self, model: "keras.Model") -> None:
        import tensorflow as tf

        any_size = model.inputs[0].shape[1] is None
        self.vivid = any(layer.name == "logits" for layer in model.layers)
        self.hints = len(model.inputs) == 2
        self._constant = tf.constant
        if any_size:
            model = _with_dynamic_sizes(model)
        read, paint = split_at_logits(model) if self.vivid else (model, None)

        def predict(*planes: "tf.Tensor") -> "tf.Tensor":
            def run(planes: list["tf.Tensor"]) -> "tf.Tensor":
                return read(planes if self.hints else planes[0], training=False)

            if not any_size:
                return run(planes)
            return (run(planes) + run([plane[:, :, ::-1] for plane in planes])[:, :, ::-1]) / 2

        specs = [tf.TensorSpec(planes.shape, tf.float32) for planes in model.inputs]
        images = specs[0]
        # AutoGraph warns with Python 3.13, and nothing here needs it.
        compiled = functools.partial(tf.function, autograph=False)
        self._read, self._paint = compiled(predict).get_concrete_function(*specs), None
        if self.vivid:
            logits = tf.TensorSpec((None, None, None, self._read.output_shapes[-1]), tf.float32)
            number = tf.TensorSpec((), tf.float32)
            soften = compiled(lambda luminance, logits, heat, boost: paint(luminance, logits / heat, boost))
            self._paint = soften.get_concrete_function(images, logits, number, number)

    def __call__(
        self, luminance: np.ndarray, decodings: Sequence[tuple[float, float]], hints: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Return one batch of images, float32 (N, H, W, C), for each decoding; the network runs once.

        Args:
            luminance: float32 of shape (N, H, W, 1) in [0, 1].
            decodings: temperature and boost, see `Scale.decoding`; a network without chroma bins gives the same for
                each.
            hints: float32 of shape (N, H, W, 3), Cb, Cr and a mask that is 1 where they are given; None for no hints.
        """
        batch = self._constant(luminance)
        planes = [batch]
        if self.hints:
            planes.append(self._constant(np.zeros((*luminance.shape[:3], 3), np.float32) if hints is None else hints))
        answer = self._read(*planes)
        if self._paint is None:
            return [answer.numpy()] * len(decodings)
        return [self._paint(batch, answer, *map(self._constant, decoding)).numpy() for decoding in decodings]


def _with_dynamic_sizes(model: "keras.Model") -> "keras.Model":
    """Return a copy of a model whose layers that enlarge planes accept sizes known only at run time."""
    import keras
    import tensorflow as tf

    class Enlarge(keras.layers.Layer):
        def __init__(self, factor: int, method: str, name: str) -> None:
            super().__init__(name=name, dtype=dtypes[name])
            self.factor, self.method = factor, method

        def call(self, planes):
            return tf.image.resize(planes, self.factor * tf.shape(planes)[1:3], self.method)

        def compute_output_spec(self, planes):
            return keras.KerasTensor((planes.shape[0], None, None, planes.shape[-1]), planes.dtype)

    def copy(layer):
        if isinstance(layer, keras.layers.UpSampling2D):
            return Enlarge(layer.size[0], layer.interpolation, layer.name)
        return layer.__class__.from_config(layer.get_config())

    dtypes = {layer.name: layer.dtype_policy for layer in model.layers}
    twin = keras.models.clone_model(model, clone_function=copy)
    twin.set_weights(model.get_weights())
    return twin


def split_at_logits(model: "keras.Model") -> "tuple[keras.Model, Callable]":
    """Cut a model with chroma bins in two parts, which share its weights.

    Returns:
        a model from luminance (N, H, W, 1), and hints if it takes some, to logits (N, H / s, W / s, bins), and
        a function from luminance, logits and a boost to the image. The mean of a belief is pale where the network is
        unsure, since hues cancel. So chroma is multiplied by 1 + boost * min(entropy, 3) / 3 with the belief's entropy
        in bits; where the network is sure, chroma stays what it is.
    """
    import keras

    centres, enlarge, to_rgb = (model.get_layer(name) for name in ("bin_centres", "chroma", "ycbcr_to_rgb"))

    def paint(luminance, logits, boost=0.0):
        belief = keras.ops.softmax(logits)
        entropy = -keras.ops.sum(belief * keras.ops.log2(belief + _TINY), axis=-1, keepdims=True)
        chroma = centres(belief) * (1 + boost * keras.ops.minimum(entropy, _MAX_ENTROPY) / _MAX_ENTROPY)
        return to_rgb(keras.ops.concatenate([luminance, enlarge(chroma)], axis=-1))

    return keras.Model(model.inputs if len(model.inputs) > 1 else model.input, model.get_layer("logits").output), paint
