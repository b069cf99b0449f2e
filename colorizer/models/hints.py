"""Hints: pixels of a photo whose colour the user fixes, and the planes in which a network receives them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colorizer.config import MAX_HINTS
from colorizer.errors import ConfigError
from colorizer.pixels.color import RGB_TO_CHROMA

Hint = Mapping[str, Any]
"""A dict with `x` and `y`, the column and row of a pixel, and `color`, its colour such as "#a0522d"."""

_PATCH = 5 / 256  # A hint covers a square of this side, relative to the shorter side; the mean side during training.
# A difference at a hint fades over these distances: in place (shorter side = 1), in luminance and in predicted chroma.
# A second, smaller part of it fades within a few pixels, so that the hint's own pixel is met. All these numbers were
# chosen on photos for validation.
_WIDE, _NEAR = (
    np.array(scales, np.float32) for scales in ((2.7, 2.7, 0.55, 0.13, 0.13), (0.025, 0.025, 0.3, 0.1, 0.1))
)
_NEAR_SHARE, _NOISE = 0.065, 0.01
_MAX_HINT_BYTES = 100_000  # A file of hints is not read if it is larger.
COLOR = re.compile(r"#[0-9a-fA-F]{6}")


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
        if not isinstance(hint["color"], str) or not COLOR.fullmatch(hint["color"]):
            raise ConfigError(f"A hint's color must be like #a0522d, received {hint['color']!r:.80}.")
    return list(hints)


def read_hints(path: Path) -> list[Any]:
    """Read a JSON file with a list of hints, which `check_hints` is still to check.

    Raises:
        ConfigError: the file cannot be read, is too large or holds no list in JSON.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_HINT_BYTES + 1)
        if len(data) > _MAX_HINT_BYTES:
            raise ConfigError(f"{path} has more than {_MAX_HINT_BYTES // 1000} kB. Give at most {MAX_HINTS} hints.")
        hints = json.loads(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}). Give a JSON file with hints.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{path} is not JSON. Write a list such as [{{"x": 12, "y": 30, "color": "#a0522d"}}].'
        ) from error
    if not isinstance(hints, list):
        raise ConfigError(f"{path} must hold a list of hints, received a {type(hints).__name__}.")
    return hints


def _read_chroma(hint: Hint) -> np.ndarray:
    color = np.array([int(hint["color"][start : start + 2], 16) for start in (1, 3, 5)], np.float32) / 255
    return color @ RGB_TO_CHROMA


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
        slices = []
        for place, length, working_length in zip((hint["y"], hint["x"]), shape, working_shape, strict=True):
            start = round((place + 0.5) * working_length / length - side / 2)
            start = min(max(start, 0), working_length - side)
            slices.append(slice(start, start + side))
        planes[tuple(slices)] += [*_read_chroma(hint), 1]
    planes /= np.maximum(planes[..., 2:], 1)
    return planes


def spread_hints(
    chroma: np.ndarray, luminance: np.ndarray, hints: Sequence[Hint], shape: tuple[int, int]
) -> np.ndarray:
    """Change predicted chroma so that it has the hints' colours at their places, and come closer to them elsewhere.

    What the prediction lacks at a hint is spread to pixels that are as bright and predicted in a similar colour; the
    change is the mean of a Gaussian process whose observations are the hints (Rasmussen and Williams 2006, equation
    2.25).

    Args:
        chroma: float32 (h, w, 2), the prediction at the working size.
        luminance: float32 (h, w, 1), the image at that size.
        hints: checked hints, whose `x` and `y` are pixels of an image of `shape`.
        shape: height and width of the image.

    Returns:
        float32 (h, w, 2).
    """
    height, width = chroma.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / min(height, width)
    features = np.dstack([rows, columns, luminance, chroma])
    places = tuple(
        np.array([int((hint[key] + 0.5) * small / large) for hint in hints])
        for key, small, large in zip(("y", "x"), (height, width), shape, strict=True)
    )
    hinted = features[places]
    wanted = np.stack([_read_chroma(hint) for hint in hints])
    observed = _covariance(hinted, hinted) + _NOISE * np.eye(len(hints), dtype=np.float32)
    weights = np.linalg.solve(observed, wanted - chroma[places])
    return chroma + (_covariance(features.reshape(-1, 5), hinted) @ weights).reshape(chroma.shape)


def _covariance(pixels: np.ndarray, hinted: np.ndarray) -> np.ndarray:
    """Return the covariance of the process between pixels (N, 5) and hinted pixels (K, 5), float32 (N, K)."""
    return _gaussian(pixels / _WIDE, hinted / _WIDE) + _NEAR_SHARE * _gaussian(pixels / _NEAR, hinted / _NEAR)


def _gaussian(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    squares = np.square(ones).sum(axis=1, keepdims=True) + np.square(others).sum(axis=1)
    return np.exp(-0.5 * (squares - 2 * ones @ others.T))
