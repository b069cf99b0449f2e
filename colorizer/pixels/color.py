"""Converts between sRGB, luminance and chroma (ITU-R BT.601), and CIE Lab, and keeps colours inside the gamut."""

import numpy as np

# ITU-R BT.601-7, section 2.5.1: Y = 0.299 R + 0.587 G + 0.114 B on gamma-encoded values,
# Cb = (B - Y) / 1.772 and Cr = (R - Y) / 1.402, each in [-0.5, 0.5].
LUMINANCE_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
# The columns give Cb and Cr as sums of R, G and B.
RGB_TO_CHROMA = np.array(
    [[-0.299 / 1.772, 0.701 / 1.402], [-0.587 / 1.772, -0.587 / 1.402], [0.886 / 1.772, -0.114 / 1.402]], np.float32
)
# The columns give R, G and B as sums of Y, Cb and Cr. They invert the three equations above.
YCBCR_TO_RGB = np.array(
    [[1.0, 1.0, 1.0], [0.0, -0.114 * 1.772 / 0.587, 1.772], [1.402, -0.299 * 1.402 / 0.587, 0.0]], np.float32
)

_TINY = np.float32(1e-9)  # This stands in for a divisor of zero.
CHROMA_STEP, CHROMA_CELLS = 0.04, 25  # Chroma bins lie on a grid of 25 x 25 cells that is centred on gray.


def as_float(images: np.ndarray) -> np.ndarray:
    """Return images of any shape as float32 in [0, 1]; uint8 is divided by 255, float in [0, 1] keeps its values."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32, copy=False)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Clip float images of any shape to [0, 1], scale them by 255 and round them to uint8."""
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
    weights = LUMINANCE_WEIGHTS / np.float32(255 if images.dtype == np.uint8 else 1)
    # This converts a few pixels at a time, which bounds the memory. A product of matrices would copy all of them and
    # start threads that compete with ours.
    return np.einsum("...c,c->...", images, weights, dtype=np.float32, casting="same_kind")[..., None]


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
    return to_luminance(images), as_float(images) @ RGB_TO_CHROMA


def chroma_shares(images: np.ndarray) -> np.ndarray:
    """Count which colours images have at half their resolution, at which networks predict chroma.

    Args:
        images: uint8 of shape (N, H, W, 3), H and W even.

    Returns:
        float32 of shape (25, 25), the share of pixels in each cell of the grid of (Cb, Cr); sums to 1.
    """
    counts = np.zeros(CHROMA_CELLS**2)
    for start in range(0, len(images), 1000):
        chroma = split_luminance(images[start : start + 1000])[1]
        num, height, width, _ = chroma.shape
        chroma = chroma.reshape(num, height // 2, 2, width // 2, 2, 2).mean(axis=(2, 4))
        cells = np.clip(np.rint(chroma / CHROMA_STEP).astype(int) + CHROMA_CELLS // 2, 0, CHROMA_CELLS - 1)
        counts += np.bincount((cells @ [CHROMA_CELLS, 1]).ravel(), minlength=len(counts))
    return (counts / counts.sum()).reshape(CHROMA_CELLS, CHROMA_CELLS).astype(np.float32)


def chroma_bins(shares: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the most frequent cells of the grid as bins.

    Args:
        shares: float32 of shape (25, 25), as `chroma_shares` returns it.
        num_bins: number of bins, from 1 to 625.

    Returns:
        centres, float32 of shape (num_bins, 2), most frequent first, and
        their shares, float32 of shape (num_bins,), scaled to sum to 1.
    """
    cells = np.argsort(-shares.ravel(), kind="stable")[:num_bins]
    centres = (np.stack(np.divmod(cells, CHROMA_CELLS), axis=-1) - CHROMA_CELLS // 2) * CHROMA_STEP
    chosen = shares.ravel()[cells]
    return centres.astype(np.float32), chosen / chosen.sum()


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
    # Working plane by plane is faster than along the last axis. R, G and B differ from the luminance by these planes.
    luminance, cb, cr = luminance[..., 0], chroma[..., 0], chroma[..., 1]
    differences = [blue * cb + red * cr for blue, red in YCBCR_TO_RGB[1:].T]
    highest, lowest = (limit.reduce(differences) for limit in (np.maximum, np.minimum))
    scale = np.minimum((1 - luminance) / np.maximum(highest, _TINY), luminance / np.maximum(-lowest, _TINY))
    scale = np.minimum(scale, 1)
    return np.stack([np.clip(luminance + scale * difference, 0, 1) for difference in differences], axis=-1)


def gray_copy(images: np.ndarray) -> np.ndarray:
    """Return the baseline: the luminance of `images` (..., 3) in all three channels, float32 in [0, 1]."""
    return np.repeat(to_luminance(images), 3, axis=-1)


def to_lab(images: np.ndarray) -> np.ndarray:
    """Convert sRGB images (..., 3), uint8 or float in [0, 1], to CIE L*a*b* (D65, 2 degrees), float32."""
    from skimage.color import rgb2lab  # This loads SciPy, which the first page can do without.

    return rgb2lab(as_float(images))
