"""Text tables of what was measured."""

from colorizer.pixels.metrics import METRICS


def one_model(name: str, measured: dict) -> str:
    """A model beside the gray copy, by metric and by class; `measured` is what `evaluation.measure` returns."""
    both = measured["model"], measured["gray_copy"]
    rows = [
        [metric, *(format(values[metric], style) for values in both), f"{better} is better"]
        for metric, (better, style) in METRICS.items()
    ]
    text = layout(["metric", name, "gray copy", ""], rows)
    if measured["classes"]:
        pairs = zip(measured["classes"].items(), measured["gray_copy_classes"].values(), strict=True)
        rows = [[of, f"{mse:.5f}", f"{gray:.5f}", f"{mse / gray:.2f}"] for (of, mse), gray in pairs]
        text += "\n\n" + layout(["mse by class", name, "gray copy", "ratio"], rows)
    return text


def all_models(measured: dict[str, dict], metrics: dict[str, dict[str, float]], parameters: dict[str, int]) -> str:
    """Models, `measured` as for `one_model`, a row each, and below them whatever else has `metrics`."""
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


def photos(measured: dict[str, dict]) -> str:
    """Models on photos, a row each; `measured` has for each what `evaluation.measure_photos` returns."""
    rows = [
        [name, f"{m['delta_e']:.2f}", f"{m['gray_copy']:.2f}", f"{m['ratio']:.3f}", f"{m['better']} of {m['photos']}"]
        for name, m in measured.items()
    ]
    return layout(["model", "delta_e", "gray copy", "ratio", "better"], rows)


def sweep(rows: list[dict]) -> str:
    """Trials, a row each, as `sweep.Sweep.table` has them."""
    styles = {"val_loss": ".5f", "closed_form": ".5f", "seconds": ".0f", "learning_rate": "g"}
    header = [name for name in rows[0] if name != "error" or any(row["error"] for row in rows)]
    cells = [["-" if row[name] is None else format(row[name], styles.get(name, "")) for name in header] for row in rows]
    return layout(header, cells)


def layout(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a plain-text table; columns of numbers are set flush right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    flush = [all(cell[:1].isdigit() or cell == "-" for cell in column[1:] if cell) for column in columns]
    styles = [f"{'>' if right else '<'}{width}" for width, right in zip(widths, flush, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(format, cells, styles)).rstrip() for cells in lines)
