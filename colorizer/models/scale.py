"""How the models of each architecture see a photo, and what vividness means for them."""

from dataclasses import dataclass

VIVIDNESS_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DEFAULT_VIVIDNESS = 0.4
MAX_ENTROPY = 3.0  # A belief with an entropy of so many bits, or more, gets the whole boost.
_BOOSTED_TEMPERATURE = 0.6  # It and the boost were chosen on validation; lower ones tear colours into patches.


def nearest_level(vividness: float) -> int:
    """Return the index of the vividness level nearest to `vividness`."""
    return min(range(len(VIVIDNESS_LEVELS)), key=lambda level: abs(VIVIDNESS_LEVELS[level] - vividness))


@dataclass(frozen=True)
class Scale:
    """This says how the models of an architecture see a photo, and how a belief in chroma bins becomes a colour.

    Attributes:
        multiple: the sides at which the network sees a photo are multiples of this number; 0 if they are always 32.
        default_sizes: by default, results with these shorter sides are averaged; they were chosen on validation.
        offered_sizes: the page offers these shorter sides.
        small_size: the network sees an image of 32 x 32 pixels enlarged to this side, as it did in its training.
        boost: at vividness 1, chroma grows by this factor where the network is unsure, see `belief.decode`.
    """

    multiple: int
    default_sizes: tuple[int, ...]
    offered_sizes: tuple[int, ...] = ()
    small_size: int = 32
    boost: float = 0.0

    def decoding(self, vividness: float) -> tuple[float, float]:
        """Return the temperature of the softmax and the boost of uncertain colours that a vividness in [0, 1] means.

        Without a boost, vividness v lowers the temperature to 10^-v (the annealed mean of Zhang et al. 2016).
        """
        return (_BOOSTED_TEMPERATURE, self.boost * vividness) if self.boost else (10.0**-vividness, 0.0)


SCALES = {
    "dense": Scale(0, (32,)),
    "conv": Scale(0, (32,)),
    "unet": Scale(8, (32, 64), (32, 48, 64, 96, 128)),
    "backbone": Scale(32, (192,), (96, 128, 160, 192, 224, 256), small_size=64, boost=3.8),
}
