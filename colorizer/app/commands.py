"""What each command does. A command returns its result twice: as a JSON object and as the text that is printed."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from colorizer import config
from colorizer.app import tables
from colorizer.data import datasets
from colorizer.data.pictures import load_photos
from colorizer.errors import ConfigError, ModelError, TrainingError
from colorizer.jobs import batch
from colorizer.models import evaluation, library
from colorizer.models.colorizer import Colorizer, load
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.presets import get_preset
from colorizer.training import job

Result = tuple[dict[str, Any], str]
"""A JSON object, and the text of the same content. An entry `failed` that is not empty makes the exit code 1."""


def _import_tensorflow_quietly() -> None:
    """Import TensorFlow without the notes on missing GPUs that its C++ parts write straight to the terminal."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow

        tensorflow.config.list_logical_devices()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def show_data(download: bool, write_statistics: bool) -> Result:
    """Show which data sets are here; before that, download CIFAR-10 or compute its statistics where asked."""
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
        "samples": (datasets.ASSETS / "samples", "samples/*.png"),
        "synthetic": (datasets.STATISTICS_PATH, "cifar10-*.npz"),
    }
    for name, (path, files) in built_in.items():
        size = sum(file.stat().st_size for file in datasets.ASSETS.glob(files))
        found[name] = {"state": "built in", "path": str(path), "bytes": size}
    home = str(config.home())
    rows = [[name, d["state"], f"{d['bytes'] / 1e6:.1f} MB", d["path"]] for name, d in found.items()]
    text = tables.layout(["data set", "state", "size", "where"], rows) + f"\n\nYour models and runs: {home}"
    return {"home": home, "datasets": found}, text


def list_models() -> Result:
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


def _find_model(name: str, files: Sequence[Path] = ()) -> library.ModelEntry:
    """Return the model that `library.find_model` finds; where `files` names one instead, the error says so."""
    try:
        return library.find_model(name)
    except ModelError as error:
        swapped = {entry.name for entry in library.list_models()} & set(map(str, files))
        if not swapped:
            raise
        hint = f"The arguments may be swapped: the model comes first, as in `colorize {min(swapped)} {name}`."
        raise ModelError(f"{error} {hint}") from error


def train(settings: dict[str, Any], preset_name: str, name: str, folder: Path | None, replace: bool) -> Result:
    """Train a model and put it into the library, or into `folder`."""
    preset = get_preset(preset_name)
    configurations = config.apply_settings(preset.model, preset.train, settings)
    name = config.validate_name(name or config.default_name(preset_name))
    entry = _run_training(config.TrainingSpec(name, *configurations, preset_name), folder, replace)
    card = entry.card
    split, where = entry.reported
    text = (
        f"{'Stopped and saved' if card['stopped'] else 'Saved'} {entry.name} in {entry.path}\n"
        f"mse {entry.metric(split):.5f} on the {where}; gray copy {card['metrics'][split]['gray_copy']['mse']:.5f}"
    )
    return {"name": entry.name, "path": str(entry.path), "card": card}, text


