"""Shows the gallery's second view, which compares all models in a table, in curves, and on the same images."""

import numpy as np
import pandas as pd
import streamlit as st

from colorizer.app.widgets import live, losses, pictures, state
from colorizer.app.widgets.text import escape
from colorizer.data.datasets import CLASS_NAMES
from colorizer.errors import ColorizerError
from colorizer.models import evaluation, library
from colorizer.models.scale import DEFAULT_VIVIDNESS
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.metrics import METRICS

_BETTER = {
    "lower": "A lower value is better.",
    "higher": "A higher value is better.",
    "closest": "A value close to that of the original images is better.",
}
_RECOGNISED = "This is the share of the test images that the classifier names right."
_VALIDATION_IMAGES = {"validation": "5,000 CIFAR-10 images", "samples": "the 20 built-in samples"}


def show_comparison(entries: list[library.ModelEntry]) -> None:
    """Show all models, best first."""
    histories = {entry.name: _history(entry) for entry in entries}
    _show_table(entries, histories)
    _show_recognition(entries)
    _show_curves(entries, histories)
    _show_images(entries)


def _show_table(entries: list[library.ModelEntry], histories: dict[str, pd.DataFrame]) -> None:
    split = "test" if all("test" in entry.card["metrics"] for entry in entries) else "samples"
    st.header(f"Measured on {'10,000 test images' if split == 'test' else 'the 20 built-in samples'}")
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
    number = st.column_config.NumberColumn
    formats = {
        key: number(metric.label, format=f"%{metric.style}", help=f"`{key}`: {metric.about} {_BETTER[metric.better]}")
        for key, metric in METRICS.items()
    }
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="",
        height=35 * len(rows) + 37,  # With its height known, the table's place is free before it is drawn.
        alt="Models with their size, speed and every metric, beside the gray copy",
        column_config=formats
        | {
            "parameters": number(format="localized"),
            "MB": number(format="%.1f", help="This is the size of the model file."),
            "s/epoch": number(format="%.1f", help="This is the median on the machine that trained the model."),
        },
    )


def _show_recognition(entries: list[library.ModelEntry]) -> None:
    """Show how many test images a classifier recognises in the colours of each model; older cards do not tell it."""
    measured = {entry.name: entry.card["metrics"].get("test", {}) for entry in entries}
    measured = {name: values for name, values in measured.items() if values.get("recognition")}
    measured = {name: values for name, values in measured.items() if values.get("delta_colorfulness") is not None}
    if not measured:
        return
    st.header("Does colour help to recognise things?")
    shares = {name: values["recognition"]["model"] for name, values in measured.items()}
    reference = next(iter(measured.values()))["recognition"]
    best = max(shares, key=shares.__getitem__)
    verdict = "more" if round(shares[best], 3) > round(reference["gray_copy"], 3) else "no more"
    st.markdown(
        f"A classifier that learned from the original images names {reference['original']:.1%} of the originals right, "
        f"and {reference['gray_copy']:.1%} of their gray copies. The best colours for it, those of {escape(best)}, let "
        f"it name {shares[best]:.1%} right, {verdict} than gray."
    )
    original = measured[best]["model"]["colorfulness"] - measured[best]["delta_colorfulness"]
    rows = [("originals", reference["original"], 0.0), ("gray copy", reference["gray_copy"], -original)]
    rows += [(name, shares[name], values["delta_colorfulness"]) for name, values in measured.items()]
    number, changed = st.column_config.NumberColumn, "The colorfulness of the result minus that of the originals."
    st.dataframe(
        pd.DataFrame(rows, columns=["images", "top-1", "Δ colorfulness"]),
        hide_index=True,
        height=35 * len(rows) + 37,
        width=460,
        alt="How many test images a classifier recognises, and how much colour they lack, for each model",
        column_config={
            "top-1": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1, help=_RECOGNISED),
            "Δ colorfulness": number(format="%.2f", help=changed),
        },
    )


def _show_curves(entries: list[library.ModelEntry], histories: dict[str, pd.DataFrame]) -> None:
    """Show one chart for each set of validation images, with the models that were validated on it."""
    groups: dict[str, list[library.ModelEntry]] = {}
    for entry in entries:
        if entry.model_config.target != "gray" and len(histories[entry.name]):
            groups.setdefault(losses.validation_images(entry.train_config), []).append(entry)
    if not groups:
        return
    st.header("Validation loss")
    for images, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        where = _VALIDATION_IMAGES.get(images) or f"other images of {live.describe_dataset(images)}"
        curves = pd.concat([histories[entry.name].assign(model=entry.name) for entry in group])
        st.markdown(f"These models were validated on {where}.")
        if hinted := [entry.name for entry in group if entry.model_config.hints]:
            st.caption(
                f"For {' and '.join(hinted)}, it is the mean of the losses without and with hints, which lower it."
            )
        alt = f"Validation loss of {', '.join(entry.name for entry in group)} over their epochs, on {where}"
        st.vega_lite_chart(curves, comparison_chart(curves["val_loss"]), height=460, alt=alt)
    drawn = {entry.name for group in groups.values() for entry in group}
    if missing := [entry for entry in entries if entry.name not in drawn]:
        reasons = [f"{entry.name} ({_reason(entry)})" for entry in missing]
        st.caption(f"These models are not in a chart: {', '.join(reasons)}.")


def _reason(entry: library.ModelEntry) -> str:
    """Say why a model has no curve of colour losses."""
    if entry.model_config.target == "gray":
        return "its loss measures gray, not colour"
    return "its history cannot be read" if entry.card["epochs_done"] else "it was solved in closed form"


def comparison_chart(val_loss: pd.Series) -> dict:
    """Return the Vega-Lite specification for rows of `epoch`, `val_loss` and `model`, with these losses among them."""
    return {
        "mark": {"type": "line", "point": {"filled": True, "size": 25}},
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "title": "epochs", "axis": {"tickCount": 8}},
            "y": {"field": "val_loss", "type": "quantitative", "title": "mean squared error"}
            | losses.log_axis(val_loss),
            "color": {
                "field": "model",
                "type": "nominal",
                "legend": {"title": None, "orient": "top", "columns": {"expr": "width < 500 ? 2 : 5"}},
            },
            "tooltip": [{"field": "model"}, {"field": "epoch"}, {"field": "val_loss", "format": ".5f"}],
        },
    }


def _show_images(entries: list[library.ModelEntry]) -> None:
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
            usual = stored.at(DEFAULT_VIVIDNESS)
            tiles.append((entry.name, usual.images[index], usual.mse[index]))
    with st.grid(min_column_width=130, gap="small"):
        for name, image, mse in tiles:
            caption = name if mse is None else f"{name}, mse {mse:.4f}"
            pictures.show_tiles([[image]], 6, f"{chosen}: {name}", caption)


def _history(entry: library.ModelEntry) -> pd.DataFrame:
    """Return `epoch`, `val_loss` and `seconds` of each epoch that can be drawn; a damaged history has no rows."""
    columns = ["epoch", "val_loss", "seconds"]
    try:
        history = library.load_history(entry)
        epochs = pd.DataFrame({key: np.asarray(history[key], np.float64) for key in columns})
    except (ColorizerError, KeyError, TypeError, ValueError):
        return pd.DataFrame(columns=columns, dtype=float)
    return epochs[np.isfinite(epochs["val_loss"]) & (epochs["val_loss"] > 0)]
