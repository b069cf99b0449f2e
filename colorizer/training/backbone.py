"""Builds EfficientNet-Lite0 in Keras, as a pretrained encoder.

The layers follow Tan and Le 2019 (EfficientNet, table 1) and the Lite variant: ReLU6, no squeeze-and-excitation, and a
stem and a head of fixed width. Batch normalization is folded into the convolutions, as its statistics stay fixed.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

from colorizer.training.efficientnet import STAGES, STEM_CHANNELS, Convolution, Weights, list_convolutions

INPUT_OFFSET, INPUT_SCALE = 127 / 255, 128 / 255  # The network expects (x - 127) / 128 for x in 0 to 255.
_NORMALIZATION_EPSILON = 1e-3


def encode(planes: Any, prefix: str = "backbone_") -> list[Any]:
    """Apply the backbone to a Keras tensor of the shape (N, H, W, 1 or 3) with values in [0, 1].

    Returns:
        its features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size, with 16, 24, 40, 112 and 320 channels.
    """

    def convolve(features, channels, kernel, name, strides=1, activate=True):
        features = layers.Conv2D(channels, kernel, strides=strides, padding="same", name=prefix + name)(features)
        return layers.ReLU(6)(features) if activate else features

    features = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_OFFSET / INPUT_SCALE)(planes)
    features = convolve(features, STEM_CHANNELS, 3, "stem", 2)
    levels, block = [], 0
    for kernel, stride, expansion, channels, repeats in STAGES:
        for repeat in range(repeats):
            strides = stride if repeat == 0 else 1
            if strides == 2:
                levels.append(features)
            start = features
            if expansion > 1:
                features = convolve(features, start.shape[-1] * expansion, 1, f"expand_{block}")
            depthwise = layers.DepthwiseConv2D(kernel, strides, "same", name=f"{prefix}depthwise_{block}")
            features = layers.ReLU(6)(depthwise(features))
            features = convolve(features, channels, 1, f"project_{block}", activate=False)
            if repeat:
                features = layers.Add()([start, features])
            block += 1
    return [*levels, features]


def build_classifier_features(weights: Weights) -> keras.Model:
    """Build the network up to its last block and average its channels: from RGB (N, H, W, 3) in [0, 1] to (N, 320)."""
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(encode(image)[-1]), name="efficientnet_lite0")
    set_weights(model, weights)
    return model


def set_weights(model: keras.Model, weights: Weights, prefix: str = "backbone_") -> None:
    """Set the weights of the layers that `encode` made, with the statistics of batch normalization folded in.

    Where the stem takes one channel, its kernel is the sum over the three of the original, which saw three equal ones.
    """
    named = {layer.name.removeprefix(prefix): layer for layer in model.layers if layer.name.startswith(prefix)}
    for part in list_convolutions():
        if layer := named.get(part.layer):  # No network here has the head.
            kernel, bias = _fold(part, weights)
            if part.layer == "stem" and layer.kernel.shape[2] == 1:
                kernel = kernel.sum(axis=2, keepdims=True)
            layer.set_weights([kernel, bias])


def _fold(part: Convolution, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel, as Keras orders it, and the bias of a convolution followed by its batch normalization."""
    scale, shift, mean, variance = (
        weights[f"{part.normalization}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / np.sqrt(variance + _NORMALIZATION_EPSILON)
    kernel = weights[f"{part.weights}.weight"] * scale[:, None, None, None]
    depthwise = part.layer.startswith("depthwise")
    return np.transpose(kernel, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)), shift - mean * scale
