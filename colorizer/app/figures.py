"""Draws Matplotlib figures from arrays and dicts, without pyplot, whose state is shared between threads."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from colorizer.errors import ConfigError

ACCENT, SECOND, MUTED = "#c2410c", "#2563eb", "#6b7280"


def loss_curve(history: dict[str, list[float]], title: str, gray_copy: float | None = None) -> Figure:
    """Plot the losses of a training.

    Args:
        history: as `loop.TrainResult` has it.
        title: title of the figure.
        gray_copy: mean squared error of the gray copy, which is drawn as a line.
    """
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if batch_losses := history["batch_loss"]:
        axes.plot(history["batch_epochs"], batch_losses, color=MUTED, alpha=0.5, lw=1, label="training batches")
    axes.plot(history["epoch"], history["val_loss"], "o-", color=ACCENT, label="validation")
    if gray_copy is not None:
        axes.axhline(gray_copy, color=SECOND, ls="--", lw=1.2, label=f"gray copy, {gray_copy:.5f}")
    axes.set(title=title, xlabel="epochs", ylabel="mean squared error", yscale="log")
    _tidy(axes)
    axes.legend(frameon=False)
    return figure


def _tidy(axes: Axes) -> None:
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def comparison(
    originals: np.ndarray, grays: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str], title: str
) -> Figure:
    """Show three rows of images, each uint8 (N, H, W, 3), with a caption below each of the N columns."""
    figure = Figure(figsize=(1.1 * len(originals) + 1.5, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(_tile([originals, grays, reconstructions]), interpolation="nearest")
    height, width = (side + 2 for side in originals.shape[1:3])  # `_tile` adds a gap of one pixel at each side.
    axes.set_xticks(width * (np.arange(len(captions)) + 0.5), captions, fontsize=8)
    axes.set_yticks(height * (np.arange(3) + 0.5), ["original", "grayscale", "reconstructed"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure


def metrics_chart(measured: dict[str, dict[str, float]], title: str) -> Figure:
    """Draw a bar for each model and metric; `measured` maps names to metrics, and its `gray copy` is drawn as lines."""
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
    cells[0].invert_yaxis()  # The axes share y, so this puts the first model on top of each.
    cells[0].legend(frameon=False, fontsize=8)
    for axes in cells[len(metrics) :]:
        axes.set_visible(False)
    return figure


def trade_off(measured: dict[str, dict[str, Any]]) -> Figure:
    """Plot errors on photos over colorfulness, with a curve for each model and each setting that varies.

    Args:
        measured: the result of `photo_evaluation.measure_photos` for the functions of `photo_evaluation.vary`. Points
            whose names differ only in the last number form a curve.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, found in measured.items():
        curves.setdefault(name.rpartition(" ")[0], []).append(found)
    models = list(dict.fromkeys(name.partition(",")[0] for name in curves))
    errors = {"ratio": "CIEDE2000, gray copy = 1", "feature_distance": "feature distance, gray copy = 1"}
    errors = {key: label for key, label in errors.items() if key in next(iter(measured.values()))}
    figure = Figure(figsize=(5.5 * len(errors), 4.2), dpi=150, layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, len(errors), squeeze=False)[0], errors.items(), strict=True):
        for name, points in curves.items():
            color = f"C{models.index(name.partition(',')[0])}"
            style = "o-" if name.endswith("vividness") else "s--"
            axes.plot(
                [p["colorfulness"] for p in points], [p[key] for p in points], style, color=color, ms=4, label=name
            )
        axes.plot(0, 1, "D", color=MUTED, label="gray copy")
        axes.axhline(1, color=MUTED, lw=1, ls=":")
        axes.set(xlabel="colorfulness, originals = 1", ylabel=label)
        _tidy(axes)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def hint_curves(measured: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Plot the PSNR and the colour difference over the number of hints; `measured` is from `measure_hints`."""
    figure = Figure(figsize=(11, 4.2), dpi=150, layout="constrained")
    models = list(dict.fromkeys(name.partition(",")[0] for name in measured))
    labels = {"psnr": "PSNR in dB, higher is better", "delta_e": "CIEDE2000, lower is better"}
    for axes, (metric, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for name, found in measured.items():
            model, _, rival = name.partition(",")
            style, color = "s--" if rival else "o-", f"C{models.index(model)}"
            values = [values[metric] for values in found.values()]
            axes.plot(list(map(int, found)), values, style, color=color, ms=4, label=name)
        axes.set(xlabel="random hints", ylabel=label)
        axes.set_xscale("symlog", linthresh=1)
        _tidy(axes)
        numbers = next(iter(measured.values()))
        axes.set_xticks(list(map(int, numbers)), list(numbers))
        axes.xaxis.set_minor_locator(NullLocator())
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def bottleneck_curve(latent_dims: Sequence[int], losses: dict[str, Sequence[float]], title: str) -> Figure:
    """Plot mean squared errors over the width of the bottleneck; `losses` maps the name of a line to its values."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color, style in zip(losses.items(), (ACCENT, SECOND), ("o-", "o--"), strict=False):
        axes.plot(latent_dims, values, style, color=color, label=name)
    axes.set(title=title, xlabel="latent_dim", ylabel="validation mse", xscale="log", yscale="log")
    axes.set_xticks(latent_dims, map(str, latent_dims))
    axes.xaxis.set_minor_locator(NullLocator())
    _tidy(axes)
    axes.legend(frameon=False)
    return figure


def parallel_coordinates(
    heights: dict[str, Sequence[float]], ticks: dict[str, dict[str, float]], finished: Sequence[bool], title: str
) -> Figure:
    """Draw trials as lines across one vertical axis for each setting, the first trial in colour.

    Args:
        heights: for each axis, the height of each trial from 0 to 1.
        ticks: for each axis, its labels and their heights.
        finished: for each trial, whether it ran to its end; the lines of others are thin.
        title: title of the figure.
    """
    figure = Figure(figsize=(1.4 * len(heights) + 1, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    lines = np.transpose(list(heights.values()))  # (trials, axes)
    for line, whole in zip(lines[:0:-1], finished[:0:-1], strict=True):
        axes.plot(line, color=SECOND if whole else MUTED, lw=1.4 if whole else 0.8, alpha=0.55)
    axes.plot(lines[0], color=ACCENT, lw=3)
    for place, labels in enumerate(ticks.values()):
        axes.axvline(place, color=MUTED, lw=1)
        for label, height in labels.items():
            axes.annotate(label, (place, height), (4, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set(title=title, yticks=[], xlim=(-0.1, len(heights) - 0.5))
    axes.set_xticks(range(len(heights)), heights)
    axes.spines[:].set_visible(False)
    return figure


def save_training_animation(
    path: Path,
    history: dict[str, list[float]],
    epochs: Sequence[float],
    snapshots: np.ndarray,
    rows: Sequence[np.ndarray],
) -> None:
    """Write a training as an animated picture: eight images as the network colorized them, above the loss so far.

    Args:
        path: a WebP or GIF file.
        history: as `loss_curve` takes it.
        epochs: number of epochs that were done at each snapshot.
        snapshots: uint8 of shape (S, 8, H, W, 3).
        rows: the same images in grayscale and as originals, each uint8 (8, H, W, 3).

    Raises:
        ConfigError: the file cannot be written.
    """
    figure = Figure(figsize=(7, 5.2), dpi=100, layout="constrained")
    pictures, axes = figure.subplots(2, 1, height_ratios=[3, 2])
    grays, originals = rows
    shown = pictures.imshow(_tile([grays, snapshots[0], originals]), interpolation="nearest")
    pictures.axis("off")
    done, losses = np.array(history["batch_epochs"]), np.array(history["batch_loss"])
    axes.plot(done, losses, alpha=0)  # This sets the limits of the axes.
    (line,) = axes.plot([], [], color=ACCENT, lw=1)
    axes.set(xlabel="epochs", ylabel="mean squared error", xscale="log", yscale="log")  # Snapshots are too.
    axes.xaxis.set_major_formatter("{x:g}")
    _tidy(axes)
    writer = PillowWriter(fps=3)
    with _explain_write_errors(path), writer.saving(figure, path, figure.dpi):
        for epoch, images in zip(epochs, snapshots, strict=True):
            shown.set_data(_tile([grays, images, originals]))
            line.set_data(done[done <= epoch], losses[done <= epoch])
            pictures.set_title(f"after {epoch:.3g} epochs", fontsize=10)
            writer.grab_frame()


def _tile(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Lay rows of images, each uint8 (N, H, W, 3), side by side with a white gap."""
    padded = np.pad(np.stack(rows), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    return np.concatenate(np.concatenate(padded, axis=1), axis=1)


def check_figure_path(path: Path) -> None:
    """Raise `ConfigError` if a figure cannot be written to `path`, for example if Matplotlib lacks the format.

    A missing folder is created.
    """
    with _explain_write_errors(path):
        known = Figure().canvas.get_supported_filetypes()
        if path.suffix[1:].lower() not in known:
            raise ValueError(f"its format is not one of {', '.join(sorted(known))}")
        if path.is_dir():
            raise ValueError("it is a folder")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file name tells; a failure raises `ConfigError`."""
    with _explain_write_errors(path):
        figure.savefig(path)


@contextlib.contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, ValueError) as error:  # Matplotlib raises ValueError for an unknown suffix.
        raise ConfigError(f"{path} cannot be written ({error}). Choose another file name or folder.") from error
