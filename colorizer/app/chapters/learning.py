"""Chapter: two trainings from the same seed that differ in one setting, side by side."""

import json
import zipfile
from typing import Any

import numpy as np
import streamlit as st

from colorizer.app.widgets import pictures, state
from colorizer.config import ASSETS
from colorizer.data.datasets import SNAPSHOT_SAMPLES
from colorizer.pixels.color import gray_copy, to_uint8

_FOLDER = ASSETS / "learning"
_USUAL = "usual"
_NAMES = {
    "low-rate": "Low learning rate",
    "high-rate": "High learning rate",
    "narrow": "Narrow bottleneck",
    "tanh": "Activation tanh",
}
_COLORS = ("#1d4ed8", "#c2410c")


@st.cache_data(show_spinner=False)
def _load() -> dict[str, dict[str, Any]]:
    """Return the runs that `training.comparisons` trained; without the files, return none."""
    try:
        index = json.loads((_FOLDER / "runs.json").read_text(encoding="utf-8"))
        runs = {}
        for name, about in index.items():
            with (_FOLDER / f"{name}.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                runs[name] = about | {key: file[key] for key in file.files}
        whole = {name for name, run in runs.items() if len(run["epochs"]) == len(run["images"])}
        return runs if {_USUAL, *_NAMES} <= whole else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return {}


def show() -> None:
    """Show the pictures and the losses of two runs after the same number of steps."""
    runs = _load()
    if not runs:
        st.caption("The files of this chapter are missing or damaged. Restore the folder assets/learning.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = list(_NAMES)
        other = st.pills(
            "What differs", names, default=names[0], required=True, format_func=_NAMES.get, key="differs", wrap=True
        )
        marks = [f"{epochs:.3g}" for epochs in runs[_USUAL]["epochs"]]
        last = len(marks) - 1
        index = st.select_slider("Epochs", range(len(marks)), last, marks.__getitem__, key="learned")
    originals = state.load_samples().images[list(SNAPSHOT_SAMPLES)]
    for column, name in zip(st.columns(2, gap="large"), (_USUAL, other), strict=True):
        run = runs[name]
        with column:
            st.markdown(f"**{run['words'][0].upper()}{run['words'][1:]}**")
            rows = [to_uint8(gray_copy(originals[:4])), run["images"][index][:4], originals[:4]]
            alt = f"Four test images after {marks[index]} epochs with {run['words']}: input, output, original"
            pictures.show_tiles([list(row) for row in rows], 4, alt)
    _show_losses(runs, other, float(runs[_USUAL]["epochs"][index]))


def _show_losses(runs: dict[str, dict[str, Any]], other: str, epochs: float) -> None:
    """Draw the losses of both runs, with a line at this number of epochs."""
    lines = {name: runs[name]["words"] for name in (_USUAL, other)}
    values = {
        "epochs": np.concatenate([runs[name]["batch_epochs"] for name in lines]),
        "loss": np.concatenate([runs[name]["batch_loss"] for name in lines]),
        "run": np.concatenate([[words] * len(runs[name]["batch_loss"]) for name, words in lines.items()]),
    }
    x = {"field": "epochs", "type": "quantitative", "title": "epochs", "axis": {"tickCount": 6}}
    y = {"field": "loss", "type": "quantitative", "title": "mean squared error", "scale": {"type": "log"}}
    legend = {"title": None, "orient": "top", "labelLimit": 400, "direction": "vertical"}
    scale = {"domain": list(lines.values()), "range": list(_COLORS)}
    spec = {
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {"x": x, "y": y, "color": {"field": "run", "scale": scale, "legend": legend}},
            },
            {
                "data": {"values": [{"epochs": epochs}]},
                "mark": {"type": "rule", "color": "gray", "strokeDash": [4, 4]},
                "encoding": {"x": x},
            },
        ]
    }
    alt = f"The losses of both runs over {runs[_USUAL]['epochs'][-1]:g} epochs, with a line at {epochs:.3g}"
    st.vega_lite_chart(values, spec, height=280, alt=alt)
    lowest = " and ".join(f"{runs[name]['val_loss']:.4f} with {words}" for name, words in lines.items())
    st.caption(f"The lowest validation loss is {lowest}. Both runs began from the same seed.")
