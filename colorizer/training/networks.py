"""Builds the network of each architecture, and sets the weights that it starts from.

Every model maps luminance, float32 (N, H, W, 1) in [0, 1], to an image: sRGB (N, H, W, 3), or luminance (N, H, W, 1)
for the target `gray`. A `unet` takes any size divisible by 8, the others take 32 x 32 pixels only. All layers are
standard Keras layers, so a saved model loads anywhere.
"""

import itertools
from collections.abc import Callable

import keras
import numpy as np
from keras import Input, Model, initializers, layers

from colorizer.config import ModelConfig
from colorizer.data.datasets import load_statistics
from colorizer.errors import ConfigError
from colorizer.models import linear
from colorizer.pixels.color import LUMINANCE_WEIGHTS, YCBCR_TO_RGB, chroma_bins
from colorizer.training import backbone
from colorizer.training.shapes import (
    ATTENTION_DIM,
    ATTENTION_HEADS,
    ATTENTION_VALUES,
    NUM_BLOCKS,
    decoder_widths,
    level_widths,
    num_channels,
)

INPUT_MEAN, INPUT_SCALE = 0.479, 0.25  # The mean and about the standard deviation of CIFAR-10's luminance.


def build_model(config: ModelConfig, precision: str = "float32") -> Model:
    """Build an untrained model; set `keras.utils.set_random_seed` before for repeatable weights.

    Args:
        config: what to build.
        precision: `bfloat16` computes the hidden layers of a `unet` in it; weights and outputs stay float32.
    """
    before = keras.config.dtype_policy()
    reduced = precision == "bfloat16" and config.architecture in ("unet", "backbone")
    keras.config.set_dtype_policy("mixed_bfloat16" if reduced else "float32")
    try:
        return MODELS[config.architecture](config)
    finally:
        keras.config.set_dtype_policy(before)


def build_dense(config: ModelConfig) -> Model:
    """Build a fully connected autoencoder: 1,024 luminance values, `latent_dim` numbers, an image.

    With `linear_path`, encoder and decoder are each the sum of a linear layer and of hidden layers, if there are any,
    so that training can start from the best linear autoencoder.
    """
    luminance = Input((32, 32, 1), name="luminance")
    pixels = layers.Flatten()(luminance)
    if config.linear_path or config.input_components:
        pixels = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_MEAN / INPUT_SCALE, name="centre")(pixels)
    hidden = pixels
    if config.input_components:
        hidden = layers.Dense(config.input_components, trainable=False, name="input_components")(hidden)
    activation = config.activation if config.bottleneck_activation else "linear"
    latent = _linear_and_hidden(config, pixels, hidden, config.encoder_widths, config.latent_dim, activation, "encoder")
    latent = layers.Identity(name="bottleneck")(latent)

    channels = num_channels(config)
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
    to_rgb = layers.Conv2D(3, 1, use_bias=False, trainable=False, name="ycbcr_to_rgb", dtype="float32")
    rgb = to_rgb(layers.Concatenate(dtype="float32")([luminance, chroma]))
    to_rgb.set_weights([YCBCR_TO_RGB[None, None]])
    return rgb


