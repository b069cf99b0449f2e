"""Exports a network to ONNX, the format of the graph that `models.network` runs and that runs anywhere.

docs/models.md describes the inputs and outputs of such a graph. `python -m colorizer.training.export FOLDER` exports
a model that was saved by an earlier version.
"""

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf

from colorizer.data.datasets import load_samples
from colorizer.errors import ColorizerError, ModelError, TrainingError
from colorizer.models import library
from colorizer.models.compact import halve_graph
from colorizer.models.network import ARCHITECTURE, BINS, EXPORT_REFUSED, Network
from colorizer.models.scale import DEFAULT_VIVIDNESS, MAX_ENTROPY, SCALES
from colorizer.pixels.color import to_luminance
from colorizer.training.step import split_at_logits

_OPSET = 18
_LARGEST_DIFFERENCE = 2e-5  # An exported graph may differ from Keras by this much on the built-in samples.


def export_network(model: keras.Model) -> bytes:
    """Return a network as an ONNX file, which has been checked against Keras; the model is left as it was.

    A network that takes any size runs on the images and on their mirror images, and the two predictions are averaged.
    The mean of a belief is pale where the network is unsure, since hues cancel. So the chroma of a `backbone` is
    multiplied by 1 + boost * min(entropy, 3) / 3 with the belief's entropy in bits.

    Args:
        model: a model that `networks.build_model` built.

    Raises:
        TrainingError: the predictions of the graph for the built-in samples differ from those of Keras.
    """
    import tf2onnx  # This import is slow.

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    predict, specs = _build_graph(model)
    graph, _ = tf2onnx.convert.from_function(tf.function(predict, autograph=False), specs, opset=_OPSET)
    graph.producer_name, graph.producer_version = "colorizer", ""
    properties = {ARCHITECTURE: model.name}
    usual = SCALES[model.name].decoding(DEFAULT_VIVIDNESS)
    defaults = {name: np.float32([value]) for name, value in zip(("temperature", "boost"), usual, strict=True)}
    if any(layer.name == "logits" for layer in model.layers):
        bins = _bins(model)
        defaults["prior"], properties[BINS] = np.zeros(len(bins), np.float32), json.dumps(bins.tolist())
    for value in graph.graph.input:
        if value.name in defaults:  # An initializer of the same name is the default of an input.
            graph.graph.initializer.append(onnx.numpy_helper.from_array(defaults[value.name], value.name))
    for value in [*graph.graph.input, *graph.graph.output]:
        _name_axes(value)
    onnx.helper.set_model_props(graph, properties)
    for node in graph.graph.node:
        _mend_resize(node)
    exported = halve_graph(graph.SerializeToString(), rounded=False)
    check_graph(exported, model)
    return exported


