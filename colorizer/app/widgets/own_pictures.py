"""Lets a visitor upload pictures to learn from, and shows what a training would learn."""

from typing import NamedTuple

import numpy as np
import streamlit as st

from colorizer.app.widgets import pictures
from colorizer.app.widgets.text import show_error
from colorizer.config import MAX_OWN_PICTURES, MIN_OWN_PICTURES, OWN_PICTURES
from colorizer.data.datasets import own_dataset
from colorizer.data.uploads import OwnPictures, read_uploads
from colorizer.errors import DataError
from colorizer.pixels.images import SUFFIXES

_KEY = "own"
_SHOWN, _COLUMNS = 40, 10


class _Read(NamedTuple):
    """What became of the files with these ids: pictures, or a sentence on why they cannot be used."""

    ids: list[str]
    pictures: OwnPictures | None
    trouble: str


def chosen() -> np.ndarray | None:
    """Return the visitor's pictures, uint8 (N, 32, 32, 3), where they are to be learned from and can be, else None."""
    read = st.session_state.get(_KEY)
    if st.session_state.get("dataset") != OWN_PICTURES or read is None or read.pictures is None:
        return None
    return read.pictures.images


def show() -> None:
    """Show where pictures can be uploaded, and what would be learned from those that were."""
    files = st.file_uploader(
        f"{MIN_OWN_PICTURES} to {MAX_OWN_PICTURES} pictures in colour, or a zip of them",
        type=[*SUFFIXES, ".zip"],
        accept_multiple_files=True,
        key="own_files",
        help="They are cut to 32 x 32 pixels. Other visitors cannot see them, but can use the model. They are deleted "
        "with the run.",
    )
    ids = [file.file_id for file in files]
    if not files:
        st.session_state.pop(_KEY, None)
        return
    if st.session_state.get(_KEY, _Read([], None, "")).ids != ids:
        st.session_state[_KEY] = _read(ids, [(file.name, file.getvalue()) for file in files])
    read = st.session_state[_KEY]
    if read.pictures is None:
        show_error(read.trouble)
        return
    dataset = own_dataset(read.pictures.images)
    learned, held = len(dataset.train.images), len(dataset.validation.images)
    st.caption(
        f"It learns from {learned} pictures, is validated on {held} and tested on {held} others. Left out are "
        f"{read.pictures.gray} that are gray and {read.pictures.unreadable} that cannot be read. So few pictures make "
        "few steps: choose many epochs and small batches, or start from a model of the library."
    )
    shown = list(dataset.train.images[:_SHOWN])
    rows = [shown[start : start + _COLUMNS] for start in range(0, len(shown) // _COLUMNS * _COLUMNS, _COLUMNS)]
    pictures.show_tiles(rows, 1, f"The first {_COLUMNS * len(rows)} pictures that it learns from")


def _read(ids: list[str], files: list[tuple[str, bytes]]) -> _Read:
    bar = st.progress(0.0, text="Reading your pictures …")

    def on_progress(done: int, total: int) -> None:
        bar.progress(done / total, text=f"Reading picture {done + 1} of {total} …")

    try:
        return _Read(ids, read_uploads(files, on_progress), "")
    except DataError as error:
        return _Read(ids, None, str(error))
    finally:
        bar.empty()
