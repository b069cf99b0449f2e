"""How it works: shows one image inside a network, and the steps from the notebook to the models of today."""

import numpy as np
import streamlit as st

from colorizer.app.widgets import pictures, state
from colorizer.config import MAX_LATENT_DIM
from colorizer.data.datasets import CLASS_NAMES
from colorizer.models import library
from colorizer.pixels.color import gray_copy, to_luminance, to_uint8
from colorizer.pixels.metrics import image_mse

_PUBLISHED_LOSS = 0.0139  # The original notebook printed this validation loss.
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

st.title("How it works")
st.markdown(
    "An autoencoder squeezes its input through a *bottleneck* of a few numbers and rebuilds an image from them. "
    "Here the input is gray, and the image that it must rebuild is in colour. Choose an image and follow it."
)
samples = state.load_samples()
with st.container(horizontal=True, vertical_alignment="bottom"):
    index = st.selectbox(
        "Image",
        range(len(samples.images)),
        index=11,
        format_func=lambda i: f"{i} {CLASS_NAMES[samples.labels[i]]}",
        key="sample",
        bind="query-params",
    )
    latent_dim = st.slider("Bottleneck, k", 1, MAX_LATENT_DIM, 32, key="k", bind="query-params")

image, name = samples.images[index], CLASS_NAMES[samples.labels[index]]
autoencoder = state.linear_autoencoder()
luminance = to_luminance(image[None])
latent = autoencoder.encode(luminance, latent_dim)
output = autoencoder.decode(latent)
gray = to_uint8(gray_copy(image))


def _values(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2f}" for value in values[:4]) + ", …"


def _bars(values: np.ndarray, description: str) -> None:
    """Draw numbers as bars that start at zero."""
    bar = {"type": "bar", "color": "#c2410c", "binSpacing": 0, "size": max(1, 120 / len(values)), "tooltip": True}
    domains = {"number": [0, len(values) + 1], "value": [min(0.0, float(values.min())), max(0.0, float(values.max()))]}
    axes = {
        channel: {"field": field, "type": "quantitative", "axis": None, "scale": {"domain": domain, "nice": False}}
        for channel, (field, domain) in zip("xy", domains.items(), strict=True)
    }
    numbers = {"number": np.arange(1, len(values) + 1), "value": values.round(3)}
    st.vega_lite_chart(numbers, {"mark": bar, "encoding": axes}, height=150, alt=description)


numbers_in, numbers_out = luminance.reshape(-1), output.reshape(-1)
error, baseline_error = image_mse(output, image[None])[0], image_mse(gray[None], image[None])[0]
steps = [
    ("1 · RGB", f"The {name} has 32 x 32 pixels of three channels", image, f"The original {name}, in colour"),
    ("2 · Luminance", "Y = 0.299 R + 0.587 G + 0.114 B", gray, f"The {name} in grayscale"),
    ("3 · 1,024 numbers", _values(numbers_in), numbers_in, f"The {name}'s 1,024 luminance values as bars"),
    (f"4 · {latent_dim} numbers", _values(latent[0]), latent[0], f"The bottleneck's {latent_dim} numbers as bars"),
    ("5 · 3,072 numbers", _values(numbers_out), numbers_out, "The decoder's 3,072 numbers as bars"),
    (
        "6 · Image",
        f"Its error (mse) is {error:.4f}, the gray copy's {baseline_error:.4f}",
        to_uint8(output[0]),
        f"The {name} as rebuilt from {latent_dim} numbers",
    ),
]
with st.grid(min_column_width=150, gap="small"):
    for heading, text, content, description in steps:
        with st.container(gap="xsmall"):
            st.markdown(f"**{heading}**")
            if content.ndim == 1:
                _bars(content, description)
            else:
                pictures.show_tiles([[content]], 8, description)
            st.caption(text)
st.caption(
    "This page runs the linear model: encoder and decoder are one matrix each, known in closed form for every "
    "bottleneck, so the slider answers at once. The trained models put hidden layers in their place."
)

st.header("From the notebook to here")
st.markdown(
    f"The project began as a notebook with a published validation loss of {_PUBLISHED_LOSS}. That number is real, but "
    "it is not about colour: the notebook's code fitted grayscale to grayscale, as `notebook-gray` does again here. "
    "The table shows the steps from there. Colour error and sharpness are measured on the same 10,000 test images. The "
    "number to beat is that of the *gray copy*, which repeats the gray value in all three channels."
)
entries = {entry.name: entry for entry in library.list_models() if entry.shipped and entry.metric("test")}
steps_there = [(entries[name], text) for name, text in _STEPS.items() if name in entries]
if steps_there:
    st.markdown("\n".join(f"- **{entry.name}**: {text}" for entry, text in steps_there))
    lines = ["| model | validation loss | colour error, `mse` | sharpness, `ssim` |", "|:--|--:|--:|--:|"]
    for entry, _ in steps_there:
        loss, mse, ssim = entry.card["best_val_loss"], entry.metric("test"), entry.metric("test", "ssim")
        lines.append(f"| **{entry.name}** | {loss:.4f} | {mse:.5f} | {ssim:.3f} |")
    baseline = steps_there[0][0].card["metrics"]["test"]["gray_copy"]
    lines.append(f"| **gray copy** | | {baseline['mse']:.5f} | {baseline['ssim']:.3f} |")
    st.markdown("\n".join(lines))
    st.caption(
        "The validation loss is that of the saved weights on the target of each model, which for notebook-gray is "
        "grayscale."
    )
else:
    st.caption("The shipped models are missing, so there is nothing to compare. Restore the folder assets/models.")
