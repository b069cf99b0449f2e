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
        [key, *(format(values[key], metric.style) for values in both), f"{metric.better} is better", metric.label]
        for key, metric in METRICS.items()
    ]
    text = layout(["metric", name, "gray copy", "", ""], rows)
    text += f"\n\ndelta_colorfulness {measured['delta_colorfulness']:+.2f}"
    if seen := measured.get("recognition"):
        shares = {"originals": seen["original"], "gray copy": seen["gray_copy"], name: seen["model"]}
        text += "\ntop-1 of the classifier: " + ", ".join(f"{what} {share:.1%}" for what, share in shares.items())
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
        [name, f"{parameters.get(name, 0):,}", *(format(values[key], metric.style) for key, metric in METRICS.items())]
        for name, values in metrics.items()
    ]
    text = layout(["model", "parameters", *METRICS], rows)
    first = next(iter(measured.values()))
    if seen := first.get("recognition"):
        rows = [["originals", f"{seen['original']:.1%}", ""], ["gray copy", f"{seen['gray_copy']:.1%}", ""]]
        rows += [
            [name, f"{result['recognition']['model']:.1%}", f"{result['delta_colorfulness']:+.2f}"]
            for name, result in measured.items()
        ]
        text += "\n\n" + layout(["model", "top-1", "delta_colorfulness"], rows)
    if first["classes"]:
        classes = {name: result["classes"] for name, result in measured.items()}
        classes["gray copy"] = first["gray_copy_classes"]
        rows = [[name, *(f"{mse:.5f}" for mse in errors.values())] for name, errors in classes.items()]
        text += "\n\nmse by class\n\n" + layout(["model", *first["classes"]], rows)
    return text


def photos(measured: dict[str, dict[str, Any]], path: Path) -> str:
    """Return a table of what was measured on the photos in a folder or zip; each model has a row.

    Args:
        measured: for each model, the result of `photo_evaluation.measure_photos`.
        path: the folder or zip that holds the photos.
    """
    first = next(iter(measured.values()))
    header = ["model", "delta_e", "gray copy", "ratio", "better", "colorfulness", "spots", "psnr"]
    header += ["features"] if "feature_distance" in first else []
    rows = []
    for name, found in measured.items():
        # Where the gray copy makes no error, or the photos have no colour, a ratio is not defined.
        better = f"{found['better']} of {found['photos']}, {found['better'] / found['photos']:.0%}"
        row = [name, f"{found['delta_e']:.2f}", f"{found['gray_copy']:.2f}", _format(found["ratio"], ".3f"), better]
        row += [_format(found["colorfulness"], ".0%"), f"{found['spots']:.2%}", f"{found['psnr']:.2f}"]
        row += [_format(found["feature_distance"], ".3f")] if "feature_distance" in first else []
        rows.append(row)
    return f"Means over {first['photos']} photos in {path}\n\n{layout(header, rows)}"


def hints(measured: dict[str, dict[str, dict[str, float]]], path: Path) -> str:
    """Return two tables of what random hints do to the photos in a folder or zip; each method has a row.

    Args:
        measured: the result of `hint_evaluation.measure_hints`.
        path: the folder or zip that holds the photos.
    """
    numbers = next(iter(measured.values()))
    header = [f"{number} hint{'s' if number != '1' else ''}" for number in numbers]

    def table(metric: str) -> str:
        rows = [[name, *(f"{found[number][metric]:.2f}" for number in numbers)] for name, found in measured.items()]
        return layout([metric, *header], rows)

    return f"Means over the photos in {path}\n\n{table('psnr')}\n\n{table('delta_e')}"


def _format(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


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
    numeric = [all(cell.lstrip("+-")[:1].isdigit() or cell == "-" for cell in column[1:] if cell) for column in columns]
    styles = [f"{'>' if right else '<'}{width}" for width, right in zip(widths, numeric, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(format, cells, styles)).rstrip() for cells in lines)
