"""The backbone in Keras computes what its published weights mean, and its stem takes luminance."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from colorizer.training import backbone
from tests.training.torch_files import draw_weights


@pytest.fixture(scope="module")
def weights():
    return draw_weights()


@pytest.fixture(scope="module")
def build(weights):
    """Return a function that builds the encoder for a number of channels."""

    def build(channels):
        image = keras.Input((None, None, channels))
        model = keras.Model(image, backbone.encode(image))
        backbone.set_weights(model, weights)
        return model

    return build


@pytest.fixture(scope="module")
def colour_encoder(build):
    return build(3)


def _normalize(weights, name, features):
    """Normalize by the stored statistics, with the epsilon of the published network."""
    scale, shift, mean, variance = (
        weights[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
    )
    return (features - mean) / np.sqrt(variance + 1e-3) * scale + shift


def _convolve(weights, convolution, normalization, features, strides=1):
    kernel = weights[f"{convolution}.weight"]
    if kernel.shape[1] == 1 < features.shape[-1]:
        kernel = kernel.transpose(2, 3, 0, 1)
        features = tf.nn.depthwise_conv2d(features, kernel, [1, strides, strides, 1], "SAME")
    else:
        features = tf.nn.conv2d(features, kernel.transpose(2, 3, 1, 0), strides, "SAME")
    return _normalize(weights, normalization, features)


def _relu6(features):
    return tf.clip_by_value(features, 0, 6)


def _block(weights, number, features, strides=1):
    name, start = f"_blocks.{number}.", features
    if number:
        features = _relu6(_convolve(weights, f"{name}_expand_conv", f"{name}_bn0", features))
    features = _relu6(_convolve(weights, f"{name}_depthwise_conv", f"{name}_bn1", features, strides))
    features = _convolve(weights, f"{name}_project_conv", f"{name}_bn2", features)
    return features + start if features.shape == start.shape else features


def test_folded_convolutions_equal_convolutions_followed_by_normalization(weights, colour_encoder):
    """The blocks 0 to 2 have all that blocks can have: no expansion, a stride, and a shortcut."""
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3)).astype(np.float32)
    half, quarter, *_ = colour_encoder(images / 255)
    features = _relu6(_convolve(weights, "_conv_stem", "_bn0", (images - 127) / 128, 2))
    features = _block(weights, 0, features)
    np.testing.assert_allclose(half, features, rtol=1e-3, atol=1e-3)
    features = _block(weights, 2, _block(weights, 1, features, 2))
    np.testing.assert_allclose(quarter, features, rtol=1e-3, atol=1e-3)
    assert np.std(quarter) > 0.1


def test_features_lie_at_five_sizes(colour_encoder):
    shapes = [tuple(level.shape) for level in colour_encoder(np.zeros((1, 64, 96, 3), np.float32))]
    assert shapes == [(1, 32, 48, 16), (1, 16, 24, 24), (1, 8, 12, 40), (1, 4, 6, 112), (1, 2, 3, 320)]


def test_luminance_gives_the_same_as_three_equal_channels(build, colour_encoder):
    luminance = np.random.default_rng(1).random((2, 64, 64, 1), np.float32)
    ours, theirs = build(1)(luminance), colour_encoder(np.repeat(luminance, 3, axis=-1))
    for level, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(level, other, atol=1e-3 * np.abs(other).max())
        assert np.std(level) > 0.01


def test_the_classifiers_features_are_the_mean_of_each_channel_of_the_last_block(weights, colour_encoder):
    model = backbone.build_classifier_features(weights)
    images = np.random.default_rng(2).random((2, 64, 64, 3), np.float32)
    np.testing.assert_allclose(model(images), np.mean(colour_encoder(images)[-1], axis=(1, 2)), rtol=1e-3, atol=1e-3)
    assert model.output_shape == (None, 320)
