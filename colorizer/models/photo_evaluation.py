"""Measures models on whole photos: errors, colorfulness, spots, and what a classifier sees."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from colorizer.errors import DataError
from colorizer.models.colorizer import Colorizer
from colorizer.pixels.color import gray_copy, to_lab, to_luminance, to_uint8
from colorizer.pixels.images import fit_inside
from colorizer.pixels.metrics import colorfulness, cosine_distance, photo_psnr, spot_share

LONGEST_SIDE = 512  # A larger photo is shrunk to this before it is colorized and measured.
FEATURE_SIZE = 224  # The classifier sees photos squeezed to this square.
_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)

Colorize = Callable[..., np.ndarray]
"""A function such as `Colorizer.colorize`, from a photo to the photo in colour."""
Features = Callable[[np.ndarray], np.ndarray]
"""A function from images, float32 (N, 224, 224, 3) in [0, 1], to the features of a classifier, float (N, C)."""


def measure_photos(
    models: Mapping[str, Colorize],
    photos: Iterable[np.ndarray],
    features: Features | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure models on photos at their own resolution, up to 512 pixels on the longer side.

    One photo is in memory at a time, and what does not depend on the model is computed once. All values are means over
    the photos.

    Args:
        models: a function for each model, by its name.
        photos: yields photos, each uint8 (H, W, 3).
        features: the features of a classifier, for `feature_distance`.

    Returns:
        for each model, a dict with
        `photos` (how many),
        `delta_e` and `gray_copy` (CIEDE2000 of the result and of the gray copy),
        `ratio` (of the two; None if the gray copy makes no error, as on black photos),
        `better` (on how many photos the model has a lower CIEDE2000 than the gray copy),
        `colorfulness` (of the results, as a share of the originals'; None if those are gray),
        `spots` (see `metrics.spot_share`),
        `psnr` (see `metrics.photo_psnr`), and
        with `features`, `feature_distance`: the cosine distance between the features of result and original, over the
        gray copy's, so that the gray copy has 1 (None if it has no distance).

    Raises:
        DataError: there is no photo.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for photo in map(functools.partial(fit_inside, longest=LONGEST_SIDE), photos):
        results = [colorize(photo) for colorize in models.values()]
        for name, row in zip(models, _compare(photo, results, features), strict=True):
            rows[name].append(row)
        del photo, results  # The next photo is decoded before these names are used again.
    if not all(rows.values()):
        raise DataError("There is no photo to measure. Choose a folder or a zip with pictures.")
    return {name: _summarize(found) for name, found in rows.items()}


def vary(colorizer: Colorizer, size: int | None = None) -> dict[str, Colorize]:
    """Return functions that colorize with one setting of a model each, such as `colorist, strength 0.5`.

    The strength varies from 0.25 to 1.5; for a model with chroma bins, the vividness also varies, from 0 to 1. The
    network runs once for each photo, if all functions get the photo before the next one.

    Args:
        colorizer: the model, which has an entry in the library.
        size: as in `Colorizer.colorize`.
    """
    last: dict[str, Any] = {"photo": None}

    def colorize(photo: np.ndarray, **setting: float) -> np.ndarray:
        if last["photo"] is not photo:
            chroma = colorizer.predict_chroma(to_luminance(photo), colorizer.levels, size)
            last.update(photo=photo, chroma=chroma)
        return colorizer.colorize(photo, size=size, chroma=last["chroma"], **setting)

    settings = [("strength", strength) for strength in _STRENGTHS]
    settings += [("vividness", level) for level in colorizer.levels or ()]
    name = colorizer.entry.name
    return {f"{name}, {key} {value:g}": functools.partial(colorize, **{key: value}) for key, value in settings}


def _compare(photo: np.ndarray, results: list[np.ndarray], features: Features | None) -> list[dict[str, float]]:
    """Compare results for a photo, each uint8 (H, W, 3), with the original and with the gray copy."""
    from skimage.color import deltaE_ciede2000

    gray = gray_copy(photo)
    truth_lab, gray_lab = to_lab(photo), to_lab(gray)
    shared = {
        "gray_copy": deltaE_ciede2000(truth_lab, gray_lab).mean(),
        "original_colorfulness": colorfulness(photo[None])[0],
    }
    seen = None
    if features:
        seen = features(np.stack([_squeeze(image) for image in (photo, to_uint8(gray), *results)]))
        shared["gray_feature_distance"] = cosine_distance(seen[1], seen[0])
    rows = []
    for index, result in enumerate(results):
        lab = to_lab(result)
        row = shared | {
            "delta_e": deltaE_ciede2000(truth_lab, lab).mean(),
            "colorfulness": colorfulness(result[None])[0],
            "spots": spot_share(lab, gray_lab, truth_lab),
            "psnr": photo_psnr(result, photo),
        }
        rows.append(row if seen is None else row | {"feature_distance": cosine_distance(seen[2 + index], seen[0])})
    return rows


def _squeeze(image: np.ndarray) -> np.ndarray:
    """Resize an image, uint8 (H, W, 3), to what the classifier sees, float32 (224, 224, 3) in [0, 1].

    The whole photo is squeezed into the square, by Lanczos resampling. Together with the 320 averaged channels of
    EfficientNet-Lite0's last block, this gives `unet-photo` 1.006 on every second of the photos for validation, as in
    the first measurements of the project. Crops of the middle, other filters and the 1,280 channels gave 0.97 to 1.03.
    """
    resized = Image.fromarray(image).resize((FEATURE_SIZE, FEATURE_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.float32) / 255


def _summarize(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return the means over the photos; see `measure_photos`."""
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    def share(key: str, of: str) -> float | None:
        return mean[key] / mean[of] if mean[of] > 0 else None

    summary = {
        "photos": len(rows),
        "delta_e": mean["delta_e"],
        "gray_copy": mean["gray_copy"],
        "ratio": share("delta_e", "gray_copy"),
        "better": sum(bool(row["delta_e"] < row["gray_copy"]) for row in rows),
        "colorfulness": share("colorfulness", "original_colorfulness"),
        "spots": mean["spots"],
        "psnr": mean["psnr"],
    }
    if "feature_distance" in mean:
        summary["feature_distance"] = share("feature_distance", "gray_feature_distance")
    return summary
