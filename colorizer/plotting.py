"""Matplotlib figures from arrays and dicts; no pyplot, whose state is shared between threads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from colorizer.errors import ConfigError

ACCENT, SECOND, MUTED = "#c2410c", "#2563eb", "#6b7280"


def loss_curve(history: dict[str, list[float]], title: str, gray_copy: float | None = None) -> Figure:
    """Plot a `history` of `training.TrainResult`, and the mean squared error of the gray copy as a line."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if history["batch_loss"]:
        axes.plot(
            history["batch_epochs"], history["batch_loss"], color=MUTED, alpha=0.5, lw=1, label="training batches"
        )
    axes.plot(history["epoch"], history["val_loss"], "o-", color=ACCENT, label="validation")
    if gray_copy is not None:
        axes.axhline(gray_copy, color=SECOND, ls="--", lw=1.2, label=f"gray copy, {gray_copy:.5f}")
    axes.set(title=title, xlabel="epochs", ylabel="mean squared error", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def comparison(
    originals: np.ndarray, grays: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str], title: str
) -> Figure:
    """Show three rows of images, each uint8 (N, H, W, 3), with N captions below the columns."""
    count = len(originals)
    figure = Figure(figsize=(1.1 * count + 1.0, 4.2), dpi=150, layout="constrained")
    figure.suptitle(title)
    cells = figure.subplots(3, count, squeeze=False)
    rows = {"original": originals, "grayscale": grays, "reconstructed": reconstructions}
    for row, (label, images) in zip(cells, rows.items(), strict=True):
        for axes, image in zip(row, images, strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(label)
    for axes, caption in zip(cells[-1], captions, strict=True):
        axes.set_xlabel(caption, fontsize=8)
    return figure


def metrics_chart(measured: dict[str, dict[str, float]], title: str) -> Figure:
    """Draw the metrics by name of each model as bars, those of the entry `gray copy` as lines."""
    names = [name for name in measured if name != "gray copy"]
    metrics = list(measured["gray copy"])
    rows = -(-len(metrics) // 3)
    figure = Figure(figsize=(11, rows * (0.25 * len(names) + 0.9)), dpi=150, layout="constrained")
    figure.suptitle(title)
    cells = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
    for axes, metric in zip(cells, metrics, strict=False):
        axes.barh(names, [measured[name][metric] for name in names], color=ACCENT, alpha=0.85)
        axes.axvline(measured["gray copy"][metric], color=SECOND, ls="--", lw=1.2, label="gray copy")
        axes.set_title(metric, fontsize=10)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    cells[0].invert_yaxis()  # shared: the first model on top
    cells[0].legend(frameon=False, fontsize=8)
    for axes in cells[len(metrics) :]:
        axes.set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file name tells; raise `ConfigError` where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:  # Matplotlib: an unknown suffix
        raise ConfigError(f"{path} cannot be written ({error}). Choose another file name or folder.") from error
