"""Draws the loss curves of a run as it learns, of several runs, and of saved models.

The charts are plain Vega-Lite dicts, because building one through Altair takes longer than the rest of a page.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import streamlit as st

from colorizer.config import TrainConfig, TrainingSpec
from colorizer.errors import ColorizerError
from colorizer.jobs.runs import RunView
from colorizer.models import library

Points = list[tuple[float, float]]
Curve = tuple[Points, Points]
"""Training batches and validation, each as pairs of epochs done and mean squared error."""

MAX_OTHERS = 6
HEIGHT = 400  # Pixels. Streamlit keeps the place of a chart of known height free before it is drawn.
_COLORS = {"each batch": "#9a938c", "smoothed": "#57534e", "validation": "#c2410c", "gray copy": "#2563eb"}
_DARK = {"smoothed": "#d6d3d1"}
_OTHER_COLORS = ("#0f9488", "#8b5cf6", "#ca8a04", "#db2777", "#0891b2", "#65a30d")
_SMOOTHING = 0.02  # The standard deviation of the moving average, as a share of the curve's length.
_POINTS_AT_A_TIME = 50  # Smoothing all points at once would take 32 MB for each visitor.
_FEW_EPOCHS = 60  # The validation losses of more epochs have smaller dots, since large ones would touch.
_LOG, _LINEAR = "Log", "Linear"
# The digits of ticks on a logarithmic axis, from the roundest to the finest.
_TICK_DIGITS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(digits / 10 for digits in range(10, 100)))


def smooth(points: Points) -> list[float]:
    """Average each loss of a curve with its neighbours: geometrically, since losses fall by factors."""
    if not points:
        return []
    epochs, losses = np.array(points, np.float64).T
    width = _SMOOTHING * max(np.ptp(epochs), 1e-9)
    logs, smoothed = np.log(np.maximum(losses, 1e-9)), []
    for start in range(0, len(epochs), _POINTS_AT_A_TIME):
        part = epochs[start : start + _POINTS_AT_A_TIME, None]
        weights = np.exp(-0.5 * np.square((part - epochs) / width))
        smoothed += np.exp(weights @ logs / weights.sum(axis=1)).tolist()
    return smoothed


def log_axis(losses: Iterable[float]) -> dict[str, Any]:
    """Return scale and axis of a logarithmic channel that shows all these losses and has round ticks.

    Args:
        losses: positive finite numbers, at least one.
    """
    losses = list(losses)
    low, high = min(losses) / 1.1, max(losses) * 1.1
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in _TICK_DIGITS:
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            break
    scale = {"type": "log", "nice": False, "domain": [low, high]}
    return {"scale": scale, "axis": {"format": "~g", "values": ticks, "labelOverlap": True}}


def loss_chart(
    curve: Curve | None,
    gray_copy: float | None,
    total_epochs: float,
    others: dict[str, Curve] | None = None,
    log: bool = True,
    dark: bool = False,
) -> dict[str, Any]:
    """Draw the losses of a training over its epochs, and other trainings beside it.

    Args:
        curve: The training in question, or None to compare only `others`.
        gray_copy: The gray copy's mean squared error on the same images, or None.
        total_epochs: The end of the horizontal axis, which stays where it is while a run goes on.
        others: Curves by name; each is drawn smoothed and with its validation loss.
        log: Whether the vertical axis is logarithmic.
        dark: Whether the page is dark.

    Returns:
        A Vega-Lite specification with its data.
    """
    others = dict(list((others or {}).items())[:MAX_OTHERS])
    colors = _COLORS | _DARK if dark else _COLORS
    lines = {name: colors[name] for name in ("each batch", "smoothed", "validation") if curve}
    lines |= {"gray copy": colors["gray copy"]} if gray_copy is not None else {}
    lines |= dict(zip(others, _OTHER_COLORS, strict=False))
    scale = {"domain": list(lines), "range": list(lines.values())}
    color = {"type": "nominal", "scale": scale, "legend": {"title": None, "orient": "top", "columns": 2}}
    height = {
        "type": "quantitative",
        "title": "mean squared error",
        "scale": {"nice": False} | ({"type": "log"} if log else {"type": "linear", "zero": False}),
        "axis": {"format": "~g", "tickCount": 6},
    }
    width = {"type": "quantitative", "title": "epochs", "scale": {"domain": [0, total_epochs], "nice": False}}

    def layer(data: str, mark: dict[str, Any], field: str = "loss", line: str | None = None) -> dict[str, Any]:
        tooltip = [{"field": "epochs", "format": ".2f"}, {"field": field, "format": ".5f", "title": "loss"}]
        return {
            "data": {"name": data},
            "mark": {"tooltip": True, "clip": True} | mark,
            "encoding": {
                "x": width | {"field": "epochs"},
                "y": height | {"field": field},
                "color": color | ({"datum": line} if line else {"field": "line"}),
                "tooltip": [{"type": "quantitative"} | entry for entry in tooltip]
                + ([] if line else [{"field": "line", "type": "nominal"}]),
            },
        }

    datasets, layers = {}, []
    thin, thick = {"type": "line", "strokeWidth": 1, "opacity": 0.6}, {"type": "line", "strokeWidth": 2}
    longest = max([len(points) for _, points in [curve or ([], []), *others.values()]])
    dots = {"type": "line", "strokeWidth": 1.5, "point": {"filled": True, "size": 45 if longest <= _FEW_EPOCHS else 5}}
    if curve:
        smoothed = [(x, y, round(z, 7)) for (x, y), z in zip(curve[0], smooth(curve[0]), strict=True)]
        datasets["batches"] = _rows(smoothed, "epochs", "loss", "smoothed")
        datasets["validation"] = _rows(curve[1], "epochs", "loss")
        layers = [layer("batches", thin, line="each batch"), layer("batches", thick, "smoothed", "smoothed")]
        layers.append(layer("validation", dots, line="validation"))
    if gray_copy is not None:
        rule = {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5, "description": "gray copy"}
        encoding = {"y": height | {"datum": gray_copy}, "color": color | {"datum": "gray copy"}}
        layers.append({"data": {"values": [{}]}, "mark": rule, "encoding": encoding})
    if others:
        smoothed = [(x, y, name) for name, (b, _) in others.items() for (x, _), y in zip(b, smooth(b), strict=True)]
        validation = [(x, y, name) for name, (_, points) in others.items() for x, y in points]
        for key, rows, mark in (("others", smoothed, thin), ("others_validation", validation, dots)):
            datasets[key] = _rows(rows, "epochs", "loss", "line")
            layers.append(layer(key, mark))
    return {"datasets": datasets, "layer": layers}


def _rows(points: Iterable[tuple[Any, ...]], *fields: str) -> list[dict[str, Any]]:
    """Return the rows of a data set; a number that is not finite becomes None, since JSON has none such."""

    def clean(value: Any) -> Any:
        return value if isinstance(value, str) or math.isfinite(value) else None

    return [dict(zip(fields, map(clean, point), strict=True)) for point in points]


def curve(run: RunView) -> Curve:
    """Return the batches and the validation losses of a run."""
    return run.curve, [(float(epoch["epoch"]), epoch["val_loss"]) for epoch in run.epochs]


def gray_copy_loss(spec: TrainingSpec) -> float | None:
    """Return the gray copy's loss on a training's validation images, or None where no model's card tells it."""
    return _gray_copy_loss(validation_images(spec.train)) if spec.model.target != "gray" else None


