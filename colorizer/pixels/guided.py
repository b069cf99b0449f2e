"""Chroma of a small map at a photo's own resolution: a guided filter, so that colour stops where the object stops."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from colorizer.pixels.color import merge_luminance, to_luminance, to_uint8
from colorizer.pixels.images import resize_planes

# Variance of luminance well below which a box counts as flat. It and the boxes' size were chosen by the error of true
# chroma, made small and brought up again, on photos held out of training.
_EPSILON = 0.002
_SMOOTH = 4  # so many times the small map's size is reached bicubically, the rest bilinearly, which is quicker
_STRIP_PIXELS = 2**18  # merged at a time, which bounds memory


def apply_chroma(image: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Give an image the chroma of a smaller map, at its own luminance and resolution.

    As in the fast guided filter (He and Sun 2015; He, Sun and Tang 2010), chroma is locally a linear function of
    luminance, whose coefficients are computed on a small grid, enlarged, and applied to the full luminance.

    Args:
        image: uint8 of shape (H, W, 3), of which only the luminance is used, or (H, W, 4), whose alpha is kept.
        chroma: float of shape (h, w, 2).

    Returns:
        uint8 of the shape of `image`, whose luminance is that of `image` to within 1 of 255 at every pixel.
    """
    height, width = image.shape[:2]
    coefficients = fit(to_luminance(image[..., :3]), chroma)
    smooth = (min(full, _SMOOTH * small) for full, small in zip(image.shape[:2], chroma.shape[:2], strict=True))
    planes = [Image.fromarray(plane) for plane in np.moveaxis(resize_planes(coefficients, *smooth), -1, 0).copy()]
    rows = max(1, _STRIP_PIXELS // width)
    result = image.copy()

    def merge(top: int) -> None:
        strip = result[top : top + rows, :, :3]
        size = (width, len(strip))
        box = np.array([top, top + len(strip)]) * planes[0].height / height
        box = (0, box[0], planes[0].width, box[1])
        slope_cb, slope_cr, offset_cb, offset_cr = (
            np.asarray(plane.resize(size, Image.Resampling.BILINEAR, box)) for plane in planes
        )
        luminance = to_luminance(strip)
        y = luminance[..., 0]
        chroma = np.stack([slope_cb * y + offset_cb, slope_cr * y + offset_cr])
        strip[:] = to_uint8(merge_luminance(luminance, np.moveaxis(chroma, 0, -1)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(merge, range(0, height, rows)))
    return result


def fit(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Fit chroma locally as slope * luminance + offset, by least squares that favour a small slope.

    The slope is that of the boxes around a pixel (He and Sun 2015, algorithm 2, lines 2 to 5). The offset is such that
    the line meets the map's own pixels, not the mean of a box: what is flat keeps its chroma, and only what luminance
    has and the map has not, its sharp edges, is added.

    Args:
        luminance: float32 of shape (H, W, 1).
        chroma: float of shape (h, w, 2).

    Returns:
        float32 of shape (h, w, 4): the slopes of Cb and Cr, then their offsets.
    """
    height, width = chroma.shape[:2]
    grid = (height + 1) // 2, (width + 1) // 2  # networks predict chroma at half resolution
    guide, target = resize_planes(luminance, *grid), resize_planes(chroma, *grid)
    mean_guide, mean_target = _box_mean(guide), _box_mean(target)
    covariance = _box_mean(guide * target) - mean_guide * mean_target
    slope = _box_mean(covariance / (_box_mean(guide * guide) - mean_guide**2 + _EPSILON))
    slope, guide = resize_planes(slope, height, width), resize_planes(guide, height, width)
    return np.concatenate([slope, chroma - slope * guide], axis=-1, dtype=np.float32)


def _box_mean(planes: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 pixels, the edge repeated, of planes (H, W, C)."""
    padded = np.pad(planes, ((1, 1), (1, 1), (0, 0)), "edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1)).mean(axis=(-2, -1))
