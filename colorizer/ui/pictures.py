"""Crisp pictures of small images: nearest neighbour, enlarged on the server, each with a text for screen readers."""

import numpy as np
import streamlit as st
from PIL import Image

from colorizer.color import gray_copy, to_uint8
from colorizer.data import CLASS_NAMES, SNAPSHOT_SAMPLES
from colorizer.images import tile_rows
from colorizer.ui import state

_PAGE_PIXELS = 1200  # longest side of a photo on a page


def show_triptych(original: np.ndarray, reconstructed: np.ndarray, label: int) -> None:
    """Show original, grayscale and reconstructed side by side, each uint8 (32, 32, 3)."""
    gray = to_uint8(gray_copy(original))
    st.image(
        tile_rows([[original, gray, reconstructed]], 6),
        width="stretch",
        alt=f"{CLASS_NAMES[label]}, three versions: original, grayscale and reconstructed",
    )


def show_snapshot(reconstructed: np.ndarray, alt: str) -> None:
    """Show the eight fixed images: grayscale, reconstructed (uint8 (8, 32, 32, 3)) and original."""
    originals = state.load_samples().images[list(SNAPSHOT_SAMPLES)]
    rows = [to_uint8(gray_copy(originals)), reconstructed, originals]
    st.image(tile_rows([list(row) for row in rows], 4), width="stretch", alt=alt)
    st.caption(
        "Top: the network's input. Middle: what it makes of it. Bottom: the original. It never saw these images."
    )


def fit_page(image: np.ndarray) -> np.ndarray:
    """Scale a photo, uint8 (H, W, 3), down to what a page can show."""
    picture = Image.fromarray(image)
    picture.thumbnail((_PAGE_PIXELS, _PAGE_PIXELS))
    return np.asarray(picture)


def show_before_and_after(before: np.ndarray, after: np.ndarray, title: str, model: str) -> None:
    """Show a photo in grayscale and colorized, both uint8 (H, W, 3)."""
    left, right = st.columns(2)
    left.image(to_uint8(gray_copy(fit_page(before))), width="stretch", caption="Before", alt=f"{title}, in grayscale")
    right.image(fit_page(after), width="stretch", caption=f"After, by {model}", alt=f"{title}, colorized by {model}")


def show_own_snapshot(reconstructed: np.ndarray, original: np.ndarray, alt: str) -> None:
    """Show the visitor's own small image: grayscale, reconstructed, original, each uint8 (32, 32, 3)."""
    st.image(tile_rows([[to_uint8(gray_copy(original)), reconstructed, original]], 10), width="stretch", alt=alt)
    st.caption("Grayscale, what the network makes of it, and the original, cut to 32 x 32 pixels.")
