"""A sweep: what is tried, the trials that are done, and the files that both are kept in.

It is a folder in COLORIZER_HOME/sweeps: `sweep.json` says what is tried, `trials.jsonl` has a line for each trial.
"""

import contextlib
import json
import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colorizer import config
from colorizer.config import ModelConfig, TrainConfig
from colorizer.errors import ColorizerError, ConfigError
from colorizer.presets import PRESETS, Preset, get_preset
from colorizer.storage import read_json

LATENT_DIMS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
_LEARNING_RATES = (1e-4, 1e-2)  # any between, evenly by their logarithm
_CHOICES: dict[str, tuple[Any, ...]] = {
    "batch_size": (64, 128, 256, 512),
    "weight_decay": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
    "shift": (0, 1, 2, 3, 4),
    "activation": ("relu", "gelu", "silu", "tanh"),
}
_OWN_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "dense": {
        "encoder_widths": ((512,), (1024,), (512, 128), (1024, 512), (1536, 512), (2048, 512)),
        "decoder_widths": ((256,), (512,), (128, 512), (512, 512), (1024, 512), (512, 512, 384)),
    },
    "conv": {},
    "unet": {"dropout": (0.0, 0.1, 0.2, 0.3, 0.4)},
}
_MAX_TRIALS_BYTES = 16 * 2**20
# What a file that is not ours can raise while it is read.
_DAMAGE = (ColorizerError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class Trial:
    """A training of a sweep."""

    settings: dict[str, Any]  # the value of each setting that is tried; widths as text
    val_loss: tuple[float, ...]  # validation `mse` after each epoch; of fewer epochs where it was stopped early
    seconds: float  # of its wall time
    error: str | None = None  # why it failed


@dataclass(frozen=True)
class Coordinate:
    """One axis of parallel coordinates: the height, 0 to 1, of each trial, and of each label beside the axis."""

    name: str
    heights: list[float]
    ticks: dict[str, float]


@dataclass(frozen=True)
class Sweep:
    """What is tried, and what came of it so far."""

    name: str  # of its folder, and of the model that is saved
    preset: str  # whose settings it starts from
    model: ModelConfig  # those settings
    train: TrainConfig
    choices: dict[str, tuple[Any, ...]]  # of each setting its values, widths as text; of `learning_rate` the range
    closed_form: tuple[float, ...] = ()  # validation `mse` of the best linear autoencoder of each `latent_dim` tried
    trials: tuple[Trial, ...] = ()  # in the order in which they ended

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return _home() / self.name

    @property
    def finished(self) -> list[Trial]:
        """The trials that ran for all epochs, best first."""
        whole = [trial for trial in self.trials if len(trial.val_loss) == self.train.epochs and not trial.error]
        return sorted(whole, key=lambda trial: trial.val_loss[-1])

    def allows(self, settings: dict[str, Any]) -> bool:
        """Whether these are settings of a trial of this sweep."""
        if settings.keys() != self.choices.keys():
            return False
        low, high = self.choices.get("learning_rate", _LEARNING_RATES)
        return all(
            low <= value <= high if key == "learning_rate" else value in self.choices[key]
            for key, value in settings.items()
        )

    def configure(self, settings: dict[str, Any]) -> tuple[ModelConfig, TrainConfig]:
        """The configurations of a trial with these settings; its learning rate has two digits."""
        settings = dict(settings)
        for key in settings:
            if key.endswith("_widths"):
                settings[key] = tuple(map(int, filter(None, settings[key].split(","))))
            elif key == "learning_rate":
                settings[key] = float(f"{settings[key]:.2g}")
        return config.apply_settings(self.model, self.train, settings)

    @property
    def first_settings(self) -> dict[str, Any]:
        """Those that it starts from, of all that is tried."""
        return self._settings(self.model, self.train)

    def _settings(self, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
        values = model.to_dict() | train.to_dict()
        return {key: _as_choice(values[key]) for key in self.choices}

    @property
    def title(self) -> str:
        """What it is, in a line."""
        tried = "bottlenecks" if self.closed_form else "trials"
        return f"{self.name}: {len(self.trials)} {tried} from the preset {self.preset}"

    def table(self) -> list[dict[str, Any]]:
        """The trials as rows: settings, epochs, val_loss, seconds, and with bottlenecks the closed form's loss.

        Best first, those that were stopped early behind them; or by bottleneck.
        """
        losses = dict(zip(self.choices.get("latent_dim", ()), self.closed_form, strict=False))
        rows = []
        for trial in self.trials:
            row = self._settings(*self.configure(trial.settings))
            row |= {"epochs": len(trial.val_loss), "val_loss": trial.val_loss[-1] if trial.val_loss else None}
            row |= {"closed_form": losses[row["latent_dim"]]} if losses else {}
            rows.append(row | {"seconds": trial.seconds, "error": trial.error})
        if losses:
            return sorted(rows, key=lambda row: row["latent_dim"])
        return sorted(rows, key=lambda row: (bool(row["error"]), -row["epochs"], row["val_loss"] or 1))

    def coordinates(self) -> list["Coordinate"]:
        """Parallel coordinates of those rows of `table` that have a loss: one for each setting, and the loss.

        The axis of the loss ends at the median; what is worse is drawn there.
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
        """Return what sweep.json holds."""
        configurations = {"model": self.model.to_dict(), "train": self.train.to_dict()}
        return {"preset": self.preset, **configurations, "choices": self.choices, "closed_form": self.closed_form}


def plan_sweep(
    name: str,
    preset: str,
    model: ModelConfig,
    train: TrainConfig,
    fixed: Collection[str] = (),
    latent_dims: Collection[int] = (),
) -> Sweep:
    """Say what a sweep is to try.

    Args:
        name: see `config.validate_name`.
        preset: name of the preset that `model` and `train` come from.
        model, train: settings of the first trial, which the others vary.
        fixed: settings that none varies.
        latent_dims: try only these bottlenecks; by default settings are searched.

    Raises:
        ConfigError: there is nothing to train, or a bottleneck does not fit the architecture.
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
    for key, values in (_CHOICES | _OWN_CHOICES[model.architecture]).items():
        choices[key] = tuple(map(_as_choice, dict.fromkeys((*values, settings[key]))))
    choices = {key: values for key, values in choices.items() if key not in fixed}
    if not choices:
        raise ConfigError("Every setting is given, so there is nothing to search. Leave some out.")
    return Sweep(name, preset, model, train, choices)


def suitable_latent_dims(model: ModelConfig) -> tuple[int, ...]:
    """Those of `LATENT_DIMS` that suit the architecture."""
    suitable = []
    for latent_dim in LATENT_DIMS:
        with contextlib.suppress(ConfigError):
            suitable.append(model.replace(latent_dim=latent_dim).latent_dim)
    return tuple(suitable)


def _order(choice: Any) -> Any:
    """Numbers by size, widths by their sum, activations by name."""
    if isinstance(choice, str):
        return sum(int(part) for part in choice.split(",") if part.isdigit()), choice
    return choice


def _label(choice: Any) -> str:
    return choice if isinstance(choice, str) else f"{choice:g}"


def _as_choice(value: Any) -> Any:
    """A setting's value as Optuna and JSON take it: widths become text."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _home() -> Path:
    return config.home() / "sweeps"


def list_sweeps() -> list[Sweep]:
    """The sweeps with a finished trial, by name; folders that cannot be read are left out."""
    sweeps = []
    for path in sorted(_home().glob("*/sweep.json")):
        with contextlib.suppress(ConfigError):
            sweeps.append(read_sweep(path.parent.name))
    return [sweep for sweep in sweeps if sweep.finished]


def best_presets(sweeps: list[Sweep]) -> dict[str, Preset]:
    """The best configuration of each sweep, by the sweep's name; each has the name of the preset that it began with."""
    presets = {}
    for sweep in sweeps:
        if sweep.name in PRESETS:
            continue
        best, trials = sweep.finished[0], len(sweep.trials)
        summary = f"The best of {trials} trials of a sweep from {sweep.preset}: validation mse {best.val_loss[-1]:.5f}."
        presets[sweep.name] = Preset(sweep.preset, summary, *sweep.configure(best.settings))
    return presets


def read_sweep(name: str) -> Sweep:
    """Read a sweep and its trials; a line that is none is left out. Without a sound sweep.json, raise `ConfigError`."""
    path = _home() / config.validate_name(name) / "sweep.json"
    try:
        content = read_json(path)
        model, train = ModelConfig.from_dict(content["model"]), TrainConfig.from_dict(content["train"])
        choices = {key: tuple(values) for key, values in content["choices"].items()}
        closed_form = tuple(map(float, content["closed_form"]))
        sweep = Sweep(name, get_preset(content["preset"]).name, model, train, choices, closed_form)
        if not sweep.first_settings or len(closed_form) != len(choices.get("latent_dim", ())):
            raise ConfigError("it has no choices, or not as many losses of the closed form")
        if not all(0 < loss < math.inf for loss in closed_form):
            raise ConfigError("a loss of the closed form is none")
        for key, value in ((key, value) for key, values in choices.items() for value in values):
            sweep.configure({key: value})
        return replace(sweep, trials=tuple(_read_trials(sweep)))
    except (*_DAMAGE, OSError) as error:
        raise ConfigError(f"The sweep {name} is damaged ({error}). Delete its folder {path.parent}.") from error


def _read_trials(sweep: Sweep) -> list[Trial]:
    path, trials = sweep.folder / "trials.jsonl", []
    if not path.exists():
        return []
    if path.stat().st_size > _MAX_TRIALS_BYTES:
        raise ConfigError("trials.jsonl is too large")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(*_DAMAGE):
            values = json.loads(line)
            settings, val_loss = values["settings"], tuple(map(float, values["val_loss"]))
            trial = Trial(settings, val_loss, float(values["seconds"]), values["error"] and str(values["error"]))
            sound = all(0 < loss < math.inf for loss in val_loss) and 0 <= trial.seconds < math.inf
            whole = len(val_loss) <= sweep.train.epochs and (val_loss or trial.error)
            if sound and whole and sweep.allows(settings):
                sweep.configure(settings)
                trials.append(trial)
    return trials