def build_conv(config: ModelConfig) -> Model:
    """Build a convolutional autoencoder without skip connections, whose `latent_dim` numbers lie at 4 x 4 places."""
    luminance = Input((32, 32, 1), name="luminance")
    features = _encode(config, luminance)[-1]
    latent = layers.Conv2D(config.latent_dim // 16, 1, name="bottleneck")(_activate(config, features))
    *widths, deepest = level_widths(config)
    features = layers.Conv2D(deepest, 1)(latent)
    for width in reversed(widths):
        features = _residual_block(config, features)
        features = layers.UpSampling2D(2)(layers.Conv2D(width, 1)(_activate(config, features)))
    features = _activate(config, _residual_block(config, features))
    mean = initializers.Constant(INPUT_MEAN)
    output = layers.Conv2DTranspose(3, 4, strides=2, padding="same", bias_initializer=mean)(features)
    return Model(luminance, output, name="conv")


def build_unet(config: ModelConfig) -> Model:
    """Build a U-Net of residual blocks that passes the luminance through and takes any size divisible by 8.

    Its levels have 1/2, 1/4 and 1/8 of the input's size and `latent_dim` / 4, / 2 and / 1 channels. Chroma is
    predicted at half resolution, which divides the arithmetic by four and costs almost nothing: true chroma, halved
    and enlarged again, has an mse of 0.00015. With `chroma_bins` chroma is the mean of the bins' centres under a
    softmax.
    """
    luminance = Input((None, None, 1), name="luminance")
    hints = _hints_input(config)
    *skips, features = _encode(config, luminance, hints)
    features = layers.Identity(name="bottleneck")(features)
    for skip in reversed(skips):
        features = layers.UpSampling2D(2)(layers.Conv2D(skip.shape[-1], 1)(_activate(config, features)))
        features = _residual_block(config, layers.Add()([features, skip]))
    features = _activate(config, features)
    options = {"kernel_initializer": initializers.VarianceScaling(0.01), "dtype": "float32"}
    if config.chroma_bins:
        logits = layers.Conv2D(config.chroma_bins, 1, name="logits", **options)(features)
        centres = layers.Conv2D(2, 1, use_bias=False, trainable=False, name="bin_centres", dtype="float32")
        chroma = centres(layers.Softmax(dtype="float32")(logits))
    else:
        chroma = layers.Conv2D(2, 3, padding="same", **options)(features)
    chroma = layers.UpSampling2D(2, interpolation="bilinear", name="chroma", dtype="float32")(chroma)
    return Model(_inputs(luminance, hints), _pass_luminance_through(luminance, chroma), name="unet")


def _hints_input(config: ModelConfig):
    """Return the planes of hints, Cb, Cr and a mask, or None for a model that takes no hints."""
    return Input((None, None, 3), name="hints") if config.hints else None


def _inputs(luminance, hints):
    return luminance if hints is None else [luminance, hints]


def build_backbone(config: ModelConfig) -> Model:
    """Build a U-Net whose encoder is EfficientNet-Lite0; it takes any size divisible by 32 and uses chroma bins.

    The decoder starts from the backbone's features at 1/32 of the input's size and from their average over the image.
    It goes up to 1/4 of the size and joins the backbone's features at each level; there it predicts logits. Hints, if
    there are any, join at every level through kernels that start at zero: each place gets the hints near it, and at
    two levels also those at places that look like it.
    """
    luminance = Input((None, None, 1), name="luminance")
    hints = _hints_input(config)
    decoder_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # A depthwise convolution learns more slowly in bfloat16.
    _, *skips, features = backbone.encode(luminance)
    keras.config.set_dtype_policy(decoder_policy)
    deepest, *widths = decoder_widths(config)
    context = layers.Dense(deepest, name="context")(layers.GlobalAveragePooling2D(keepdims=True)(features))
    features = layers.Add()([layers.Conv2D(deepest, 1, name="bottleneck")(features), context])
    features = _normalize(config, _add_hints(features, hints, 32))
    coarse = None
    for width, skip, scale in zip(widths, reversed(skips), (16, 8, 4), strict=True):
        features = layers.Concatenate()([layers.UpSampling2D(2)(features), skip])
        features = layers.Conv2D(width, 3, padding="same", use_bias=False)(features)
        features = _normalize(config, _add_hints(features, hints, scale))
        coarse = features if scale == 16 else coarse
        if hints is not None and scale > 4:
            features = _spread_hints(features, coarse, hints, scale)
    features = layers.Conv2D(widths[-1], 3, padding="same", use_bias=False)(features)
    logits = layers.Conv2D(config.chroma_bins, 1, name="logits", dtype="float32")(_normalize(config, features))
    centres = layers.Conv2D(2, 1, use_bias=False, trainable=False, name="bin_centres", dtype="float32")
    chroma = centres(layers.Softmax(dtype="float32")(logits))
    chroma = layers.UpSampling2D(4, interpolation="bilinear", name="chroma", dtype="float32")(chroma)
    return Model(_inputs(luminance, hints), _pass_luminance_through(luminance, chroma), name="backbone")


def _normalize(config: ModelConfig, features):
    return _activate(config, layers.BatchNormalization(momentum=0.98)(features))


def _pool_hints(hints, scale: int):
    """Return hints for cells of `scale` x `scale` pixels, each with the largest and the smallest chroma in it.

    Pixels without hints have a chroma of 0, so a single hint in a cell keeps its chroma, however large the cell is.
    The fifth and sixth channels tell whether a pixel of the cell is hinted, and whether all of them are.
    """
    signed = layers.Rescaling([8, 8, 1, -8, -8, -1])(layers.Concatenate()([hints, hints]))  # Chroma is mostly small.
    return layers.MaxPooling2D(scale)(signed)


def _add_hints(features, hints, scale: int):
    """Add a 3x3 convolution, which starts at zero, of the hints in cells of `scale` x `scale` pixels."""
    if hints is None:
        return features
    name = f"hints_{scale}"
    change = layers.Conv2D(features.shape[-1], 3, padding="same", use_bias=False, kernel_initializer="zeros", name=name)
    return layers.Add()([features, change(_pool_hints(hints, scale))])


def _spread_hints(features, coarse, hints, scale: int):
    """Add what each place learns from the hints at places that look like it, by attention; it starts at zero.

    `coarse` has the features at 1/16 of the input's size. Hints are looked for at that size, which bounds the memory.
    """
    cells = _pool_hints(hints, 16)
    keys = layers.Concatenate()([coarse, layers.Rescaling(4.0)(cells)])
    name = f"hints_attention_{scale}"
    sizes = ATTENTION_HEADS, ATTENTION_DIM, ATTENTION_VALUES
    attention = layers.MultiHeadAttention(*sizes, attention_axes=(1, 2), dtype="float32", name=name)
    options = {"use_bias": False, "kernel_initializer": "zeros", "name": f"hints_spread_{scale}"}
    return layers.Add()([features, layers.Conv2D(features.shape[-1], 1, **options)(attention(features, cells, keys))])


def _encode(config: ModelConfig, luminance, hints=None):
    """Return features at 1/2, 1/4 and 1/8 of the input's size; the kernel for hints starts at zero."""
    first, *widths = level_widths(config)
    centred = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_MEAN / INPUT_SCALE)(luminance)
    features = layers.Conv2D(first, 4, strides=2, padding="same")(centred)
    if hints is not None:
        scaled = layers.Rescaling([8, 8, 1])(hints)  # Chroma is mostly small beside the mask.
        options = {"use_bias": False, "kernel_initializer": "zeros", "name": "hints_1"}
        features = layers.Add()([features, layers.Conv2D(first, 4, strides=2, padding="same", **options)(scaled)])
    levels = [_residual_block(config, features)]
    for width, num_blocks in zip(widths, NUM_BLOCKS[1:], strict=True):
        features = layers.Conv2D(width, 2, strides=2)(_activate(config, levels[-1]))
        for _ in range(num_blocks):
            features = _residual_block(config, features)
        levels.append(features)
    return levels


