"""The command line: its options and their help, its exit codes and `--json`. `commands` holds what each command does.

Results go to stdout and progress to stderr. The exit code is 0, 1 for a failure or 2 for wrong usage.
"""

import codecs
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from colorizer import config
from colorizer.app import commands
from colorizer.app.launch import start_app
from colorizer.app.options import DEFAULT_PRESET, add_command, read_latent_dims, read_path, read_positive
from colorizer.errors import ColorizerError
from colorizer.models import library
from colorizer.presets import PRESETS

_STOPPED = 130  # Typer returns this exit code for a KeyboardInterrupt.
_MAX_ECHOED = 500  # A message about wrong usage repeats at most this many characters.

_app = typer.Typer(
    name="colorizer",
    rich_markup_mode=None,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn grayscale images into colour with small neural networks.",
    epilog="Run `colorizer --install-completion` once, and the Tab key completes commands, options and their values.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code.

    Args:
        arguments: the words after the program's name; by default those of `sys.argv`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        if sys.stdout is None:
            raise ColorizerError(
                "Standard output is closed, so no result could be printed. Redirect it to a file or to /dev/null."
            )
        _print_any_file_name()
        result = typer.main.get_command(_app).main(
            _complete_latent_dims(words), _program(words), "_COLORIZER_COMPLETE", standalone_mode=False
        )
        if result == _STOPPED:
            raise KeyboardInterrupt
        if not isinstance(result, tuple):  # The help text or the app returns an exit code.
            return result or 0
        content, text = result
        _print(_to_json(content) if as_json else text)
        return int(bool(content.get("failed")))
    except typer.exceptions.TyperException as error:
        context = getattr(error, "ctx", None)
        program = context.command_path if context else _program(words)
        message = error.format_message().replace("Value error, ", "").removeprefix("Invalid value: ")
        message = message if len(message) <= _MAX_ECHOED else f"{message[:_MAX_ECHOED]}…"
        end = "" if message.endswith((".", "?")) else "."
        return _fail(f"{message}{end} Run `{program} --help` to see the usage.", as_json, 2)
    except ColorizerError as error:
        return _fail(str(error), as_json)
    except BrokenPipeError:  # The reader has what it wanted, such as `| head`.
        return _silence_stdout()
    except OSError as error:
        return _fail(f"{error}. Check the disk and the paths given.", as_json)
    except KeyboardInterrupt:
        return _fail("stopped", as_json)


def _fail(sentence: str, as_json: bool, code: int = 1) -> int:
    """Print what went wrong on stderr, with `--json` also as an object on stdout, and return the exit code."""
    with contextlib.suppress(OSError):
        print(sentence if sentence == "stopped" else f"error: {sentence}", file=sys.stderr)
    with contextlib.suppress(OSError):
        if sys.stdout is not None:
            print(_to_json({"error": sentence}) if as_json else "", end="\n" if as_json else "", flush=True)
            return code
    _silence_stdout()
    return code


def _print(text: str) -> None:
    print(text, flush=True)


def _silence_stdout() -> int:
    """Let Python write what is left in its buffer to nowhere, since it would fail again at the end; return 1."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _print_any_file_name() -> None:
    """Print the name of any file, even where stdout has another encoding, as the bytes that the disk has."""

    def encode(error: UnicodeError) -> tuple[str | bytes, int]:
        try:
            return os.fsencode(error.object[error.start : error.end]), error.end
        except UnicodeError:
            return codecs.backslashreplace_errors(error)

    codecs.register_error("colorizer-file-names", encode)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="colorizer-file-names")


def _to_json(content: dict[str, Any]) -> str:
    """Return a JSON object; what is not a finite number becomes null, since JSON has no word for it."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=2, allow_nan=False)


def _program(words: Sequence[str]) -> str:
    """Return the name by which the program was called; shells can complete only a single word."""
    module = Path(sys.argv[0]).name == "__main__.py" and not any(word.endswith("-completion") for word in words)
    return "python -m colorizer" if module else "colorizer"


def _complete_latent_dims(words: Sequence[str]) -> list[str]:
    """Add the value `all` after `--latent-dims` where it has none, since Typer's options always take their value."""
    completed = []
    for word, following in zip(words, [*words[1:], "-"], strict=False):
        completed += [word, "all"] if word == "--latent-dims" and following.startswith("-") else [word]
    return completed


def _model_names(incomplete: str) -> list[str]:
    """Complete the name of a model."""
    return [entry.name for entry in library.list_models() if entry.name.startswith(incomplete)]


_Model = Annotated[str, typer.Argument(metavar="NAME", help="Name or folder of a model.", autocompletion=_model_names)]
_Preset = Annotated[
    Literal[tuple(PRESETS)],
    typer.Option(help="Preset whose settings are used where none is given."),
]
_Output = Annotated[
    Path, typer.Option(metavar="DIR", parser=read_path, help="Folder for the results, made where it is missing.")
]
_Vividness = Annotated[
    float | None,
    typer.Option(
        metavar="0 to 1",
        help="Boldness of the colours of a model with chroma bins, from the safe mean to the likeliest colour.",
        show_default=str(config.DEFAULT_VIVIDNESS),
    ),
]
_Strength = Annotated[
    float,
    typer.Option(metavar=f"0 to {config.MAX_STRENGTH:g}", help="Factor on the chroma; 0 makes the picture gray."),
]


@add_command(_app)
def data(
    download: Annotated[bool, typer.Option("--download", help="Download the official CIFAR-10 (170 MB).")] = False,
    write_statistics: Annotated[
        bool, typer.Option("--write-statistics", help="Compute assets/cifar10-statistics.npz from CIFAR-10.")
    ] = False,
) -> tuple[dict, str]:
    """Show which data sets are here, where they are, and how large."""
    return commands.show_data(download, write_statistics)


@add_command(_app)
def models() -> tuple[dict, str]:
    """List the models in the library, best first."""
    return commands.list_models()


@add_command(_app)
def train(
    settings: dict[str, Any],
    preset: _Preset = DEFAULT_PRESET,
    name: Annotated[str, typer.Option(help="Name of the new model.", show_default="preset, date and time")] = "",
    folder: Annotated[
        Path | None,
        typer.Option("--library", metavar="DIR", parser=read_path, help="Save into this folder, not your own library."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a model of that name.")] = False,
) -> tuple[dict, str]:
    """Train a model and put it into the library.

    A setting that is given replaces the preset's; the defaults below are those of dense. Ctrl-C ends the training early
    and keeps what is learned.
    """
    return commands.train(settings, preset, name, folder and folder.absolute(), replace)


@add_command(_app)
def sweep(
    settings: dict[str, Any],
    preset: _Preset = DEFAULT_PRESET,
    name: Annotated[
        str,
        typer.Option(help="Name of the sweep and its model.", show_default="preset and what is tried"),
    ] = "",
    latent_dims: Annotated[
        str | None,
        typer.Option(
            metavar="[N,N,...]",
            parser=read_latent_dims,
            help="Try these bottlenecks instead of searching; without numbers, those of 2 to 512 that suit the preset.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(parser=read_positive(int), metavar="N", help="Number of trials of a search, at least 1.")
    ] = 20,
    time_budget: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            parser=read_positive(float),
            help="Give up the trials under way after this time; the best is then trained once more.",
            show_default="no limit",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="`local` for the cores of this machine, or HOST:PORT of a Ray cluster.")
    ] = "local",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was ended or killed.")] = False,
) -> tuple[dict, str]:
    """Search settings, or try bottlenecks, and train the best.

    Ray Tune runs the trials; the best goes into the library and becomes a preset of the Train page. No trial varies a
    setting that is given; the defaults below are those of dense.
    """
    return commands.run_sweep(settings, preset, name, latent_dims, trials, time_budget or math.inf, address, resume)


@add_command(_app)
def evaluate(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name or folder of a model.", autocompletion=_model_names)
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Measure every model of the library and the baselines, in one table.")
    ] = False,
    dataset: Annotated[str, typer.Option(help=config.TrainConfig.model_fields["dataset"].description)] = "cifar10",
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Split of the data set to measure on.")
    ] = "test",
    photos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=read_path, help="Measure on the photos in this folder, at their full size."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=read_path, help="With --all, also draw the metrics (PNG, SVG or PDF)."),
    ] = None,
    vividness: _Vividness = None,
    strength: _Strength = 1.0,
) -> tuple[dict, str]:
    """Measure a model, or all models, beside the gray copy."""
    if (name is None) != every:
        raise typer.BadParameter("Give either the NAME of a model or --all.")
    if figure:
        from colorizer.app.figures import check_figure_path

        check_figure_path(figure)
        if not every or photos:
            raise typer.BadParameter("--figure needs --all and cannot draw --photos.")
    return commands.evaluate(name, dataset, split, photos, figure, vividness, strength)


@add_command(_app)
def colorize(
    name: _Model,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", parser=read_path, help="Pictures, or folders with some at any depth."),
    ],
    output: _Output,
    vividness: _Vividness = None,
    strength: _Strength = 1.0,
    size: Annotated[
        int | None,
        typer.Option(
            metavar=f"{config.MIN_WORKING_SIZE} to {config.MAX_WORKING_SIZE}",
            help="Shorter side in pixels, a multiple of 8, at which a U-Net sees a picture.",
            show_default="32 and 64, averaged",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make results again that are there, instead of skipping them.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Spread the work with Ray: `local` for the cores of this machine, or HOST:PORT of a cluster.",
        ),
    ] = None,
) -> tuple[dict, str]:
    """Colorize pictures and folders of pictures as PNG files."""
    return commands.colorize(name, files, output, overwrite, ray, vividness=vividness, strength=strength, size=size)


@add_command(_app)
def report(name: _Model, output: _Output) -> tuple[dict, str]:
    """Draw a model's loss curve, reconstructions and training."""
    return commands.report(name, output)


@_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def app(context: typer.Context) -> int:
    """Start the app in the browser.

    Further options go to `streamlit run`, such as --server.port 8502.
    """
    return start_app(context.args)
