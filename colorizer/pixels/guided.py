"""Bring chroma from a small map to a photo's own resolution by a guided filter: colour stops where the object stops."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from colorizer.pixels.color import merge_luminance, to_luminance, to_uint8
from colorizer.pixels.images import resize_planes, tiles

# A box whose luminance has a variance well below this counts as flat. This value and the size of the boxes gave the
# least error on photos held out of training, whose true chroma was made small and brought up again.
_EPSILON = 0.002
# The coefficients are enlarged bicubically up to this many times the map's size; beyond it bilinearly, for speed.
_SMOOTH = 4


def apply_chroma(image: np.ndarray, chroma: np.ndarray, luminance: np.ndarray | None = None) -> np.ndarray:
    """Give an image the chroma of a smaller map, at its own luminance and resolution.

    As in the fast guided filter (He and Sun 2015; He, Sun and Tang 2010), chroma is locally a linear function of
    luminance. Its coefficients are computed on a small grid, enlarged, and applied to the full luminance.

    Args:
        image: uint8 of shape (H, W, 3), of which only the luminance is used, or (H, W, 4), whose alpha is kept.
        chroma: float of shape (h, w, 2), about in [-0.5, 0.5]; what leaves the gamut is pulled toward gray.
        luminance: float32 of shape (H, W, 1) in [0, 1], the luminance of `image` if the caller has it already.

    Returns:
        uint8 of the shape of `image`, whose luminance is that of `image` to within 1 of 255 at every pixel.
    """
    height, width = image.shape[:2]
    luminance = to_luminance(image[..., :3]) if luminance is None else luminance
    smooth = min(height, _SMOOTH * chroma.shape[0]), min(width, _SMOOTH * chroma.shape[1])
    coefficients = np.moveaxis(resize_planes(fit(luminance, chroma), *smooth), -1, 0).copy()
    planes = [Image.fromarray(plane) for plane in coefficients]
    result = np.empty(image.shape, np.uint8)

    def merge(rows: slice, columns: slice) -> None:
        size = (columns.stop - columns.start, rows.stop - rows.start)
        across, down = planes[0].width / width, planes[0].height / height
        box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
        slope_cb, slope_cr, offset_cb, offset_cr = (
            np.asarray(plane.resize(size, Image.Resampling.BILINEAR, box)) for plane in planes
        )
        y = luminance[rows, columns, 0]
        chroma = np.stack([slope_cb * y + offset_cb, slope_cr * y + offset_cr], axis=-1)
        result[rows, columns, :3] = to_uint8(merge_luminance(y[..., None], chroma))
        result[rows, columns, 3:] = image[rows, columns, 3:]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda tile: merge(*tile), tiles(height, width)))
    return result


def fit(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Fit chroma locally as slope * luminance + offset, by least squares that favour a small slope.

    The slope is that of the boxes around a pixel (He and Sun 2015, algorithm 2, lines 2 to 5). The offset is chosen so
    that the line meets the map's own pixels, not the mean of a box. Flat places keep their chroma that way, and only
    the sharp edges are added, which the luminance has and the map lacks.

    Args:
        luminance: float32 of shape (H, W, 1) in [0, 1].
        chroma: float of shape (h, w, 2).

    Returns:
        float32 of shape (h, w, 4): the slopes of Cb and Cr, then their offsets.
    """
    height, width = chroma.shape[:2]
    grid = (height + 1) // 2, (width + 1) // 2  # Networks predict chroma at half resolution.
    guide, target = resize_planes(luminance, *grid), resize_planes(chroma, *grid)
    mean_guide, mean_target = _box_mean(guide), _box_mean(target)
    covariance = _box_mean(guide * target) - mean_guide * mean_target
    slope = _box_mean(covariance / (_box_mean(guide * guide) - mean_guide**2 + _EPSILON))
    slope, guide = resize_planes(slope, height, width), resize_planes(guide, height, width)
    return np.concatenate([slope, chroma - slope * guide], axis=-1, dtype=np.float32)


def _box_mean(planes: np.ndarray) -> np.ndarray:
    """Return the mean over 3 x 3 pixels of planes (H, W, C), whose edges are repeated."""
    padded = np.pad(planes, ((1, 1), (1, 1), (0, 0)), "edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1)).mean(axis=(-2, -1))
