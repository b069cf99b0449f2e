"""Shows the sweeps on the Train page: a chart of the trials of one, and their table."""

from collections.abc import Collection
from typing import Any

import streamlit as st

from colorizer.app.widgets import losses
from colorizer.jobs.sweeps import Sweep

_BEST, _FINISHED, _STOPPED, _CLOSED_FORM = "#c2410c", "#2563eb", "#9a938c", "#2563eb"


def show_sweeps(sweeps: list[Sweep], models: Collection[str]) -> None:
    """Show one of the sweeps, or say how to make the first.

    Args:
        sweeps: All sweeps with a finished trial.
        models: The names of the models in the library.
    """
    st.header("Sweeps", anchor=False)
    if not sweeps:
        st.caption(
            "There are no sweeps yet. On the command line, this one tries 20 settings on all cores. Its results appear "
            "here:"
        )
        st.code("python -m colorizer sweep --preset dense", language="sh")
        return
    names = [sweep.name for sweep in sweeps]
    name = st.selectbox("Sweep", names, key="sweep", bind="query-params") if len(sweeps) > 1 else names[0]
    sweep = sweeps[names.index(name) if name in names else 0]
    best, rows = sweep.finished[0], sweep.table()
    unfinished = len(sweep.trials) - len(sweep.finished)
    early = f", {unfinished} of which were not trained to the end" if unfinished else ""
    st.markdown(
        f"The sweep ran **{len(sweep.trials)}** trials from the preset {sweep.preset}{early}. The best trial has a "
        f"validation loss of **{best.val_loss[-1]:.5f}**. It is the preset **{sweep.name}** above"
        f"{', and the library has a model of that name' * (sweep.name in models)}."
    )
    if sweep.closed_form:
        alt = "Validation loss over the bottleneck, of the trained models and of the best linear autoencoder"
        st.vega_lite_chart(spec=_bottleneck_chart(rows), height=losses.HEIGHT, alt=alt)
    else:
        alt = f"One line for each trial across {', '.join(sweep.choices)} and val_loss, with the best in colour"
        chart = _parallel_chart(sweep, st.context.theme.type == "dark")
        st.vega_lite_chart(spec=chart, height=52 * (len(sweep.choices) + 1) + 60, alt=alt)
    number = st.column_config.NumberColumn
    formats = {"val_loss": "%.5f", "closed_form": "%.5f", "learning_rate": "%g", "seconds": "%.0f"}
    st.dataframe(
        [{key: value for key, value in row.items() if key != "error"} for row in rows],
        hide_index=True,
        alt=f"All trials of {sweep.name} with their settings, epochs, validation loss and seconds",
        column_config={name: number(format=style) for name, style in formats.items()},
    )


def _bottleneck_chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a chart of the losses over the bottleneck, with two logarithmic axes."""
    lines = {"val_loss": "trained", "closed_form": "closed form"}
    values = [
        {"latent_dim": row["latent_dim"], "loss": row[key], "line": line}
        for row in rows
        for key, line in lines.items()
        if row[key]
    ]
    ticks = {"values": [row["latent_dim"] for row in rows], "grid": False}
    color = {"domain": list(lines.values()), "range": [_BEST, _CLOSED_FORM]}
    return {
        "data": {"values": values},
        "mark": {"type": "line", "point": {"filled": True, "size": 45}, "tooltip": True},
        "encoding": {
            "x": {
                "field": "latent_dim",
                "type": "quantitative",
                "title": "bottleneck",
                "scale": {"type": "log", "nice": False, "padding": 20},
                "axis": ticks,
            },
            "y": {"field": "loss", "type": "quantitative", "title": "mean squared error"}
            | losses.log_axis(value["loss"] for value in values),
            "color": {"field": "line", "type": "nominal", "scale": color, "legend": {"title": None, "orient": "top"}},
        },
    }


def _parallel_chart(sweep: Sweep, dark: bool) -> dict[str, Any]:
    """Return parallel coordinates: one row for each setting and one line for each trial.

    On a phone there is no room for the values beside the axes, so they are left out.
    """
    rows, axes = [row for row in sweep.table() if row["val_loss"]], sweep.coordinates()
    kinds = ["best", *("all epochs" if row["epochs"] == sweep.train.epochs else "stopped early" for row in rows[1:])]
    lines = [
        {"trial": trial, "place": place, "axis": axis.name, "at": axis.heights[trial], "kind": kind} | row
        for trial, (row, kind) in enumerate(zip(rows, kinds, strict=True))
        for place, axis in enumerate(axes)
    ]
    ticks = [{"axis": axis.name, "at": at, "label": label} for axis in axes for label, at in axis.ticks.items()]
    names = [axis.name for axis in axes]
    y = {"field": "axis", "type": "ordinal", "scale": {"type": "point", "padding": 0.5}, "sort": names, "title": None}
    y |= {"axis": {"domain": False, "ticks": False, "grid": True}}
    x = {"field": "at", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1], "padding": 30}}
    order = ["best", "all epochs", "stopped early"]

    def by_kind(values: list[Any], legend: dict[str, Any] | None = None) -> dict[str, Any]:
        scale = {"domain": order, "range": values}
        return {"field": "kind", "type": "nominal", "sort": order, "scale": scale, "legend": legend}

    tooltip = [{"field": name, "format": ".3g"} if name == "learning_rate" else {"field": name} for name in names]
    line = {
        "data": {"values": lines[::-1]},  # The best is drawn last, on top.
        "mark": {"type": "line", "tooltip": True},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "trial"},
            "order": {"field": "place", "type": "quantitative"},
            "color": by_kind([_BEST, _FINISHED, _STOPPED], {"title": None, "orient": "top"}),
            "strokeWidth": by_kind([3.5, 1.5, 1]),
            "opacity": by_kind([1, 0.6, 0.6]),
            "tooltip": tooltip,
        },
    }
    text = {"type": "text", "fontSize": {"expr": "width < 500 ? 0 : 11"}, "color": "#d6d3d1" if dark else "#57534e"}
    halo = {"stroke": st.get_option(f"theme.{'dark' if dark else 'light'}.backgroundColor"), "strokeWidth": 4}
    labels = [
        {"data": {"values": ticks}, "mark": text | outline, "encoding": {"x": x, "y": y, "text": {"field": "label"}}}
        for outline in (halo, {})
    ]
    return {"layer": [line, *labels]}
