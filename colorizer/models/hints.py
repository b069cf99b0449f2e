"""Hints: pixels of a photo whose colour the user fixes, and the planes in which a network receives them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colorizer.config import MAX_HINTS
from colorizer.errors import ConfigError
from colorizer.pixels.color import RGB_TO_CHROMA

Hint = Mapping[str, Any]
"""A dict with `x` and `y`, the column and row of a pixel, and `color`, its colour such as "#a0522d"."""

_PATCH = 5 / 256  # A hint covers a square of this side, relative to the shorter side; the mean side during training.
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def check_hints(hints: Sequence[Hint] | None, height: int, width: int) -> list[Hint]:
    """Return hints as a list, or raise `ConfigError` unless each has a pixel of the image and a colour."""
    if hints is None:
        return []
    if not isinstance(hints, list | tuple) or len(hints) > MAX_HINTS:
        received = f"{len(hints)}" if isinstance(hints, list | tuple) else f"a {type(hints).__name__}"
        raise ConfigError(f"hints must be a list of at most {MAX_HINTS} hints, received {received}.")
    for hint in hints:
        if not isinstance(hint, Mapping) or set(hint) != {"x", "y", "color"}:
            raise ConfigError(
                'A hint must have x, y and color, such as {"x": 12, "y": 30, "color": "#a0522d"}, received '
                f"{str(hint)[:80]}."
            )
        for key, side in (("x", width), ("y", height)):
            value = hint[key]
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < side:
                wanted = f"a whole number from 0 to {side - 1}"
                raise ConfigError(f"A hint's {key} must be {wanted}, received {value!r:.80}.")
        if not isinstance(hint["color"], str) or not _COLOR.fullmatch(hint["color"]):
            raise ConfigError(f"A hint's color must be like #a0522d, received {hint['color']!r:.80}.")
    return list(hints)


def draw_hints(hints: Sequence[Hint], shape: tuple[int, int], working_shape: tuple[int, int]) -> np.ndarray:
    """Draw checked hints as the planes that a network takes.

    Args:
        hints: hints whose `x` and `y` are pixels of an image of `shape`.
        shape: height and width of the image.
        working_shape: height and width at which the network sees the image.

    Returns:
        float32 of shape (*working_shape, 3): Cb, Cr, and a mask that is 1 on the small square around each hint. Where
        squares overlap, the chroma is their mean. Elsewhere all three are 0.
    """
    planes = np.zeros((*working_shape, 3), np.float32)
    side = max(1, round(_PATCH * min(working_shape)))
    for hint in hints:
        color = np.array([int(hint["color"][start : start + 2], 16) for start in (1, 3, 5)], np.float32) / 255
        slices = []
        for place, length, working_length in zip((hint["y"], hint["x"]), shape, working_shape, strict=True):
            start = round((place + 0.5) * working_length / length - side / 2)
            start = min(max(start, 0), working_length - side)
            slices.append(slice(start, start + side))
        planes[tuple(slices)] += [*(color @ RGB_TO_CHROMA), 1]
    planes /= np.maximum(planes[..., 2:], 1)
    return planes
