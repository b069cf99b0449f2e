"""The commands: each takes parsed options, and returns its result as a JSON object and as text."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from colorizer import config
from colorizer.app import tables
from colorizer.config import TrainingSpec
from colorizer.data import datasets
from colorizer.data.pictures import load_photos
from colorizer.errors import ConfigError, TrainingError
from colorizer.jobs import archives, batch, search, sweeps
from colorizer.models import evaluation, library
from colorizer.models.colorizer import Colorizer, load
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.presets import get_preset
from colorizer.training import job


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


def show_data(options: argparse.Namespace) -> tuple[dict, str]:
    """Say what data is here; download it, or compute its statistics."""
    if options.download:
        with tqdm(unit="B", unit_scale=True, desc="CIFAR-10", file=sys.stderr) as bar:

            def show(received: int, total: int) -> None:
                bar.total = total or None
                bar.update(received - bar.n)

            datasets.download_cifar10(show)
    if options.write_statistics:
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


def list_models(options: argparse.Namespace) -> tuple[dict, str]:
    """List the models in the library."""
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


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, settings of a preset among them."""
    return {name: value for name, value in vars(options).items() if value is not None}


def train(options: argparse.Namespace) -> tuple[dict, str]:
    """Train a model, and put it into the library."""
    preset = get_preset(options.preset)
    configurations = config.apply_settings(preset.model, preset.train, _given(options))
    name = options.name or config.default_name(options.preset)
    spec = TrainingSpec(config.validate_name(name), *configurations, options.preset)
    entry = _run_training(spec, options.library, options.replace)
    card = entry.card
    split, where = entry.reported
    text = (
        f"{'Stopped and saved' if card['stopped'] else 'Saved'} {entry.name} in {entry.path}\n"
        f"mse {entry.metric(split):.5f} on the {where}; gray copy {card['metrics'][split]['gray_copy']['mse']:.5f}"
    )
    return {"name": entry.name, "path": str(entry.path), "card": card}, text


