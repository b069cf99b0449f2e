"""Lays out metrics as plain-text tables."""

from pathlib import Path
from typing import Any

from colorizer.pixels.metrics import METRICS


def one_model(name: str, measured: dict[str, Any]) -> str:
    """Return tables that compare a model with the gray copy, in each metric and in the error of each class.

    Args:
        name: name of the model.
        measured: the result of `evaluation.measure`.
    """
    both = measured["model"], measured["gray_copy"]
    rows = [
        [metric, *(format(values[metric], style) for values in both), f"{better} is better"]
        for metric, (better, style) in METRICS.items()
    ]
    text = layout(["metric", name, "gray copy", ""], rows)
    if measured["classes"]:
        pairs = zip(measured["classes"].items(), measured["gray_copy_classes"].values(), strict=True)
        rows = [[label, f"{mse:.5f}", f"{gray:.5f}", f"{mse / gray:.2f}"] for (label, mse), gray in pairs]
        text += "\n\n" + layout(["mse by class", name, "gray copy", "ratio"], rows)
    return text


def all_models(
    measured: dict[str, dict[str, Any]], metrics: dict[str, dict[str, float]], parameters: dict[str, int]
) -> str:
    """Return a table of all metrics and a table of the errors by class; each model and baseline has a row.

    Args:
        measured: for each model, the result of `evaluation.measure`.
        metrics: for each model and baseline, its metrics.
        parameters: for each model, its number of parameters.
    """
    rows = [
        [name, f"{parameters.get(name, 0):,}", *(format(values[key], style) for key, (_, style) in METRICS.items())]
        for name, values in metrics.items()
    ]
    text = layout(["model", "parameters", *METRICS], rows)
    first = next(iter(measured.values()))
    if first["classes"]:
        classes = {name: result["classes"] for name, result in measured.items()}
        classes["gray copy"] = first["gray_copy_classes"]
        rows = [[name, *(f"{mse:.5f}" for mse in errors.values())] for name, errors in classes.items()]
        text += "\n\nmse by class\n\n" + layout(["model", *first["classes"]], rows)
    return text


def photos(measured: dict[str, dict[str, Any]], folder: Path) -> str:
    """Return a table of the models' errors on the photos in a folder; each model has a row.

    Args:
        measured: for each model, the result of `evaluation.measure_photos`.
        folder: the folder that holds the photos.
    """
    rows = []
    for name, found in measured.items():
        # The gray copy of gray photos has an error of 0, so the ratio is not defined.
        ratio = f"{found['ratio']:.3f}" if found["gray_copy"] else "-"
        better = f"{found['better']} of {found['photos']}"
        rows.append([name, f"{found['delta_e']:.2f}", f"{found['gray_copy']:.2f}", ratio, better])
    title = f"Mean CIEDE2000 on {next(iter(measured.values()))['photos']} photos in {folder}"
    return f"{title}\n\n{layout(['model', 'delta_e', 'gray copy', 'ratio', 'better'], rows)}"


def sweep(rows: list[dict[str, Any]]) -> str:
    """Return a table of the trials of a sweep; `rows` is the result of `Sweep.table`."""
    styles = {"val_loss": ".5f", "closed_form": ".5f", "seconds": ".0f", "learning_rate": "g"}
    header = [name for name in rows[0] if name != "error" or any(row["error"] for row in rows)]
    cells = [["-" if row[name] is None else format(row[name], styles.get(name, "")) for name in header] for row in rows]
    return layout(header, cells)


def layout(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a plain-text table; columns of numbers are aligned to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(cell[:1].isdigit() or cell == "-" for cell in column[1:] if cell) for column in columns]
    styles = [f"{'>' if right else '<'}{width}" for width, right in zip(widths, numeric, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(format, cells, styles)).rstrip() for cells in lines)
