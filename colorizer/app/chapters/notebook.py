"""Chapter: the steps from the notebook to the models of today, in measured numbers and pictures."""

import streamlit as st

from colorizer.app.widgets import pictures, state
from colorizer.models import evaluation, library
from colorizer.models.scale import DEFAULT_VIVIDNESS
from colorizer.pixels.color import gray_copy, to_uint8

_STEPS = {
    "notebook-gray": "This is what the notebook's code did: it fitted grayscale to itself, through 512 numbers.",
    "notebook": "The same network is trained to predict colour, through a bottleneck of 32 numbers.",
    "linear": "This is the best linear map through 32 numbers, computed in closed form without any training.",
    "dense": "It starts from that linear map and learns with a linear bottleneck, a schedule and mirrored images.",
    "dense-chroma": "The luminance passes through, and only the chroma goes through the 32 numbers.",
    "conv": "Convolutions replace the dense layers: 32 numbers at each of 4 x 4 places, with no luminance passthrough.",
    "unet": "It has convolutions, skip connections and the luminance passthrough.",
    "unet-vivid": "The same body chooses among colours instead of predicting their mean, so it is bolder.",
    "colorist": "Its encoder has learned to tell a thousand kinds of things apart, and its colours come from photos.",
}
_SHOWN = (1, 4, 6, 10, 11, 13)  # The samples in each strip.


def show() -> None:
    """Show a strip of pictures and the numbers of each step."""
    entries = {entry.name: entry for entry in library.list_models() if entry.shipped and entry.metric("test")}
    steps = [(entries[name], text) for name, text in _STEPS.items() if name in entries]
    if not steps:
        st.caption("The shipped models are missing, so there is nothing to compare. Restore the folder assets/models.")
        return
    originals = state.load_samples().images[list(_SHOWN)]
    _show_step("Originals", "These are the colours that every model must find.", originals, "")
    baseline = steps[0][0].card["metrics"]["test"]["gray_copy"]
    gray = to_uint8(gray_copy(originals))
    text = f"mse {baseline['mse']:.5f} · ssim {baseline['ssim']:.3f}"
    _show_step("Gray copy", "This is the baseline, which knows no colour.", gray, text)
    for entry, words in steps:
        stored = evaluation.stored_predictions(entry, "samples", "test")
        images = stored.at(DEFAULT_VIVIDNESS).images[list(_SHOWN)] if stored else None
        loss, mse, ssim = entry.card["best_val_loss"], entry.metric("test"), entry.metric("test", "ssim")
        _show_step(entry.name, words, images, f"mse {mse:.5f} · ssim {ssim:.3f} · validation loss {loss:.4f}")


def _show_step(name: str, words: str, images, numbers: str) -> None:
    about, strip = st.columns([1, 1], gap="medium", vertical_alignment="center")
    about.markdown(f"**{name}.** {words}")
    if numbers:
        about.caption(numbers)
    if images is not None:
        with strip:
            pictures.show_tiles([list(images)], 3, f"Six test images: {name}")
