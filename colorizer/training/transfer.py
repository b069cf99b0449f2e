"""Transfer: a model starts from the weights of another, and may keep that one's encoder as it is."""

import itertools
from typing import TYPE_CHECKING

from colorizer.config import ModelConfig
from colorizer.errors import ConfigError

if TYPE_CHECKING:
    import keras

_ENCODER_SETTINGS = (
    "architecture",
    "latent_dim",
    "encoder_widths",
    "activation",
    "bottleneck_activation",
    "linear_path",
    "input_components",
)


def check_encoders(config: ModelConfig, source: ModelConfig, name: str) -> None:
    """Raise `ConfigError` if a model of `config` has another encoder than the model called `name`, of `source`."""
    for setting in _ENCODER_SETTINGS:
        wanted, received = getattr(source, setting), getattr(config, setting)
        if wanted != received:
            raise ConfigError(
                f"The encoder of {name} does not fit: its {setting} is {wanted}, the new model's is {received}. "
                "Set it alike, or start from another model."
            )


def copy_weights(model: "keras.Model", source: "keras.Model") -> None:
    """Copy the weights of `source` into `model`, layer by layer, where their shapes agree.

    Layers with weights are matched by their order, since those of a saved model have names of their own. The encoder
    must agree entirely; behind it, another head keeps its own weights.

    Raises:
        ConfigError: the encoders differ.
    """
    encoder = find_encoder(model)
    layers, others = ([layer for layer in network.layers if layer.weights] for network in (model, source))
    for layer, other in itertools.zip_longest(layers, others[: len(layers)]):
        wanted, received = ([tuple(w.shape) for w in one.weights] if one else "none" for one in (layer, other))
        if wanted == received:
            layer.set_weights(other.get_weights())
        elif layer in encoder:
            raise ConfigError(
                f"The encoder of the model to start from does not fit: the new model's layer {layer.name} has weights "
                f"of the shapes {wanted}, received {received}. Give both the same architecture, latent_dim and widths."
            )


def find_encoder(model: "keras.Model") -> list["keras.Layer"]:
    """The layers of a model of `networks.build_model` up to and including its bottleneck."""
    import keras

    return keras.Model(model.input, model.get_layer("bottleneck").output).layers
