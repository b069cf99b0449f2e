"""Defines `Colorizer`, a saved model that colorizes batches of small images and whole photos."""

import numbers
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colorizer.config import MAX_STRENGTH, MAX_WORKING_SIZE, MIN_WORKING_SIZE
from colorizer.errors import ConfigError
from colorizer.models import library
from colorizer.models.belief import Belief
from colorizer.models.checks import MAX_WORKING_PIXELS, check_chroma, check_image, check_values, describe
from colorizer.models.hints import Hint, check_hints, draw_hints, spread_hints
from colorizer.models.network import Network, load_network
from colorizer.models.reference import DEFAULT_STRENGTH, make_prior, reference_shares
from colorizer.models.scale import DEFAULT_VIVIDNESS, SCALES, VIVIDNESS_LEVELS, nearest_level
from colorizer.pixels.budget import pixels_in_work
from colorizer.pixels.color import YCBCR_TO_RGB, split_luminance, to_luminance, to_uint8
from colorizer.pixels.guided import apply_chroma
from colorizer.pixels.images import resize_planes

_BATCH_PIXELS = 2**17  # A batch of small images is cut into parts of at most so many pixels, to bound memory.
_MODEL_SIZE = 32


class Colorizer:
    """A model ready to use; safe to call from several threads.

    Args:
        network: the network; None to load it from the library at the first prediction.
        entry: the library entry that it belongs to; None for a model that is not saved.

    Attributes:
        entry: the library entry, or None.
        vivid: whether the model chooses among chroma bins, so that `vividness` matters.
        any_size: whether the model is convolutional, so that `size` may be set.
        hints: whether the model takes hints.
        scale: how the model sees a photo, and what vividness means for it.
        levels: `VIVIDNESS_LEVELS`, at which predictions are kept, or None if the model is not vivid.
    """

    def __init__(self, network: Network | None, entry: library.ModelEntry | None) -> None:
        self.entry, self._network = entry, network
        self._loading = threading.Lock()
        self.vivid = network.vivid if network else entry.vivid
        self.hints = network.hints if network else entry.model_config.hints
        self.scale = entry.scale if entry else SCALES[network.architecture]
        self.any_size = self.scale.multiple > 0
        self.levels = VIVIDNESS_LEVELS if self.vivid else None

    def open_network(self) -> Network:
        """Return the network; the first call loads it, unless it was given."""
        with self._loading:
            if self._network is None:
                self._network = load_network(self.entry)
            return self._network

    def check_settings(
        self, vividness: float | Sequence[float] | None = None, strength: float = 1.0, size: int | None = None
    ) -> tuple[Sequence[float], Sequence[int]]:
        """Check the settings of `predict`, `predict_chroma` and `colorize` without loading the network.

        Returns:
            the values of vividness at which to predict, and the working sizes over which to average.

        Raises:
            ConfigError: a setting is out of its range, or the model does not have it.
        """
        if not _is_number(strength, 0, MAX_STRENGTH):
            raise ConfigError(f"strength must be a number from 0 to {MAX_STRENGTH:g}, received {strength!r}.")
        name = self.name
        if vividness is not None and not self.vivid:
            raise ConfigError(f"{name} has no vividness to set. Choose a model with chroma bins, such as unet-vivid.")
        levels = vividness if isinstance(vividness, tuple | list) else [vividness]
        levels = [DEFAULT_VIVIDNESS] if vividness is None else levels
        for level in levels or [vividness]:
            if not _is_number(level, 0, 1):
                raise ConfigError(f"vividness must be a number from 0 to 1, received {level!r}.")
        if size is None:
            return levels, self.scale.default_sizes
        if not self.any_size:
            raise ConfigError(f"{name} sees every photo at 32 x 32 pixels. Leave size out, or choose a U-Net.")
        step = self.scale.multiple
        allowed = range(MIN_WORKING_SIZE, MAX_WORKING_SIZE + 1, step)
        if isinstance(size, bool) or not isinstance(size, int) or size not in allowed:
            raise ConfigError(
                f"size must be a multiple of {step} from {allowed[0]} to {allowed[-1]}, received {size!r}."
            )
        return levels, (size,)

    def predict(
        self, luminance: np.ndarray, vividness: float | Sequence[float] | None = None, strength: float = 1.0
    ) -> np.ndarray:
        """Colorize a batch.

        Args:
            luminance: float of shape (N, 32, 32, 1) in [0, 1]; a U-Net takes sides of any multiple of 8, with a
                backbone of 32.
            vividness: from 0, the safe mean of the chroma bins, to 1, the boldest colours, for a model with chroma
                bins; by default 0.4. What it means depends on the architecture, see `Scale.decoding`.
                For several values, the network runs once.
            strength: factor on the chroma, from 0 (gray) to `MAX_STRENGTH`; the output keeps its own luminance.

        Returns:
            float32 of shape (N, H, W, 3), not clipped; with several values of vividness one such array for each.
            A model whose target is `gray` gives three equal channels.

        Raises:
            ValueError: `luminance` is not such an array.
            ConfigError: `vividness` or `strength` is out of range, or the model has no vividness.
        """
        levels, _ = self.check_settings(vividness, strength)
        output = self._predict(self._check_luminance(luminance), levels)
        if strength != 1:
            gray = to_luminance(output)
            output = gray + np.float32(strength) * (output - gray)
        return output if isinstance(vividness, tuple | list) else output[0]

    def _predict(self, luminance: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Run the network on a checked batch; return float32 (levels, N, H, W, 3)."""
        network = self.open_network()
        output = np.empty((len(levels), *luminance.shape[:3], 3), np.float32)
        decodings = [self.scale.decoding(level) for level in levels]
        run, pixels = network, luminance[:1].size
        if self.scale.small_size > _MODEL_SIZE == min(luminance.shape[1:3]):
            run, pixels = self._run_enlarged, pixels * (self.scale.small_size // _MODEL_SIZE) ** 2
        batch = max(_BATCH_PIXELS // pixels, 1) if pixels else 1
        for start in range(0, len(luminance), batch):
            part = slice(start, start + batch)
            output[:, part] = run(luminance[part], decodings)
        return output

    def _run_enlarged(self, luminance: np.ndarray, decodings: Sequence[tuple[float, float]]) -> np.ndarray:
        """Run the network on enlarged images, and average the chroma down; the luminance stays as it was."""
        factor = self.scale.small_size // _MODEL_SIZE
        num, height, width, _ = luminance.shape
        large = np.stack([resize_planes(planes, factor * height, factor * width) for planes in luminance])
        output = self._network(np.clip(large, 0, 1), decodings)
        chroma = split_luminance(output)[1].reshape(len(decodings), num, height, factor, width, factor, 2)
        return luminance + chroma.mean(axis=(3, 5)) @ YCBCR_TO_RGB[1:]

    def look(
        self,
        luminance: np.ndarray,
        vividness: float | Sequence[float] | None = None,
        size: int | None = None,
        hints: Sequence[Hint] | None = None,
        reference: np.ndarray | str | None = None,
        reference_strength: float = DEFAULT_STRENGTH,
    ) -> tuple[np.ndarray, Belief | None]:
        """Predict the chroma of a photo at the model's working size, and return what the network believes about it.

        Args:
            luminance: float of shape (H, W, 1) in [0, 1].
            vividness: as in `predict`.
            size: the shorter side in pixels at which a convolutional model sees the photo, a multiple of the `multiple`
                of the model's `scale` from `MIN_WORKING_SIZE` to `MAX_WORKING_SIZE`; by default the results at the
                `default_sizes` of that scale are averaged.
            hints: pixels of the photo whose colour is given, see `models.hints`.
            reference: a picture in colour, uint8 (H, W, 3 or 4), or the name of one of `reference.PALETTES`, toward
                whose colours the belief is biased.
            reference_strength: how much, from 0, not at all, to 1; see `reference.make_prior`.

        Returns:
            chroma, float32 of shape (32, 32, 2). For a convolutional model, the shorter side is `size`, or the largest
            of the default ones. With several values of vividness, the array has one such map for each. And
            the belief at the largest size, or None if the model has no chroma bins.

        Raises:
            ValueError: `luminance` is not such an array.
            ConfigError: a setting or a hint is out of its range, or the model does not take it.
        """
        levels, sizes = self.check_settings(vividness, size=size)
        shares = self.check_reference(reference, reference_strength)
        shape = luminance.shape if isinstance(luminance, np.ndarray) else ()
        if len(shape) != 3 or shape[2] != 1 or 0 in shape:
            raise ValueError(f"expected luminance of shape (H, W, 1), received {describe(luminance)}")
        check_values(luminance)
        hints = self._check_hints(hints, *shape[:2])
        chroma, belief = self._look(luminance, levels, sizes, hints, shares, reference_strength)
        return (chroma if isinstance(vividness, tuple | list) else chroma[0]), belief

    def predict_chroma(self, *args: Any, **settings: Any) -> np.ndarray:
        """Return the chroma that `look` predicts, whose arguments it takes."""
        return self.look(*args, **settings)[0]

    def belief(self, image: np.ndarray, **settings: Any) -> Belief:
        """Return what the network believes about a photo.

        Args:
            image: as in `colorize`.
            settings: `size`, `hints`, `reference` and `reference_strength`, as in `look`.

        Raises:
            ConfigError: the model has no chroma bins, or a setting is wrong.
            ImageError: `image` is not such an array.
        """
        if not self.vivid:
            raise ConfigError(f"{self.name} has no chroma bins, so it has no belief. Choose a model such as colorist.")
        image = check_image(image)
        with pixels_in_work(image.shape[0] * image.shape[1]):
            return self.look(to_luminance(image[..., :3]), **settings)[1]

    @property
    def name(self) -> str:
        """The model's name, or "This model" for one that is not saved."""
        return self.entry.name if self.entry else "This model"

    def _check_hints(self, hints: Sequence[Hint] | None, height: int, width: int) -> list[Hint]:
        if hints and not self.hints:
            raise ConfigError(f"{self.name} takes no hints. Choose a model that does, such as colorist or unet-vivid.")
        return check_hints(hints, height, width)

    def check_reference(self, reference: np.ndarray | str | None, strength: float) -> np.ndarray | None:
        """Return how frequent each chroma bin is in a reference, or None without one; see `look` for the errors."""
        if not _is_number(strength, 0, 1):
            raise ConfigError(f"reference_strength must be a number from 0 to 1, received {strength!r}.")
        if reference is None:
            return None
        if not self.vivid:
            raise ConfigError(f"{self.name} takes no reference. Choose a model with chroma bins, such as colorist.")
        return reference_shares(
            reference if isinstance(reference, str) else check_image(reference), self.open_network().bins
        )

    def _look(
        self,
        luminance: np.ndarray,
        levels: Sequence[float],
        sizes: Sequence[int],
        hints: Sequence[Hint] = (),
        shares: np.ndarray | None = None,
        reference_strength: float = DEFAULT_STRENGTH,
    ) -> tuple[np.ndarray, Belief | None]:
        """Return the mean of the chroma predicted at each working size, float32 (levels, h, w, 2), and the belief."""
        network, maps, shape, logits, prior = self.open_network(), [], luminance.shape[:2], None, None
        decodings = [self.scale.decoding(level) for level in levels]
        for size in sizes:
            working_shape = self._working_shape(size, *shape)
            small = np.clip(resize_planes(luminance, *working_shape), 0, 1)
            planes = draw_hints(hints, shape, working_shape)[None] if hints else None
            if self.vivid:
                if shares is not None:
                    _, logits = network.look(small[None], decodings[:1], planes)
                    prior = make_prior(logits[0], shares, reference_strength)
                output, logits = network.look(small[None], decodings, planes, prior)
            else:
                output = network(small[None], decodings, planes)
                output = np.broadcast_to(output, (*output.shape[:-1], 3))
            # Boosted chroma often leaves the gamut; `apply_chroma` brings it back and keeps its hue.
            maps.append(split_luminance(output if self.scale.boost else np.clip(output, 0, 1))[1][:, 0])
        height, width = maps[-1].shape[1:3]
        mean = np.mean([[resize_planes(planes, height, width) for planes in chroma] for chroma in maps], axis=0)
        small = resize_planes(luminance, height, width)
        belief = None if logits is None else Belief(logits[0], network.bins, small, self.scale)
        if hints:
            mean = np.stack([spread_hints(planes, small, hints, shape) for planes in mean])
        return mean, belief

    def colorize(
        self,
        image: np.ndarray,
        vividness: float | None = None,
        strength: float = 1.0,
        size: int | None = None,
        chroma: np.ndarray | None = None,
        hints: Sequence[Hint] | None = None,
        reference: np.ndarray | str | None = None,
        reference_strength: float = DEFAULT_STRENGTH,
    ) -> np.ndarray:
        """Colorize a photo at its own resolution: its luminance is kept, chroma comes from the model.

        Args:
            image: uint8 of shape (H, W, 3), of which only the luminance is used, gray (H, W), or (H, W, 4) with alpha.
            vividness, strength: as in `predict`.
            size: as in `look`.
            chroma: what `predict_chroma` gave for this photo, at one vividness or at `levels`, of which the nearest
                is taken. The network is then neither run nor loaded, and hints and reference change nothing.
            hints: as in `look`, pixels of `image`.
            reference, reference_strength: as in `look`.

        Returns:
            uint8 of shape (H, W, 3), or (H, W, 4) with the alpha of `image`. Its luminance is that of `image` to
            within 1 of 255 at every pixel.

        Raises:
            ImageError: `image` is not such an array, or other large pictures kept it waiting (see `pixels_in_work`).
            ValueError: `chroma` is not such an array.
            ConfigError: a setting is out of its range, or the model does not have it.
        """
        levels, sizes = self.check_settings(vividness, strength, size)
        image = check_image(image)
        hints = self._check_hints(hints, *image.shape[:2])
        shares = self.check_reference(reference, reference_strength) if chroma is None else None
        if chroma is not None:
            chroma = check_chroma(chroma)
            chroma = chroma[nearest_level(levels[0])] if chroma.ndim == 4 else chroma
        with pixels_in_work(image.shape[0] * image.shape[1]):
            luminance = to_luminance(image[..., :3])
            if chroma is None:
                chroma = self._look(luminance, levels, sizes, hints, shares, reference_strength)[0][0]
            return apply_chroma(image, np.float32(strength) * chroma, luminance)

    def reconstruct(self, image: np.ndarray, vividness: float | None = None) -> np.ndarray:
        """Return the network's own prediction for a photo shrunk to 32 x 32 pixels, uint8 (32, 32, 3).

        Args:
            image, vividness: as in `colorize`.
        """
        image = check_image(image)
        with pixels_in_work(image.shape[0] * image.shape[1]):
            luminance = resize_planes(to_luminance(image[..., :3]), _MODEL_SIZE, _MODEL_SIZE)
        return to_uint8(self.predict(np.clip(luminance, 0, 1)[None], vividness)[0])

    def _working_shape(self, size: int, height: int, width: int) -> tuple[int, int]:
        """Return the sides at which the network sees a photo; the shorter one is `size`, rounded to a multiple."""
        step = self.scale.multiple
        if not step:
            return _MODEL_SIZE, _MODEL_SIZE
        longest, scale = MAX_WORKING_PIXELS // size // step * step, size / min(height, width)
        return tuple(min(max(round(side * scale / step), 1) * step, longest) for side in (height, width))

    def _check_luminance(self, luminance: np.ndarray) -> np.ndarray:
        """Return a batch as float32, or raise `ValueError`."""
        step = self.scale.multiple
        expected = f"(N, H, W, 1) with H and W multiples of {step}" if step else "(N, 32, 32, 1)"
        shape = luminance.shape if isinstance(luminance, np.ndarray) else ()
        fits = len(shape) == 4 and shape[3] == 1
        if not fits or not all(side > 0 and side % step == 0 if step else side == 32 for side in shape[1:3]):
            raise ValueError(f"expected luminance of shape {expected}, received {describe(luminance)}")
        check_values(luminance)
        return luminance.astype(np.float32, copy=False)


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= value <= high


def load(name_or_path: str | Path) -> Colorizer:
    """Load a model of the library by name, or from its folder; a missing or damaged one raises `ModelError`."""
    entry = library.find_model(name_or_path)
    return Colorizer(load_network(entry), entry)
