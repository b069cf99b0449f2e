"""One small builder per architecture, and the registry MODELS.

Every model maps luminance, float32 (N, 32, 32, 1) in [0, 1], to an image: sRGB (N, 32, 32, 3), or for the
target `gray` luminance (N, 32, 32, 1). Only standard Keras layers are used, so a saved model loads anywhere.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from colorizer.color import YCBCR_TO_RGB
from colorizer.config import ModelConfig

if TYPE_CHECKING:
    import keras

_CHANNELS = {"rgb": 3, "chroma": 2, "gray": 1}


def build_model(config: ModelConfig) -> "keras.Model":
    """Build an untrained model; set `keras.utils.set_random_seed` before for repeatable weights."""
    return MODELS[config.architecture](config)


def build_dense(config: ModelConfig) -> "keras.Model":
    """Fully connected autoencoder: 1,024 luminance values, `latent_dim` numbers, an image."""
    from keras import Input, Model, layers

    luminance = Input((32, 32, 1), name="luminance")
    flat = layers.Flatten()(luminance)
    if config.linear_path:  # centre the input: its mean is 0.48, its standard deviation 0.24
        flat = layers.Rescaling(4.0, offset=-2.0, name="centre")(flat)

    hidden = flat
    for width in config.encoder_widths:
        hidden = layers.Dense(width, config.activation)(hidden)
        if config.dropout:
            hidden = layers.Dropout(config.dropout)(hidden)
    paths = []
    if config.encoder_widths or not config.linear_path:
        activation = config.activation if config.bottleneck_activation else "linear"
        paths.append(layers.Dense(config.latent_dim, activation, name="encoder_output")(hidden))
    if config.linear_path:
        paths.append(layers.Dense(config.latent_dim, name="linear_encoder")(flat))
    latent = layers.Add(name="bottleneck")(paths) if len(paths) > 1 else paths[0]

    channels = _CHANNELS[config.target]
    hidden = latent
    for width in config.decoder_widths:
        hidden = layers.Dense(width, config.activation)(hidden)
        if config.dropout:
            hidden = layers.Dropout(config.dropout)(hidden)
    paths = []
    if config.decoder_widths or not config.linear_path:
        paths.append(layers.Dense(1024 * channels, config.output_activation, name="decoder_output")(hidden))
    if config.linear_path:
        paths.append(layers.Dense(1024 * channels, name="linear_decoder")(latent))
    output = layers.Add()(paths) if len(paths) > 1 else paths[0]
    output = layers.Reshape((32, 32, channels))(output)
    if config.target == "chroma":
        output = _pass_luminance_through(luminance, output)
    return Model(luminance, output, name="dense")


def _pass_luminance_through(luminance, chroma):
    """Join the input's luminance and the predicted chroma (Cb, Cr), and turn them into RGB by a fixed matrix."""
    from keras import layers

    to_rgb = layers.Conv2D(3, 1, use_bias=False, trainable=False, name="ycbcr_to_rgb")
    rgb = to_rgb(layers.Concatenate()([luminance, chroma]))
    to_rgb.set_weights([YCBCR_TO_RGB[None, None]])
    return rgb


MODELS: dict[str, Callable[[ModelConfig], "keras.Model"]] = {"dense": build_dense}
