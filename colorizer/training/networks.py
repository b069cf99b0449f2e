"""One small builder per architecture, and the registry MODELS.

Every model maps luminance, float32 (N, H, W, 1) in [0, 1], to an image: sRGB (N, H, W, 3), or for the target
`gray` luminance (N, H, W, 1). All but `unet` take 32 x 32 pixels only. Only standard Keras layers are used, so a saved
model loads anywhere.
"""

from collections.abc import Callable

import keras
from keras import Input, Model, initializers, layers

from colorizer.config import CONV_WIDTHS, ModelConfig
from colorizer.pixels.color import YCBCR_TO_RGB

INPUT_MEAN, INPUT_SCALE = 0.479, 0.25  # mean and about the standard deviation of CIFAR-10 luminance


def build_model(config: ModelConfig, precision: str = "float32") -> Model:
    """Build an untrained model; set `keras.utils.set_random_seed` before for repeatable weights.

    Args:
        config: what to build.
        precision: `bfloat16` computes the hidden layers of a `unet` in it; weights and outputs stay float32.
    """
    before = keras.config.dtype_policy()
    reduced = precision == "bfloat16" and config.architecture == "unet"
    keras.config.set_dtype_policy("mixed_bfloat16" if reduced else "float32")
    try:
        return MODELS[config.architecture](config)
    finally:
        keras.config.set_dtype_policy(before)


def build_dense(config: ModelConfig) -> Model:
    """Fully connected autoencoder: 1,024 luminance values, `latent_dim` numbers, an image.

    With `linear_path`, encoder and decoder are each the sum of a linear layer and of hidden layers, if there are any,
    so that training can start from the best linear autoencoder.
    """
    luminance = Input((32, 32, 1), name="luminance")
    pixels = layers.Flatten()(luminance)
    if config.linear_path or config.input_components:  # centred: the mean is 0.48, the standard deviation 0.24
        pixels = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_MEAN / INPUT_SCALE, name="centre")(pixels)
    hidden = pixels
    if config.input_components:
        hidden = layers.Dense(config.input_components, trainable=False, name="input_components")(hidden)
    activation = config.activation if config.bottleneck_activation else "linear"
    latent = _linear_and_hidden(config, pixels, hidden, config.encoder_widths, config.latent_dim, activation, "encoder")
    latent = layers.Identity(name="bottleneck")(latent)

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
    """Convolutional autoencoder without skip connections: 32 x 32 pixels, `latent_dim` numbers at 4 x 4, RGB."""
    luminance = Input((32, 32, 1), name="luminance")
    features = _encode(config, luminance)[-1]
    latent = layers.Conv2D(config.latent_dim // 16, 1, name="bottleneck")(_activate(config, features))
    features = layers.Conv2D(CONV_WIDTHS[-1], 1)(latent)
    for width in reversed(CONV_WIDTHS[:-1]):
        features = _residual_block(config, features)
        features = layers.UpSampling2D(2)(layers.Conv2D(width, 1)(_activate(config, features)))
    features = _activate(config, _residual_block(config, features))
    mean = initializers.Constant(INPUT_MEAN)
    output = layers.Conv2DTranspose(3, 4, strides=2, padding="same", bias_initializer=mean)(features)
    return Model(luminance, output, name="conv")


def build_unet(config: ModelConfig) -> Model:
    """U-Net of residual blocks with the luminance passed through; takes images of any size divisible by 8.

    Its levels have 1/2, 1/4 and 1/8 of the input's size and `latent_dim` / 4, / 2 and / 1 channels. Chroma is
    predicted at half resolution, which costs almost nothing (true chroma halved and brought up again has an mse of
    0.00015) and divides the arithmetic by four. With `chroma_bins` it is the mean of the bins' centres under a softmax.
    """
    luminance = Input((None, None, 1), name="luminance")
    *skips, features = _encode(config, luminance)
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
    return Model(luminance, _pass_luminance_through(luminance, chroma), name="unet")


def _encode(config: ModelConfig, luminance):
    """Return features at 1/2, 1/4 and 1/8 of the input's size."""
    unet_widths = (config.latent_dim // 4, config.latent_dim // 2, config.latent_dim)
    widths = unet_widths if config.architecture == "unet" else CONV_WIDTHS
    centred = layers.Rescaling(1 / INPUT_SCALE, offset=-INPUT_MEAN / INPUT_SCALE)(luminance)
    levels = [_residual_block(config, layers.Conv2D(widths[0], 4, strides=2, padding="same")(centred))]
    for width, num_blocks in zip(widths[1:], (1, 2), strict=True):
        features = layers.Conv2D(width, 2, strides=2)(_activate(config, levels[-1]))
        for _ in range(num_blocks):
            features = _residual_block(config, features)
        levels.append(features)
    return levels


def _residual_block(config: ModelConfig, features):
    """Two 3x3 convolutions whose sum with the input starts as the input; dropout below a U-Net's top level."""
    channels = features.shape[-1]
    change = layers.Conv2D(channels, 3, padding="same")(_activate(config, features))
    if config.dropout and channels > config.latent_dim // 4:
        change = layers.Dropout(config.dropout)(change)
    change = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros")(_activate(config, change))
    return layers.Add()([features, change])


def _activate(config: ModelConfig, features):
    return layers.Activation(config.activation)(features)


MODELS: dict[str, Callable[[ModelConfig], Model]] = {"dense": build_dense, "conv": build_conv, "unet": build_unet}