def _run_training(spec: config.TrainingSpec, folder: Path | None, replace: bool) -> library.ModelEntry:
    """Train with progress on stderr; the first Ctrl-C ends the training early and keeps the model."""
    library.check_name_is_free(spec.name, folder, replace)
    _import_tensorflow_quietly()
    stop = threading.Event()

    def interrupt(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nStopping after this batch; what is learned so far is kept.", file=sys.stderr)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        with tqdm(desc=spec.name, unit="batch", file=sys.stderr, mininterval=0.5) as bar:

            def show(event: Any) -> None:
                if type(event).__name__ == "Batch":
                    bar.total = event.steps
                    bar.set_postfix(loss=f"{event.loss:.5f}", refresh=False)
                    bar.update(event.step - bar.n)  # A resumed run does not start at 0.
                elif type(event).__name__ == "Epoch":
                    losses = f"loss {event.loss:.5f}, validation {event.val_loss:.5f}"
                    bar.write(f"epoch {event.epoch}: {losses}, {event.seconds:.1f} s", file=sys.stderr)

            def tell(stage: str) -> None:
                bar.write(f"{stage} ...", file=sys.stderr)

            checkpoint = job.checkpoint_path(spec)
            return job.run_training(spec, show, stop.is_set, tell, folder, replace, checkpoint)
    finally:
        signal.signal(signal.SIGINT, previous)


def run_sweep(
    settings: dict[str, Any],
    preset_name: str,
    name: str,
    latent_dims: tuple[int, ...] | str | None,
    trials: int,
    time_budget: float,
    address: str,
    resume: bool,
) -> Result:
    """Run a sweep, then train and save its best configuration.

    Args:
        settings: the settings that are given; no trial varies them.
        preset_name: the preset that the sweep starts from.
        name: name of the sweep and its model; empty for the preset and what is tried.
        latent_dims: bottlenecks to try, `all` for those that suit the preset, or None to search settings.
        trials: number of trials of a search, at least 1.
        time_budget: minutes after which trials under way are given up.
        address: `local`, or HOST:PORT of a Ray cluster.
        resume: whether to go on with a sweep that was ended.
    """
    from colorizer.jobs import search, sweeps

    preset = get_preset(preset_name)
    model, train = config.apply_settings(preset.model, preset.train, settings)
    name = name or f"{preset_name}-{'sweep' if latent_dims is None else 'latent-dims'}"
    if latent_dims == "all":
        latent_dims = sweeps.suitable_latent_dims(model)
    elif latent_dims == ():
        raise ConfigError("--latent-dims takes whole numbers like 8,32,128, or no value for those of 2 to 512.")
    plan = sweeps.plan_sweep(name, preset_name, model, train, settings, latent_dims or ())
    if not resume:
        library.check_name_is_free(name)
    total = len(plan.choices.get("latent_dim", ())) or trials
    with (
        contextlib.redirect_stdout(sys.stderr),  # Ray prints to stdout that a node died.
        tqdm(desc=name, unit="trial", total=total, file=sys.stderr, delay=1) as bar,
    ):

        def show(trial: Any) -> None:
            bar.update()
            settings = [
                f"{key} {value:.2g}" if key == "learning_rate" else f"{key} {value}"
                for key, value in trial.settings.items()
            ]
            result = trial.error or f"validation {trial.val_loss[-1]:.5f} after {len(trial.val_loss)} epochs"
            bar.write(f"{result}: {', '.join(settings)}", file=sys.stderr)

        done = search.run_sweep(plan, trials, time_budget, address, resume, show)
    if not done.finished:
        raise TrainingError(f"No trial of {name} came to its end. Go on with --resume, or give it more time.")
    best = done.configure(done.finished[0].settings)
    entry = next((entry for entry in library.list_models() if entry.name == name and not entry.damage), None)
    saved = entry and (entry.model_config, entry.train_config)
    if entry is None or entry.card.get("stopped") or saved != best:
        ours = saved in [done.configure(trial.settings) for trial in done.finished]
        entry = _run_training(config.TrainingSpec(name, *best, preset_name), None, replace=ours)
    rows = done.table()
    text = f"{done.title}\n\n{tables.sweep(rows)}\n\n{_draw_sweep(done)}\n"
    text += f"The best is in the library, and a preset of the Train page, as {name}."
    return {"name": name, "path": str(done.folder), "trials": rows, "model": entry.card}, text


def _draw_sweep(done: Any) -> Path:
    """Draw a `sweeps.Sweep` into its folder and return the file."""
    from colorizer.app import figures

    rows, path = done.table(), done.folder / "sweep.png"
    if done.closed_form:
        lines = {"trained": "val_loss", "closed form: CIFAR-10's best linear autoencoder": "closed_form"}
        losses = {label: [row[name] for row in rows] for label, name in lines.items()}
        figure = figures.bottleneck_curve([row["latent_dim"] for row in rows], losses, done.title)
    else:
        axes = done.coordinates()
        heights, ticks = {axis.name: axis.heights for axis in axes}, {axis.name: axis.ticks for axis in axes}
        finished = [row["epochs"] == done.train.epochs for row in rows if row["val_loss"]]
        figure = figures.parallel_coordinates(heights, ticks, finished, done.title)
    figures.save_figure(figure, path)
    return path


def evaluate(
    name: str | None,
    dataset_name: str,
    split: str,
    photos: Path | None,
    figure: Path | None,
    vividness: float | None,
    strength: float,
) -> Result:
    """Measure a model, or every model and the baselines where `name` is None.

    Args:
        name: name or folder of a model.
        dataset_name, split: images to measure on.
        photos: folder of photos to measure on instead.
        figure: file for a figure of all models.
        vividness, strength: as in `Colorizer.predict`.
    """
    config.validate_dataset(dataset_name)
    entries = [_find_model(name)] if name is not None else [e for e in library.list_models() if not e.damage]
    if photos:
        load_photos(photos)  # This raises an error where there are no photos.
    else:
        dataset = datasets.load_dataset(dataset_name)
        images = dataset.split(split).images
        if not len(images):
            raise ConfigError(f"The data set {dataset_name} has no {split} images. Choose another split.")
    _import_tensorflow_quietly()
    measured = {}
    for entry in tqdm(entries, unit="model", file=sys.stderr, disable=name is not None):
        colorizer = load(entry.path)
        settings = {"vividness": vividness if name is not None or entry.vivid else None, "strength": strength}
        if photos:
            measured[entry.name] = evaluation.measure_photos(colorizer, load_photos(photos), **settings)
        else:
            measured[entry.name] = evaluation.measure(colorizer, dataset, split, **settings)
    if photos:
        return {"models": measured}, tables.photos(measured, photos)
    about = {"dataset": dataset_name, "split": split, "images": len(images)}
    title = f"on {dataset_name} {split}, {len(images):,} images"
    if name is not None:
        ((name, result),) = measured.items()
        text = f"{name} {title}\n\n{tables.one_model(name, result)}"
        return {"model": name, **about, "metrics": result.pop("model"), **result}, text
    baselines = {"gray copy": next(iter(measured.values()))["gray_copy"]} | evaluation.measure_baselines(images)
    metrics = {name: result["model"] for name, result in measured.items()} | baselines
    text = f"Models {title}\n\n{tables.all_models(measured, metrics, {e.name: e.card['parameters'] for e in entries})}"
    if figure:
        from colorizer.app import figures

        figures.save_figure(figures.metrics_chart(metrics, f"Models {title}"), figure)
        text += f"\n\n{figure}"
    return {**about, "models": measured, "baselines": baselines}, text


def colorize(
    name: str, paths: Sequence[Path], output: Path, overwrite: bool, address: str | None, **settings: Any
) -> Result:
    """Colorize pictures and folders of them.

    Args:
        name: name or folder of a model.
        paths: files and folders, as in `batch.plan_files`.
        output: folder for the results.
        overwrite: whether to make results again that are there.
        address: None to work in this process; otherwise `local` or HOST:PORT of a Ray cluster.
        settings: as in `Colorizer.colorize`.
    """
    entry = _find_model(name, paths)
    Colorizer(None, entry).check_settings(**settings)
    files = batch.plan_files(paths, output, overwrite)
    if address:
        from colorizer.jobs import archives

        done = archives.colorize_files(entry, files, output, address, overwrite, **settings)
    else:
        _import_tensorflow_quietly()
        done = batch.colorize_files(load(entry.path), files, **settings)
    result: dict[str, Any] = {"written": [], "skipped": [], "failed": []}
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints to stdout that a node died.
        for file in tqdm(done, total=len(files), unit="picture", file=sys.stderr, disable=len(files) < 2):
            if file.error:
                result["failed"].append({"file": str(file.source), "error": file.error})
                tqdm.write(f"{file.source}: {file.error}", file=sys.stderr)
            else:
                result["skipped" if file.skipped else "written"].append(str(file.target))
    lines = result["written"] or ["Nothing was written."]
    if skipped := len(result["skipped"]):
        lines = [*lines, f"{skipped} skipped, since the result is there; --overwrite makes it again."]
    return {"model": entry.name, **result}, "\n".join(lines)


def report(name: str, output: Path) -> Result:
    """Draw a model's loss curve, reconstructions and training into a folder."""
    from colorizer.app import figures

    entry = _find_model(name)
    samples = datasets.load_samples()
    stored = evaluation.stored_predictions(entry, "samples", "test")
    predictions = (stored or evaluation.predict_split(load(entry.path), samples)).at()
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
