"""The project's metrics, on NumPy arrays; docs/results.md defines them and lists what the gray copy scores."""

import math
from typing import NamedTuple

import numpy as np

from colorizer.pixels.color import as_float, gray_copy, to_lab


class Metric(NamedTuple):
    """How a metric is shown.

    Attributes:
        better: which direction is better: lower, higher, or closest to the value of the originals.
        style: how to format it.
        label: a name in plain words.
        about: a sentence on what it measures.
    """

    better: str
    style: str
    label: str
    about: str


METRICS = {
    "mse": Metric("lower", ".5f", "squared error", "It averages the squared error of red, green and blue from 0 to 1."),
    "mae": Metric("lower", ".4f", "absolute error", "It averages the error of red, green and blue from 0 to 1."),
    "psnr": Metric(
        "higher", ".2f", "signal to noise, dB", "It is the squared error in decibels: 3 dB more means half the error."
    ),
    "ssim": Metric(
        "higher", ".4f", "structure", "It compares the details of small patches; blur lowers it, and 1 is best."
    ),
    "delta_e": Metric("lower", ".2f", "colour difference", "It is CIEDE2000; a difference of 1 is just visible."),
    "ab_mae": Metric("lower", ".2f", "chroma error", "It averages the error of a and b in CIE Lab."),
    "accuracy_2": Metric(
        "higher", ".3f", "nearly equal pixels", "It is the share of pixels within 2 units of L and 4.4 of a and b."
    ),
    "accuracy_5": Metric(
        "higher", ".3f", "similar pixels", "It is the share of pixels within 5 units of L and 11 of a and b."
    ),
    "colorfulness": Metric(
        "closest", ".2f", "amount of colour", "It is 0 for gray pictures (Hasler and Süsstrunk 2003)."
    ),
}
"""How each metric is shown, by its name in code; docs/results.md defines them."""

SPOT_DISTANCE = 25  # A pixel is a spot if its (a, b) is this much farther from the truth than the gray copy's.
_LOWEST_MSE = 1e-10  # A photo has at most 100 dB, so that a mean over photos with a perfect result is a number.
_CHUNK = 500  # This many images are converted to Lab at a time, which takes about 50 MB.


def image_mse(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean squared error of each image, float64 (..., N); the prediction is clipped to [0, 1] first.

    Args:
        prediction: uint8 or float of shape (..., N, H, W, 3).
        truth: uint8, or float in [0, 1], of shape (N, H, W, 3).
    """
    difference = np.clip(as_float(prediction), 0, 1) - as_float(truth)
    return np.mean(np.square(difference), axis=(-3, -2, -1), dtype=np.float64)


def colorfulness(images: np.ndarray) -> np.ndarray:
    """Return the colorfulness M3 of Hasler and Suesstrunk 2003 on 0-255 values, float64 (N,); 0 means gray.

    Args:
        images: uint8, or float in [0, 1], of shape (N, H, W, 3).
    """
    rgb = as_float(images).astype(np.float64) * 255
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.sqrt(red_green.var(axis=(1, 2)) + yellow_blue.var(axis=(1, 2)))
    offset = np.hypot(red_green.mean(axis=(1, 2)), yellow_blue.mean(axis=(1, 2)))
    return spread + 0.3 * offset


def compute_metrics(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute every metric of `METRICS`, averaged over the images.

    `mse`, `mae` and `psnr` pool all pixels and channels; `ssim` is the mean of scikit-image's over images;
    `delta_e` is CIEDE2000; `ab_mae` is in Lab units; `accuracy_2` and `accuracy_5` are the share of pixels
    with |dL| <= e and |da|, |db| <= 2.2 e after rounding each to an integer (Nazeri et al. 2018).

    Args:
        prediction: uint8 or float of shape (N, H, W, 3); it is clipped to [0, 1] first.
        truth: uint8, or float in [0, 1], of shape (N, H, W, 3).

    Returns:
        dict of Python floats; `psnr` is infinite for a perfect prediction.

    Raises:
        ValueError: the shapes differ, or there is no image.
    """
    from skimage.color import deltaE_ciede2000
    from skimage.metrics import structural_similarity

    if prediction.shape != truth.shape or prediction.ndim != 4 or prediction.shape[-1] != 3 or not len(truth):
        raise ValueError(f"expected two arrays of one shape (N, H, W, 3), received {prediction.shape}, {truth.shape}")
    sums = dict.fromkeys(METRICS, 0.0)
    for start in range(0, len(truth), _CHUNK):
        predicted = np.clip(as_float(prediction[start : start + _CHUNK]), 0, 1)
        true = as_float(truth[start : start + _CHUNK])
        share = len(true) / len(truth)
        difference = predicted.astype(np.float64) - true
        sums["mse"] += share * np.mean(np.square(difference))
        sums["mae"] += share * np.mean(np.abs(difference))
        pairs = zip(predicted, true, strict=True)
        similarities = [structural_similarity(a, b, channel_axis=-1, data_range=1.0) for a, b in pairs]
        sums["ssim"] += share * np.mean(similarities)
        predicted_lab, true_lab = to_lab(predicted), to_lab(true)
        sums["delta_e"] += share * np.mean(deltaE_ciede2000(true_lab, predicted_lab))
        sums["ab_mae"] += share * np.mean(np.abs(predicted_lab - true_lab)[..., 1:], dtype=np.float64)
        rounded = np.abs(np.rint(predicted_lab) - np.rint(true_lab))
        for tolerance in (2, 5):
            within = rounded <= np.array([1, 2.2, 2.2]) * tolerance
            sums[f"accuracy_{tolerance}"] += share * np.mean(within.all(axis=-1))
        sums["colorfulness"] += share * np.mean(colorfulness(predicted))
    sums["psnr"] = 10 * math.log10(1 / sums["mse"]) if sums["mse"] > 0 else math.inf
    return {name: float(value) for name, value in sums.items()}


def gray_copy_metrics(truth: np.ndarray) -> dict[str, float]:
    """Compute every metric of the gray copy of `truth`, uint8, or float in [0, 1], of shape (N, H, W, 3)."""
    return compute_metrics(gray_copy(truth), truth)


def photo_psnr(result: np.ndarray, photo: np.ndarray) -> float:
    """Return the PSNR of one photo in dB, 10 log10(1 / mse) and at most 100; both are uint8 (H, W, 3)."""
    return 10 * math.log10(1 / max(float(image_mse(result[None], photo[None])[0]), _LOWEST_MSE))


def spot_share(result: np.ndarray, gray: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of pixels whose (a, b) is over 25 units farther from the truth than the gray copy's is.

    Args:
        result, gray, truth: L*a*b* of the shape (H, W, 3), as `color.to_lab` returns it.
    """
    errors = [np.linalg.norm((lab - truth)[..., 1:], axis=-1) for lab in (result, gray)]
    return float(np.mean(errors[0] - errors[1] > SPOT_DISTANCE))


def cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return 1 - cosine of the angle between two vectors (C,); 1 if one of them is zero."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(1 - first @ second / lengths) if lengths else 1.0
