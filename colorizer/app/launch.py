"""Starts the app's server, from a checkout or from an installed wheel."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colorizer import config

_PACKAGE = Path(__file__).resolve().parents[1]
_SCRIPT = _PACKAGE.parent / "streamlit_app.py"  # A wheel installs it beside the package as well.
_INSTALLED_SETTINGS = _PACKAGE / "streamlit" / "config.toml"  # In a checkout Streamlit reads .streamlit by itself.


def start_app(arguments: Sequence[str] = ()) -> int:
    """Run the app's server until it ends, and return its exit code; it works from any current folder.

    Args:
        arguments: further options of `streamlit run`, such as `--server.port=8502`.
    """
    home = config.home()  # This raises an error where there is no folder for models and runs.
    try:
        Path.home()
    except RuntimeError:  # Streamlit cannot start for a user whom the system does not know, unless HOME is set.
        os.environ["HOME"] = str(home)
    settings = tomllib.loads(_INSTALLED_SETTINGS.read_text(encoding="utf-8")) if _INSTALLED_SETTINGS.is_file() else {}
    command = [sys.executable, "-m", "streamlit", "run", str(_SCRIPT), *_options(settings), *arguments]
    if os.name == "posix":
        os.execv(sys.executable, command)  # The server takes over this process, so signals reach it.
    return subprocess.call(command)


def _options(settings: dict[str, Any], prefix: str = "--") -> Iterator[str]:
    """Yield settings of a config.toml as options of the command line; a list repeats its option."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _options(value, f"{prefix}{name}.")
        else:
            for part in value if isinstance(value, list) else [value]:
                yield f"{prefix}{name}={str(part).lower() if isinstance(part, bool) else part}"