def _build_graph(model: keras.Model) -> tuple[Callable[..., dict[str, tf.Tensor]], list[tf.TensorSpec]]:
    """Return the function that is exported, from the inputs to a dict of outputs, and what its inputs are."""
    model = _with_exportable_layers(model)
    any_size = model.inputs[0].shape[1] is None
    vivid, boosted = any(layer.name == "logits" for layer in model.layers), SCALES[model.name].boost > 0
    network, hints = split_at_logits(model)[0] if vivid else model, len(model.inputs) > 1
    named = zip(model.inputs, ("luminance", "hints"), strict=False)
    specs = [tf.TensorSpec(planes.shape, tf.float32, name) for planes, name in named]

    def run(*planes: tf.Tensor) -> tf.Tensor:
        if not any_size:
            return network(planes[0], training=False)
        both = [tf.concat([plane, plane[:, :, ::-1]], axis=0) for plane in planes]
        answer, mirrored = tf.split(network(both if hints else both[0], training=False), 2)
        return (answer + mirrored[:, :, ::-1]) / 2

    if not vivid:
        return lambda luminance: {"image": run(luminance)}, specs

    centres, to_rgb = _bins(model), model.get_layer("ycbcr_to_rgb").get_weights()[0][0, 0]
    levels = [tf.TensorSpec((None,), tf.float32, name) for name in ("temperature", "boost")[: 1 + boosted]]
    prior = tf.TensorSpec((len(centres),), tf.float32, "prior")

    def paint(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        planes, levels = inputs[: len(specs)], [level[:, None, None, None, None] for level in inputs[len(specs) : -1]]
        logits = run(*planes) + inputs[-1]
        softened = logits / levels[0]
        belief = tf.nn.softmax(softened)
        chroma = tf.linalg.matmul(belief, centres)
        if boosted:
            chroma *= 1 + levels[1] * tf.minimum(_entropy(belief, softened), MAX_ENTROPY) / MAX_ENTROPY
        luminance, shape = planes[0], tf.shape(chroma)
        chroma = tf.image.resize(tf.reshape(chroma, (-1, shape[2], shape[3], 2)), tf.shape(luminance)[1:3])
        chroma = tf.reshape(chroma, tf.concat([shape[:2], tf.shape(chroma)[1:]], axis=0))
        return {"image": luminance + tf.linalg.matmul(chroma, to_rgb[1:]), "logits": logits}

    return paint, [*specs, *levels, prior]


def _bins(model: keras.Model) -> np.ndarray:
    """Return the chroma bins of a network, float32 (bins, 2)."""
    return model.get_layer("bin_centres").get_weights()[0][0, 0]


def _entropy(belief: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the entropy in bits of beliefs (..., bins) with such logits, of shape (..., 1).

    It is log(sum(exp(logits))) - sum(belief * logits), and the first logarithm is max(logits) - log(max(belief)).
    """
    normalizer = tf.reduce_max(logits, -1, keepdims=True) - tf.math.log(tf.reduce_max(belief, -1, keepdims=True))
    return (normalizer - tf.reduce_sum(belief * logits, -1, keepdims=True)) / math.log(2)


def _with_exportable_layers(model: keras.Model) -> keras.Model:
    """Return a copy of a model in which layers that ONNX cannot express are replaced."""

    class Enlarge(keras.layers.Layer):
        """Enlarges planes whose size is known only at run time."""

        def __init__(self, factor: int, method: str, **options) -> None:
            super().__init__(**options)
            self.factor, self.method = factor, method

        def call(self, planes):
            return tf.image.resize(planes, self.factor * tf.shape(planes)[1:3], self.method)

        def compute_output_spec(self, planes):
            return keras.KerasTensor((planes.shape[0], None, None, planes.shape[-1]), planes.dtype)

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.UpSampling2D) and layer.input.shape[1] is None:
            return Enlarge(layer.size[0], layer.interpolation, name=layer.name, dtype=layer.dtype_policy)
        if settings.get("activation") == "gelu":
            settings["activation"] = _gelu
        return type(layer).from_config(settings)

    twin = keras.models.clone_model(model, clone_function=copy)
    twin.set_weights(model.get_weights())
    return twin


def _gelu(values: tf.Tensor) -> tf.Tensor:
    """Return Keras's gelu, which is computed by erf, since ONNX has no erfc."""
    return 0.5 * values * (1 + tf.math.erf(values / math.sqrt(2)))


def _mend_resize(node: onnx.NodeProto) -> None:
    """Enlarge by whole factors in the way that ONNX still knows; tf2onnx names the one of TensorFlow."""
    for attribute in node.attribute:
        if node.op_type == "Resize" and attribute.s == b"tf_half_pixel_for_nn":
            attribute.s = b"asymmetric"


def _name_axes(value: onnx.ValueInfoProto) -> None:
    """Give the axes of an input or output that have any length a name."""
    axes = value.type.tensor_type.shape.dim
    names = ["levels"] * (len(axes) in (1, 5)) + ["images", "height", "width"] * (len(axes) > 1)
    for axis, name in zip(axes, names, strict=False):
        if not axis.HasField("dim_value"):
            axis.dim_param = f"logits_{name}" if value.name == "logits" and name != "images" else name


def check_graph(exported: bytes, model: keras.Model) -> None:
    """Raise `TrainingError` unless a graph predicts what its Keras model predicts for the built-in samples."""
    luminance = to_luminance(load_samples().images)
    if model.name == "backbone":
        luminance = luminance.repeat(2, axis=1).repeat(2, axis=2)
    network = Network(exported)
    hints = np.zeros((*luminance.shape[:3], 3), np.float32)
    read, paint = split_at_logits(model) if network.vivid else (model, lambda luminance, answer: answer)

    def run(luminance: np.ndarray) -> np.ndarray:
        return np.asarray(read([luminance, hints] if network.hints else luminance, training=False))

    wanted = run(luminance)
    if model.inputs[0].shape[1] is None:
        mirrored = run(luminance[:, :, ::-1])
        wanted = (wanted + mirrored[:, :, ::-1]) / 2
    difference = np.abs(network(luminance, [(1.0, 0.0)])[0] - np.asarray(paint(luminance, wanted))).max()
    if not difference <= _LARGEST_DIFFERENCE:
        raise TrainingError(
            f"The exported network differs from the trained one by {difference:.1g} on the built-in samples, and at "
            f"most {_LARGEST_DIFFERENCE:g} is right. Train it again with smaller weights, by a lower learning rate."
        )


def load_keras_model(entry: library.ModelEntry) -> keras.Model:
    """Load the Keras model of a library entry in Keras's safe mode.

    Raises:
        ModelError: the file is not the one that was saved, Keras refuses it, or it does not match its card.
    """
    path, advice = entry.path / "model.keras", library.what_to_do(entry)
    if not path.exists():
        raise ModelError(f"{entry.name} has no model.keras here, from which a training could start. {advice}")
    library.read_network(entry, path.name)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds on files that are not its own.
        reason = library.describe_error(error).replace(str(path), path.name).replace(str(path.parent), entry.name)
        raise ModelError(f"The model {entry.name} cannot be loaded: {reason}. {advice}") from error
    channels = [planes.shape[-1] for planes in model.inputs] if isinstance(model, keras.Model) else []
    if channels not in ([1], [1, 3]) or model.output_shape[-1] not in (1, 3):
        raise ModelError(f"model.keras of {entry.name} does not turn luminance into an image. {advice}")
    found = any(layer.name == "logits" for layer in model.layers), model.inputs[0].shape[1] is None, len(channels) == 2
    if found != (entry.vivid, entry.any_size, entry.model_config.hints):
        raise ModelError(f"model.keras of {entry.name} is not what its card describes. {advice}")
    return model


def main() -> None:
    """Export the model in the folder that the command line names, and put `model.onnx` beside it."""
    try:
        entry = library.find_model(Path(sys.argv[1]))
        library.add_graph(entry, export_network(load_keras_model(entry)))
    except ColorizerError as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXPORT_REFUSED)


if __name__ == "__main__":
    main()
