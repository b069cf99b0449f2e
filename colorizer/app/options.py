"""Defines the options that commands share, and an option for each setting of a model and its training."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from colorizer import config
from colorizer.errors import ConfigError
from colorizer.models import library
from colorizer.models.scale import DEFAULT_VIVIDNESS
from colorizer.presets import PRESETS
from colorizer.settings import Settings

Result = tuple[dict[str, Any], str]
"""A JSON object, and the text of the same content. An entry `failed` that is not empty makes the exit code 1."""

DEFAULT_PRESET = "dense"
_PATHS = {"photos": "DIR or ZIP", "backbone": "FILE"}  # These settings are paths.
_PANEL = f"Settings: each one replaces that of the preset; the defaults below are those of the preset {DEFAULT_PRESET}"


def read_path(text: str) -> Path:
    """Return the path that a word names, with `~` expanded; an empty path raises `ConfigError`."""
    if not text:
        raise ConfigError("A path is empty, as it is when a shell variable is not set. Name a file or a folder.")
    config.expand_path(text)  # This raises an error for `~` with an unknown user.
    return Path(text).expanduser()


def _check_path(text: str) -> str:
    """Return a path as it is written, because the card of a model repeats it; see `read_path` for its errors."""
    read_path(text)
    return text


def read_number(kind: type[int | float]) -> Callable[[Any], int | float]:
    """Return a function that reads a number of that kind; its error names the text that is not a number."""

    def read(text: Any) -> int | float:
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise typer.BadParameter(f"{text!r} is not {wanted}.") from None

    return read


def read_whole_numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers like 512,128.") from None


def _model_names(incomplete: str) -> list[str]:
    """Complete the name of a model."""
    return [entry.name for entry in library.list_models() if entry.name.startswith(incomplete)]


MODEL = typer.Argument(metavar="NAME", help="Give the name or the folder of a model.", autocompletion=_model_names)
Preset = Annotated[
    Literal[tuple(PRESETS)], typer.Option(help="Take all settings that you do not give from this preset.")
]
Output = Annotated[
    Path,
    typer.Option(
        metavar="DIR", parser=read_path, help="Write the results into this folder; it is created if it is missing."
    ),
]
Vividness = Annotated[
    float | None,
    typer.Option(
        metavar="0 to 1",
        parser=read_number(float),
        help="Set how bold the colours of a model with chroma bins are, from the safe mean to the boldest.",
        show_default=str(DEFAULT_VIVIDNESS),
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar=f"{config.MIN_WORKING_SIZE} to {config.MAX_WORKING_SIZE}",
        parser=read_number(int),
        help="Shrink the picture until its shorter side has this many pixels, a multiple of 8 for a U-Net and of 32 "
        "with a backbone.",
        show_default="that of the model",
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        metavar=f"0 to {config.MAX_STRENGTH:g}",
        parser=read_number(float),
        help="Multiply the predicted chroma by this factor; 0 makes the picture gray.",
    ),
]


def _setting(kind: type[Settings], name: str) -> inspect.Parameter:
    """Return the option of a setting, with the type, range, choices and description of its declaration.

    Settings check their own ranges and choices, so the app and the command line refuse a value with the same sentence.
    """
    preset, field, words = PRESETS[DEFAULT_PRESET], kind.model_fields[name], name.replace("_", "-")
    value, annotation = getattr(preset.model if kind is config.ModelConfig else preset.train, name), field.annotation
    about: dict[str, Any] = {"metavar": "NAME"} | ({} if value or value == 0 else {"show_default": "none"})
    if isinstance(value, bool):
        words, about = f"{words}/--no-{words}", {}
    elif isinstance(value, tuple):
        value, annotation = ",".join(map(str, value)), str
        about |= {"metavar": "N,N,...", "parser": read_whole_numbers}
    elif limits := kind.limits(name):
        about |= {"metavar": "{} to {}".format(*limits), "parser": read_number(annotation)}
    elif choices := kind.choices(name):
        annotation, about = str, {"metavar": "|".join(choices), "autocompletion": lambda: list(choices)}
    elif name in _PATHS:
        value, about = None, about | {"metavar": _PATHS[name], "parser": _check_path}
    option = typer.Option(f"--{words}", help=field.description, rich_help_panel=_PANEL, **about)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=Annotated[annotation, option]
    )


_SETTINGS = [_setting(kind, name) for kind in (config.ModelConfig, config.TrainConfig) for name in kind.model_fields]
_JSON = inspect.Parameter(
    "json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")],
)
_CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def add_command(app: typer.Typer, function: Callable[..., Result]) -> None:
    """Make a function a command of `app`, with the option `--json`.

    A function with a parameter `settings` gets an option for every setting of `ModelConfig` and `TrainConfig`, and
    receives those that were given as a dict.
    """
    own = {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in inspect.signature(function).parameters.items()}
    settings = _SETTINGS if own.pop("settings", None) else []

    def run(context: typer.Context, **options: Any) -> Result:
        del options["json"]  # `cli.main` reads it before parsing, so that it also applies to wrong usage.
        values = {setting.name: options.pop(setting.name) for setting in settings}
        given = {key: values[key] for key in values if context.get_parameter_source(key).name == "COMMANDLINE"}
        return function(**options, **({"settings": given} if settings else {}))

    run.__signature__ = inspect.Signature([_CONTEXT, *own.values(), _JSON, *settings])
    run.__annotations__ = {name: parameter.annotation for name, parameter in run.__signature__.parameters.items()}
    run.__doc__ = function.__doc__
    app.command(function.__name__)(run)
