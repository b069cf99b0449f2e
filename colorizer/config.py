"""What a model is and how it is trained: frozen, validated dataclasses, JSON in and out, and the presets."""

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import platformdirs

from colorizer.errors import ConfigError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
DATASETS = ("cifar10", "synthetic", "samples")
PAGE_DATASETS = (*DATASETS, "cifar100")  # what visitors may train on; the command line takes paths too

# Limits of what a visitor may ask for, in one place.
MAX_LATENT_DIM = 512
MAX_LAYER_WIDTH = 4096
MAX_EPOCHS = 200
MAX_TRAIN_IMAGES = 50_000
MAX_UPLOAD_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 50_000_000  # of a picture, known before it is decoded
MAX_SCANNED_PIXELS = 5_000_000_000  # of a JPEG, in all its scans: a few bytes order another pass over the picture
MAX_EXIF_BYTES = 2**20  # above that EXIF is left out: it would take seconds to unpack
MAX_FILES = 20  # that the page takes at once
MAX_SNAPSHOTS = 30
MAX_TRAINING_SECONDS = 2 * 60 * 60  # from its first moment, pauses included; then it is stopped and kept
MAX_QUEUED_RUNS = 4
LEARNING_RATE_FACTORS = (0.01, 10.0)  # range of the live multiplier
MAX_CURVE_POINTS = 400  # drawn, whatever the length of the run
MAX_CHROMA_BINS = 256
CONV_WIDTHS = (48, 96, 160)  # channels of the architecture `conv` at 16, 8 and 4 pixels
MAX_STRENGTH = 1.5
WORKING_SIZES = (32, 48, 64, 96, 128)  # stops that the page offers, out of the multiples of 8 in this range:
MIN_WORKING_SIZE, MAX_WORKING_SIZE = 32, 256

VIVIDNESS_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DEFAULT_VIVIDNESS = 0.4


def nearest_level(vividness: float) -> int:
    """Index of the vividness level nearest to `vividness`."""
    return min(range(len(VIVIDNESS_LEVELS)), key=lambda level: abs(VIVIDNESS_LEVELS[level] - vividness))


NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


def home() -> Path:
    """Folder for prepared data, trained models, runs and predictions (`COLORIZER_HOME`, or the user data folder)."""
    return Path(os.environ.get("COLORIZER_HOME") or platformdirs.user_data_dir("colorizer")).expanduser().absolute()


def validate_name(name: str) -> str:
    """Return `name` if it can safely be a model's or run's folder name, else raise `ConfigError`."""
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
        raise ConfigError(
            f"dataset must be one of {', '.join(PAGE_DATASETS)}, cifar100:FILE.npz or folder:PATH, received {name!r}."
        )
    return name


def default_name(preset: str) -> str:
    """A name for a model of that preset that is started now."""
    return f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"


class _Config:
    """JSON in and out, and checks shared by the two configurations."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Build from a JSON object; unknown keys and values out of range raise `ConfigError`."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} must be a JSON object, received {type(values).__name__}.")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(map(str, values)) - known):
            raise ConfigError(f"{cls.__name__} has no setting {unknown[0]!r}. Known: {', '.join(sorted(known))}.")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with `changes` applied."""
        return dataclasses.replace(self, **changes)

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value, name, limits = getattr(self, setting.name), setting.name, setting.metadata
            if "choices" in limits and value not in limits["choices"]:
                raise ConfigError(f"{name} must be one of {', '.join(limits['choices'])}, received {value!r}.")
            if setting.type is bool and not isinstance(value, bool):
                raise ConfigError(f"{name} must be true or false, received {value!r}.")
            if "range" in limits:
                low, high = limits["range"]
                accepted, what = (int, "a whole number") if setting.type is int else (int | float, "a number")
                if isinstance(value, bool) or not isinstance(value, accepted) or not low <= value <= high:
                    raise ConfigError(f"{name} must be {what} from {low:g} to {high:g}, received {value!r}.")


def _number(default: float, low: float, high: float) -> Any:
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def _choice(*choices: str) -> Any:
    """A setting that takes one of these; the first is the default."""
    return dataclasses.field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True)
