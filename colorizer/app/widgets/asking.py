"""Shows the belief of a network at a pixel that the visitor points at, and keeps the hints that the visitor gives.

The hints of a picture, the pixel that is asked about and what can be undone are in the session. For pictures that
others have too, the address holds the hints.
"""

import contextlib
import hashlib
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from colorizer.app.widgets import state
from colorizer.app.widgets.before_after import show_before_after
from colorizer.app.widgets.swatches import Swatch, show_swatches
from colorizer.config import MAX_PAGE_HINTS
from colorizer.data.datasets import load_statistics
from colorizer.errors import ModelError
from colorizer.models import library
from colorizer.models.belief import Belief, PixelBelief
from colorizer.models.hints import COLOR
from colorizer.models.scale import DEFAULT_VIVIDNESS, SCALES
from colorizer.pixels.color import chroma_bins, gray_copy, to_luminance, to_uint8

Hints = tuple[tuple[int, int, str], ...]

_NEAR = 0.02  # If a hint is closer than this share of the width to the chosen pixel, the new hint replaces it.
_COLOR_KEY = "hint-color"
_NUM_SWATCHES, _NUM_PALETTE = 10, 8
# The map of the entropy has these colours where the network knows, where it hesitates and where it guesses.
_LOW, _MIDDLE, _HIGH = (np.float32(color) for color in ((30, 40, 90), (30, 140, 140), (250, 220, 60)))


@dataclass
class Asking:
    """What a visitor asked and said about one picture.

    Attributes:
        picture: identifies the picture.
        size: its height and width.
        place: the pixel that is asked about, as shares of the width and the height, or None.
        hints: the column, the row and the colour of each hinted pixel.
        undo: the hints before each change.
    """

    picture: str
    size: tuple[int, int]
    place: tuple[float, float] | None = None
    hints: Hints = ()
    undo: list[Hints] = field(default_factory=list)

    def change(self, hints: Hints) -> None:
        """Replace the hints, so that it can be undone."""
        if hints != self.hints:
            self.undo = [*self.undo[-50:], self.hints]
            self.hints = hints

    def points(self) -> list[dict[str, Any]]:
        """Return the hints with places as shares of the width and the height."""
        height, width = self.size
        return [{"x": (x + 0.5) / width, "y": (y + 0.5) / height, "color": color} for x, y, color in self.hints]

    def pixel(self, place: tuple[float, float]) -> tuple[int, int]:
        """Return the column and the row of a place."""
        height, width = self.size
        return min(int(place[0] * width), width - 1), min(int(place[1] * height), height - 1)

    def give(self, color: str) -> None:
        """Give the pixel that is asked about a colour; hints that are close by are replaced."""
        if self.place is None:
            return
        x, y = self.pixel(self.place)
        reach = _NEAR * self.size[1]
        kept = tuple(hint for hint in self.hints if math.hypot(hint[0] - x, hint[1] - y) > reach)
        if len(kept) == MAX_PAGE_HINTS:
            st.toast(f"A picture can have {MAX_PAGE_HINTS} hints here. Remove one first.", icon=":material/error:")
            return
        self.change((*kept, (x, y, color)))


def current(picture: bytes | str, shared: bool) -> Asking:
    """Return what the visitor asked and said about a picture; for another picture than before, nothing yet.

    Args:
        picture: the content of a file, or the name of a sample photo.
        shared: whether others have this picture too, so that the address keeps its hints.
    """
    name = picture if isinstance(picture, str) else hashlib.sha256(picture).hexdigest()
    kept = st.session_state.get("asking")
    if kept is None or kept.picture != name:
        first = kept is None  # After a visit to another picture, the address still has the hints of that one.
        kept = Asking(name, state.picture_size(picture))
        kept.hints = _read_address(kept.size) if shared and first else ()
        st.session_state.asking = kept
    written = "_".join(f"{x}.{y}.{color[1:]}" for x, y, color in kept.hints)
    if shared and written:
        st.query_params.hints = written
    else:
        st.query_params.pop("hints", None)
    return kept


def _read_address(size: tuple[int, int]) -> Hints:
    """Return the hints that the address holds; say so if they are none."""
    words = [word.split(".") for word in st.query_params.get("hints", "")[:2000].split("_") if word]
    hints = []
    for word in words:
        numbers = [int(text) if text.isdecimal() and len(text) < 6 else -1 for text in word[:2]]
        fits = len(word) == 3 and all(0 <= n < side for n, side in zip(numbers, size[::-1], strict=True))
        if not fits or not COLOR.fullmatch(f"#{word[2]}"):
            st.warning(
                "The hints in the address are not hints for this picture, so they are left out.",
                icon=":material/warning:",
            )
            return ()
        hints.append((*numbers, f"#{word[2]}"))
    return tuple(hints[:MAX_PAGE_HINTS])


