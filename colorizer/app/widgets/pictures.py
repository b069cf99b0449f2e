"""Shows small images, enlarged on the server so that their pixels stay sharp, each with a text for screen readers."""

import base64
from typing import Literal

import numpy as np
import streamlit as st

from colorizer.app.widgets import state
from colorizer.app.widgets.text import escape
from colorizer.data.datasets import SNAPSHOT_SAMPLES
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
    """Show images in rows and columns, enlarged.

    Their bytes are part of the page: a file could be replaced by the next run before a slow browser asks for it.

    Args:
        rows: Images, each uint8 (H, W, 3).
        scale: How many times they are enlarged.
        alt: The text for screen readers.
        caption: Markdown below them.
        width: Whether they fill the width of the page or keep their size.
    """
    encoded = base64.b64encode(encode_png(tile_rows(rows, scale))).decode()
    st.image(f"data:image/png;base64,{encoded}", caption, width, alt=alt)


def show_snapshot(reconstructed: np.ndarray, network: str, epochs: str) -> None:
    """Show the eight fixed images after some epochs: grayscale, `reconstructed` (uint8 (8, 32, 32, 3)), original."""
    originals = state.load_samples().images[list(SNAPSHOT_SAMPLES)]
    rows = [to_uint8(gray_copy(originals)), reconstructed, originals]
    alt = f"Eight test images as {network} colorizes them after {epochs} epochs, "
    show_tiles([list(row) for row in rows], 4, f"{alt}between their grayscale and original versions")
    st.caption(
        "The top row is the network's input, the middle row is its output, and the bottom row is the original. "
        "The network has not learned from these images."
    )


def show_own_snapshot(reconstructed: np.ndarray, original: np.ndarray, epochs: str) -> None:
    """Show the visitor's own image after some epochs: grayscale, reconstructed, original, each uint8 (32, 32, 3)."""
    alt = f"The visitor's picture as the network colorizes it after {epochs} epochs, beside the original"
    show_tiles([[to_uint8(gray_copy(original)), reconstructed, original]], 10, alt)
    st.caption(
        "The left picture is the network's input, the middle one is its output, and the right one is the original, cut "
        "to 32 x 32 pixels."
    )


def show_metrics(columns: dict[str, dict[str, float]]) -> None:
    """Show all metrics: a row for each, and a column for each name in `columns`."""
    lines = ["| metric | " + " | ".join(map(escape, columns)) + " |", "|:--" + "|--:" * len(columns) + "|"]
    for key, metric in METRICS.items():
        arrow = {"lower": "↓", "higher": "↑", "closest": ""}[metric.better]
        values = [f"{values[key]:{metric.style}}" for values in columns.values()]
        lines.append(f"| {metric.label}, `{key}` {arrow} | " + " | ".join(values) + " |")
    about = "\n".join(f"- **{metric.label}**: {metric.about}" for metric in METRICS.values())
    st.markdown("\n".join(lines), help=f"↓ means that lower is better, and ↑ that higher is better.\n\n{about}")
