"""Runs the command line: its commands, the exit codes and `--json`.

Results go to stdout and progress to stderr. The exit code is 0, 1 for a failure or 2 for wrong usage.
"""

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic_core
import typer

from colorizer.app import commands, evaluate_command, train_commands
from colorizer.app.launch import start_app
from colorizer.app.options import add_command
from colorizer.errors import ColorizerError

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
        print(_to_json(content) if as_json else text, flush=True)
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
    except BrokenPipeError:  # The reader has closed the pipe, as `| head` does.
        _silence_stdout()
        return 1
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{place}. Check the disk and the paths given.", as_json)
    except KeyboardInterrupt:
        return _fail("stopped", as_json)


def _fail(sentence: str, as_json: bool, code: int = 1) -> int:
    """Print an error on stderr, and with `--json` also as a JSON object on stdout; return the exit code."""
    with contextlib.suppress(OSError):
        print(sentence if sentence == "stopped" else f"error: {sentence}", file=sys.stderr)
    try:
        if as_json:
            print(_to_json({"error": sentence}))
        sys.stdout.flush()
    except (OSError, AttributeError):  # Standard output has no room or is closed.
        _silence_stdout()
    return code


def _silence_stdout() -> None:
    """Discard the rest of the output buffer, because Python would fail again when it writes it at the end."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_any_file_name() -> None:
    """Let stdout print any file name as the bytes on the disk, even if its encoding cannot represent the name."""

    def encode(error: UnicodeError) -> tuple[str | bytes, int]:
        try:
            return os.fsencode(error.object[error.start : error.end]), error.end
        except UnicodeError:
            return codecs.backslashreplace_errors(error)

    codecs.register_error("colorizer-file-names", encode)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="colorizer-file-names")


def _to_json(content: dict[str, Any]) -> str:
    """Return a JSON object as text; NaN and infinity become null, because JSON has no such numbers."""
    return json.dumps(pydantic_core.to_jsonable_python(content, inf_nan_mode="null"), indent=2, allow_nan=False)


def _program(words: Sequence[str]) -> str:
    """Return the name by which the program was called; shells can complete only a single word."""
    module = Path(sys.argv[0]).name == "__main__.py" and not any(word.endswith("-completion") for word in words)
    return "python -m colorizer" if module else "colorizer"


def _complete_latent_dims(words: Sequence[str]) -> list[str]:
    """Add the value `all` to a `--latent-dims` without a value, because every option of Typer needs one."""
    completed = []
    for word, following in zip(words, [*words[1:], "-"], strict=False):
        completed += [word, "all"] if word == "--latent-dims" and following.startswith("-") else [word]
    return completed


for _function in (
    commands.data,
    commands.models,
    train_commands.train,
    train_commands.sweep,
    evaluate_command.evaluate,
    commands.colorize,
    commands.export,
    commands.report,
):
    add_command(_app, _function)


@_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def app(context: typer.Context) -> int:
    """Start the app in the browser.

    Further options go to `streamlit run`, such as --server.port 8502.
    """
    return start_app(context.args)
