"""Chapter: the squared error has its minimum at the mean, so an unsure network paints gray."""

import numpy as np
import streamlit as st

from colorizer.app.chapters.sample import choose_image
from colorizer.app.widgets import asking, state
from colorizer.app.widgets.swatches import Swatch, show_swatches
from colorizer.app.widgets.text import show_error
from colorizer.errors import ColorizerError
from colorizer.models import library
from colorizer.pixels.color import merge_luminance, to_uint8
from colorizer.pixels.images import encode_png

_MODEL = "unet-vivid"
_LUMINANCE = 0.45
_RED, _GREEN = np.float32([-0.08, 0.22]), np.float32([-0.1, -0.2])  # The chroma of both possible colours.


def show() -> None:
    """Show the squared error of a prediction between two colours, and the belief of a real network."""
    controls, result = st.columns([1, 2], gap="large")
    with controls:
        share = st.slider("How often it is red", 0.0, 1.0, 0.5, 0.05, key="p", bind="query-params")
        place = st.slider("Prediction, from green to red", 0.0, 1.0, 0.9, 0.01, key="x", bind="query-params")
    distance = float(np.sum(np.square(_RED - _GREEN)))
    places = np.linspace(0, 1, 101)
    errors = distance * (share * (1 - places) ** 2 + (1 - share) * places**2)
    error = distance * (share * (1 - place) ** 2 + (1 - share) * place**2)
    with result:
        green, predicted, mean, red = map(_paint, (0.0, place, share, 1.0))
        swatches = [
            Swatch(green, f"{1 - share:.0%}", "a possible colour"),
            Swatch(red, f"{share:.0%}", "a possible colour"),
            Swatch(predicted, "predicted", ""),
            Swatch(mean, "mean", ""),
        ]
        show_swatches(swatches, "Two possible colours, your prediction, and the mean", None, key="two-colours")
        x = {
            "field": "place",
            "type": "quantitative",
            "title": "prediction, from green to red",
            "axis": {"tickCount": 5},
        }
        y = {"field": "error", "type": "quantitative", "title": "expected squared error"}
        spec = {
            "layer": [
                {"mark": {"type": "line", "color": "#c2410c"}, "encoding": {"x": x, "y": y}},
                {
                    "data": {"values": [{"place": place, "error": error}]},
                    "mark": {"type": "point", "filled": True, "size": 160, "color": "#1d4ed8"},
                    "encoding": {"x": x, "y": y},
                },
            ]
        }
        alt = f"The expected squared error over the prediction; it is lowest at {share:.2f}, and yours is {error:.4f}"
        st.vega_lite_chart({"place": places, "error": errors}, spec, height=230, alt=alt)
        lowest = distance * share * (1 - share)
        st.markdown(f"Your error is **{error:.4f}**. The lowest possible one is {lowest:.4f}, at the mean.")
    _show_belief()


def _paint(place: float) -> str:
    chroma = _GREEN + np.float32(place) * (_RED - _GREEN)
    red, green, blue = to_uint8(merge_luminance(np.float32([[_LUMINANCE]]), chroma[None]))[0].tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _show_belief() -> None:
    """Show a sample through a network with chroma bins, and its belief at the pixel that the visitor chooses."""
    st.subheader("A real network that hesitates")
    entry = next((entry for entry in library.list_models() if entry.name == _MODEL and not entry.damage), None)
    if entry is None or not (entry.vivid and entry.any_size):
        st.caption("The model unet-vivid is missing, so there is nothing to ask. Restore the folder assets/models.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        index, image, _ = choose_image()
        vividness = state.pick_vividness(entry)
    settings = state.PhotoSettings(vividness, 1.0, entry.scale.small_size)
    content = encode_png(image)
    try:
        belief, colored = state.belief(entry, content, settings), state.colorize(entry, content, settings)
    except ColorizerError as error:
        show_error(error)
        return
    asking.show_small_belief((image, colored), belief, vividness, "", key=f"chapter-{index}")
