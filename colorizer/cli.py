"""The command line: results on stdout, progress on stderr; exit code 1 for a failure, 2 for wrong usage."""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from colorizer import config, data, library, sources, tables
from colorizer.errors import ColorizerError, ConfigError, TrainingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from colorizer.sweep import Sweep
    from colorizer.worker import TrainingSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        result, text = options.run(options)
        print(json.dumps(result, indent=2) if options.json else text, flush=True)
        return int(bool(result.get("failed")))
    except ColorizerError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error}. Check the disk and the paths given.", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m colorizer", description="Turn grayscale images into colour.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Any, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, parents=parents)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
        command.set_defaults(run=run)
        return command

    colours = argparse.ArgumentParser(add_help=False)
    vividness = f"of models with chroma bins, from 0 (safe) to 1 (bold); default {config.DEFAULT_VIVIDNESS}"
    colours.add_argument("--vividness", type=float, metavar="V", help=vividness)
    strength = f"factor on the chroma, from 0 (gray) to {config.MAX_STRENGTH:g}; default 1"
    colours.add_argument("--strength", type=float, default=1.0, metavar="S", help=strength)
    pictures = argparse.ArgumentParser(add_help=False)
    pictures.add_argument("name", help="of a model, or its folder")
    pictures.add_argument("--output", type=Path, required=True, metavar="DIR")

    command = add("data", _data, "What data is here, where, and how large.")
    command.add_argument("--download", action="store_true", help="download the official CIFAR-10 (170 MB)")
    command.add_argument("--write-statistics", action="store_true", help="compute assets/cifar10-statistics.npz")

    add("models", _models, "The models in the library, best first.")

    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument("--preset", choices=list(config.PRESETS), default="dense")
    group = settings.add_argument_group("settings", "each overrides the preset's value")
    for setting in (*dataclasses.fields(config.ModelConfig), *dataclasses.fields(config.TrainConfig)):
        option = "--" + setting.name.replace("_", "-")
        if setting.type is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        elif isinstance(setting.type, types.GenericAlias):
            group.add_argument(option, type=_whole_numbers, metavar="N,N,...")
        else:
            group.add_argument(option, type=setting.type, metavar=setting.type.__name__.upper())

    summary = "Train a model and put it into the library. Ctrl-C keeps what is learned so far."
    command = add("train", _train, summary, settings)
    command.add_argument("--name", help="of the new model (default: preset, date and time)")
    shelf = "save there instead of into your own library"
    command.add_argument("--library", type=lambda text: Path(text).absolute(), metavar="DIR", help=shelf)
    command.add_argument("--replace", action="store_true", help="overwrite a model of that name")
    summary = "Search settings with Ray Tune, or try bottlenecks; the best goes into the library and to the Train page."
    command = add("sweep", _sweep, summary, settings)
    command.add_argument("--name", help="of the sweep and its model (default: preset and what is tried)")
    dims = "try these bottlenecks instead; without numbers, those of 2 to 512 that suit the preset"
    command.add_argument("--latent-dims", type=_whole_numbers, nargs="?", const=(), metavar="N,N,...", help=dims)
    command.add_argument(
        "--trials", type=partial(_positive, int), default=20, metavar="N", help="of a search; default 20"
    )
    budget = "after which trials under way are given up; the best is still trained once more, to be saved"
    command.add_argument(
        "--time-budget", type=partial(_positive, float), default=math.inf, metavar="MINUTES", help=budget
    )
    where = "`local` for the cores of this machine, or a Ray cluster's HOST:PORT; default local"
    command.add_argument("--address", default="local", help=where)
    command.add_argument("--resume", action="store_true", help="go on with a sweep that was ended or killed")

    command = add("evaluate", _evaluate, "Measure a model; every metric stands beside the gray copy's.", colours)
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", help="of a model, or its folder")
    which.add_argument("--all", action="store_true", help="every model of the library, and the baselines, in one table")
    command.add_argument("--dataset", default="cifar10", help="as train takes it: cifar10, folder:PATH, ...")
    command.add_argument("--split", choices=("train", "validation", "test"), default="test")
    command.add_argument("--photos", type=Path, metavar="DIR", help="measure on the photos in that folder, full size")
    command.add_argument("--figure", type=Path, metavar="FILE", help="with --all, also draw them (PNG, SVG, PDF)")

    command = add("colorize", _colorize, "Colorize pictures; the results are PNG files.", pictures, colours)
    command.add_argument("files", nargs="+", type=Path, help="pictures, or folders with some at any depth")
    command.add_argument("--size", type=int, metavar="PIXELS", help="shorter side at which a U-Net sees a picture")
    command.add_argument("--overwrite", action="store_true", help="make results again that are there, not skip them")
    ray = "spread the work with Ray: `local` for the cores of this machine, or a cluster's HOST:PORT"
    command.add_argument("--ray", metavar="ADDRESS", help=ray)

    add("report", _report, "Draw a model's loss curve, its reconstructions, and how it learned.", pictures)
    return parser


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


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers like 512,128, received {text!r}") from None