class ModelConfig(_Config):
    """Architecture of a model."""

    architecture: str = _choice("dense", "conv", "unet")  # key of `colorizer.models.MODELS`
    latent_dim: int = _number(32, 1, MAX_LATENT_DIM)  # width of the bottleneck; of a `unet` its channels there
    # `rgb` predicts colour, `chroma` predicts the two chroma planes and passes the luminance through, `gray` reproduces
    # the input (what the original notebook's code did).
    target: str = _choice("rgb", "chroma", "gray")
    encoder_widths: tuple[int, ...] = (512, 128)  # of dense hidden layers before the bottleneck; empty: linear
    decoder_widths: tuple[int, ...] = (128, 512)  # of those after it
    activation: str = _choice("relu", "gelu", "silu", "tanh")  # of the hidden layers
    bottleneck_activation: bool = False  # whether the bottleneck has it too, instead of being linear
    output_activation: str = _choice("linear", "sigmoid")  # `sigmoid` keeps RGB in [0, 1], else the metric clips
    linear_path: bool = False  # a linear encoder and decoder beside the hidden layers, started from the closed form
    input_components: int = _number(0, 0, MAX_LATENT_DIM)  # of the luminance, fed to the hidden layers; 0: the pixels
    output_components: int = _number(0, 0, MAX_LATENT_DIM)  # of RGB, which build the image; 0 predicts it directly
    dropout: float = _number(0.0, 0, 0.9)  # rate inside the blocks of a `unet` below its top level
    chroma_bins: int = _number(0, 0, MAX_CHROMA_BINS)  # among which a `unet` chooses by a softmax; 0: no bins

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder_widths", "decoder_widths"):
            widths = getattr(self, name)
            if not isinstance(widths, tuple) or len(widths) > 8:
                raise ConfigError(f"{name} must be a list of at most 8 layer widths, received {widths!r}.")
            for width in widths:
                if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= MAX_LAYER_WIDTH:
                    raise ConfigError(f"{name} takes whole numbers from 1 to {MAX_LAYER_WIDTH}, received {width!r}.")
        if self.architecture == "conv" and (self.target != "rgb" or self.latent_dim % 16):
            raise ConfigError("conv needs the target rgb and a latent_dim divisible by 16.")
        if self.architecture == "unet" and (self.target != "chroma" or self.latent_dim % 4):
            raise ConfigError("unet needs the target chroma and a latent_dim divisible by 4.")
        if self.chroma_bins and self.architecture != "unet":
            raise ConfigError("chroma_bins needs the architecture unet. Set it to 0 otherwise.")
        if self.output_components and not (self.linear_path and self.target == "rgb"):
            raise ConfigError("output_components needs linear_path and the target rgb. Set it to 0 otherwise.")


@dataclass(frozen=True)
class TrainConfig(_Config):
    """How a model is trained."""

    dataset: str = "cifar10"  # as in `datasets.load_dataset`
    train_images: int = _number(0, 0, MAX_TRAIN_IMAGES)  # how many are used at most; 0 means all
    epochs: int = _number(5, 0, MAX_EPOCHS)  # 0 keeps the initial weights (all that a closed-form model needs)
    batch_size: int = _number(256, 1, 4096)  # images a step
    learning_rate: float = _number(1e-3, 1e-6, 1)  # peak rate of Adam (AdamW where `weight_decay` is above 0)
    schedule: str = _choice("constant", "cosine")  # `cosine`: from the peak to zero after a short warm-up
    weight_decay: float = _number(0.0, 0, 1)  # decoupled
    flips: bool = False  # mirror each training image left to right with probability one half
    shift: int = _number(0, 0, 8)  # move each training image by up to this many pixels, mirrored at its edges
    # Folder of larger pictures; a `unet` then also learns from random crops of them, and from images of the data set
    # enlarged, at 64 x 64 pixels.
    photos: str = ""
    # Of the hidden layers of a `unet`; `bfloat16` is quicker on processors made for it.
    precision: str = _choice("float32", "bfloat16")
    seed: int = _number(0, 0, 2**31 - 1)  # of the initial weights, the order of the images and the augmentation
    init_from: str = ""  # name of the model whose weights it starts from; empty for new ones
    freeze_encoder: bool = False  # leave the layers up to the bottleneck as that model has them

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_dataset(self.dataset)
        if not isinstance(self.photos, str):
            raise ConfigError(f"photos must be a folder's path, received {self.photos!r}.")
        if self.init_from != "":
            validate_name(self.init_from)
        if self.freeze_encoder and not self.init_from:
            raise ConfigError("freeze_encoder needs init_from. Name the model whose encoder is to be kept.")


