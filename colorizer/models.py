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

INPUT_MEAN, INPUT_SCALE = 0.479, 0.25  # mean and about the standard deviation of CIFAR-10 luminance


def build_model(config: ModelConfig) -> "keras.Model":
    """Build an untrained model; set `keras.utils.set_random_seed` before for repeatable weights."""
    return MODELS[config.architecture](config)


def build_dense(config: ModelConfig) -> "keras.Model":
    """Fully connected autoencoder: 1,024 luminance values, `latent_dim` numbers, an image.

    With `linear_path`, encoder and decoder are each the sum of a linear layer and of hidden layers, if there are any,
    so that training can start from the best linear autoencoder.
    """
    from keras import Input, Model, layers

    luminance = Input((32, 32, 1), name="luminance")
    pixels = layers.Flatten()(luminance)
    if config.linear_path or config.input_components:  # centred: the mean is 0.48, the standard deviation 0.24
        pixels = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_MEAN / INPUT_SCALE, name="centre")(pixels)
    hidden = pixels
    if config.input_components:
        hidden = layers.Dense(config.input_components, trainable=False, name="input_components")(hidden)
    activation = config.activation if config.bottleneck_activation else "linear"
    latent = _linear_and_hidden(config, pixels, hidden, config.encoder_widths, config.latent_dim, activation, "encoder")

    channels = {"rgb": 3, "chroma": 2, "gray": 1}[config.target]
    width = config.output_components or 1024 * channels
    output = _linear_and_hidden(
        config, latent, latent, config.decoder_widths, width, config.output_activation, "decoder"
    )
    if config.output_components:
        output = layers.Dense(1024 * channels, name="output_components")(output)
    output = layers.Reshape((32, 32, channels))(output)
    if config.target == "chroma":
        output = _pass_luminance_through(luminance, output)
    return Model(luminance, output, name="dense")


def _linear_and_hidden(config: ModelConfig, start, hidden, widths, width: int, activation: str, name: str):
    """Map to `width` numbers by hidden layers, by a linear layer from `start`, or by the sum of both."""
    from keras import layers

    paths = []
    if config.linear_path:
        paths.append(layers.Dense(width, name=f"linear_{name}")(start))
    if widths or not config.linear_path:
        for hidden_width in widths:
            hidden = layers.Dense(hidden_width, config.activation)(hidden)
        paths.append(layers.Dense(width, activation, name=f"{name}_output")(hidden))
    return layers.Add()(paths) if len(paths) > 1 else paths[0]


def _pass_luminance_through(luminance, chroma):
    """Join the input's luminance and the predicted chroma (Cb, Cr), and turn them into RGB by a fixed matrix."""
    from keras import layers

    to_rgb = layers.Conv2D(3, 1, use_bias=False, trainable=False, name="ycbcr_to_rgb")
    rgb = to_rgb(layers.Concatenate()([luminance, chroma]))
    to_rgb.set_weights([YCBCR_TO_RGB[None, None]])
    return rgb


MODELS: dict[str, Callable[[ModelConfig], "keras.Model"]] = {"dense": build_dense}
