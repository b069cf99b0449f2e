"""Colorizer: a loaded model that colorizes 32x32 batches and whole photos."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colorizer import library
from colorizer.color import merge_luminance, split_luminance, to_luminance, to_uint8
from colorizer.config import MAX_PIXELS
from colorizer.errors import ImageError
from colorizer.images import resize_planes

if TYPE_CHECKING:
    import keras

_BATCH = 500
_STRIP_PIXELS = 2_000_000  # merged at a time, to bound memory on large photos
_MODEL_SIZE = 32
_WORKING_SIZE = 64  # shorter side at which a convolutional model sees a photo


class Colorizer:
    """A model ready to use; safe to call from several threads.

    Attributes:
        entry: the library entry that it was loaded from, or None.
    """

    def __init__(self, model: "keras.Model", entry: library.ModelEntry | None) -> None:
        import tensorflow as tf

        self.entry = entry
        self._constant = tf.constant
        self._any_size = model.input_shape[1] is None
        shape = tf.TensorSpec((None, _MODEL_SIZE, _MODEL_SIZE, 1), tf.float32)
        # Traced once, here. Other sizes run without a graph: Keras cannot trace UpSampling2D for a size not known.
        self._small = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(shape)
        self._other = lambda batch: model(batch, training=False)

    def predict(self, luminance: np.ndarray) -> np.ndarray:
        """Colorize a batch.

        Args:
            luminance: float32 of shape (N, 32, 32, 1) in [0, 1]; a convolutional model takes any multiple of 8.

        Returns:
            float32 of shape (N, 32, 32, 3), or that size, not clipped. A model of the target `gray` gives three equal
            channels.
        """
        forward = self._small if luminance.shape[1:3] == (_MODEL_SIZE, _MODEL_SIZE) else self._other
        output = np.empty((*luminance.shape[:3], 3), np.float32)
        for start in range(0, len(luminance), _BATCH):
            output[start : start + _BATCH] = forward(self._constant(luminance[start : start + _BATCH])).numpy()
        return output

    def predict_chroma(self, luminance: np.ndarray) -> np.ndarray:
        """Predict the chroma of a photo at the model's working size.

        Args:
            luminance: float32 of shape (H, W, 1) in [0, 1].

        Returns:
            float32 of shape (32, 32, 2); of a convolutional model (h, w, 2), the shorter side 64.
        """
        height = width = _MODEL_SIZE
        if self._any_size:
            scale = _WORKING_SIZE / min(luminance.shape[:2])
            height, width = (min(max(round(side * scale / 8), 1) * 8, 4096) for side in luminance.shape[:2])
        small = np.clip(resize_planes(luminance, height, width), 0, 1)
        return split_luminance(np.clip(self.predict(small[None])[0], 0, 1))[1]

    def colorize(self, image: np.ndarray) -> np.ndarray:
        """Colorize a photo at its own resolution: its luminance is kept, chroma comes from the model.

        Args:
            image: uint8 of shape (H, W, 3), of which only the luminance is used, or gray (H, W).

        Returns:
            uint8 of shape (H, W, 3).

        Raises:
            ImageError: `image` is no such array.
        """
        image = check_image(image)
        return apply_chroma(image, self.predict_chroma(to_luminance(image)))


def load(name_or_path: str | Path) -> Colorizer:
    """Load a model of the library by name, or from its folder; a missing or damaged one raises `ModelError`."""
    entry = library.find_model(name_or_path)
    return Colorizer(library.load_keras_model(entry), entry)


def check_image(image: np.ndarray) -> np.ndarray:
    """Return `image` as uint8 (H, W, 3), or raise `ImageError` with what was received."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        received = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"An image must be a uint8 array, received a {received}. Read files with decode_image.")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ImageError(f"An image must have the shape (H, W, 3) or (H, W), received {image.shape}.")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ImageError(f"The image has more than {MAX_PIXELS / 1e6:.0f} megapixels. Scale it down first.")
    return image


def apply_chroma(image: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Give an image the chroma of a smaller map, at its own luminance and resolution.

    Args:
        image: uint8 of shape (H, W, 3); only its luminance is used.
        chroma: float of shape (h, w, 2), enlarged bicubically.

    Returns:
        uint8 of shape (H, W, 3).
    """
    height, width = image.shape[:2]
    chroma = resize_planes(chroma, height, width)
    result = np.empty_like(image)
    rows = max(1, _STRIP_PIXELS // width)
    for start in range(0, height, rows):
        strip = slice(start, start + rows)
        result[strip] = to_uint8(merge_luminance(to_luminance(image[strip]), chroma[strip]))
    return result