def validation_images(train: TrainConfig) -> str:
    """Return a name of the images that a training is validated on; only losses on the same images can be compared."""
    return library.VALIDATION_SPLITS.get(train.dataset, train.dataset)


@st.cache_data(show_spinner=False)
def _gray_copy_loss(split: str) -> float | None:
    measured = [entry.card["metrics"] for entry in library.list_models() if not entry.damage]
    return next((metrics[split]["gray_copy"]["mse"] for metrics in measured if split in metrics), None)


def show_run(run: RunView, others: dict[str, Curve]) -> None:
    """Show the curve of a run, and beside it those of `others`, by name, that the visitor chooses."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        axis = st.segmented_control("Axis", (_LOG, _LINEAR), default=_LOG, required=True, key=f"axis-{run.run_id}")
        chosen = []
        if others:
            chosen = st.multiselect(
                "Earlier runs beside it",
                list(others),
                key=f"beside-{run.run_id}",
                max_selections=MAX_OTHERS,
                placeholder="Choose runs to compare with",
            )
    beside = {name: others[name] for name in chosen if name in others}
    alt = "Loss of each batch, smoothed loss, validation loss and the gray copy's loss, over epochs"
    _draw(curve(run), gray_copy_loss(run.spec), run.spec.train.epochs, alt, beside, axis == _LOG, key="loss")


def show_runs(runs: list[RunView]) -> None:
    """Show the curves of those runs that have one in one chart."""
    runs = [run for run in runs if run.curve][:MAX_OTHERS]
    if not runs:
        return
    curves = {run.spec.name: curve(run) for run in runs}
    comparable = len({validation_images(run.spec.train) for run in runs}) == 1
    baseline = gray_copy_loss(runs[0].spec) if comparable else None
    alt = f"Smoothed loss and validation loss of {', '.join(curves)}, over epochs"
    _draw(None, baseline, max(run.spec.train.epochs for run in runs), alt, curves)
    if not comparable:
        st.caption("These runs were validated on different images, so their losses cannot be compared.")


def show_history(entry: library.ModelEntry) -> None:
    """Show the loss curve that is kept with a model, or say why there is none."""
    try:
        history = library.load_history(entry)
        if not history["batch_loss"]:
            st.caption("This model was solved in closed form, so it has no loss curve.")
            return
        batches, validation = (
            [(float(x), float(y)) for x, y in zip(history[epochs], history[losses], strict=True)]
            for epochs, losses in (("batch_epochs", "batch_loss"), ("epoch", "val_loss"))
        )
        alt = f"Loss curve of {entry.name}: each batch, smoothed, validation, and the gray copy"
        _draw((batches, validation), entry.gray_copy_loss, max(history["batch_epochs"]), alt)
    except (ColorizerError, KeyError, TypeError, ValueError):
        st.caption("The loss curve of this model cannot be read.")


def _draw(
    shown: Curve | None,
    gray_copy: float | None,
    epochs: float,
    alt: str,
    others: dict[str, Curve] | None = None,
    log: bool = True,
    key: str | None = None,
) -> None:
    chart = loss_chart(shown, gray_copy, epochs, others, log, st.context.theme.type == "dark")
    if not key:
        # A chart that stays as it is has its data in itself. Streamlit would import pandas to send named data sets,
        # which it can replace while a run goes on.
        for name, rows in chart.pop("datasets").items():
            named = [layer for layer in chart["layer"] if layer["data"] == {"name": name}]
            others = [layer for layer in chart["layer"] if layer not in named]
            drawn = [{key: value for key, value in layer.items() if key != "data"} for layer in named]
            chart["layer"] = [*others, {"data": {"values": rows}, "layer": drawn}]
    st.vega_lite_chart(spec=chart, height=HEIGHT, alt=alt, key=key)
