"""Charts of losses that follow the page's theme."""

from typing import Any

import altair as alt
import pandas as pd

_LABELS = ["training", "validation", "gray copy"]
_COLORS = ["#9a938c", "#c2410c", "#2563eb"]


def loss_chart(
    batches: list[tuple[float, float]],
    epochs: list[tuple[float, float]],
    gray_copy: float | None,
    total_epochs: float,
) -> alt.LayerChart:
    """Draw training loss, validation loss and the gray copy over epochs, on a logarithmic axis.

    Args:
        batches, epochs: pairs of (epochs done, mean squared error).
        gray_copy: its mean squared error on the same images, or None.
        total_epochs: end of the horizontal axis, which does not move while a run goes on.
    """
    losses = [loss for _, loss in batches + epochs] + ([gray_copy] if gray_copy else [])
    domain = [min(losses) * 0.9, max(losses) * 1.1] if losses else [0.001, 0.1]
    scale = alt.Scale(domain=_LABELS, range=_COLORS)
    encoding = {
        "x": alt.X("epochs:Q", title="epochs", scale=alt.Scale(domain=[0, total_epochs], nice=False)),
        "y": alt.Y(
            "loss:Q",
            title="mean squared error",
            scale=alt.Scale(type="log", domain=domain, nice=False),
            axis=alt.Axis(format="~g", tickCount=6),
        ),
        "color": alt.Color("line:N", scale=scale, legend=alt.Legend(title=None, orient="top", columns=2)),
        "tooltip": ["line:N", alt.Tooltip("epochs:Q", format=".2f"), alt.Tooltip("loss:Q", format=".5f")],
    }

    def line(points: list[tuple[float, float]], label: str, **mark: Any) -> alt.Chart:
        frame = pd.DataFrame(points, columns=["epochs", "loss"]).assign(line=label)
        return alt.Chart(frame).mark_line(**mark).encode(**encoding)

    layers = [
        line(batches, _LABELS[0], strokeWidth=1.2),
        line(epochs, _LABELS[1], point={"filled": True, "size": 50}),
    ]
    if gray_copy is not None:
        layers.append(line([(0, gray_copy), (total_epochs, gray_copy)], _LABELS[2], strokeDash=[5, 4]))
    return alt.layer(*layers).properties(height=280)
