"""Describes a sweep: what it tries, its finished trials, and the files that keep both.

A sweep is a folder in COLORIZER_HOME/sweeps: `sweep.json` says what is tried, `trials.jsonl` has a line for each trial.
"""

import contextlib
import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pydantic

from colorizer import config
from colorizer.config import ModelConfig, TrainConfig
from colorizer.errors import ColorizerError, ConfigError
from colorizer.presets import PRESETS, Preset, get_preset
from colorizer.storage import read_json

LATENT_DIMS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
_LEARNING_RATES = (1e-4, 1e-2)  # A search tries values in this range, spread evenly by their logarithm.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "batch_size": (64, 128, 256, 512),
    "weight_decay": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
    "shift": (0, 1, 2, 3, 4),
    "activation": ("relu", "gelu", "silu", "tanh"),
}
_ARCHITECTURE_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "dense": {
        "encoder_widths": ((512,), (1024,), (512, 128), (1024, 512), (1536, 512), (2048, 512)),
        "decoder_widths": ((256,), (512,), (128, 512), (512, 512), (1024, 512), (512, 512, 384)),
    },
    "conv": {},
    "unet": {"dropout": (0.0, 0.1, 0.2, 0.3, 0.4)},
}
_MAX_TRIALS_BYTES = 16 * 2**20
# Reading a file that something else wrote can raise any of these.
_DAMAGE = (ColorizerError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(allow_inf_nan=False))
class Trial:
    """One training of a sweep."""

    settings: dict[str, Any]  # It maps each setting that is tried to its value; layer widths are text, as in "512,128".
    val_loss: tuple[Annotated[float, pydantic.Field(gt=0)], ...]  # The validation `mse` after each epoch that was run.
    seconds: Annotated[float, pydantic.Field(ge=0)]  # The wall time of its training.
    error: str | None = None  # The sentence that says why it failed.


@dataclass(frozen=True)
class Coordinate:
    """One axis of a parallel coordinates chart; a height is a number from 0 to 1."""

    name: str
    heights: list[float]  # The height of each trial.
    ticks: dict[str, float]  # It maps each label beside the axis to its height.


