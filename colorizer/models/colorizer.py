"""Colorizer: a loaded model that colorizes 32x32 batches and whole photos."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colorizer.config import (
    DEFAULT_VIVIDNESS,
    MAX_PIXELS,
    MAX_STRENGTH,
    MAX_WORKING_SIZE,
    MIN_WORKING_SIZE,
    VIVIDNESS_LEVELS,
)
from colorizer.errors import ConfigError, ImageError
from colorizer.models import library
from colorizer.pixels.color import split_luminance, to_luminance, to_uint8
from colorizer.pixels.guided import apply_chroma
from colorizer.pixels.images import resize_planes

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_BATCH = 500
_MODEL_SIZE = 32
_DEFAULT_SIZES = (32, 64)  # whose mean a U-Net gives unless told, chosen on photos held out of training
_MAX_WORKING_PIXELS = MAX_WORKING_SIZE * 1024  # a panorama longer than this is squeezed, to bound time and memory


class Colorizer:
    """A model ready to use; safe to call from several threads.

    A U-Net sees each image also mirrored, and what it makes of both is averaged.

    Attributes:
        entry: the library entry that it was loaded from, or None.
        vivid: whether it chooses among chroma bins, so that `vividness` matters.
        any_size: whether it is convolutional, so that `size` may be set.
        levels: `VIVIDNESS_LEVELS`, at which its predictions are kept, or None if it is not vivid.
    """

    def __init__(self, model: "keras.Model", entry: library.ModelEntry | None) -> None:
        import keras
        import tensorflow as tf

        self.entry = entry
        self.vivid = any(layer.name == "logits" for layer in model.layers)
        self.levels = VIVIDNESS_LEVELS if self.vivid else None
        self._constant = tf.constant
        self.any_size = model.input_shape[1] is None
        read, paint = split_at_logits(model) if self.vivid else (model, None)

        def read_both(luminance: "tf.Tensor") -> "tf.Tensor":
            mirrored = read(luminance[:, :, ::-1], training=False)[:, :, ::-1]
            return (read(luminance, training=False) + mirrored) / 2

        whole = read_both if self.any_size else lambda luminance: read(luminance, training=False)
        for layer in model.layers:
            if isinstance(layer, keras.layers.UpSampling2D):  # which Keras traces for a size that it knows only
                layer.call = functools.partial(_double, method=layer.interpolation)
        side = None if self.any_size else _MODEL_SIZE
        shape = tf.TensorSpec((None, side, side, 1), tf.float32)
        # AutoGraph warns with Python 3.13; nothing here needs it.
        compiled = functools.partial(tf.function, autograph=False)
        self._read, self._paint = compiled(whole).get_concrete_function(shape), None
        if self.vivid:
            logits = tf.TensorSpec((None, None, None, self._read.output_shapes[-1]), tf.float32)
            soften = compiled(lambda luminance, logits, temperature: paint(luminance, logits / temperature))
            self._paint = soften.get_concrete_function(shape, logits, tf.TensorSpec((), tf.float32))

    def predict(
        self, luminance: np.ndarray, vividness: float | Sequence[float] | None = None, strength: float = 1.0
    ) -> np.ndarray:
        """Colorize a batch.

        Args:
            luminance: float32 of shape (N, 32, 32, 1) in [0, 1]; a U-Net takes any multiple of 8.
            vividness: v in [0, 1] of a model with chroma bins, which are averaged at the temperature 10^-v (the
                annealed mean of Zhang et al. 2016, section 2.3): 0 is the safe mean, 1 the boldest; by default 0.4.
                For several, the network runs once.
            strength: factor on the chroma, from 0 (gray) to `MAX_STRENGTH`.

        Returns:
            float32 of shape (N, 32, 32, 3), or that size, not clipped; with several values of vividness one such
            array for each. A model of the target `gray` gives three equal channels.

        Raises:
            ConfigError: `vividness` or `strength` is out of range, or the model has no vividness.
        """
        check_strength(strength)
        levels = self.check_vividness(vividness)
        output = np.empty((len(levels), *luminance.shape[:3], 3), np.float32)
        for start in range(0, len(luminance), _BATCH):
            part = slice(start, start + _BATCH)
            batch = self._constant(luminance[part])
            answer = self._read(batch)
            for level, place in zip(levels, output, strict=True):
                if self._paint:
                    place[part] = self._paint(batch, answer, self._constant(10.0**-level)).numpy()
                else:
                    place[part] = answer.numpy()
        if strength != 1:
            output = luminance + np.float32(strength) * (output - luminance)
        return output if isinstance(vividness, tuple | list) else output[0]

    def check_vividness(self, vividness: float | Sequence[float] | None) -> Sequence[float]:
        """Return the values at which to predict, or raise `ConfigError`, as `predict` does."""
        if vividness is None:
            return [DEFAULT_VIVIDNESS]
        levels = vividness if isinstance(vividness, tuple | list) else [vividness]
        if not self.vivid:
            name = self.entry.name if self.entry else "This model"
            raise ConfigError(f"{name} has no vividness to set. Choose a model with chroma bins, such as unet-vivid.")
        for level in levels:
            if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:
                raise ConfigError(f"vividness must be a number from 0 to 1, received {level!r}.")
        return levels

    def check_size(self, size: int | None) -> Sequence[int]:
        """Return the working sizes whose mean is meant, or raise `ConfigError`, as `predict_chroma` does."""
        if size is None:
            return _DEFAULT_SIZES if self.any_size else (_MODEL_SIZE,)
        if not self.any_size:
            name = self.entry.name if self.entry else "This model"
            raise ConfigError(f"{name} sees every photo at 32 x 32 pixels. Leave size out, or choose a U-Net.")
        allowed = range(MIN_WORKING_SIZE, MAX_WORKING_SIZE + 1, 8)
        if isinstance(size, bool) or not isinstance(size, int) or size not in allowed:
            raise ConfigError(f"size must be a multiple of 8 from {allowed[0]} to {allowed[-1]}, received {size!r}.")
        return (size,)

    def predict_chroma(
        self, luminance: np.ndarray, vividness: float | Sequence[float] | None = None, size: int | None = None
    ) -> np.ndarray:
        """Predict the chroma of a photo at the model's working size.

        Args:
            luminance: float32 of shape (H, W, 1) in [0, 1].
            vividness: as in `predict`.
            size: the shorter side in pixels at which a convolutional model sees the photo, a multiple of 8 from
                `MIN_WORKING_SIZE` to `MAX_WORKING_SIZE`; by default the mean of what it makes of it at 32 and at 64.

        Returns:
            float32 of shape (32, 32, 2); of a convolutional model (h, w, 2), the shorter side `size` or 64; with
            several values of vividness one such array for each.

        Raises:
            ConfigError: `size` is no such number, or the model is not convolutional; or as in `predict`.
        """
        planes = []
        for working_size in self.check_size(size):
            height = width = working_size
            if self.any_size:
                scale, longest = working_size / min(luminance.shape[:2]), _MAX_WORKING_PIXELS // working_size
                height, width = (min(max(round(side * scale / 8), 1) * 8, longest) for side in luminance.shape[:2])
            small = np.clip(resize_planes(luminance, height, width), 0, 1)
            chroma = split_luminance(np.clip(self.predict(small[None], vividness), 0, 1))[1].squeeze(-4)
            planes.append(chroma.reshape(-1, height, width, 2))
        height, width = planes[-1].shape[1:3]
        mean = [
            np.mean([resize_planes(p, height, width) for p in level], axis=0) for level in zip(*planes, strict=True)
        ]
        return np.stack(mean) if isinstance(vividness, tuple | list) else mean[0]

    def colorize(
        self, image: np.ndarray, vividness: float | None = None, strength: float = 1.0, size: int | None = None
    ) -> np.ndarray:
        """Colorize a photo at its own resolution: its luminance is kept, chroma comes from the model.

        Args:
            image: uint8 of shape (H, W, 3), of which only the luminance is used, gray (H, W), or (H, W, 4) with alpha.
            vividness, strength: as in `predict`.
            size: as in `predict_chroma`.

        Returns:
            uint8 of shape (H, W, 3), or (H, W, 4) with the alpha of `image`. Its luminance is that of `image` to
            within 1 of 255 at every pixel.

        Raises:
            ImageError: `image` is no such array.
            ConfigError: as in `predict` and `predict_chroma`.
        """
        image, strength = check_image(image), check_strength(strength)
        chroma = self.predict_chroma(to_luminance(image[..., :3]), vividness, size)
        return apply_chroma(image, strength * chroma)

    def reconstruct(self, image: np.ndarray, vividness: float | None = None) -> np.ndarray:
        """Return what the network itself makes of a photo shrunk to 32 x 32 pixels.

        Args:
            image, vividness: as in `colorize`.

        Returns:
            uint8 of shape (32, 32, 3).
        """
        luminance = resize_planes(to_luminance(check_image(image)[..., :3]), _MODEL_SIZE, _MODEL_SIZE)
        return to_uint8(self.predict(np.clip(luminance, 0, 1)[None], vividness)[0])


def split_at_logits(model: "keras.Model") -> "tuple[keras.Model, Callable]":
    """Cut a model with chroma bins in two, which share its weights.

    Returns:
        a model from luminance (N, H, W, 1) to logits (N, H / 2, W / 2, bins), and
        a function from luminance and logits to the image.
    """
    import keras

    centres, enlarge, to_rgb = (model.get_layer(name) for name in ("bin_centres", "chroma", "ycbcr_to_rgb"))

    def paint(luminance, logits):
        return to_rgb(keras.ops.concatenate([luminance, enlarge(centres(keras.ops.softmax(logits)))], axis=-1))

    return keras.Model(model.input, model.get_layer("logits").output), paint


def _double(planes: "tf.Tensor", method: str) -> "tf.Tensor":
    import tensorflow as tf

    return tf.image.resize(planes, 2 * tf.shape(planes)[1:3], method)


def load(name_or_path: str | Path) -> Colorizer:
    """Load a model of the library by name, or from its folder; a missing or damaged one raises `ModelError`."""
    entry = library.find_model(name_or_path)
    return Colorizer(library.load_keras_model(entry), entry)


def check_strength(strength: float) -> float:
    """Return `strength` if it is a number from 0 to `MAX_STRENGTH`, else raise `ConfigError`."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= MAX_STRENGTH:
        raise ConfigError(f"strength must be a number from 0 to {MAX_STRENGTH:g}, received {strength!r}.")
    return strength


def check_image(image: np.ndarray) -> np.ndarray:
    """Return `image` as uint8 (H, W, 3) or (H, W, 4), or raise `ImageError` with what was received."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        received = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"An image must be a uint8 array, received a {received}. Read files with decode_image.")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or not image.size:
        raise ImageError(f"An image must have the shape (H, W, 3), (H, W, 4) or (H, W), received {image.shape}.")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ImageError(f"The image has more than {MAX_PIXELS / 1e6:.0f} megapixels. Scale it down first.")
    return image