def _run_training(spec: TrainingSpec, folder: Path | None, replace: bool) -> library.ModelEntry:
    """Train with progress on stderr; the first Ctrl-C ends it early."""
    name = spec.name
    library.check_name_is_free(name, folder, replace)
    _import_tensorflow_quietly()
    stop = threading.Event()

    def interrupt(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nStopping after this batch; what is learned so far is kept.", file=sys.stderr)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        with tqdm(desc=name, unit="batch", file=sys.stderr, mininterval=0.5) as bar:

            def show(event: Any) -> None:
                if type(event).__name__ == "Batch":
                    bar.total = event.steps
                    bar.set_postfix(loss=f"{event.loss:.5f}", refresh=False)
                    bar.update(event.step - bar.n)  # a resumed run does not start at 0
                elif type(event).__name__ == "Epoch":
                    losses = f"loss {event.loss:.5f}, validation {event.val_loss:.5f}"
                    bar.write(f"epoch {event.epoch}: {losses}, {event.seconds:.1f} s", file=sys.stderr)

            def tell(stage: str) -> None:
                bar.write(f"{stage} ...", file=sys.stderr)

            checkpoint = job.checkpoint_path(spec)
            return job.run_training(spec, show, stop.is_set, tell, folder, replace, checkpoint)
    finally:
        signal.signal(signal.SIGINT, previous)


def run_sweep(options: argparse.Namespace) -> tuple[dict, str]:
    """Run a sweep, then train and save its best configuration."""
    preset, given = get_preset(options.preset), _given(options)
    model, train = config.apply_settings(preset.model, preset.train, given)
    latent_dims, tried = options.latent_dims, "sweep" if options.latent_dims is None else "latent-dims"
    if latent_dims is sweeps.LATENT_DIMS:
        latent_dims = sweeps.suitable_latent_dims(model)
    elif latent_dims == ():
        raise ConfigError("--latent-dims takes whole numbers like 8,32,128, or none for those of 2 to 512.")
    name = options.name or f"{options.preset}-{tried}"
    plan = sweeps.plan_sweep(name, options.preset, model, train, given, latent_dims or ())
    if not options.resume:
        library.check_name_is_free(name)
    total = len(plan.choices.get("latent_dim", ())) or options.trials
    with (
        contextlib.redirect_stdout(sys.stderr),  # where Ray prints that a node died
        tqdm(desc=name, unit="trial", total=total, file=sys.stderr, delay=1) as bar,
    ):

        def show(trial: sweeps.Trial) -> None:
            bar.update()
            styles = {"learning_rate": ".2g"}
            settings = [f"{key} {format(value, styles.get(key, ''))}" for key, value in trial.settings.items()]
            result = trial.error or f"validation {trial.val_loss[-1]:.5f} after {len(trial.val_loss)} epochs"
            bar.write(f"{result}: {', '.join(settings)}", file=sys.stderr)

        done = search.run_sweep(plan, options.trials, options.time_budget, options.address, options.resume, show)
    if not done.finished:
        raise TrainingError(f"No trial of {name} came to its end. Go on with --resume, or give it more time.")
    best = done.configure(done.finished[0].settings)
    entry = next((entry for entry in library.list_models() if entry.name == name and not entry.damage), None)
    saved = entry and (entry.model_config, entry.train_config)
    if entry is None or entry.card.get("stopped") or saved != best:
        ours = saved in [done.configure(trial.settings) for trial in done.finished]
        entry = _run_training(TrainingSpec(name, *best, options.preset), None, replace=ours)
    text = f"{done.title}\n\n{tables.sweep(done.table())}\n\n{_draw(done)}\n"
    text += f"The best is in the library, and a preset of the Train page, as {name}."
    return {"name": name, "path": str(done.folder), "trials": done.table(), "model": entry.card}, text


def _draw(done: sweeps.Sweep) -> Path:
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


def evaluate(options: argparse.Namespace) -> tuple[dict, str]:
    """Measure a model, or all."""
    from colorizer.app import figures

    config.validate_dataset(options.dataset)
    entries = [entry for entry in library.list_models() if not entry.damage]
    if not options.all:
        entries = [library.find_model(options.name)]
    _import_tensorflow_quietly()
    if options.photos:
        photos = load_photos(options.photos)
        measure = partial(evaluation.measure_photos, photos=photos)
    else:
        dataset = datasets.load_dataset(options.dataset)
        images = dataset.split(options.split).images
        if not len(images):
            raise ConfigError(f"The data set {options.dataset} has no {options.split} images. Choose another split.")
        measure = partial(evaluation.measure, dataset=dataset, split=options.split)
    measured = {}
    for entry in tqdm(entries, unit="model", file=sys.stderr, disable=not options.all):
        vividness = options.vividness if not options.all or entry.vivid else None
        measured[entry.name] = measure(load(entry.path), vividness=vividness, strength=options.strength)
    if options.photos:
        title = f"Mean CIEDE2000 on {len(photos)} photos in {options.photos}"
        return {"models": measured}, f"{title}\n\n{tables.photos(measured)}"
    about = {"dataset": options.dataset, "split": options.split, "images": len(images)}
    title = f"on {options.dataset} {options.split}, {len(images):,} images"
    if not options.all:
        ((name, result),) = measured.items()
        text = f"{name} {title}\n\n{tables.one_model(name, result)}"
        return {"model": name, **about, "metrics": result.pop("model"), **result}, text
    baselines = {"gray copy": next(iter(measured.values()))["gray_copy"]} | evaluation.measure_baselines(images)
    metrics = {name: result["model"] for name, result in measured.items()} | baselines
    parameters = {entry.name: entry.card["parameters"] for entry in entries}
    text = f"Models {title}\n\n{tables.all_models(measured, metrics, parameters)}"
    if options.figure:
        figures.save_figure(figures.metrics_chart(metrics, f"Models {title}"), options.figure)
        text += f"\n\n{options.figure}"
    return {**about, "models": measured, "baselines": baselines}, text


def colorize(options: argparse.Namespace) -> tuple[dict, str]:
    """Colorize pictures, with Ray or without."""
    entry = library.find_model(options.name)
    settings = {name: getattr(options, name) for name in ("vividness", "strength", "size")}
    Colorizer(None, entry).check_settings(**settings)
    files = batch.plan_files(options.files, options.output, options.overwrite)
    if options.ray:
        done = archives.colorize_files(entry, files, options.output, options.ray, options.overwrite, **settings)
    else:
        _import_tensorflow_quietly()
        colorizer = load(entry.path)
        done = batch.colorize_files(colorizer, files, **settings)
    result: dict[str, list] = {"written": [], "skipped": [], "failed": []}
    with contextlib.redirect_stdout(sys.stderr):  # where Ray prints that a node died
        for file in tqdm(done, total=len(files), unit="picture", file=sys.stderr, disable=len(files) < 2):
            if file.error:
                result["failed"].append({"file": str(file.source), "error": file.error})
                tqdm.write(f"{file.source}: {file.error}", file=sys.stderr)
            else:
                result["skipped" if file.skipped else "written"].append(str(file.target))
    lines = result["written"] or ["Nothing was written."]
    if result["skipped"]:
        lines = [*lines, f"{len(result['skipped'])} skipped, which were there; --overwrite makes them again."]
    return {"model": entry.name, **result}, "\n".join(lines)


def report(options: argparse.Namespace) -> tuple[dict, str]:
    """Draw a model's loss curve, reconstructions and training."""
    from colorizer.app import figures

    entry = library.find_model(options.name)
    samples = datasets.load_samples()
    stored = evaluation.stored_predictions(entry, "samples", "test")
    predictions = (stored or evaluation.predict_split(load(entry.path), samples)).at()
    history = library.load_history(entry)
    title = f"Learning curve of {entry.name}"
    drawn = {"loss_curve_plot": figures.loss_curve(history, title, entry.gray_copy_loss)}
    for name, shown, title in (
        ("original_vs_grayscale_vs_reconstructed", range(10), f"{entry.name} on the built-in samples"),
        ("worst", predictions.mse.argsort()[:-7:-1], f"Where {entry.name} fails: its worst of the built-in samples"),
    ):
        originals, captions = samples.images[shown], [f"mse {mse:.4f}" for mse in predictions.mse[shown]]
        pictures = originals, to_uint8(gray_copy(originals)), predictions.images[shown]
        drawn[f"results_visualization/{name}"] = figures.comparison(*pictures, captions, title)
    written = [options.output / f"{name}.png" for name in drawn]
    for path, figure in zip(written, drawn.values(), strict=True):
        figures.save_figure(figure, path)
    if history["batch_loss"]:
        snapshots = library.load_arrays(entry, "snapshots.npz")
        originals = samples.images[list(datasets.SNAPSHOT_SAMPLES)]
        rows = to_uint8(gray_copy(originals)), originals
        written.append(options.output / "training.webp")
        figures.save_training_animation(written[-1], history, snapshots["epochs"], snapshots["images"], rows)
    return {"model": entry.name, "written": list(map(str, written))}, "\n".join(map(str, written))
