"""What a network with chroma bins believes at each place of a photo, and how such a belief becomes a colour."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from colorizer.models.scale import MAX_ENTROPY, Scale
from colorizer.pixels.color import merge_luminance, to_uint8
from colorizer.pixels.names import name_colors

_SURE = 0.7  # A network is sure of a colour that has at least this share of its belief.
_WORTH_NAMING = 0.15  # A colour with a smaller share is not named in the sentence.


@dataclass(frozen=True)
class PixelBelief:
    """A belief at one place.

    Attributes:
        probabilities: float64 (bins,), the softmax of the logits; the sum is 1.
        bins: float32 (bins, 2), their chroma.
        luminance: that of the pixel, from 0 to 1.
        picked: float64 (2,), the chroma that the current vividness makes of this belief.
    """

    probabilities: np.ndarray
    bins: np.ndarray
    luminance: float
    picked: np.ndarray

    @property
    def entropy(self) -> float:
        """The entropy in bits: 0 where the network is certain, and 7 where 128 bins are equally likely."""
        return float(_entropy(self.probabilities))

    @property
    def mean(self) -> np.ndarray:
        """The mean chroma, float64 (2,): what a network that minimises the squared error would predict."""
        return self.probabilities @ self.bins

    @property
    def mode(self) -> int:
        """The index of the likeliest bin."""
        return int(self.probabilities.argmax())

    def likeliest(self, number: int) -> list[int]:
        """Return the indices of the likeliest bins, the likeliest first."""
        return np.argsort(-self.probabilities, kind="stable")[:number].tolist()

    def paint(self, chroma: np.ndarray) -> np.ndarray:
        """Return chroma (N, 2) at the luminance of the pixel, uint8 (N, 3).

        A colour that leaves the gamut is pulled toward gray.
        """
        luminance = np.full((len(chroma), 1), self.luminance, np.float32)
        return to_uint8(merge_luminance(luminance, np.asarray(chroma, np.float32)))

    def describe(self) -> str:
        """Say in a sentence what the network believes."""
        *names, mean = name_colors(self.paint(np.vstack([self.bins, self.mean])))
        shares: dict[str, float] = {}
        for name, share in zip(names, self.probabilities.tolist(), strict=True):
            shares[name] = shares.get(name, 0.0) + share
        (first, share), *others = sorted(shares.items(), key=lambda item: -item[1])
        if share >= _SURE:
            return f"The network is rather sure of {first} ({share:.0%})."
        rivals = [name for name, other in others if other >= _WORTH_NAMING][:2]
        if not rivals:
            return f"The network leans to {first} ({share:.0%}), among many other colours; their mean is {mean}."
        named = f"{', '.join([first, *rivals[:-1]])} and {rivals[-1]}"
        return f"The network hesitates between {named}; the mean of all is {mean}."


@dataclass(frozen=True)
class Belief:
    """The belief of a network about a photo.

    Attributes:
        logits: float32 (h, w, bins), before the softmax.
        bins: float32 (bins, 2), the chroma of each bin.
        luminance: float32 (h, w, 1) or larger, the photo's own in [0, 1].
        scale: how the model of this network turns a belief into a colour.
    """

    logits: np.ndarray
    bins: np.ndarray
    luminance: np.ndarray
    scale: Scale

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, float32 (h, w, bins)."""
        return softmax(self.logits)

    def entropy(self) -> np.ndarray:
        """Return the entropy at each place in bits, float32 (h, w)."""
        return _entropy(self.probabilities)

    def at(self, x: float, y: float, vividness: float) -> PixelBelief:
        """Return the belief at a place.

        Args:
            x, y: from 0, the left or upper edge of the photo, to 1, the right or lower one.
            vividness: as in `Colorizer.predict`; it decides which colour is picked.
        """
        logits, luminance = (
            planes[_cell(y, planes.shape[0]), _cell(x, planes.shape[1])].astype(np.float64)
            for planes in (self.logits, self.luminance)
        )
        picked = decode(logits, self.bins, *self.scale.decoding(vividness))
        return PixelBelief(softmax(logits), self.bins, float(luminance[0]), picked)


def _cell(place: float, length: int) -> int:
    return min(max(int(place * length), 0), length - 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, in the dtype of `logits`."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def decode(logits: np.ndarray, bins: np.ndarray, temperature: float, boost: float) -> np.ndarray:
    """Return the chroma that a belief becomes, (..., 2), as the graph of a network computes it.

    Args:
        logits: (..., bins).
        bins: (bins, 2).
        temperature, boost: see `Scale.decoding`.
    """
    probabilities = softmax(logits / temperature)
    chroma = probabilities @ bins
    if boost:
        entropy = np.minimum(_entropy(probabilities)[..., None], MAX_ENTROPY)
        chroma = chroma * (1 + boost * entropy / MAX_ENTROPY)
    return chroma


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy over the last axis in bits."""
    logarithms = np.log2(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    return -(probabilities * logarithms).sum(axis=-1)
