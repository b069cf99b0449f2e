"""Colorizes several pictures at once, with a row for each and one zip file of the results."""

import hashlib
import io
import itertools
import re
import zipfile
from functools import partial
from pathlib import PurePath

import numpy as np
import streamlit as st
from PIL import Image, ImageOps
from streamlit.delta_generator import DeltaGenerator

from colorizer.app.widgets import state
from colorizer.app.widgets.text import show_error
from colorizer.errors import ColorizerError
from colorizer.models.library import ModelEntry

_THUMBNAIL = (192, 144)  # A page shows these pixels at half their size, sharp on every screen.


def show_files(files: list[tuple[str, bytes]], entry: ModelEntry, settings: state.PhotoSettings) -> None:
    """Colorize files, each a name and its content; the session keeps what is done until the settings change."""
    kept = st.session_state.setdefault("results", {})
    keys = [(entry.checksum, settings, hashlib.sha256(content).digest()) for _, content in files]
    results = st.session_state["results"] = {key: kept[key] for key in keys if key in kept}
    head, rows = st.empty(), [st.empty() for _ in files]
    for (name, content), key, row in zip(files, keys, rows, strict=True):
        _show_row(row, name, content, results.get(key))
    for number, ((name, content), key, row) in enumerate(zip(files, keys, rows, strict=True)):
        if key in results:
            continue
        head.progress(number / len(files), f"Colorizing {number + 1} of {len(files)} with {entry.name} …")
        try:
            small = Image.fromarray(state.colorize(entry, content, settings, 2 * max(_THUMBNAIL)))
            height, width = state.picture_size(content)
            results[key] = f"{width:,} x {height:,} pixels", np.asarray(ImageOps.fit(small, _THUMBNAIL))
        except ColorizerError as error:
            results[key] = str(error), None
        _show_row(row, name, content, results[key])

    done = [file for file, key in zip(files, keys, strict=True) if results[key][1] is not None]
    with head.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Download all as zip",
            partial(pack_zip, done, entry, settings),
            file_name=f"colorized-{entry.name}.zip",
            mime="application/zip",
            icon=":material/download:",
            type="primary",
            on_click="ignore",
            disabled=not done,
        )
        st.caption(f"{len(done)} of {len(files)} colorized by {entry.name}", width="content")


def _show_row(row: DeltaGenerator, name: str, content: bytes, result: tuple[str, np.ndarray | None] | None) -> None:
    """Show a file's thumbnail, name, size and state; `result` is its size and thumbnail, or what is wrong and None."""
    text, thumbnail = result or ("Waiting …", None)
    alt = "" if thumbnail is None else f"{name}, colorized"
    if thumbnail is None:
        thumbnail = np.full((*_THUMBNAIL[::-1], 4), (128, 128, 128, 40), np.uint8)
    with row.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.image(thumbnail, width=_THUMBNAIL[0] // 2, alt=alt)
        with st.container(width="stretch", gap=None):
            st.text(name)
            if result and result[1] is None:
                show_error(text, icon="broken_image")
            else:
                st.caption(f"{len(content) / 1024:,.0f} KB · {text}{' · :material/check: Done' if result else ''}")


def safe_names(names: list[str]) -> list[str]:
    """Return a stem for each file name: safe on every system, and different from the others in more than case."""
    taken: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^\w-]+", "-", PurePath(name).stem).strip("-")[:80] or "picture"
        candidates = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        unique = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken[unique.casefold()] = unique
    return list(taken.values())


def pack_zip(files: list[tuple[str, bytes]], entry: ModelEntry, settings: state.PhotoSettings) -> bytes:
    """Colorize files, each a name and its content, at their own resolution, into a zip of PNG files.

    The zip is made only when it is asked for, since the full PNG files of all visitors would fill the memory. It stores
    them as they are, since they are compressed already.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for stem, (_, content) in zip(safe_names([name for name, _ in files]), files, strict=True):
            archive.writestr(f"{stem}.png", state.colorize_fully(entry, content, settings))
    return buffer.getvalue()
