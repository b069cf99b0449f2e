"""A training starts from known weights: the closed form, principal components, a warm start beside hidden layers."""

import keras
import numpy as np
import pytest

from colorizer.config import ModelConfig
from colorizer.data import datasets
from colorizer.models import linear
from colorizer.pixels.color import LUMINANCE_WEIGHTS, to_luminance
from colorizer.training.loop import train
from tests.training.checks import mse

pytestmark = pytest.mark.slow  # These tests decompose the statistics of whole images.


@pytest.mark.parametrize("target", ["rgb", "chroma", "gray"])
@pytest.mark.parametrize("widths", [(), (8,)], ids=["linear", "dense"])
def test_zero_epochs_give_the_closed_form(samples, tiny_train, target, widths):
    config = ModelConfig(latent_dim=24, target=target, linear_path=True, encoder_widths=widths, decoder_widths=widths)
    result = train(config, tiny_train.replace(epochs=0), datasets.load_dataset("samples"))
    luminance = to_luminance(samples.images)
    statistics = datasets.load_statistics()
    solution = linear.solve(statistics.mean, statistics.factors, target)
    expected = solution.decode(solution.encode(luminance, 24))
    if target == "chroma":
        red, blue = luminance + 1.402 * expected[..., 1:], luminance + 1.772 * expected[..., :1]
        green = (luminance - LUMINANCE_WEIGHTS[0] * red - LUMINANCE_WEIGHTS[2] * blue) / LUMINANCE_WEIGHTS[1]
        expected = np.concatenate([red, green, blue], axis=-1)
    np.testing.assert_allclose(np.asarray(result.model(luminance)), expected, atol=2e-4)
    assert result.history["epoch"] == [0]
    assert result.history["val_loss"] == [pytest.approx(mse(result.model, samples.images, target), rel=1e-4)]
    assert result.history["batch_loss"] == []
    assert [snapshot.epochs for snapshot in result.snapshots] == [0]


def test_zero_epochs_through_all_components_give_the_closed_form(samples, tiny_train):
    config = ModelConfig(latent_dim=24, linear_path=True, encoder_widths=(), decoder_widths=(8,), output_components=512)
    model = train(config, tiny_train.replace(epochs=0), datasets.load_dataset("samples")).model
    solution = linear.solve(datasets.load_statistics().mean, datasets.load_statistics().factors)
    luminance = to_luminance(samples.images)
    expected = solution.decode(solution.encode(luminance, 24))
    np.testing.assert_allclose(np.asarray(model(luminance)), expected, atol=2e-4)


def test_input_components_are_uncorrelated_and_stay_as_they_are(tiny, tiny_train):
    config = ModelConfig(latent_dim=4, encoder_widths=(8,), decoder_widths=(8,), input_components=16, target="chroma")
    model = train(config, tiny_train, tiny).model
    untrained = train(config, tiny_train.replace(epochs=0), tiny).model
    for one, other in zip(*(m.get_layer("input_components").get_weights() for m in (model, untrained)), strict=True):
        np.testing.assert_array_equal(one, other)
    components = keras.Model(model.input, model.get_layer("input_components").output)
    values = np.asarray(components(to_luminance(datasets.draw_synthetic(4000, seed=1))))
    correlation = np.corrcoef(values.T) - np.eye(16)
    assert np.abs(correlation).max() < 0.1
    assert (np.diff(values.std(axis=0)) < 0.05).all()  # The strongest component comes first.


def test_the_warm_start_beside_hidden_layers_still_learns(tiny, tiny_train):
    config = ModelConfig(latent_dim=8, encoder_widths=(8,), decoder_widths=(8,), activation="gelu", linear_path=True)
    start = train(config, tiny_train.replace(epochs=0), tiny).model.get_weights()
    end = train(config, tiny_train, tiny).model.get_weights()
    layers = [weight.shape for weight, other in zip(start, end, strict=True) if (weight == other).all()]
    assert layers == []  # No layer is stuck at zero.
