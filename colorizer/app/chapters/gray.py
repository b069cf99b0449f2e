"""Chapter: gray is a weighted sum of red, green and blue, so different colours become the same gray."""

import numpy as np
import streamlit as st
from PIL import ImageColor

from colorizer.app.chapters.sample import choose_image
from colorizer.app.widgets import pictures
from colorizer.app.widgets.swatches import Swatch, show_swatches
from colorizer.pixels.color import LUMINANCE_WEIGHTS, to_uint8


def show() -> None:
    """Show an image, its channels and its weighted sum, and two colours with the same gray."""
    controls, result = st.columns([1, 2], gap="large")
    with controls:
        _, image, name = choose_image()
        weights = np.array(
            [
                st.slider(f"Weight of {channel}", 0.0, 1.0, float(round(usual, 3)), 0.001, key=key, bind="query-params")
                for channel, key, usual in zip(("red", "green", "blue"), "rgb", LUMINANCE_WEIGHTS, strict=True)
            ]
        )
    gray = np.clip(image / 255 @ weights, 0, 1)
    with result:
        channels = [np.repeat(image[..., index : index + 1], 3, axis=-1) for index in range(3)]
        shown = to_uint8(np.repeat(gray[..., None], 3, axis=-1))
        alt = f"The {name}: in colour, its red, green and blue channel, and their weighted sum"
        pictures.show_tiles([[image, *channels, shown]], 5, alt)
        st.caption(
            f"The image, its red, green and blue channel, and {weights[0]:g} R + {weights[1]:g} G + {weights[2]:g} B. "
            f"Together the weights are {weights.sum():.3f}; with 1, white stays white."
        )
        if not weights.sum():
            st.info("All weights are 0, so every picture is black. Move one of them.")
            return
        chosen = st.color_picker("A colour", "#b0432f", key="color", bind="query-params")
        color = np.array(ImageColor.getrgb(chosen)) / 255
        opposite = opposite_color(color, weights)
        values = [float(np.clip(rgb @ weights, 0, 1)) for rgb in (color, opposite)]
        swatches = [
            Swatch(_hex(color), "a colour", ""),
            Swatch(_hex(np.full(3, values[0])), f"gray {values[0]:.2f}", ""),
            Swatch(_hex(np.full(3, values[1])), f"gray {values[1]:.2f}", ""),
            Swatch(_hex(opposite), "its opposite", ""),
        ]
        show_swatches(swatches, "Two colours that become the same gray", None, key="same-gray")


def opposite_color(color: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the colour that is `color`, float (3,) in [0, 1], mirrored at the gray with the same weighted sum.

    It is as far on the other side of that gray as fits into [0, 1].
    """
    gray = color @ weights / weights.sum()
    away = gray - color
    with np.errstate(divide="ignore", invalid="ignore"):  # What does not move has room without end.
        room = np.where(away > 0, (1 - gray) / away, np.where(away < 0, -gray / away, np.inf))
    return np.clip(gray + min(1.0, float(room.min())) * away, 0, 1)


def _hex(color: np.ndarray) -> str:
    red, green, blue = to_uint8(color).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
