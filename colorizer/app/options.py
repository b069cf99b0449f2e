"""Options of the command line: how their words are read, and an option for each setting of a model and its training."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from colorizer import config
from colorizer.errors import ConfigError
from colorizer.presets import PRESETS

DEFAULT_PRESET = "dense"
_PANEL = f"Settings: each replaces the preset's value; the defaults below are those of {DEFAULT_PRESET}"


def read_path(text: str) -> Path:
    """Return the path that a word names, with `~` expanded; an empty path raises `ConfigError`."""
    if not text:
        raise ConfigError("A path is empty, as it is when a shell variable is not set. Name a file or a folder.")
    config.expand_path(text)  # This raises an error for `~` with an unknown user.
    return Path(text).expanduser()


def read_whole_numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers like 512,128.") from None


def read_latent_dims(text: str) -> tuple[int, ...] | str:
    """Return whole numbers, or the word `all`."""
    return text if text == "all" else read_whole_numbers(text)


def read_number(kind: type[int | float]) -> Callable[[Any], int | float]:
    """Return a function that reads a number of that kind."""

    def read(text: Any) -> int | float:
        try:
            return kind(text)
        except ValueError:
            name = "a whole number" if kind is int else "a number"
            raise typer.BadParameter(f"{text!r} is not {name}.") from None

    return read


def read_positive(kind: type[int | float]) -> Callable[[Any], int | float]:
    """Return a function that reads a number of that kind above 0."""

    def read(text: Any) -> int | float:
        if not (number := read_number(kind)(text)) > 0:
            raise typer.BadParameter(f"{text!r} is not a number above 0.")
        return number

    return read


def _setting(kind: type[config.Settings], name: str) -> inspect.Parameter:
    """Return the option of a setting, with the type, range, choices and sentence of its declaration.

    Settings check their own ranges and choices, so the app and the command line refuse a value with the same sentence.
    """
    preset, field, words = PRESETS[DEFAULT_PRESET], kind.model_fields[name], name.replace("_", "-")
    value, annotation = getattr(preset.model if kind is config.ModelConfig else preset.train, name), field.annotation
    about: dict[str, Any] = {"metavar": "TEXT"}
    shown = {} if value or value == 0 else {"show_default": "none"}
    if isinstance(value, bool):
        words, about = f"{words}/--no-{words}", {}
    elif isinstance(value, tuple):
        value, annotation = ",".join(map(str, value)), str
        about = {"metavar": "N,N,...", "parser": read_whole_numbers}
    elif limits := kind.limits(name):
        about = {"metavar": "{} to {}".format(*limits), "parser": read_number(annotation)}
    elif choices := kind.choices(name):
        annotation, about = str, {"metavar": "|".join(choices), "autocompletion": lambda: list(choices)}
    elif name == "photos":
        value, about = None, {"metavar": "DIR", "parser": lambda text: str(read_path(text))}
    option = typer.Option(f"--{words}", help=field.description, rich_help_panel=_PANEL, **shown, **about)
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


def add_command(app: typer.Typer) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a function a command of `app`, with the option `--json`.

    A function with a parameter `settings` gets an option for every setting of `ModelConfig` and `TrainConfig`, and
    receives those that were given as a dict.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = dict(inspect.signature(function).parameters)
        settings = _SETTINGS if own.pop("settings", None) else []

        def run(context: typer.Context, **options: Any) -> Any:
            del options["json"]  # It is read before the words are parsed, so that it also holds for wrong usage.
            values = {setting.name: options.pop(setting.name) for setting in settings}
            sources = {key: context.get_parameter_source(key) for key in values}
            given = {key: value for key, value in values.items() if sources[key].name == "COMMANDLINE"}
            return function(**options, **({"settings": given} if settings else {}))

        own = {name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in own.items()}
        parameters = [_CONTEXT, *own.values(), _JSON, *settings]
        run.__signature__ = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        app.command(function.__name__)(run)
        return function

    return decorate
