"""Measures what hints add to a photo, beside the classical way to spread them (Levin et al. 2004)."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from colorizer.errors import DataError
from colorizer.models.colorizer import Colorizer
from colorizer.models.hints import Hint, draw_hints
from colorizer.models.photo_evaluation import LONGEST_SIDE
from colorizer.pixels.color import to_lab, to_luminance
from colorizer.pixels.images import fit_inside, resize_planes
from colorizer.pixels.metrics import photo_psnr

_HINT_PATCH = 7  # A hint reveals the mean colour of a square with this side.
# The variance of the luminance around a pixel is scaled as in the authors' program, which is better on the 24 photos
# than the factor of 2 in their paper. The scaled variance is at least `_LOWEST_VARIANCE`, and it is raised until the
# most similar neighbour weighs at least `_LOWEST_WEIGHT`.
_VARIANCE_SCALE, _LOWEST_VARIANCE, _LOWEST_WEIGHT = 0.6, 2e-6, 0.01

Method = Callable[..., np.ndarray]
"""A function from a photo, uint8 (H, W, 3), and its `hints` to the photo in colour."""


def methods_of(colorizer: Colorizer, **settings: Any) -> dict[str, Method]:
    """Return two ways to colorize a photo with hints: the model's own, and Levin's on the model without hints.

    Args:
        colorizer: a model that takes hints and has an entry in the library.
        settings: `vividness`, `strength` and `size`, as in `Colorizer.colorize`.
    """
    name, seen = colorizer.entry.name, {key: settings[key] for key in settings if key != "strength"}

    def colorize(photo: np.ndarray, hints: Sequence[Hint]) -> np.ndarray:
        luminance = to_luminance(photo)
        chroma = colorizer.predict_chroma(luminance, **seen)
        if hints:
            small = resize_planes(luminance, *chroma.shape[:2])
            chroma = optimize_hints(chroma, small, hints, photo.shape[:2])
        return colorizer.colorize(photo, chroma=chroma, **settings)

    return {name: functools.partial(colorizer.colorize, **settings), f"{name}, Levin et al.": colorize}


def measure_hints(
    methods: Mapping[str, Method], photos: Iterable[np.ndarray], numbers: Sequence[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Measure how close the results of each method come to the originals, when photos get random hints.

    Photos are shrunk to at most 512 pixels on the longer side.

    Args:
        methods: the ways to colorize, by their names.
        photos: yields photos, each uint8 (H, W, 3).
        numbers: how many hints to give, such as 0, 1 and 10.

    Returns:
        for each method and each number as a string, `psnr` (see `metrics.photo_psnr`) and `delta_e` (CIEDE2000), both
        as means over the photos.

    Raises:
        DataError: there is no photo.
    """
    from skimage.color import deltaE_ciede2000

    found: list[list[list[tuple[float, float]]]] = []
    for seed, photo in enumerate(map(functools.partial(fit_inside, longest=LONGEST_SIDE), photos)):
        truth, hints = to_lab(photo), draw_random_hints(photo, max(numbers), seed)

        def compare(method: Method, number: int, photo=photo, truth=truth, hints=hints) -> tuple[float, float]:
            result = method(photo, hints=hints[:number])
            return photo_psnr(result, photo), float(deltaE_ciede2000(truth, to_lab(result)).mean())

        found.append([[compare(method, number) for number in numbers] for method in methods.values()])
    if not found:
        raise DataError("There is no photo to measure. Choose a folder or a zip with pictures.")
    means = np.mean(found, axis=0).tolist()
    return {
        name: {str(number): dict(zip(("psnr", "delta_e"), values, strict=True)) for number, values in pairs}
        for name, pairs in zip(methods, (zip(numbers, row, strict=True) for row in means), strict=True)
    }


def draw_random_hints(photo: np.ndarray, number: int, seed: int) -> list[Hint]:
    """Return hints at random pixels, each with the mean colour of the 7 x 7 pixels around it.

    With the same seed, fewer hints are the first of more hints.

    Args:
        photo: uint8 (H, W, 3), in its true colours.
    """
    hints, half = [], _HINT_PATCH // 2
    for y, x in np.random.default_rng(seed).integers(0, photo.shape[:2], (number, 2)).tolist():
        patch = photo[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        red, green, blue = np.rint(patch.mean(axis=(0, 1))).astype(int)
        hints.append({"x": x, "y": y, "color": f"#{red:02x}{green:02x}{blue:02x}"})
    return hints


def optimize_hints(
    chroma: np.ndarray, luminance: np.ndarray, hints: Sequence[Hint], shape: tuple[int, int]
) -> np.ndarray:
    """Spread the differences between hints and predicted chroma by the optimisation of Levin et al. 2004.

    Each pixel without a hint gets the weighted mean of its eight neighbours' changes. A neighbour weighs more, the
    closer its luminance is: exp(-difference^2 / (0.6 variance)), with the variance of the 3 x 3 pixels.

    Args:
        chroma: float32 (h, w, 2), the prediction at the working size.
        luminance: float32 (h, w, 1), the image at that size.
        hints: checked hints, whose `x` and `y` are pixels of an image of `shape`; at least one. Each covers the square
            in which a network receives it.
        shape: height and width of the image.

    Returns:
        float32 (h, w, 2).
    """
    from scipy import sparse
    from scipy.sparse.linalg import splu

    planes = draw_hints(hints, shape, chroma.shape[:2]).reshape(-1, 3)
    known = planes[:, 2] > 0
    change = np.where(known[:, None], planes[:, :2] - chroma.reshape(-1, 2), 0).astype(np.float64)
    weights = _neighbour_weights(luminance[..., 0].astype(np.float64))
    system = (sparse.eye_array(len(known), format="csr") - weights)[~known]
    # The matrix has a symmetric pattern and a dominant diagonal, for which this order and rare pivots are quicker.
    solver = splu(system[:, ~known].tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True})
    change[~known] = solver.solve(weights[~known][:, known] @ change[known])
    return chroma + change.reshape(chroma.shape).astype(np.float32)


def _neighbour_weights(luminance: np.ndarray) -> Any:
    """Return how much each pixel of luminance (h, w) weighs for each other; in each row, the sum is 1."""
    from scipy import sparse

    height, width = luminance.shape
    numbers = np.arange(height * width).reshape(height, width)

    def windows(plane: np.ndarray, **options: Any) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(np.pad(plane, 1, **options), (3, 3)).reshape(-1, 9)

    around, neighbours = windows(luminance, mode="edge"), windows(numbers, constant_values=-1)
    is_neighbour = (neighbours >= 0) & (np.arange(9) != 4)
    squares = np.square(around - luminance.reshape(-1, 1))
    nearest = np.where(is_neighbour, squares, np.inf).min(axis=1, keepdims=True)
    scale = np.maximum(_VARIANCE_SCALE * around.var(axis=1, keepdims=True), -nearest / np.log(_LOWEST_WEIGHT))
    weights = np.exp(-squares / np.maximum(scale, _LOWEST_VARIANCE)) * is_neighbour
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(numbers.reshape(-1, 1), neighbours.shape)[is_neighbour]
    return sparse.csr_array((weights[is_neighbour], (rows, neighbours[is_neighbour])), shape=(numbers.size,) * 2)
