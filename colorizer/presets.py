"""Defines the presets, which are named pairs of configurations that the app and the command line start from."""

from dataclasses import dataclass

from colorizer.config import RETIRED_NAMES, ModelConfig, TrainConfig
from colorizer.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A preset has a name, a summary of one or two sentences, and the settings of a model and of its training."""

    name: str
    summary: str
    model: ModelConfig
    train: TrainConfig


_DENSE = ModelConfig(encoder_widths=(), decoder_widths=(), linear_path=True)
_UNET = ModelConfig(architecture="unet", latent_dim=192, target="chroma", dropout=0.2)
# The gradients of a mean over 3,072 values are small beside Adam's default epsilon of 1e-7, so it is 1e-9 here.
_COSINE = TrainConfig(schedule="cosine", epsilon=1e-9, weight_decay=0.01, flips=True)
_COSINE_CONV = _COSINE.replace(epochs=12, batch_size=128, learning_rate=2e-3)
_COSINE_UNET = _COSINE_CONV.replace(epochs=80, weight_decay=0.1, shift=4)
_FINE_TUNING = _COSINE_UNET.replace(learning_rate=1e-3, init_from="unet")
_ALL = (
    Preset(
        "linear",
        "This is the best linear autoencoder. It is computed in closed form, without any training.",
        _DENSE,
        TrainConfig(epochs=0),
    ),
    Preset(
        "notebook",
        "This is the network of the original notebook, trained to predict RGB from grayscale.",
        ModelConfig(bottleneck_activation=True, output_activation="sigmoid"),
        TrainConfig(),
    ),
    Preset(
        "dense",
        "This improves the original network: it starts from the closed form and is trained with augmentation.",
        _DENSE.replace(
            encoder_widths=(1024, 512),
            decoder_widths=(512, 512, 384),
            activation="gelu",
            input_components=256,
            output_components=256,
        ),
        _COSINE.replace(epochs=200, weight_decay=0.7, shift=3),
    ),
    Preset(
        "dense-chroma",
        "This network predicts only colour. The luminance of the input passes through, so pictures stay sharp.",
        ModelConfig(target="chroma", encoder_widths=(1536, 512), decoder_widths=(256,), input_components=256),
        _COSINE.replace(epochs=16, learning_rate=9.5e-4, weight_decay=0.3, shift=2),
    ),
    Preset(
        "conv",
        "This is a convolutional autoencoder without skip connections. Its bottleneck is 512 numbers at 4 x 4 places.",
        ModelConfig(architecture="conv", latent_dim=512),
        _COSINE_CONV,
    ),
    Preset(
        "unet",
        "This is a U-Net. Its skip connections keep the place of each detail, and its three levels see the context.",
        _UNET,
        _COSINE_UNET,
    ),
    Preset(
        "unet-vivid",
        "This U-Net chooses among 128 chroma bins. A slider goes from the safe mean to the boldest guess.",
        _UNET.replace(chroma_bins=128, hints=True),
        _FINE_TUNING.replace(epochs=12),
    ),
    Preset(
        "colorist",
        "This U-Net for photos has a backbone that was trained on ImageNet, and chooses among 128 chroma bins.",
        ModelConfig(
            architecture="backbone", latent_dim=256, target="chroma", activation="silu", chroma_bins=128, hints=True
        ),
        TrainConfig(
            epochs=49,
            batch_size=32,
            learning_rate=2e-3,
            schedule="cosine",
            weight_decay=0.02,
            flips=True,
            precision="bfloat16",
            frozen_epochs=12,
            hint_epochs=20,
            fine_tuning_rate=2e-4,
        ),
    ),
    Preset(
        "quick",
        "This is a small dense-chroma network. It learns its first colours in a few seconds.",
        ModelConfig(target="chroma", encoder_widths=(256,), decoder_widths=(128,), activation="gelu"),
        _COSINE.replace(train_images=10_000),
    ),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def get_preset(name: str) -> Preset:
    """Return the preset called `name`, or the one that took its place; an unknown one raises `ConfigError`."""
    name = RETIRED_NAMES.get(name, name)
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. Choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]
