"""Charts of losses as plain Vega-Lite dicts: building one through Altair costs more than the rest of a page."""

from typing import Any

import numpy as np

Points = list[tuple[float, float]]
Curve = tuple[Points, Points]
"""Training batches and validation, each as pairs of (epochs done, mean squared error)."""

MAX_OTHERS = 6
HEIGHT = 400  # of a chart of losses, pixels; given to Streamlit, which keeps its place free before it is drawn
_COLORS = {"each batch": "#9a938c", "smoothed": "#57534e", "validation": "#c2410c", "gray copy": "#2563eb"}
_DARK = {"smoothed": "#d6d3d1"}
_OTHER_COLORS = ("#0f9488", "#8b5cf6", "#ca8a04", "#db2777", "#0891b2", "#65a30d")
_SMOOTHING = 0.02  # standard deviation of the average along the curve, as a share of its length
_PART = 50  # points that are smoothed at a time: all at once take 32 MB, which every page with a curve would ask for


def smooth(points: Points) -> list[float]:
    """Average a curve's losses with their neighbours, geometrically, since they fall by factors."""
    if not points:
        return []
    epochs, losses = np.array(points, np.float64).T
    width = _SMOOTHING * max(np.ptp(epochs), 1e-9)
    logs, smoothed = np.log(np.maximum(losses, 1e-9)), []
    for start in range(0, len(epochs), _PART):
        weights = np.exp(-0.5 * np.square((epochs[start : start + _PART, None] - epochs) / width))
        smoothed += np.exp(weights @ logs / weights.sum(axis=1)).tolist()
    return smoothed


def loss_chart(
    curve: Curve | None,
    gray_copy: float | None,
    total_epochs: float,
    others: dict[str, Curve] | None = None,
    log: bool = True,
    dark: bool = False,
) -> dict[str, Any]:
    """Draw a training: each batch, smoothed, validation and the gray copy over epochs; others beside it.

    Args:
        curve: the one in question, or None where only `others` are compared.
        gray_copy: its mean squared error on the same images, or None.
        total_epochs: end of the horizontal axis, which does not move while a run goes on.
        others: by name, drawn smoothed and with their validation.
        log: whether the vertical axis is logarithmic.
        dark: whether the page is.
    """
    import pandas as pd  # not on the way to a page's pictures

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
    dots = {"type": "line", "strokeWidth": 1.5, "point": {"filled": True, "size": 45}}
    if curve:
        batches = pd.DataFrame(curve[0], columns=["epochs", "loss"], dtype=float)
        datasets["batches"] = batches.assign(smoothed=np.array(smooth(curve[0]), float))
        datasets["validation"] = pd.DataFrame(curve[1], columns=["epochs", "loss"], dtype=float)
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
            datasets[key] = pd.DataFrame(rows, columns=["epochs", "loss", "line"])
            layers.append(layer(key, mark))
    return {"datasets": datasets, "layer": layers}
