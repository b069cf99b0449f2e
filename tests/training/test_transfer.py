"""A training starts from another model: it takes over what fits, refuses what does not, and may freeze the encoder."""

import keras
import numpy as np
import pytest

from colorizer.config import ModelConfig
from colorizer.errors import ConfigError
from colorizer.models import library
from colorizer.pixels.color import to_luminance
from colorizer.presets import PRESETS
from colorizer.training.export import load_keras_model
from colorizer.training.loop import Batch, train
from colorizer.training.networks import build_model, copy_weights, find_encoder
from tests.training.checks import KilledError, kill_after, losses, mse

pytestmark = pytest.mark.slow  # These tests train or load whole networks.

CONFIGS = {
    "dense": ModelConfig(latent_dim=8, encoder_widths=(1024,), decoder_widths=(8, 8), linear_path=True),
    "dense-chroma": ModelConfig(
        latent_dim=4, target="chroma", encoder_widths=(8,), decoder_widths=(8,), input_components=16
    ),
    "conv": ModelConfig(architecture="conv", latent_dim=16),
    "unet": ModelConfig(architecture="unet", latent_dim=16, target="chroma", dropout=0.2),
    "unet-vivid": ModelConfig(architecture="unet", latent_dim=16, target="chroma", chroma_bins=16),
}
_SMALL = ModelConfig(latent_dim=4, encoder_widths=(8,), decoder_widths=(8,))
EVERY_ARCHITECTURE = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def _randomized(config, seed=1):
    """Return a model whose weights are all random, also those that statistics would set."""
    model = build_model(config)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 0.05, weight.shape) for weight in model.get_weights()])
    return model


def _saved(model, tmp_path):
    """Return the model as Keras reads it back from a file."""
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras", compile=False)


def _equal(layer, other):
    return all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), other.get_weights(), strict=True))


@EVERY_ARCHITECTURE
def test_a_training_starts_where_the_other_model_is(config, tiny, tiny_train, tmp_path):
    source = _randomized(config)
    settings = tiny_train.replace(epochs=0, init_from="other")
    result = train(config, settings, tiny, source=_saved(source, tmp_path))
    loss = mse(source, tiny.validation.images)
    assert result.history["val_loss"] == [pytest.approx(loss, rel=1e-4)]
    for one, other in zip(result.model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_shipped_model_saved_before_its_bottleneck_had_a_name_is_taken_over(tiny, tiny_train):
    entry = library.find_model("dense-chroma")
    source = load_keras_model(entry)
    result = train(PRESETS["dense-chroma"].model, tiny_train.replace(epochs=0), tiny, source=source)
    images = tiny.validation.images
    # The metric on the card is that of the clipped output.
    assert result.history["val_loss"][0] == pytest.approx(entry.metric("samples"), rel=0.02)
    np.testing.assert_allclose(result.model(to_luminance(images)), source(to_luminance(images)), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "other", "head"),
    [
        (_SMALL.replace(target="chroma"), _SMALL, ("decoder_output", "ycbcr_to_rgb")),
        (CONFIGS["unet-vivid"], CONFIGS["unet"], ("logits", "bin_centres", "ycbcr_to_rgb")),
    ],
    ids=["dense", "unet"],
)
def test_another_head_keeps_its_own_weights_and_takes_over_the_body(config, other, head, tmp_path):
    source, model = _randomized(other), build_model(config)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    copy_weights(model, _saved(source, tmp_path))
    layers, others = ([layer for layer in network.layers if layer.weights] for network in (model, source))
    body = layers[: -len(head)]
    assert [_equal(*pair) for pair in zip(body, others, strict=False)] == [True] * len(body)
    assert [layer.name for layer in layers[len(body) :]] == list(head)
    for name in head:
        for weight, untouched in zip(model.get_layer(name).get_weights(), before[name], strict=True):
            np.testing.assert_array_equal(weight, untouched)


@pytest.mark.parametrize("other", ["dense", "conv", "unet"])
def test_weights_of_another_encoder_are_refused(other):
    model = build_model(_SMALL)
    with pytest.raises(ConfigError, match=r"encoder .* does not fit: .* the shapes .*, received .* Give both the same"):
        copy_weights(model, build_model(CONFIGS[other]))


@EVERY_ARCHITECTURE
def test_a_frozen_encoder_stays_bit_for_bit_and_the_rest_learns(config, tiny, tiny_train):
    source = _randomized(config)
    settings = tiny_train.replace(epochs=1, weight_decay=0.1, init_from="other")
    frozen = train(config, settings.replace(freeze_encoder=True), tiny, source=source).model
    encoder = {layer.name for layer in find_encoder(frozen)}
    assert "bottleneck" in encoder
    pairs = [pair for pair in zip(frozen.layers, source.layers, strict=True) if pair[0].weights]
    kept = [_equal(layer, other) for layer, other in pairs]
    fixed = ("input_components", "bin_centres", "ycbcr_to_rgb")
    assert kept == [layer.name in encoder or layer.name in fixed for layer, _ in pairs]
    assert not all(kept)
    assert any(kept)
    whole = train(config, settings, tiny, source=source).model
    changed = [not _equal(layer, other) for layer, other in zip(whole.layers, source.layers, strict=True)]
    assert sum(changed) == len([pair for pair in pairs if pair[0].name not in fixed])


def test_a_frozen_encoder_stays_in_bfloat16_too(tiny, tiny_train):
    source = _randomized(CONFIGS["unet"])
    settings = tiny_train.replace(epochs=1, precision="bfloat16", init_from="other", freeze_encoder=True)
    model = train(CONFIGS["unet"], settings, tiny, source=source).model
    encoder = {layer.name for layer in find_encoder(model)}
    for layer, other in zip(model.layers, source.layers, strict=True):
        if layer.weights and layer.name != "ycbcr_to_rgb":
            assert _equal(layer, other) == (layer.name in encoder)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, tiny_model, tiny_train, tmp_path, freeze):
    settings = tiny_train.replace(epochs=3, weight_decay=0.1, init_from="other", freeze_encoder=freeze)
    source, checkpoint = _randomized(tiny_model), tmp_path / "run.npz"

    with pytest.raises(KilledError):
        train(tiny_model, settings, tiny, kill_after(1), checkpoint=checkpoint, source=source)
    batches = []
    resumed = train(tiny_model, settings, tiny, batches.append, checkpoint=checkpoint, source=source)
    whole = train(tiny_model, settings, tiny, source=source)
    assert next(event.step for event in batches if isinstance(event, Batch)) == 5
    assert losses(resumed.history) == losses(whole.history)
    for one, other in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
