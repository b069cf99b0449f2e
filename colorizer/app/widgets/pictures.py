"""Crisp pictures of small images: nearest neighbour, enlarged on the server, each with a text for screen readers."""

import base64
from typing import Literal

import numpy as np
import streamlit as st

from colorizer.app.widgets import state
from colorizer.data.datasets import CLASS_NAMES, SNAPSHOT_SAMPLES
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.images import encode_png, tile_rows
from colorizer.pixels.metrics import METRICS


def show_tiles(
    rows: list[list[np.ndarray]],
    scale: int,
    alt: str,
    caption: str | None = None,
    width: Literal["stretch", "content"] = "stretch",
) -> None:
    """Show images, each uint8 (H, W, 3), in rows and columns, `scale` times enlarged.

    They are part of the page: files of theirs may be replaced by a next run before a slow browser asks for them.
    """
    encoded = base64.b64encode(encode_png(tile_rows(rows, scale))).decode()
    st.image(f"data:image/png;base64,{encoded}", caption, width, alt=alt)


def show_triptych(original: np.ndarray, reconstructed: np.ndarray, label: int) -> None:
    """Show original, grayscale and reconstructed side by side, each uint8 (32, 32, 3)."""
    gray = to_uint8(gray_copy(original))
    alt = f"{CLASS_NAMES[label]}, three versions: original, grayscale and reconstructed"
    show_tiles([[original, gray, reconstructed]], 6, alt)


def show_snapshot(reconstructed: np.ndarray, network: str, epochs: str) -> None:
    """Show the eight fixed images after some epochs: grayscale, reconstructed (uint8 (8, 32, 32, 3)), original."""
    originals = state.load_samples().images[list(SNAPSHOT_SAMPLES)]
    rows = [to_uint8(gray_copy(originals)), reconstructed, originals]
    alt = f"Eight test images as {network} colorizes them after {epochs} epochs, "
    show_tiles([list(row) for row in rows], 4, f"{alt}between their grayscale and original versions")
    st.caption(
        "Top: the network's input. Middle: what it makes of it. Bottom: the original. It never saw these images."
    )


def show_own_snapshot(reconstructed: np.ndarray, original: np.ndarray, epochs: str) -> None:
    """Show the visitor's own small image: grayscale, reconstructed, original, each uint8 (32, 32, 3)."""
    alt = f"The visitor's picture as the network colorizes it after {epochs} epochs, beside the original"
    show_tiles([[to_uint8(gray_copy(original)), reconstructed, original]], 10, alt)
    st.caption("Grayscale, what the network makes of it, and the original, cut to 32 x 32 pixels.")


def metrics_table(columns: dict[str, dict[str, float]]) -> str:
    """Markdown table of every metric of `METRICS`, a column for each name."""
    lines = ["| metric | " + " | ".join(columns) + " |", "|:--" + "|--:" * len(columns) + "|"]
    for name, (better, style) in METRICS.items():
        arrow = {"lower": "↓", "higher": "↑", "closest": ""}[better]
        values = [f"{values[name]:{style}}" for values in columns.values()]
        lines.append(f"| `{name}` {arrow} | " + " | ".join(values) + " |")
    return "\n".join(lines)