def vary(model: ModelConfig, train: TrainConfig, settings: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """Return both with these settings applied, each to the one that has it; other keys are ignored."""
    of_model, of_train = ({key: settings[key] for key in vars(base) if key in settings} for base in (model, train))
    return model.replace(**of_model), train.replace(**of_train)


@dataclass(frozen=True)
class Preset:
    """A named pair of configurations with one sentence on what it shows."""

    name: str
    summary: str
    model: ModelConfig
    train: TrainConfig


_UNET = ModelConfig("unet", latent_dim=192, target="chroma", dropout=0.2)
_UNET_TRAIN = TrainConfig(
    epochs=80, batch_size=128, learning_rate=2e-3, schedule="cosine", weight_decay=0.1, flips=True, shift=4
)
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "linear",
            "The best linear autoencoder, in closed form: no training at all.",
            ModelConfig(encoder_widths=(), decoder_widths=(), linear_path=True),
            TrainConfig(epochs=0),
        ),
        Preset(
            "notebook",
            "The original network, fitted from grayscale to RGB as its description says.",
            ModelConfig(bottleneck_activation=True, output_activation="sigmoid"),
            TrainConfig(),
        ),
        Preset(
            "dense",
            "The same idea trained properly: started from the closed form, better activation, schedule, augmentation.",
            ModelConfig(
                encoder_widths=(),
                decoder_widths=(512, 512, 384),
                activation="gelu",
                linear_path=True,
                output_components=256,
            ),
            TrainConfig(epochs=20, schedule="cosine", weight_decay=0.01, flips=True, shift=1),
        ),
        Preset(
            "dense-chroma",
            "Predicts colour only; the luminance of the input passes through, so pictures stay sharp.",
            ModelConfig(target="chroma", encoder_widths=(1536, 512), decoder_widths=(256,), input_components=256),
            TrainConfig(epochs=16, learning_rate=9.5e-4, schedule="cosine", weight_decay=0.3, flips=True, shift=2),
        ),
        Preset(
            "conv",
            "A convolutional autoencoder: 512 numbers at 4 x 4 places, no skip connections.",
            ModelConfig("conv", latent_dim=512),
            TrainConfig(
                epochs=12, batch_size=128, learning_rate=2e-3, schedule="cosine", weight_decay=0.01, flips=True
            ),
        ),
        Preset(
            "unet",
            "A U-Net: skip connections keep what is where, three levels see how it belongs together.",
            _UNET,
            _UNET_TRAIN,
        ),
        Preset(
            "unet-vivid",
            "Colour as a choice among 128 chroma bins: a slider goes from the safe mean to the boldest guess.",
            _UNET.replace(chroma_bins=128),
            _UNET_TRAIN.replace(epochs=12, learning_rate=1e-3, init_from="unet"),
        ),
        Preset(
            "unet-photo",
            "The U-Net once more, for whole photos: it also learns from larger pictures (--photos).",
            _UNET,
            _UNET_TRAIN.replace(epochs=8, learning_rate=1e-3, init_from="unet"),
        ),
        Preset(
            "quick",
            "A small dense-chroma: a few seconds, from gray to its first colours.",
            ModelConfig(target="chroma", encoder_widths=(256,), decoder_widths=(128,), activation="gelu"),
            TrainConfig(train_images=10_000, epochs=5, schedule="cosine", weight_decay=0.01, flips=True),
        ),
    )
}


def get_preset(name: str) -> Preset:
    """Return the preset called `name`; an unknown one raises `ConfigError`."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. Choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]
