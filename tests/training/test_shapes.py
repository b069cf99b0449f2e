"""Numbers of parameters and operations are those of the networks that Keras builds, and other encoders are named."""

import keras
import numpy as np
import pytest

from colorizer.config import ModelConfig
from colorizer.errors import ConfigError
from colorizer.presets import PRESETS
from colorizer.training.networks import build_model
from colorizer.training.shapes import check_encoders, count

CONFIGS = {preset.name: preset.model for preset in PRESETS.values()} | {
    "gray": ModelConfig(target="gray", latent_dim=512),
    "no hidden layers": ModelConfig(encoder_widths=(), decoder_widths=()),
    "linear path beside hidden layers": ModelConfig(linear_path=True, encoder_widths=(9, 7), decoder_widths=(5,)),
    "components at both ends": ModelConfig(linear_path=True, input_components=40, output_components=50),
    "components of a linear model": ModelConfig(linear_path=True, decoder_widths=(), output_components=50),
    "components of chroma": ModelConfig(target="chroma", input_components=40, encoder_widths=()),
    "linear chroma": ModelConfig(target="chroma", linear_path=True, encoder_widths=(), decoder_widths=()),
    "small unet": PRESETS["unet"].model.replace(latent_dim=16),
    "smallest unet with bins": PRESETS["unet"].model.replace(latent_dim=4, chroma_bins=7),
    "unet that takes no hints": PRESETS["unet-vivid"].model.replace(hints=False),
    "small conv": PRESETS["conv"].model.replace(latent_dim=32),
    "smallest conv": PRESETS["conv"].model.replace(latent_dim=16),
    "backbone without hints": PRESETS["colorist"].model.replace(hints=False),
    "small backbone": PRESETS["colorist"].model.replace(latent_dim=16, chroma_bins=9),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_are_those_of_the_network(config):
    assert count(config)[0] == build_model(config).count_params()


def test_operations_of_a_dense_network_are_two_for_each_weight():
    config = ModelConfig(encoder_widths=(), decoder_widths=(), latent_dim=32)
    assert count(config)[1] == 2 * (1024 * 32 + 32 * 3072)


@pytest.mark.parametrize("hints", [False, True])
def test_operations_of_a_backbone_are_those_of_its_layers_at_64_pixels(hints):
    config = PRESETS["colorist"].model.replace(hints=hints)
    model = build_model(config)
    kinds = keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense
    layers = [layer for layer in model.layers if isinstance(layer, kinds)]
    inputs = [np.zeros((1, 64, 64, channels), np.float32) for channels in (1, 3)[: len(model.inputs)]]
    outputs = keras.Model(model.inputs, [layer.output for layer in layers])(inputs)
    places = [np.prod(output.shape[1:-1]) for output in outputs]
    operations = sum(2 * np.prod(layer.kernel.shape) * num for layer, num in zip(layers, places, strict=True))
    for name, num in ("hints_attention_16", 16), ("hints_attention_8", 64):
        if hints:  # Queries are asked at each place of the level, and keys and values lie at 1/16 of the size.
            parts = {part.path.split("/")[1]: np.prod(part.shape) for part in model.get_layer(name).weights[::2]}
            places = {"query": num, "key": 16, "value": 16, "attention_output": num}
            operations += sum(2 * parts[part] * number for part, number in places.items())
    assert count(config)[1] == operations


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latent_dim": 8}, "its latent_dim is 8, that of the new model is 4"),
        ({"encoder_widths": (8, 4)}, r"its encoder_widths is \(8, 4\), that of the new model is \(8,\)"),
        ({"activation": "gelu"}, "its activation is gelu, that of the new model is relu"),
        ({"input_components": 8}, "its input_components is 8, that of the new model is 0"),
    ],
)
def test_other_settings_of_the_encoder_are_told(change, told):
    config = ModelConfig(latent_dim=4, encoder_widths=(8,))
    check_encoders(config, config.replace(decoder_widths=(3,), target="chroma"), "other")
    with pytest.raises(ConfigError, match=f"The encoder of other does not fit: {told}. Set both to the same"):
        check_encoders(config, config.replace(**change), "other")