def _data(options: argparse.Namespace) -> tuple[dict, str]:
    if options.download:
        with tqdm(unit="B", unit_scale=True, desc="CIFAR-10", file=sys.stderr) as bar:

            def show(received: int, total: int) -> None:
                bar.total = total or None
                bar.update(received - bar.n)

            data.download_cifar10(show)
    if options.write_statistics:
        data.save_statistics(data.compute_statistics(data.load_dataset("cifar10").train.images))

    datasets = {"cifar10": data.cifar10_status()}
    built_in = {
        "samples": (data.ASSETS / "samples", "samples/*.png"),
        "synthetic": (data.STATISTICS_PATH, "cifar10-*.npz"),
    }
    for name, (path, files) in built_in.items():
        size = sum(file.stat().st_size for file in data.ASSETS.glob(files))
        datasets[name] = {"state": "built in", "path": str(path), "bytes": size}
    home = str(config.home())
    rows = [[name, d["state"], f"{d['bytes'] / 1e6:.1f} MB", d["path"]] for name, d in datasets.items()]
    text = tables.layout(["data set", "state", "size", "where"], rows) + f"\n\nYour models and runs: {home}"
    return {"home": home, "datasets": datasets}, text


def _models(options: argparse.Namespace) -> tuple[dict, str]:
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


def _positive(kind: type, text: str) -> float:
    with contextlib.suppress(ValueError):
        if (number := kind(text)) > 0:
            return number
    raise argparse.ArgumentTypeError(f"expected a number above 0, received {text!r}")


def _configurations(options: argparse.Namespace) -> tuple[config.ModelConfig, config.TrainConfig, list[str]]:
    """The preset's two, with the settings that were given, and the names of those."""
    preset = config.get_preset(options.preset)
    both, names = [], []
    for base in (preset.model, preset.train):
        given = {setting.name: getattr(options, setting.name) for setting in dataclasses.fields(base)}
        given = {name: value for name, value in given.items() if value is not None}
        both.append(base.replace(**given))
        names += given
    return *both, names


