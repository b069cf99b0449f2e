"""Colour spaces: luminance and chroma (ITU-R BT.601), sRGB, CIE Lab, and staying inside the gamut."""

import numpy as np
from skimage.color import rgb2lab

# ITU-R BT.601-7, section 2.5.1: Y = 0.299 R + 0.587 G + 0.114 B on gamma-encoded values,
# Cb = (B - Y) / 1.772 and Cr = (R - Y) / 1.402, each in [-0.5, 0.5].
LUMINANCE_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
# Columns: R, G, B as sums of Y, Cb, Cr; the inverse of the three equations above.
YCBCR_TO_RGB = np.array(
    [
        [1.0, 1.0, 1.0],
        [0.0, -0.114 * 1.772 / 0.587, 1.772],
        [1.402, -0.299 * 1.402 / 0.587, 0.0],
    ],
    np.float32,
)


def as_float(images: np.ndarray) -> np.ndarray:
    """Return uint8 images divided by 255, or float images unchanged, as float32.

    Args:
        images: uint8 array of any shape, or float in [0, 1].
    """
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32, copy=False)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Clip float images to [0, 1] and round them to uint8."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def to_luminance(images: np.ndarray) -> np.ndarray:
    """Return the luminance of sRGB images (ITU-R BT.601), unrounded.

    Args:
        images: uint8 array of shape (..., 3), or float in [0, 1].

    Returns:
        float32 array of shape (..., 1) in [0, 1].

    Raises:
        ValueError: `images` does not end in 3 channels.
    """
    if images.ndim < 2 or images.shape[-1] != 3:
        raise ValueError(f"expected images of shape (..., 3), received {images.shape}")
    return as_float(images) @ LUMINANCE_WEIGHTS[:, None]


def split_luminance(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split sRGB images into luminance and chroma (ITU-R BT.601).

    Args:
        images: uint8 array of shape (..., 3), or float in [0, 1].

    Returns:
        luminance, float32 of shape (..., 1) in [0, 1], and
        chroma (Cb, Cr), float32 of shape (..., 2) in [-0.5, 0.5].

    Raises:
        ValueError: `images` does not end in 3 channels.
    """
    luminance = to_luminance(images)
    rgb = as_float(images)
    chroma = np.concatenate([(rgb[..., 2:] - luminance) / 1.772, (rgb[..., :1] - luminance) / 1.402], axis=-1)
    return luminance, chroma


def merge_luminance(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Merge luminance and chroma into sRGB that has exactly that luminance.

    A colour outside the gamut is pulled toward the gray of the same luminance until it fits; clipping
    would change the luminance.

    Args:
        luminance: float32 of shape (..., 1) in [0, 1].
        chroma: float32 of shape (..., 2).

    Returns:
        float32 array of shape (..., 3) in [0, 1].
    """
    difference = chroma @ YCBCR_TO_RGB[1:]  # (..., 3): RGB minus luminance
    headroom = np.where(difference > 0, 1 - luminance, luminance)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.nan_to_num(headroom / np.abs(difference), nan=1.0, posinf=1.0)
    scale = np.minimum(scale.min(axis=-1, keepdims=True), 1)
    return np.clip(luminance + scale * difference, 0, 1)


def gray_copy(images: np.ndarray) -> np.ndarray:
    """Return the baseline: the luminance of `images` (..., 3) in all three channels, float32 in [0, 1]."""
    return np.repeat(to_luminance(images), 3, axis=-1)


def to_lab(images: np.ndarray) -> np.ndarray:
    """Convert sRGB images (..., 3), uint8 or float in [0, 1], to CIE L*a*b* (D65, 2 degrees), float32."""
    return rgb2lab(as_float(images))
