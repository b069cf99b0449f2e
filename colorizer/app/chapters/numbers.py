"""Chapter: a picture is numbers, which a dense network sees in one line."""

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw, ImageFont

from colorizer.app.chapters.sample import choose_image
from colorizer.app.widgets import pictures
from colorizer.pixels.color import gray_copy, to_luminance, to_uint8

_CORNER, _CELL = 8, 44  # So many rows and columns are shown as numbers, in cells of so many pixels.
_LINE = 256  # The line of 1,024 numbers is shown in parts of this length, one below the other.
_MARK = np.uint8([194, 65, 12])


def show() -> None:
    """Show an image, the numbers of a part of it, and its rows one after the other."""
    controls, result = st.columns([1, 2], gap="large")
    with controls:
        _, image, name = choose_image()
        place = st.slider("Look closely at row", 0, 32 - _CORNER, 12, key="row", bind="query-params")
        rows = st.select_slider("Rows laid end to end", range(0, 33, 8), 16, key="rows", bind="query-params")
    gray, luminance = to_uint8(gray_copy(image)), to_luminance(image)[..., 0]
    part = slice(place, place + _CORNER), slice(12, 12 + _CORNER)
    with result:
        framed = gray.repeat(8, 0).repeat(8, 1)
        top, left, side = 8 * place, 8 * 12, 8 * _CORNER
        for rim in (slice(top, top + 2), slice(top + side - 2, top + side)):
            framed[rim, left : left + side] = _MARK
        for rim in (slice(left, left + 2), slice(left + side - 2, left + side)):
            framed[top : top + side, rim] = _MARK
        whole, near = st.columns([256, _CORNER * _CELL])
        with whole:
            pictures.show_tiles([[framed]], 1, f"The {name} in grayscale; a frame marks {_CORNER} x {_CORNER} pixels")
        with near:
            alt = f"The numbers of these pixels, from {luminance[part].min():.2f} to {luminance[part].max():.2f}"
            pictures.show_tiles([[draw_numbers(luminance[part])]], 1, alt)
        st.caption("A frame marks 64 of the 1,024 pixels. Beside it are their numbers: 0 is black, and 1 is white.")
        if rows:
            pictures.show_tiles([[unroll(gray[:rows])]], 1, f"The first {rows} rows of the {name} laid end to end")
            st.caption(
                f"This line of {32 * rows:,} numbers begins at the upper left. It is cut every {_LINE} numbers to fit "
                "the page, and a mark stands where a row of the picture begins."
            )
        if rows < 32:
            rest = gray[rows:].repeat(4, 0).repeat(4, 1)
            pictures.show_tiles([[rest]], 1, f"The last {32 - rows} rows of the {name}", width="content")
            st.caption("These rows are still a picture.")


def draw_numbers(values: np.ndarray) -> np.ndarray:
    """Draw values in [0, 1], (H, W), as cells of their gray with the number in them; return uint8 (44 H, 44 W, 3)."""
    height, width = values.shape
    picture = Image.new("RGB", (_CELL * width, _CELL * height))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=17)
    for (row, column), value in np.ndenumerate(values):
        level = round(255 * float(value))
        left, top = _CELL * column, _CELL * row
        draw.rectangle((left, top, left + _CELL, top + _CELL), (level, level, level))
        ink = "black" if value > 0.5 else "white"
        draw.text((left + _CELL / 2, top + _CELL / 2), f"{value:.2f}"[:4].removeprefix("0"), ink, font, "mm")
    return np.asarray(picture)


def unroll(rows: np.ndarray) -> np.ndarray:
    """Draw rows of an image, uint8 (8 n, 32, 3), as n lines of 256 pixels, with a mark at each row; return uint8."""
    thick, scale = 16, 3
    lines = rows.reshape(-1, _LINE, 3).repeat(scale, axis=1)
    canvas = lines[:, None].repeat(thick, axis=1)
    for begin in range(0, _LINE, 32):
        canvas[:, -5:, scale * begin : scale * begin + 3] = _MARK
    return canvas.reshape(-1, scale * _LINE, 3)