def _train(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer.worker import TrainingSpec

    model, train, _ = _configurations(options)
    name = options.name or config.default_name(options.preset)
    spec = TrainingSpec(config.validate_name(name), model, train, options.preset)
    entry = _run_training(spec, options.library, options.replace)
    card = entry.card
    split, where = entry.reported
    text = (
        f"{'Stopped and saved' if card['stopped'] else 'Saved'} {entry.name} in {entry.path}\n"
        f"mse {entry.metric(split):.5f} on the {where}; gray copy {card['metrics'][split]['gray_copy']['mse']:.5f}"
    )
    return {"name": entry.name, "path": str(entry.path), "card": card}, text


def _run_training(spec: "TrainingSpec", folder: Path | None, replace: bool) -> library.ModelEntry:
    """Train with progress on stderr; the first Ctrl-C ends it early."""
    from colorizer.worker import run_training

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

            checkpoint = config.home() / "checkpoints" / f"{name}.npz"
            return run_training(spec, show, stop.is_set, tell, folder, replace, checkpoint)
    finally:
        signal.signal(signal.SIGINT, previous)


def _sweep(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import plotting, search, sweep
    from colorizer.worker import TrainingSpec

    model, train, given = _configurations(options)
    latent_dims, tried = options.latent_dims, "sweep" if options.latent_dims is None else "latent-dims"
    if latent_dims == ():
        latent_dims = sweep.suitable_latent_dims(model)
    name = options.name or f"{options.preset}-{tried}"
    plan = sweep.plan_sweep(name, options.preset, model, train, given, latent_dims or ())
    if not options.resume:
        library.check_name_is_free(name)
    total = len(latent_dims) if latent_dims else options.trials
    with (
        contextlib.redirect_stdout(sys.stderr),  # where Ray prints that a node died
        tqdm(desc=name, unit="trial", total=total, file=sys.stderr) as bar,
    ):

        def show(trial: sweep.Trial) -> None:
            bar.update()
            tried = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
            result = trial.error or f"validation {trial.val_loss[-1]:.5f} after {len(trial.val_loss)} epochs"
            bar.write(f"{result}: {tried}", file=sys.stderr)

        done = search.run_sweep(plan, options.trials, options.time_budget, options.address, options.resume, show)
    if not done.finished:
        raise TrainingError(f"No trial of {name} came to its end. Go on with --resume, or give it more time.")
    best = done.configure(done.finished[0].settings)
    entry = next((entry for entry in library.list_models() if entry.name == name and not entry.damage), None)
    if entry is None or (entry.model_config, entry.train_config) != best:
        entry = _run_training(TrainingSpec(name, *best, options.preset), None, options.resume)
    figure = done.folder / "sweep.png"
    plotting.save_figure(_sweep_figure(done), figure)
    text = f"{done.title}\n\n{tables.sweep(done.table())}\n\n{figure}\n"
    text += f"The best is in the library, and a preset of the Train page, as {name}."
    return {"name": name, "path": str(done.folder), "trials": done.table(), "model": entry.card}, text


def _sweep_figure(sweep: "Sweep") -> "Figure":
    from colorizer import plotting

    rows = sweep.table()
    if sweep.closed_form:
        losses = {"trained": "val_loss", "closed form: the best linear autoencoder": "closed_form"}
        losses = {label: [row[name] for row in rows] for label, name in losses.items()}
        return plotting.bottleneck_curve([row["latent_dim"] for row in rows], losses, sweep.title)
    coordinates = sweep.coordinates()
    heights, ticks = ({c.name: getattr(c, name) for c in coordinates} for name in ("heights", "ticks"))
    finished = [row["epochs"] == sweep.train.epochs for row in rows if row["val_loss"]]
    return plotting.parallel_coordinates(heights, ticks, finished, sweep.title)


def _evaluate(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import evaluation, inference, plotting

    config.validate_dataset(options.dataset)
    entries = [entry for entry in library.list_models() if not entry.damage]
    if not options.all:
        entries = [library.find_model(options.name)]
    _import_tensorflow_quietly()
    if options.photos:
        photos = sources.load_photos(options.photos)
        measure = partial(evaluation.measure_photos, photos=photos)
    else:
        dataset = data.load_dataset(options.dataset)
        images = dataset.split(options.split).images
        if not len(images):
            raise ConfigError(f"The data set {options.dataset} has no {options.split} images. Choose another split.")
        measure = partial(evaluation.measure, dataset=dataset, split=options.split)
    measured = {}
    for entry in tqdm(entries, unit="model", file=sys.stderr, disable=not options.all):
        vividness = options.vividness if not options.all or entry.vivid else None
        measured[entry.name] = measure(inference.load(entry.path), vividness=vividness, strength=options.strength)
    if options.photos:
        title = f"Mean CIEDE2000 on {len(photos)} photos in {options.photos}"
        return {"models": measured}, f"{title}\n\n{tables.photos(measured)}"
    about = {"dataset": options.dataset, "split": options.split, "images": len(images)}
    title = f"on {options.dataset} {options.split}, {len(images):,} images"
    if not options.all:
        ((name, result),) = measured.items()
        text = f"{name} {title}\n\n{tables.one_model(name, result)}"
        return {"model": name, **about, "metrics": result.pop("model"), **result}, text
    gray_copy = next(iter(measured.values()))["gray_copy"]
    baselines = {"gray copy": gray_copy} | evaluation.measure_baselines(images)
    metrics = {name: result["model"] for name, result in measured.items()} | baselines
    parameters = {entry.name: entry.card["parameters"] for entry in entries}
    text = f"Models {title}\n\n{tables.all_models(measured, metrics, parameters)}"
    if options.figure:
        plotting.save_figure(plotting.metrics_chart(metrics, f"Models {title}"), options.figure)
        text += f"\n\n{options.figure}"
    return {**about, "models": measured, "baselines": baselines}, text


def _colorize(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import batch, cluster, inference

    entry = library.find_model(options.name)
    inference.check_strength(options.strength)
    settings = {name: getattr(options, name) for name in ("vividness", "strength", "size")}
    if options.ray:
        files = batch.plan_files(options.files, options.output, options.overwrite)
        done = cluster.colorize_files(entry, files, options.output, options.ray, options.overwrite, **settings)
    else:
        _import_tensorflow_quietly()
        colorizer = inference.load(entry.path)
        colorizer.check_vividness(options.vividness)
        colorizer.check_size(options.size)
        files = batch.plan_files(options.files, options.output, options.overwrite)
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


def _report(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import evaluation, inference, plotting
    from colorizer.color import gray_copy, to_uint8

    entry = library.find_model(options.name)
    samples = data.load_samples()
    stored = evaluation.stored_predictions(entry, "samples", "test")
    predictions = (stored or evaluation.predict_split(inference.load(entry.path), samples)).at()
    history = library.load_history(entry)
    title = f"Learning curve of {entry.name}"
    figures = {"loss_curve_plot": plotting.loss_curve(history, title, entry.gray_copy_loss)}
    for name, shown, title in (
        ("original_vs_grayscale_vs_reconstructed", range(10), f"{entry.name} on the built-in samples"),
        ("worst", predictions.mse.argsort()[:-7:-1], f"Where {entry.name} fails: its worst of the built-in samples"),
    ):
        originals, captions = samples.images[shown], [f"mse {mse:.4f}" for mse in predictions.mse[shown]]
        pictures = originals, to_uint8(gray_copy(originals)), predictions.images[shown]
        figures[f"results_visualization/{name}"] = plotting.comparison(*pictures, captions, title)
    written = [options.output / f"{name}.png" for name in figures]
    for path, figure in zip(written, figures.values(), strict=True):
        plotting.save_figure(figure, path)
    if history["batch_loss"]:
        snapshots = library.load_arrays(entry, "snapshots.npz")
        originals = samples.images[list(data.SNAPSHOT_SAMPLES)]
        rows = to_uint8(gray_copy(originals)), originals
        written.append(options.output / "training.webp")
        plotting.save_training_animation(written[-1], history, snapshots["epochs"], snapshots["images"], rows)
    return {"model": entry.name, "written": list(map(str, written))}, "\n".join(map(str, written))
