"""Chapter: what the width of the bottleneck changes, and what one of its numbers stands for."""

import numpy as np
import streamlit as st

from colorizer.app.chapters.sample import choose_image
from colorizer.app.widgets import pictures, state
from colorizer.config import MAX_LATENT_DIM
from colorizer.data.datasets import load_statistics
from colorizer.pixels.color import LUMINANCE_WEIGHTS, gray_copy, to_luminance, to_uint8
from colorizer.pixels.metrics import image_mse

_REACH = 5.0  # A number can be set to so many standard deviations.


def show() -> None:
    """Show an image through a bottleneck, and what one of its numbers adds."""
    controls, result = st.columns([1, 2], gap="large")
    with controls:
        index, image, name = choose_image()
        width = st.slider("Bottleneck, k", 1, MAX_LATENT_DIM, 32, key="k", bind="query-params")
        chosen = st.slider("Choose a number", 1, 32, 2, key="number", bind="query-params")
        number = min(chosen, width)
        if number < chosen:
            st.caption(f"A bottleneck of {width} has no number {chosen}, so this is number {number}.")
    autoencoder = state.linear_autoencoder()
    latent = autoencoder.encode(to_luminance(image[None]), width)
    spread = _spread(number)
    own = float(np.clip(latent[0, number - 1] / spread, -_REACH, _REACH))
    with controls:
        key = f"value-{index}-{number}"
        value = st.slider(f"Value of number {number}", -_REACH, _REACH, own, 0.1, key=key)
        st.caption(f"It is {own:+.1f} standard deviations for this image.")
    changed = latent.copy()
    changed[0, number - 1] = latent[0, number - 1] if value == own else value * spread
    rebuilt, moved = autoencoder.decode(latent), autoencoder.decode(changed)
    pattern = 2 * spread * autoencoder.decoder[number - 1].reshape(32, 32, 3)
    error, baseline = (image_mse(what, image[None])[0] for what in (rebuilt, gray_copy(image[None])))
    with result:
        shown = [image, to_uint8(gray_copy(image)), to_uint8(rebuilt[0])]
        alt = f"The {name}: original, grayscale, and rebuilt from {width} numbers"
        pictures.show_tiles([shown], 6, alt)
        st.caption(
            f"Original, grayscale, and rebuilt from {width} numbers. Its error (mse) is {error:.4f}; the gray copy has "
            f"{baseline:.4f}."
        )
        mean = autoencoder.output_mean.reshape(32, 32, 3)
        shown = [to_uint8(mean - pattern), to_uint8(mean), to_uint8(mean + pattern), to_uint8(moved[0])]
        alt = f"The mean picture without and with the pattern of number {number}, and the {name} with your value"
        pictures.show_tiles([shown], 5, alt)
        st.caption(
            f"Number {number} stands for a pattern. It is taken from the mean picture, left out, and added. On the "
            f"right is the {name} with your value of that number."
        )


@st.cache_data(max_entries=64, show_spinner=False)
def _spread(number: int) -> float:
    """Return the standard deviation of a number of the bottleneck over the training images."""
    factors = load_statistics().factors.reshape(-1, 1024, 3) @ LUMINANCE_WEIGHTS
    return float(np.linalg.norm(factors @ state.linear_autoencoder().encoder[:, number - 1]))