def _residual_block(config: ModelConfig, features):
    """Add two 3x3 convolutions to the input, which start at zero; a U-Net has dropout in them below its top level."""
    channels = features.shape[-1]
    change = layers.Conv2D(channels, 3, padding="same")(_activate(config, features))
    if config.dropout and channels > level_widths(config)[0]:
        change = layers.Dropout(config.dropout)(change)
    change = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros")(_activate(config, change))
    return layers.Add()([features, change])


def _activate(config: ModelConfig, features):
    return layers.Activation(config.activation)(features)


MODELS: dict[str, Callable[[ModelConfig], Model]] = {
    "dense": build_dense,
    "conv": build_conv,
    "unet": build_unet,
    "backbone": build_backbone,
}


def set_known_weights(model: Model, config: ModelConfig) -> None:
    """Set the weights that follow from statistics of images: principal components, the closed form, chroma bins."""
    if not config.linear_path and not config.input_components and not config.chroma_bins:
        return
    if config.architecture == "backbone":
        return  # Its bins are chosen from the photos that it learns from.
    statistics = load_statistics()
    if config.chroma_bins:
        centres, _ = chroma_bins(statistics.shares, config.chroma_bins)
        model.get_layer("bin_centres").set_weights([centres[None, None]])
        return
    named = {layer.name: layer for layer in model.layers}
    luminance_factors = statistics.factors.reshape(len(statistics.factors), 1024, 3) @ LUMINANCE_WEIGHTS
    luminance_mean = statistics.mean.reshape(1024, 3) @ LUMINANCE_WEIGHTS

    def set_centred(layer: layers.Layer, kernel: np.ndarray) -> None:
        """Make `layer`, which sees (y - INPUT_MEAN) / INPUT_SCALE, compute (y - mean image) @ kernel."""
        layer.set_weights([kernel * INPUT_SCALE, (INPUT_MEAN - luminance_mean) @ kernel])

    if config.input_components:
        _, strengths, axes = np.linalg.svd(luminance_factors, full_matrices=False)
        strengths, axes = strengths[: config.input_components], axes[: config.input_components]
        # The scale is half-way between plain and whitened components. The component an eighth of the way down the
        # list gets unit variance.
        scales = np.sqrt(strengths / strengths[len(strengths) // 8]) / strengths
        set_centred(named["input_components"], axes.T * scales)
    if config.linear_path:
        solution = linear.solve(statistics.mean, statistics.factors, config.target)
        encoder, decoder = solution.encoder[:, : config.latent_dim], solution.decoder[: config.latent_dim]
        spread = np.linalg.norm(luminance_factors @ encoder, axis=0)  # This is each latent number's standard deviation.
        set_centred(named["linear_encoder"], encoder / spread)
        decoder = decoder * spread[:, None]
        if config.output_components:
            axes = statistics.factors[: config.output_components]
            axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
            named["output_components"].set_weights([axes, statistics.mean])
            named["linear_decoder"].set_weights([decoder @ axes.T, np.zeros(len(axes))])
        else:
            named["linear_decoder"].set_weights([decoder, solution.output_mean])
    for name in ("encoder_output", "decoder_output"):
        # Beside a linear path the hidden layers start at zero. Without one, predicted chroma starts near gray.
        if name in named and (config.linear_path or (config.target == "chroma" and name == "decoder_output")):
            named[name].set_weights([0.1 * weight * (not config.linear_path) for weight in named[name].get_weights()])


def copy_weights(model: Model, source: Model) -> None:
    """Copy the weights of `source` into `model`, layer by layer, where their shapes agree.

    Layers with weights are matched by their order, since the layers of a saved model can have other names. Layers for
    hints are left out where only one of both models has them. The encoders must agree entirely. After the bottleneck, a
    layer of another shape keeps its own weights.

    Raises:
        ConfigError: the encoders differ.
    """
    encoder = find_encoder(model)
    both = len(model.inputs) == len(source.inputs)
    own, others = (
        [layer for layer in network.layers if layer.weights and (both or not layer.name.startswith("hints_"))]
        for network in (model, source)
    )
    for layer, other in itertools.zip_longest(own, others[: len(own)]):
        wanted, received = ([tuple(w.shape) for w in one.weights] if one else "none" for one in (layer, other))
        if wanted == received:
            layer.set_weights(other.get_weights())
        elif layer in encoder:
            raise ConfigError(
                f"The encoder of the model to start from does not fit: the new model's layer {layer.name} has weights "
                f"of the shapes {wanted}, received {received}. Give both the same architecture, latent_dim and widths."
            )


def find_encoder(model: Model) -> list[layers.Layer]:
    """Return the layers of a model of `build_model` up to and including its bottleneck."""
    return Model(model.input, model.get_layer("bottleneck").output).layers
