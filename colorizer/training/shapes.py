"""Counts the parameters and operations of networks without TensorFlow, and checks whether two encoders are alike."""

from collections.abc import Iterator

from colorizer.config import ModelConfig
from colorizer.errors import ConfigError
from colorizer.training.efficientnet import list_convolutions

NUM_BLOCKS = (1, 1, 2)  # A convolutional encoder has this many residual blocks at 1/2, 1/4, 1/8 of the input's size.
_CONV_WIDTHS = (48, 96, 160)
_BACKBONE_CHANNELS = (24, 40, 112, 320)  # The decoder joins features with so many channels at 1/4 to 1/32 of the size.
_HINT_CHANNELS = 6  # Cells of hints have the largest and smallest chroma, and two channels of the mask.
ATTENTION_HEADS, ATTENTION_DIM, ATTENTION_VALUES = 2, 32, 16  # The sizes of the attention that spreads hints.
_BACKBONE_SIDE = 64  # A backbone sees CIFAR-10 images at this height and width.
_ENCODER_SETTINGS = (
    "architecture",
    "latent_dim",
    "encoder_widths",
    "activation",
    "bottleneck_activation",
    "linear_path",
    "input_components",
)

# A layer is described by four counts: inputs, outputs, biases, and places at which its kernel is applied.
Layer = tuple[int, int, int, int]


def level_widths(config: ModelConfig) -> tuple[int, int, int]:
    """Return the numbers of channels of a `conv` or `unet` at 1/2, 1/4 and 1/8 of the input's size."""
    dim = config.latent_dim
    return (dim // 4, dim // 2, dim) if config.architecture == "unet" else _CONV_WIDTHS


def decoder_widths(config: ModelConfig) -> tuple[int, int, int, int]:
    """Return the numbers of channels of a `backbone`'s decoder at 1/32, 1/16, 1/8 and 1/4 of the input's size."""
    dim = config.latent_dim
    return dim, dim * 3 // 4, dim // 2, dim * 3 // 8


def num_channels(config: ModelConfig) -> int:
    """Return how many channels the network predicts."""
    return {"rgb": 3, "chroma": 2, "gray": 1}[config.target]


def count(config: ModelConfig) -> tuple[int, int]:
    """Return how many parameters a model has and how many operations a CIFAR-10 image takes, without building it.

    The image has 32 x 32 pixels; a `backbone` sees it enlarged to 64 x 64. Counted are the operations with weights.
    """
    makers = {"dense": _dense, "conv": _convolutions, "unet": _convolutions, "backbone": _backbone}
    layers = [*makers[config.architecture](config)]
    if config.target == "chroma":  # This layer turns luminance and chroma into RGB.
        layers.append((3, 3, 0, _BACKBONE_SIDE**2 if config.architecture == "backbone" else 1024))
    parameters = sum(inputs * outputs + biases for inputs, outputs, biases, _ in layers)
    return parameters, sum(2 * inputs * outputs * places for inputs, outputs, _, places in layers)


def check_encoders(config: ModelConfig, source: ModelConfig, name: str) -> None:
    """Raise `ConfigError` if `config` and `source`, the settings of the model `name`, have different encoders."""
    for setting in _ENCODER_SETTINGS:
        wanted, received = getattr(source, setting), getattr(config, setting)
        if wanted != received:
            raise ConfigError(
                f"The encoder of {name} does not fit: its {setting} is {wanted}, that of the new model is {received}. "
                "Set both to the same value, or start from another model."
            )


def _dense(config: ModelConfig) -> Iterator[Layer]:
    first = config.input_components or 1024
    if config.input_components:
        yield 1024, first, first, 1
    pixels = 1024 * num_channels(config)
    width = config.output_components or pixels
    encoder = (1024, first, config.encoder_widths, config.latent_dim)
    decoder = (config.latent_dim, config.latent_dim, config.decoder_widths, width)
    for start, hidden, widths, end in (encoder, decoder):
        if config.linear_path:
            yield start, end, end, 1
        if widths or not config.linear_path:
            for inputs, outputs in zip((hidden, *widths), (*widths, end), strict=True):
                yield inputs, outputs, outputs, 1
    if config.output_components:
        yield width, pixels, pixels, 1


def _convolutions(config: ModelConfig) -> list[Layer]:
    unet, latent_channels = config.architecture == "unet", config.latent_dim // 16
    top, middle, low = level_widths(config)

    def convolution(size: int, inputs: int, outputs: int, places: int) -> Layer:
        return size * size * inputs, outputs, outputs, places

    def blocks(width: int, places: int, number: int = 1) -> list[Layer]:
        return 2 * number * [convolution(3, width, width, places)]

    hints = [(4 * 4 * 3, top, 0, 256)] if config.hints else []
    encoder = [convolution(4, 1, top, 256), *hints, *blocks(top, 256, NUM_BLOCKS[0])]
    encoder += [convolution(2, top, middle, 64), *blocks(middle, 64, NUM_BLOCKS[1])]
    encoder += [convolution(2, middle, low, 16), *blocks(low, 16, NUM_BLOCKS[2])]
    bottleneck = [convolution(1, low, latent_channels, 16), convolution(1, latent_channels, low, 16), *blocks(low, 16)]
    decoder = [convolution(1, low, middle, 16), *blocks(middle, 64), convolution(1, middle, top, 64), *blocks(top, 256)]
    if not unet:
        return [*encoder, *bottleneck, *decoder, (16 * top, 3, 3, 256)]
    if config.chroma_bins:
        return [*encoder, *decoder, convolution(1, top, config.chroma_bins, 256), (config.chroma_bins, 2, 0, 256)]
    return [*encoder, *decoder, convolution(3, top, 2, 256)]


def _backbone(config: ModelConfig) -> Iterator[Layer]:
    def convolution(kernel: int, inputs: int, outputs: int, biases: int, scale: int) -> Layer:
        return kernel * kernel * inputs, outputs, biases, (_BACKBONE_SIDE // scale) ** 2

    def normalization(channels: int) -> Layer:
        return 0, channels, 4 * channels, 0

    for part in list_convolutions()[:-1]:  # The last is the head, which a U-Net does without.
        inputs = 1 if part.layer == "stem" else part.inputs  # The stem takes luminance.
        yield convolution(part.kernel, inputs, part.outputs, part.outputs, part.scale)
    *skips, encoded = _BACKBONE_CHANNELS
    features, *widths = decoder_widths(config)
    yield convolution(1, encoded, features, features, 32)
    yield encoded, features, features, 1  # This dense layer sees the average over the image.
    yield normalization(features)
    if config.hints:
        yield convolution(3, _HINT_CHANNELS, features, 0, 32)
    for width, skip, scale in zip(widths, reversed(skips), (16, 8, 4), strict=True):
        yield convolution(3, features + skip, width, 0, scale)
        yield normalization(width)
        if config.hints:
            yield convolution(3, _HINT_CHANNELS, width, 0, scale)
        if config.hints and scale > 4:
            keys, values = ATTENTION_HEADS * ATTENTION_DIM, ATTENTION_HEADS * ATTENTION_VALUES
            yield convolution(1, width, keys, keys, scale)
            yield convolution(1, widths[0] + _HINT_CHANNELS, keys, keys, 16)
            yield convolution(1, _HINT_CHANNELS, values, values, 16)
            yield convolution(1, values, width, width, scale)
            yield convolution(1, width, width, 0, scale)
        features = width
    yield convolution(3, features, features, 0, 4)
    yield normalization(features)
    yield convolution(1, features, config.chroma_bins, config.chroma_bins, 4)
    yield convolution(1, config.chroma_bins, 2, 0, 4)
