"""Defines the commands that neither train nor measure. Each returns its result as JSON and as the printed text."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from tqdm import tqdm

from colorizer import config
from colorizer.app import tables
from colorizer.app.options import MODEL, Output, Result, Size, Strength, Vividness, read_number, read_path
from colorizer.data import datasets
from colorizer.errors import ModelError
from colorizer.jobs import batch
from colorizer.models import evaluation, library
from colorizer.models.colorizer import Colorizer, load
from colorizer.models.compact import halve_graph
from colorizer.models.hints import read_hints
from colorizer.models.network import ensure_exported
from colorizer.models.reference import DEFAULT_STRENGTH, PALETTES, shrink_reference
from colorizer.models.scale import DEFAULT_VIVIDNESS
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.images import PHOTOS, cut_small, decode_file, load_photo
from colorizer.storage import write_bytes

_PHOTO_SIDE = 240  # A report shows the middle of each photo, shrunk to a square with sides of so many pixels.


def data(
    download: Annotated[bool, typer.Option("--download", help="Download the official CIFAR-10 (170 MB).")] = False,
    write_statistics: Annotated[
        bool, typer.Option("--write-statistics", help="Compute assets/cifar10-statistics.npz from CIFAR-10.")
    ] = False,
) -> Result:
    """List the data sets on this machine, with their places and sizes."""
    if download:
        with tqdm(unit="B", unit_scale=True, desc="CIFAR-10", file=sys.stderr) as bar:

            def show(received: int, total: int) -> None:
                bar.total = total or None
                bar.update(received - bar.n)

            datasets.download_cifar10(show)
    if write_statistics:
        datasets.save_statistics(datasets.compute_statistics(datasets.load_dataset("cifar10").train.images))

    found = {"cifar10": datasets.cifar10_status()}
    built_in = {
        "samples": (config.ASSETS / "samples", "samples/*.png"),
        "synthetic": (datasets.STATISTICS_PATH, "cifar10-*.npz"),
    }
    for name, (path, files) in built_in.items():
        size = sum(file.stat().st_size for file in config.ASSETS.glob(files))
        found[name] = {"state": "built in", "path": str(path), "bytes": size}
    home = str(config.home())
    rows = [[name, d["state"], f"{d['bytes'] / 1e6:.1f} MB", d["path"]] for name, d in found.items()]
    text = tables.layout(["data set", "state", "size", "where"], rows) + f"\n\nYour models and runs: {home}"
    return {"home": home, "datasets": found}, text


def models() -> Result:
    """List the models in the library, best first."""
    rows, result = [], []
    for entry in library.list_models():
        about = {"name": entry.name, "path": str(entry.path)}
        if entry.damage:
            rows.append([entry.name, "damaged", "", "", "", entry.damage])
            result.append(about | {"damage": entry.damage})
            continue
        errors = ["-" if mse is None else f"{mse:.5f}" for mse in map(entry.metric, ("test", "samples"))]
        origin = "shipped" if entry.shipped else "yours"
        rows.append([entry.name, entry.card["preset"] or "", str(entry.model_config.latent_dim), *errors, origin])
        result.append(about | {"shipped": entry.shipped, "card": entry.card})
    return {"models": result}, tables.layout(["model", "preset", "latent_dim", "test mse", "samples mse", ""], rows)


def _choose_model(name: str, files: list[Path]) -> tuple[library.ModelEntry, list[Path]]:
    """Return the model called `name`, and the files; if `name` is a file, it is the first of them.

    The model is then the one for photos. If one of `files` is a model instead, the error says that they may be swapped.
    """
    try:
        return library.find_model(name), files
    except ModelError as error:
        swapped = {entry.name for entry in library.list_models()} & set(map(str, files))
        if not swapped and Path(name).exists() and not library.is_model(Path(name)):
            return library.find_model(config.PHOTO_MODEL), [read_path(name), *files]
        if not swapped:
            raise
        hint = f"The arguments may be swapped: the model comes first, as in `colorize {min(swapped)} {name}`."
        raise ModelError(f"{error} {hint}") from error


def colorize(
    name: Annotated[str, MODEL],
    output: Output,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            parser=read_path,
            help="Give pictures, or folders, which are searched with all folders below.",
        ),
    ] = None,
    vividness: Vividness = None,
    strength: Strength = 1.0,
    size: Size = None,
    hints: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=read_path,
            help='Give pixels of one picture their colour by a JSON file such as [{"x": 12, "y": 30, "color": '
            '"#a0522d"}].',
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=read_path, help="Bring the colours closer to those of this picture in colour."
        ),
    ] = None,
    palette: Annotated[
        Literal[tuple(PALETTES)] | None,
        typer.Option(help="Bring the colours closer to those of this palette.", show_default="none"),
    ] = None,
    reference_strength: Annotated[
        float,
        typer.Option(
            metavar="0 to 1", parser=read_number(float), help="Set how much --reference or --palette changes."
        ),
    ] = DEFAULT_STRENGTH,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist instead of skipping their pictures.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Spread the work with Ray: `local` uses all cores of this machine, and HOST:PORT names a cluster.",
        ),
    ] = None,
) -> Result:
    """Colorize pictures or folders of pictures, and write PNG files.

    If the first word is a picture or a folder, the model colorist is used.
    """
    entry, files = _choose_model(name, files or [])
    settings: dict[str, Any] = {"vividness": vividness, "strength": strength, "size": size}
    if reference and palette:
        raise typer.BadParameter("Give either --reference or --palette.")
    if not files:
        raise typer.BadParameter(f"There is nothing to colorize with {name}. Give pictures, or folders with some.")
    colorizer = Colorizer(None, entry)
    colorizer.check_settings(**settings)
    planned = batch.plan_files(files, output, overwrite)
    if reference or palette:
        shown = palette or shrink_reference(
            decode_file(reference)
        )  # Only its colours count, so that less is sent to Ray's workers.
        colorizer.check_reference(shown, reference_strength)
        settings |= {"reference": shown, "reference_strength": reference_strength}
    if hints:
        if len(planned) > 1:
            raise typer.BadParameter(f"--hints names pixels of one picture, received {len(planned)} pictures.")
        settings["hints"] = read_hints(hints)
    if ray:
        from colorizer.jobs import archives

        done = archives.colorize_files(entry, planned, output, ray, overwrite, **settings)
    else:
        done = batch.colorize_files(colorizer, planned, **settings)
    result: dict[str, Any] = {"written": [], "skipped": [], "failed": []}
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints to stdout that a node died.
        for file in tqdm(done, total=len(planned), unit="picture", file=sys.stderr, disable=len(planned) < 2):
            if file.error:
                result["failed"].append({"file": str(file.source), "error": file.error})
                tqdm.write(f"{file.source}: {file.error}", file=sys.stderr)
            else:
                result["skipped" if file.skipped else "written"].append(str(file.target))
    lines = result["written"] or ["Nothing was written."]
    if skipped := len(result["skipped"]):
        lines = [*lines, f"{skipped} skipped, since the result is there; --overwrite makes it again."]
    return {"model": entry.name, **result}, "\n".join(lines)


def export(
    name: Annotated[str, MODEL],
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FILE", parser=read_path, help="Write this ONNX file, or into this folder."),
    ],
    float16: Annotated[
        bool, typer.Option("--float16", help="Store the weights as float16, which halves the file and rounds them.")
    ] = False,
) -> Result:
    """Write a model as an ONNX file, which runs anywhere.

    docs/models.md describes its inputs and outputs.
    """
    entry = ensure_exported(library.find_model(name))
    graph = library.read_network(entry, "model.onnx")
    graph = halve_graph(graph, rounded=True) if float16 else graph
    target = output / f"{entry.name}.onnx" if output.is_dir() else output
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, graph)
    text = f"{target}\n\n{len(graph) / 1e6:.1f} MB"
    return {"model": entry.name, "written": str(target), "bytes": len(graph), "float16": float16}, text


def report(name: Annotated[str, MODEL], output: Output) -> Result:
    """Draw a model's loss curve and images, and animate its training."""
    from colorizer.app import figures

    entry = library.find_model(name)
    samples = datasets.load_samples()
    stored = evaluation.stored_predictions(entry, "samples", "test")
    predictions = (stored or evaluation.predict_split(load(entry.path), samples)).at(DEFAULT_VIVIDNESS)
    history = library.load_history(entry)
    title = f"Learning curve of {entry.name}"
    drawn = {"loss_curve_plot": figures.loss_curve(history, title, entry.gray_copy_loss)}
    for file, shown, title in (
        ("original_vs_grayscale_vs_reconstructed", range(10), f"{entry.name} on the built-in samples"),
        ("worst", predictions.mse.argsort()[:-7:-1], f"Where {entry.name} fails: its worst of the built-in samples"),
    ):
        originals, captions = samples.images[shown], [f"mse {mse:.4f}" for mse in predictions.mse[shown]]
        pictures = originals, to_uint8(gray_copy(originals)), predictions.images[shown]
        drawn[f"results_visualization/{file}"] = figures.comparison(*pictures, captions, title)
    originals = np.stack([cut_small(load_photo(photo), _PHOTO_SIDE) for photo in PHOTOS])
    colorizer = Colorizer(None, entry)
    results = np.stack([cut_small(colorizer.colorize(load_photo(photo)), _PHOTO_SIDE) for photo in PHOTOS])
    pictures = originals, to_uint8(gray_copy(originals)), results
    title = f"{entry.name} on the photos of scikit-image"
    drawn["results_visualization/photos"] = figures.comparison(*pictures, list(PHOTOS), title)
    written = [output / f"{name}.png" for name in drawn]
    for path, figure in zip(written, drawn.values(), strict=True):
        figures.save_figure(figure, path)
    if history["batch_loss"]:
        snapshots = library.load_arrays(entry, "snapshots.npz")
        originals = samples.images[list(datasets.SNAPSHOT_SAMPLES)]
        rows = to_uint8(gray_copy(originals)), originals
        written.append(output / "training.webp")
        figures.save_training_animation(written[-1], history, snapshots["epochs"], snapshots["images"], rows)
    return {"model": entry.name, "written": list(map(str, written))}, "\n".join(map(str, written))