@dataclass(frozen=True)
class Sweep:
    """A sweep says what is tried, and holds the trials so far."""

    name: str  # It names the folder, the best model and the preset made from it.
    preset: str  # The name of the preset that the sweep starts from.
    model: ModelConfig  # The settings of the first trial.
    train: TrainConfig
    choices: dict[str, tuple[Any, ...]]  # Each setting's values, layer widths as text; for `learning_rate` its range.
    closed_form: tuple[float, ...] = ()  # Validation `mse` of the best linear autoencoder for each `latent_dim` tried.
    trials: tuple[Trial, ...] = ()  # They stand in the order in which they ended.

    @property
    def folder(self) -> Path:
        """Return the folder that keeps the sweep."""
        return config.home() / "sweeps" / self.name

    @property
    def finished(self) -> list[Trial]:
        """Return the trials that ran for all epochs, the best first."""
        whole = [trial for trial in self.trials if len(trial.val_loss) == self.train.epochs and not trial.error]
        return sorted(whole, key=lambda trial: trial.val_loss[-1])

    @property
    def title(self) -> str:
        """Return one line that says what was tried."""
        tried = "bottlenecks" if self.closed_form else "trials"
        return f"{self.name}: {len(self.trials)} {tried} from the preset {self.preset}"

    def allows(self, settings: dict[str, Any]) -> bool:
        """Return whether a trial of this sweep can have these settings."""
        if settings.keys() != self.choices.keys():
            return False
        low, high = self.choices.get("learning_rate", _LEARNING_RATES)
        return all(
            low <= value <= high if key == "learning_rate" else value in self.choices[key]
            for key, value in settings.items()
        )

    def configure(self, settings: dict[str, Any]) -> tuple[ModelConfig, TrainConfig]:
        """Return the configurations of a trial with these settings; the learning rate is rounded to two digits."""
        settings = dict(settings)
        for key in settings:
            if key.endswith("_widths"):
                settings[key] = tuple(map(int, filter(None, settings[key].split(","))))
            elif key == "learning_rate":
                settings[key] = float(f"{settings[key]:.2g}")
        return config.apply_settings(self.model, self.train, settings)

    def settings_of(self, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
        """Return the settings that a trial with these configurations has."""
        values = model.to_dict() | train.to_dict()
        return {key: _as_choice(values[key]) for key in self.choices}

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each trial: its settings, epochs, val_loss, seconds and error.

        Trials that ran for all epochs come first, the best at the top. The rows of a sweep of bottlenecks are sorted by
        `latent_dim` and also hold the loss of the closed form.
        """
        losses = dict(zip(self.choices.get("latent_dim", ()), self.closed_form, strict=False))
        rows = []
        for trial in self.trials:
            row = self.settings_of(*self.configure(trial.settings))
            row |= {"epochs": len(trial.val_loss), "val_loss": trial.val_loss[-1] if trial.val_loss else None}
            row |= {"closed_form": losses[row["latent_dim"]]} if losses else {}
            rows.append(row | {"seconds": trial.seconds, "error": trial.error})
        if losses:
            return sorted(rows, key=lambda row: row["latent_dim"])
        return sorted(rows, key=lambda row: (bool(row["error"]), -row["epochs"], row["val_loss"] or 1))

    def coordinates(self) -> list[Coordinate]:
        """Return an axis for each setting and one for the loss, over the rows of `table` that have a loss.

        The axis of the loss ends at the median; all trials that are worse are drawn at that end.
        """
        rows = [row for row in self.table() if row["val_loss"]]
        axes = []
        for name in (*self.choices, "val_loss"):
            values = [row[name] for row in rows]
            if name in ("learning_rate", "val_loss"):
                last, style = (max, ".2g") if name == "learning_rate" else (statistics.median_high, ".5f")
                low, high = math.log(min(values)), math.log(last(values))
                heights = [min(1.0, (math.log(value) - low) / (high - low or 1)) for value in values]
                shares = (0, 0.25, 0.5, 0.75, 1)
                ticks = {format(math.exp(low + share * (high - low)), style): share for share in shares}
            else:
                choices = sorted(self.choices[name], key=_order)
                ticks = {_label(choice): index / max(1, len(choices) - 1) for index, choice in enumerate(choices)}
                heights = [ticks[_label(value)] for value in values]
            axes.append(Coordinate(name, heights, ticks))
        return axes

    def to_dict(self) -> dict[str, Any]:
        """Return the content of sweep.json."""
        settings = {"model": self.model.to_dict(), "train": self.train.to_dict()}
        return {"preset": self.preset, **settings, "choices": self.choices, "closed_form": self.closed_form}


def plan_sweep(
    name: str,
    preset: str,
    model: ModelConfig,
    train: TrainConfig,
    fixed: Collection[str] = (),
    latent_dims: Collection[int] = (),
) -> Sweep:
    """Decide what a sweep tries.

    Args:
        name: the name of the sweep, see `config.validate_name`.
        preset: the name of the preset that `model` and `train` come from.
        model, train: the settings of the first trial, which the others vary.
        fixed: the names of settings that keep their value in all trials.
        latent_dims: widths of the bottleneck, each of which becomes a trial; without any, settings are searched.

    Returns:
        a sweep without trials.

    Raises:
        ConfigError: the name is invalid, there is nothing to train or to vary, or a width does not suit the
            architecture.
    """
    if config.validate_name(name) in PRESETS:
        raise ConfigError(f"{name} is a preset. Choose another --name, which becomes one more.")
    if not train.epochs:
        raise ConfigError(f"{preset} is not trained: it has 0 epochs. Choose another preset, or set --epochs.")
    if train.init_from:
        raise ConfigError(f"A sweep begins with new weights; {preset} starts from {train.init_from}. Choose another.")
    if latent_dims:
        for latent_dim in latent_dims:
            model.replace(latent_dim=latent_dim)
        return Sweep(name, preset, model, train, {"latent_dim": tuple(sorted(set(latent_dims)))})
    settings = model.to_dict() | train.to_dict()
    choices: dict[str, tuple[Any, ...]] = {"learning_rate": _LEARNING_RATES}
    if model.architecture not in _ARCHITECTURE_CHOICES:
        raise ConfigError(
            f"The preset {preset} learns from photos for hours, so a sweep cannot try it often. Choose another one."
        )
    for key, values in (_CHOICES | _ARCHITECTURE_CHOICES[model.architecture]).items():
        choices[key] = tuple(map(_as_choice, dict.fromkeys((*values, settings[key]))))
    choices = {key: values for key, values in choices.items() if key not in fixed}
    if not choices:
        raise ConfigError("Every setting is given, so there is nothing to search. Leave some out.")
    return Sweep(name, preset, model, train, choices)


def suitable_latent_dims(model: ModelConfig) -> tuple[int, ...]:
    """Return the widths in `LATENT_DIMS` that suit the architecture."""
    suitable = []
    for latent_dim in LATENT_DIMS:
        with contextlib.suppress(ConfigError):
            suitable.append(model.replace(latent_dim=latent_dim).latent_dim)
    return tuple(suitable)


def _order(choice: Any) -> Any:
    """Return the sorting key of a choice: numbers are sorted by size, widths by their sum, activations by name."""
    if isinstance(choice, str):
        return sum(int(part) for part in choice.split(",") if part.isdigit()), choice
    return choice


def _label(choice: Any) -> str:
    return choice if isinstance(choice, str) else f"{choice:g}"


def _as_choice(value: Any) -> Any:
    """Return a setting's value as Optuna and JSON take it: layer widths become text."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def list_sweeps() -> list[Sweep]:
    """Return the sweeps with a finished trial, sorted by name; damaged folders are left out."""
    sweeps = []
    for path in sorted(config.home().glob("sweeps/*/sweep.json")):
        with contextlib.suppress(ConfigError):
            sweeps.append(read_sweep(path.parent.name))
    return [sweep for sweep in sweeps if sweep.finished]


def best_presets(sweeps: list[Sweep]) -> dict[str, Preset]:
    """Return the best configuration of each sweep by the sweep's name, as a preset named like the one it came from."""
    presets = {}
    for sweep in (sweep for sweep in sweeps if sweep.name not in PRESETS):
        best, trials = sweep.finished[0], len(sweep.trials)
        summary = f"The best of {trials} trials of a sweep from {sweep.preset}: validation mse {best.val_loss[-1]:.5f}."
        presets[sweep.name] = Preset(sweep.preset, summary, *sweep.configure(best.settings))
    return presets


def read_sweep(name: str) -> Sweep:
    """Read a sweep and its trials. Invalid lines of trials.jsonl are left out.

    Raises:
        ConfigError: the name is invalid, or sweep.json is missing or damaged.
    """
    path = config.home() / "sweeps" / config.validate_name(name) / "sweep.json"
    try:
        content = read_json(path)
        model, train = ModelConfig.from_dict(content["model"]), TrainConfig.from_dict(content["train"])
        choices = {key: tuple(values) for key, values in content["choices"].items()}
        closed_form = tuple(map(float, content["closed_form"]))
        sweep = Sweep(name, get_preset(content["preset"]).name, model, train, choices, closed_form)
        if not sweep.settings_of(model, train) or len(closed_form) != len(choices.get("latent_dim", ())):
            raise ConfigError("it has no choices, or not one closed-form loss for each latent_dim")
        if not all(0 < loss < math.inf for loss in closed_form):
            raise ConfigError("a closed-form loss is not a number above 0")
        for key, values in choices.items():
            for value in values:
                sweep.configure({key: value})
        return replace(sweep, trials=tuple(_read_trials(sweep)))
    except (*_DAMAGE, OSError) as error:
        raise ConfigError(f"The sweep {name} is damaged ({error}). Delete its folder {path.parent}.") from error


def _read_trials(sweep: Sweep) -> list[Trial]:
    """Return the trials of a sweep from trials.jsonl, without lines that do not describe a trial of this sweep."""
    path, trials = sweep.folder / "trials.jsonl", []
    if not path.exists():
        return []
    if path.stat().st_size > _MAX_TRIALS_BYTES:
        raise ConfigError("trials.jsonl is too large")
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(*_DAMAGE):
            trial = pydantic.TypeAdapter(Trial).validate_json(line)
            whole = len(trial.val_loss) <= sweep.train.epochs and (trial.val_loss or trial.error)
            if whole and sweep.allows(trial.settings):
                sweep.configure(trial.settings)
                trials.append(trial)
    return trials