def on_gesture(asking: Asking, key: str) -> None:
    """Take what the visitor did on the picture; what cannot have come from our page is ignored."""
    said = st.session_state[key]
    if (place := _read_place(said.get("asked"))) is not None:
        asking.place = place
    if said.get("undo") is not None:
        _undo(asking)
    moved = said.get("moved")
    if isinstance(moved, list) and len(moved) <= MAX_PAGE_HINTS:
        hints = []
        for point in moved:
            color = point.get("color") if isinstance(point, dict) else None
            place = _read_place([point.get("x"), point.get("y")]) if isinstance(point, dict) else None
            if place is None or not isinstance(color, str) or not COLOR.fullmatch(color):
                return
            hints.append((*asking.pixel(place), color))
        asking.change(tuple(hints))


def _read_place(value: Any) -> tuple[float, float] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(part) in (int, float) for part in value):
        x, y = map(float, value)
        return (x, y) if 0 <= x <= 1 and 0 <= y <= 1 else None
    return None


def _give_picked(asking: Asking) -> None:
    """Give the pixel the picker's colour, which is read here since it may be newer than the last run of the page."""
    asking.give(st.session_state[_COLOR_KEY])


def _undo(asking: Asking) -> None:
    if asking.undo:
        asking.hints = asking.undo.pop()


def show_panel(
    asking: Asking, entry: library.ModelEntry, picture: bytes | str, settings: state.PhotoSettings, result: np.ndarray
) -> None:
    """Show the belief at the pixel that is asked about, and let the visitor choose its colour."""
    hinted = entry.model_config.hints
    if asking.place is None:
        words = "and say which colour it has" if hinted else "to see which colours it thinks possible there"
        st.info(f"Click a pixel of the picture to ask the network, {words}.", icon=":material/touch_app:")
    else:
        belief = state.belief(entry, picture, settings).at(*asking.place, settings.vividness)
        x, y = asking.pixel(asking.place)
        st.markdown(f"**Pixel {x}, {y}.** {belief.describe()} Its entropy is {belief.entropy:.1f} bits.")
        choose = asking.give if hinted else None
        show_swatches(_believed(belief), "What the network believes", choose, key="swatches-belief")
        if hinted:
            show_swatches(_palette(result), "Colours of this picture", choose, key="swatches-picture")
            st.color_picker("Another colour", key=_COLOR_KEY, help="Choose a colour, or write it as #a0522d.")
            give = partial(_give_picked, asking)
            st.button("Give the pixel this colour", icon=":material/colorize:", on_click=give)
    if hinted and (asking.hints or asking.undo):
        with st.container(horizontal=True, vertical_alignment="center"):
            count = len(asking.hints)
            st.caption(f"{count} hint{'s' if count != 1 else ''} of at most {MAX_PAGE_HINTS}", width="content")
            undo, clear = partial(_undo, asking), partial(asking.change, ())
            st.button(
                "Undo", icon=":material/undo:", on_click=undo, disabled=not asking.undo, help="Ctrl-Z does it too."
            )
            st.button("Remove all", icon=":material/clear_all:", on_click=clear, disabled=not asking.hints)


@st.cache_data(max_entries=4, show_spinner=False, hash_funcs={library.ModelEntry: lambda entry: entry.checksum})
def load_past_logits(entry: library.ModelEntry) -> np.ndarray | None:
    """Return the logits that a U-Net with chroma bins kept with its snapshots, float16 (S, 16, 16, bins), or None."""
    with contextlib.suppress(ModelError, KeyError):
        logits = library.load_arrays(entry, "snapshots.npz")["logits"]
        shape = (len(state.load_snapshots(entry)[0]), 16, 16, entry.model_config.chroma_bins)
        fits = logits.shape == shape and logits.dtype == np.float16 and np.isfinite(logits).all()
        if fits and entry.model_config.architecture == "unet":  # A backbone chose its own bins from photos.
            return logits
    return None


