"""Names colours in plain words."""

import functools

import numpy as np

from colorizer.pixels.color import to_lab

_NAMED = {
    "black": "#000000",
    "dark gray": "#404040",
    "gray": "#808080",
    "light gray": "#c0c0c0",
    "white": "#ffffff",
    "grayish brown": "#857565",
    "grayish blue": "#8090a0",
    "grayish pink": "#a89090",
    "beige": "#d8c8a8",
    "sand": "#c2a878",
    "brown": "#7a5230",
    "dark brown": "#4a2f1c",
    "light tan": "#d9a07e",
    "orange": "#f08020",
    "rust": "#a8452a",
    "red": "#d02020",
    "dark red": "#701818",
    "pink": "#f0a0b8",
    "rose": "#b86878",
    "magenta": "#c030a0",
    "purple": "#70308c",
    "lavender": "#b0a0d8",
    "dark blue": "#1c2c68",
    "blue": "#2c5cc8",
    "sky blue": "#80b8e8",
    "slate blue": "#607890",
    "pale blue": "#b4cce0",
    "teal": "#208080",
    "turquoise": "#50c0b8",
    "green": "#309038",
    "dark green": "#204828",
    "light green": "#98c878",
    "grayish green": "#788c70",
    "olive": "#788030",
    "grayish olive": "#84805c",
    "khaki": "#b0a868",
    "yellow": "#f0d830",
    "pale yellow": "#f0e8b0",
}


_NUM_GRAYS = 5  # The first of them are grays.
_GRAY_CHROMA = 5.0  # A colour with a smaller chroma in CIE Lab is called gray.


@functools.cache
def _anchors() -> np.ndarray:
    channels = [[int(color[start : start + 2], 16) for start in (1, 3, 5)] for color in _NAMED.values()]
    return to_lab(np.array(channels, np.uint8))


def name_colors(colors: np.ndarray) -> list[str]:
    """Return for each colour, uint8 (N, 3), the name of the nearest of some thirty in CIE Lab, such as "olive"."""
    lab, names = to_lab(colors), list(_NAMED)
    distances = np.linalg.norm(lab[:, None] - _anchors(), axis=-1)
    is_gray = np.linalg.norm(lab[:, 1:], axis=-1) < _GRAY_CHROMA
    distances[is_gray, _NUM_GRAYS:] = distances[~is_gray, :_NUM_GRAYS] = np.inf
    return [names[index] for index in distances.argmin(axis=1)]
