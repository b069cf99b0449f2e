"""Escapes text from outside before a page shows it, and takes the server's paths out of it."""

import contextlib
import os
import re

import streamlit as st

from colorizer import config
from colorizer.errors import ColorizerError

_MARKUP = re.compile(r"[\\`*\[\]<|~$&]|(?<![^\W_])_|_(?![^\W_])")
_MARKER = re.compile(r"^(?:(?=[-+#>=])|(\d{1,9})(?=[.)]))")  # At the start of a line these make a heading or a list.
# Streamlit turns these into icons, emoji, colours and links, even where a backslash stands before them.
_SHORTCUT = re.compile(r"([:@](?=\S)|www(?=\.))", re.IGNORECASE)
_WORD_JOINER = "\u2060"  # This character has no width, and Streamlit no longer recognises a shortcut that it splits.
_PATH = re.compile(r"""(?:(?<![\w:/.\\])/+|\b[A-Za-z]:[\\/]+)(?:[^\s\\/'"]+[\\/]+)*([^\s\\/'"]+)""")


def escape(text: object) -> str:
    """Return `text` as Markdown of one line that shows it letter by letter.

    No character of it becomes a link, an image, HTML, a formula, an icon, an emoji or a colour. Everything that the app
    did not write itself passes through here: query parameters, names of files, texts on cards, and error messages.
    """
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    line = _MARKER.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", line))
    return _SHORTCUT.sub(rf"\1{_WORD_JOINER}", line)


def hide_paths(text: str) -> str:
    """Return `text` without the absolute paths of this machine: the last part of each stays.

    The command line names paths in full, as its user can open them. A visitor of a page cannot.
    """
    for folder in _folders():
        text = text.replace(f"{folder}{os.sep}", "").replace(folder, "the app's folder")
    return _PATH.sub(r"\1", text)


def _folders() -> list[str]:
    """Return the folders that messages name: those of models and runs, the app, the user and CIFAR-10."""
    source = os.environ.get("COLORIZER_CIFAR10")
    folders = {str(config.ASSETS.parent)}
    for find in (config.home, lambda: config.expand_path("~"), lambda: config.expand_path(source or "~").parent):
        with contextlib.suppress(ColorizerError):
            folders.add(str(find()))
    return sorted((folder for folder in folders if folder != os.sep), key=len, reverse=True)


def describe(error: Exception | str) -> str:
    """Return an error's message as Markdown that a visitor may see."""
    return escape(hide_paths(str(error)))


def show_error(error: Exception | str, icon: str = "error") -> None:
    """Show an error's message in a red box.

    Args:
        error: what went wrong, usually a `ColorizerError`, whose message is a full sentence.
        icon: name of a Material symbol.
    """
    st.error(describe(error), icon=f":material/{icon}:")
