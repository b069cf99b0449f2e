"""The gallery's second view: every model beside the others, in a table, in curves, and on the same images."""

import pandas as pd
import streamlit as st

from colorizer.app.widgets import pictures, state
from colorizer.data.datasets import CLASS_NAMES
from colorizer.errors import ColorizerError
from colorizer.models import evaluation, library
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.metrics import METRICS

_CURVES = {
    "mark": {"type": "line", "clip": True},
    "encoding": {
        "x": {"field": "epoch", "type": "quantitative", "title": "epochs", "axis": {"tickCount": 8}},
        "y": {
            "field": "val_loss",
            "type": "quantitative",
            "title": "mean squared error",
            "scale": {"type": "log", "nice": False, "domain": [0.0042, 0.03]},
            "axis": {"format": "~g", "values": [0.005, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03]},
        },
        "color": {
            "field": "model",
            "type": "nominal",
            "legend": {"title": None, "orient": "top", "columns": {"expr": "width < 500 ? 2 : 5"}},
        },
        "tooltip": [{"field": "model"}, {"field": "epoch"}, {"field": "val_loss", "format": ".5f"}],
    },
}


def show_comparison(entries: list[library.ModelEntry]) -> None:
    """Show all models, best first."""
    split = "test" if all("test" in entry.card["metrics"] for entry in entries) else "samples"
    st.header(f"Measured on {'10,000 test images' if split == 'test' else 'the 20 built-in samples'}")
    histories = {entry.name: _history(entry) for entry in entries}
    rows = [
        {
            "model": entry.name,
            "parameters": entry.card["parameters"],
            "MB": entry.card["bytes"] / 1e6,
            "s/epoch": histories[entry.name]["seconds"].median(),
        }
        | {name: entry.metric(split, name) for name in METRICS}
        for entry in entries
    ]
    baseline = entries[0].card["metrics"][split]["gray_copy"]
    rows.append({"model": "gray copy", "parameters": 0} | {name: baseline[name] for name in METRICS})
    formats = {
        name: st.column_config.NumberColumn(name, format=f"%{style}", help=f"{better} is better")
        for name, (better, style) in METRICS.items()
    }
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="",
        height=35 * len(rows) + 37,  # as it will be, so that its place is free before it is drawn
        alt="Models with their size, speed and every metric, beside the gray copy",
        column_config=formats
        | {
            "parameters": st.column_config.NumberColumn(format="localized"),
            "MB": st.column_config.NumberColumn(format="%.1f", help="size of the model file"),
            "s/epoch": st.column_config.NumberColumn(format="%.1f", help="median, on the machine that trained it"),
        },
    )

    colorizing = [entry.name for entry in entries if entry.model_config.target != "gray"]
    curves = [histories[name].assign(model=name) for name in colorizing if len(histories[name]) > 1]
    if curves:
        st.header("Validation loss")
        losses = pd.concat(curves)
        st.vega_lite_chart(losses, _CURVES, height=460, alt="Validation loss of each model over its epochs")

    st.header("The same images through every model")
    samples = state.load_samples()
    labels = [f"{index} {CLASS_NAMES[label]}" for index, label in enumerate(samples.labels)]
    chosen = st.selectbox("Image", labels, key="compared", bind="query-params", width=280)
    index = labels.index(chosen) if chosen in labels else 0
    original = samples.images[index]
    tiles = [("original", original, None), ("grayscale", to_uint8(gray_copy(original)), None)]
    for entry in entries:
        stored = evaluation.stored_predictions(entry, "samples", "test")
        if stored is not None:
            tiles.append((entry.name, stored.at().images[index], stored.at().mse[index]))
    with st.grid(min_column_width=130, gap="small"):
        for name, image, mse in tiles:
            caption = name if mse is None else f"{name}, mse {mse:.4f}"
            pictures.show_tiles([[image]], 6, f"{chosen}: {name}", caption)


def _history(entry: library.ModelEntry) -> pd.DataFrame:
    """`epoch`, `val_loss` and `seconds` of each epoch; empty for the closed form, and if unreadable."""
    columns = ["epoch", "val_loss", "seconds"]
    try:
        history = library.load_history(entry)
        return pd.DataFrame({key: history[key] for key in columns})
    except (ColorizerError, KeyError, ValueError):
        return pd.DataFrame(columns=columns, dtype=float)
