"""Checks the arrays that callers give."""

import math

import numpy as np

from colorizer.config import MAX_PIXELS, MAX_WORKING_SIZE
from colorizer.errors import ImageError
from colorizer.models.scale import VIVIDNESS_LEVELS

MAX_WORKING_PIXELS = MAX_WORKING_SIZE * 1024  # A panorama longer than this is squeezed, to bound time and memory.
_ROUNDING = 1e-4  # The luminance of white can exceed 1 by a rounding error.


def check_values(luminance: np.ndarray) -> None:
    """Raise `ValueError` unless all values are floats in [0, 1], none of them NaN."""
    if not np.issubdtype(luminance.dtype, np.floating):
        raise ValueError(f"expected luminance as floats in [0, 1], received {luminance.dtype}; divide uint8 by 255")
    if luminance.size and not (luminance.min() >= -_ROUNDING and luminance.max() <= 1 + _ROUNDING):
        low, high = luminance.min(), luminance.max()
        raise ValueError(f"expected luminance in [0, 1], received values from {low:g} to {high:g}")


def describe(value: object) -> str:
    return str(value.shape) if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def check_image(image: np.ndarray) -> np.ndarray:
    """Return `image` as uint8 (H, W, 3) or (H, W, 4), or raise `ImageError` with what was received."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        received = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"An image must be a uint8 array, received a {received}. Read files with decode_image.")
    if image.ndim == 2:
        image = np.broadcast_to(image[..., None], (*image.shape, 3))
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or not image.size:
        raise ImageError(f"An image must have the shape (H, W, 3), (H, W, 4) or (H, W), received {image.shape}.")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ImageError(f"The image has more than {MAX_PIXELS / 1e6:.0f} megapixels. Scale it down first.")
    return image


def check_chroma(chroma: np.ndarray) -> np.ndarray:
    """Return chroma (h, w, 2), or (levels, h, w, 2) at `VIVIDNESS_LEVELS`, as float32; else raise `ValueError`."""
    shape = chroma.shape if isinstance(chroma, np.ndarray) else ()
    fits = len(shape) == 3 or (len(shape) == 4 and shape[0] == len(VIVIDNESS_LEVELS))
    if not fits or shape[-1] != 2 or not 0 < math.prod(shape[-3:]) < 4 * MAX_WORKING_PIXELS:
        raise ValueError(f"expected chroma of shape (h, w, 2) or (6, h, w, 2), received {describe(chroma)}")
    if not np.issubdtype(chroma.dtype, np.floating) or not np.isfinite(chroma).all():
        raise ValueError("expected chroma of finite floats, received other values")
    return chroma.astype(np.float32, copy=False)