def show_small_belief(
    images: tuple[np.ndarray, np.ndarray], belief: Belief, vividness: float | None, when: str, key: str
) -> None:
    """Show what a network believes about a small image, at the pixel that the visitor chooses.

    Args:
        images: The original and what the network makes of it, both uint8 (32, 32, 3).
        belief: That of the network.
        vividness: It decides which colour is picked; None if the network made the mean of its belief.
        when: Words behind the number of the pixel, such as " after 3 epochs".
        key: This identifies the picture in the session.
    """
    original, colored = images
    place = st.session_state.setdefault(f"{key}-place", (0.5, 0.5))
    here = belief.at(*place, DEFAULT_VIVIDNESS if vividness is None else vividness)
    picture, said = st.columns([1, 3], gap="medium")
    with picture:
        before, after = (image.repeat(8, 0).repeat(8, 1) for image in (to_uint8(gray_copy(original)), colored))
        gesture = partial(_choose_place, key)
        show_before_after(
            before, after, "The image", f"the network{when}", key, asking=True, place=place, on_gesture=gesture
        )
    with said:
        x, y = (int(share * side) for share, side in zip(place, original.shape[1::-1], strict=True))
        st.markdown(f"**Pixel {x}, {y}{when}.** {here.describe()} Its entropy is {here.entropy:.1f} bits.")
        swatches = _believed(here) if vividness is not None else _believed(here)[:-1]
        show_swatches(swatches, f"What the network believes{when}", None, key=f"{key}-swatches")
        st.caption("Click another pixel of the image to ask about it.")


def show_past_belief(images: tuple[np.ndarray, np.ndarray], logits: np.ndarray, epochs: str, key: str) -> None:
    """Show what a U-Net believed about a small image after some epochs, from the logits that a snapshot kept.

    Args:
        images, key: As in `show_small_belief`.
        logits: float16 (16, 16, bins).
        epochs: How many epochs, in words.
    """
    bins, _ = chroma_bins(load_statistics().shares, logits.shape[-1])
    belief = Belief(logits.astype(np.float32), bins, to_luminance(images[0]), SCALES["unet"])
    show_small_belief(images, belief, None, f" after {epochs} epochs", key)


def _choose_place(key: str) -> None:
    if (place := _read_place(st.session_state[key].get("asked"))) is not None:
        st.session_state[f"{key}-place"] = min(place[0], 0.999), min(place[1], 0.999)


def _believed(belief: PixelBelief) -> list[Swatch]:
    """Return the likeliest bins with their shares, then the mean and what the vividness picks."""
    order = belief.likeliest(_NUM_SWATCHES)
    colors = _to_hex(belief.paint(belief.bins[order]))
    swatches = [
        Swatch(color, f"{belief.probabilities[index]:.0%}", "likeliest" if index == belief.mode else "")
        for color, index in zip(colors, order, strict=True)
    ]
    mean, picked = _to_hex(belief.paint(np.stack([belief.mean, belief.picked])))
    return [*swatches, Swatch(mean, "mean", "what a squared error gives"), Swatch(picked, "picked", "by the vividness")]


def _palette(image: np.ndarray) -> list[Swatch]:
    """Return the main colours of an image, uint8 (H, W, 3), the most frequent first."""
    small = Image.fromarray(image).resize((64, 64)).quantize(_NUM_PALETTE, Image.Quantize.MEDIANCUT)
    channels = np.array(small.getpalette()[: 3 * _NUM_PALETTE], np.uint8).reshape(-1, 3)
    order = [index for _, index in sorted(small.getcolors(), reverse=True)]
    return [Swatch(color, "", "") for color in _to_hex(channels[order])]


def _to_hex(colors: np.ndarray) -> list[str]:
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()]


def entropy_map(entropy: np.ndarray, gray: np.ndarray, bins: int) -> np.ndarray:
    """Draw where a network guesses over a gray picture.

    Args:
        entropy: float32 (h, w), in bits.
        gray: uint8 (H, W, 3).
        bins: how many chroma bins there are; the scale ends at the entropy of a belief that is the same for all.

    Returns:
        uint8 (H, W, 3), from dark blue, where the network knows, to yellow, where it guesses.
    """
    share = np.clip(entropy / math.log2(bins), 0, 1)
    plane = Image.fromarray(share.astype(np.float32)).resize(gray.shape[1::-1], Image.Resampling.BILINEAR)
    share = 2 * np.clip(np.asarray(plane), 0, 1)[..., None]
    color = np.where(share < 1, _LOW + share * (_MIDDLE - _LOW), _MIDDLE + (share - 1) * (_HIGH - _MIDDLE))
    return np.clip(0.75 * color + 0.25 * gray, 0, 255).astype(np.uint8)
