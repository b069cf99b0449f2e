"""Lets the visitor choose the small image that the chapters show."""

import numpy as np
import streamlit as st

from colorizer.app.widgets import state
from colorizer.data.datasets import CLASS_NAMES

_SHIP = 11


def choose_image() -> tuple[int, np.ndarray, str]:
    """Show a list of the built-in samples; return the number, the image, uint8 (32, 32, 3), and what it shows."""
    samples = state.load_samples()
    index = st.selectbox(
        "Image",
        range(len(samples.images)),
        index=_SHIP,
        format_func=lambda i: f"{i} {CLASS_NAMES[samples.labels[i]]}",
        key="sample",
        bind="query-params",
        width=240,
    )
    return index, samples.images[index], CLASS_NAMES[samples.labels[index]]
