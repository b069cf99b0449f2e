"""Biases a belief toward the colours of another picture or of a named palette."""

import numpy as np

from colorizer.errors import ConfigError
from colorizer.models.belief import softmax
from colorizer.pixels.color import split_luminance
from colorizer.pixels.images import fit_inside, lay_on_white

DEFAULT_STRENGTH = 0.5  # With a larger strength, the colours of `colorist` become bolder than those of the reference.
REFERENCE_SIZE = 128  # The colours of a reference are counted at this many pixels on its longer side.
_SPREAD = 0.03  # A pixel's chroma is shared among the bins near it by a Gaussian with this standard deviation.
_SMOOTHING = 0.02  # This share of a histogram is spread evenly, so that no colour is ruled out.
_LIMIT = 6.0  # A prior changes no logit by more than this.

PALETTES = {
    "neutral": [((0.0, 0.0), 1.0, 0.03)],
    "warm": [((-0.07, 0.07), 0.6, 0.05), ((-0.03, 0.02), 0.4, 0.03)],
    "cold": [((0.07, -0.05), 0.6, 0.05), ((0.02, -0.02), 0.4, 0.03)],
    "autumn": [((-0.11, 0.09), 0.45, 0.05), ((-0.12, 0.02), 0.25, 0.04), ((-0.02, 0.01), 0.3, 0.03)],
    "faded-print": [((-0.05, 0.035), 0.8, 0.02), ((-0.01, 0.0), 0.2, 0.02)],
}
"""Names of palettes, each a mixture of Gaussians over chroma: centre (Cb, Cr), share and standard deviation."""


def reference_shares(reference: np.ndarray | str, bins: np.ndarray) -> np.ndarray:
    """Return how frequent each chroma bin is in a reference.

    Args:
        reference: a picture, uint8 (H, W, 3 or 4), or the name of one of `PALETTES`.
        bins: float32 (bins, 2), the chroma of each bin.

    Returns:
        float64 (bins,), whose sum is 1.

    Raises:
        ConfigError: there is no such palette, or the picture has no colours.
    """
    if isinstance(reference, str):
        if reference not in PALETTES:
            raise ConfigError(f"There is no palette {reference!r:.60}. Choose one of {', '.join(PALETTES)}.")
        shares = sum(
            share * _near(bins, np.array([centre]), spread)[0] for centre, share, spread in PALETTES[reference]
        )
    else:
        small = shrink_reference(reference)
        chroma = split_luminance(small)[1].reshape(-1, 2)
        if np.ptp(small.astype(np.int16), axis=-1).max() <= 2:
            raise ConfigError("The reference is gray, so it has no colours to give. Choose a picture in colour.")
        shares = _near(bins, chroma, _SPREAD).mean(axis=0)
    return (1 - _SMOOTHING) * shares / shares.sum() + _SMOOTHING / len(bins)


def shrink_reference(reference: np.ndarray) -> np.ndarray:
    """Return a small copy of a picture, uint8 (h, w, 3), that has its colours; what is transparent becomes white."""
    return fit_inside(lay_on_white(reference), REFERENCE_SIZE)


def _near(bins: np.ndarray, chroma: np.ndarray, spread: float) -> np.ndarray:
    """Return how much of each chroma (N, 2) belongs to each bin, (N, bins)."""
    squares = np.square(chroma[:, None].astype(np.float64) - bins).sum(axis=-1)
    return softmax(-squares / (2 * spread**2))


def make_prior(logits: np.ndarray, shares: np.ndarray, strength: float) -> np.ndarray:
    """Return what is to be added to logits so that the colours of a photo come closer to those of a reference.

    It is `strength` times the logarithm of how much more frequent a bin is in the reference than the network expects in
    this photo, which is Bayes's rule for another prior.

    Args:
        logits: float32 (h, w, bins), of the photo without a prior.
        shares: from `reference_shares`.
        strength: 0 for no change, 1 for the whole of it.

    Returns:
        float32 (bins,).
    """
    expected = softmax(logits).mean(axis=(0, 1))
    expected = (1 - _SMOOTHING) * expected + _SMOOTHING / len(expected)
    return np.clip(strength * np.log(shares / expected), -_LIMIT, _LIMIT).astype(np.float32)
