"""The command line: results on stdout, progress on stderr; exit code 1 for a failure, 2 for wrong usage."""

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from colorizer import config, data, library
from colorizer.config import ModelConfig, TrainConfig
from colorizer.errors import ColorizerError, ConfigError, ImageError
from colorizer.metrics import METRICS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        result, text = options.run(options)
        print(json.dumps(result, indent=2) if options.json else text, flush=True)
    except ColorizerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {error}. Check the disk and the paths given.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    return int(bool(result.get("failed")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m colorizer", description="Turn grayscale images into colour.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
        command.set_defaults(run=run)
        return command

    command = add("data", _data, "What data is here, where, and how large.")
    command.add_argument("--download", action="store_true", help="download the official CIFAR-10 (170 MB)")
    command.add_argument(
        "--write-statistics", action="store_true", help="compute assets/cifar10-statistics.npz from the training images"
    )

    add("models", _models, "The models in the library, best first.")

    command = add("train", _train, "Train a model and put it into the library. Ctrl-C keeps what is learned so far.")
    command.add_argument("--preset", choices=list(config.PRESETS), default="dense")
    command.add_argument("--name", help="of the new model (default: preset, date and time)")
    command.add_argument(
        "--library",
        type=lambda text: Path(text).absolute(),
        metavar="DIR",
        help="save there instead of into your own library",
    )
    command.add_argument("--replace", action="store_true", help="overwrite a model of that name")
    group = command.add_argument_group("settings", "each overrides the preset's value")
    for cls in (ModelConfig, TrainConfig):
        for setting in dataclasses.fields(cls):
            option = "--" + setting.name.replace("_", "-")
            if setting.type is bool:
                group.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
            elif isinstance(setting.type, types.GenericAlias):
                group.add_argument(option, type=_widths, metavar="N,N,...")
            else:
                group.add_argument(option, type=setting.type, metavar=setting.type.__name__.upper())

    vividness = f"of models with chroma bins, from 0 (safe) to 1 (bold); default {config.DEFAULT_VIVIDNESS}"
    strength = f"factor on the chroma, from 0 (gray) to {config.MAX_STRENGTH:g}; default 1"
    command = add("evaluate", _evaluate, "Measure a model; every metric stands beside the gray copy's.")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", help="of a model, or its folder")
    which.add_argument("--all", action="store_true", help="every model of the library, and the baselines, in one table")
    command.add_argument("--dataset", default="cifar10", help="as train takes it: cifar10, folder:PATH, ...")
    command.add_argument("--split", choices=("train", "validation", "test"), default="test")
    command.add_argument(
        "--photos", type=Path, metavar="DIR", help="measure on the photos in that folder, at their own resolution"
    )
    command.add_argument(
        "--figure", type=Path, metavar="FILE", help="with --all, also draw the metrics (PNG, SVG, PDF)"
    )
    command.add_argument("--vividness", type=float, metavar="V", help=vividness)
    command.add_argument("--strength", type=float, default=1.0, metavar="S", help=strength)

    command = add("colorize", _colorize, "Colorize pictures; the results are PNG files.")
    command.add_argument("name", help="of a model, or its folder")
    command.add_argument("files", nargs="+", type=Path)
    command.add_argument("--output", type=Path, required=True, metavar="DIR")
    command.add_argument("--vividness", type=float, metavar="V", help=vividness)
    command.add_argument("--strength", type=float, default=1.0, metavar="S", help=strength)

    command = add("report", _report, "Draw a model's loss curve and its reconstructions.")
    command.add_argument("name", help="of a model, or its folder")
    command.add_argument("--output", type=Path, required=True, metavar="DIR")
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


def _widths(text: str) -> tuple[int, ...]:
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
    cifar10 = data.cifar10_status()
    samples = sum(path.stat().st_size for path in (data.ASSETS / "samples").glob("*.png"))
    result = {
        "home": str(config.home()),
        "datasets": {
            "cifar10": cifar10,
            "samples": {"state": "built in", "path": str(data.ASSETS / "samples"), "bytes": samples},
            "synthetic": {
                "state": "built in",
                "path": str(data.STATISTICS_PATH),
                "bytes": data.STATISTICS_PATH.stat().st_size if data.STATISTICS_PATH.exists() else 0,
            },
        },
    }
    rows = [[name, d["state"], f"{d['bytes'] / 1e6:.1f} MB", d["path"]] for name, d in result["datasets"].items()]
    return result, _table(["data set", "state", "size", "where"], rows) + f"\n\nYour models and runs: {result['home']}"


def _models(options: argparse.Namespace) -> tuple[dict, str]:
    entries = library.list_models()
    rows, result = [], []
    for entry in entries:
        if entry.damage:
            rows.append([entry.name, "damaged", "", "", "", entry.damage])
            result.append({"name": entry.name, "path": str(entry.path), "damage": entry.damage})
            continue
        test, samples = entry.metric("test"), entry.metric("samples")
        rows.append(
            [
                entry.name,
                entry.card["preset"] or "",
                str(entry.model_config.latent_dim),
                f"{test:.5f}" if test is not None else "-",
                f"{samples:.5f}" if samples is not None else "-",
                "shipped" if entry.shipped else "yours",
            ]
        )
        result.append({"name": entry.name, "path": str(entry.path), "shipped": entry.shipped, "card": entry.card})
    header = ["model", "preset", "latent_dim", "test mse", "samples mse", ""]
    return {"models": result}, _table(header, rows)


def _train(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer.worker import TrainingSpec, run_training

    preset = config.get_preset(options.preset)
    chosen = {key: value for key, value in vars(options).items() if value is not None}
    model, train = (
        base.replace(**{f.name: chosen[f.name] for f in dataclasses.fields(base) if f.name in chosen})
        for base in (preset.model, preset.train)
    )
    name = options.name or config.default_name(options.preset)
    spec = TrainingSpec(config.validate_name(name), model, train, options.preset)
    library.check_name_is_free(name, options.library, options.replace)
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
                    bar.write(
                        f"epoch {event.epoch}: loss {event.loss:.5f}, validation {event.val_loss:.5f}, "
                        f"{event.seconds:.1f} s",
                        file=sys.stderr,
                    )

            entry = run_training(
                spec,
                show,
                stop.is_set,
                lambda stage: bar.write(f"{stage} ...", file=sys.stderr),
                options.library,
                options.replace,
                config.home() / "checkpoints" / f"{name}.npz",
            )
    finally:
        signal.signal(signal.SIGINT, previous)
    card = entry.card
    split, where = entry.reported
    text = (
        f"{'Stopped and saved' if card['stopped'] else 'Saved'} {entry.name} in {entry.path}\n"
        f"mse {entry.metric(split):.5f} on the {where}; gray copy {card['metrics'][split]['gray_copy']['mse']:.5f}"
    )
    return {"name": entry.name, "path": str(entry.path), "card": card}, text


def _evaluate(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import inference

    config.validate_dataset(options.dataset)
    entries = [entry for entry in library.list_models() if not entry.damage]
    if not options.all:
        entries = [library.find_model(options.name)]
    _import_tensorflow_quietly()
    colorizers = [inference.load(entry.path) for entry in entries]
    vividness = [options.vividness if not options.all or entry.vivid else None for entry in entries]
    bar = tqdm(
        zip(colorizers, vividness, strict=True),
        total=len(entries),
        unit="model",
        file=sys.stderr,
        disable=len(entries) < 2,
    )
    return _evaluate_photos(options, bar) if options.photos else _evaluate_split(options, bar)


def _evaluate_photos(options: argparse.Namespace, chosen: Iterable) -> tuple[dict, str]:
    from colorizer import evaluation
    from colorizer.images import SUFFIXES, decode_image

    files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ConfigError(f"There are no pictures in {options.photos}. Name a folder with some.")
    photos = []
    for path in files:
        try:
            photos.append(decode_image(path.read_bytes()))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
    measured = {
        colorizer.entry.name: evaluation.measure_photos(colorizer, photos, vividness, options.strength)
        for colorizer, vividness in chosen
    }
    rows = [
        [name, f"{m['delta_e']:.2f}", f"{m['gray_copy']:.2f}", f"{m['ratio']:.3f}", f"{m['better']} of {m['photos']}"]
        for name, m in measured.items()
    ]
    title = f"Mean CIEDE2000 on {len(photos)} photos in {options.photos}\n\n"
    return {"models": measured}, title + _table(["model", "delta_e", "gray copy", "ratio", "better"], rows)


def _evaluate_split(options: argparse.Namespace, chosen: Iterable) -> tuple[dict, str]:
    from colorizer import evaluation, plotting

    dataset = data.load_dataset(options.dataset)
    images = dataset.split(options.split).images
    if not len(images):
        raise ConfigError(f"The data set {options.dataset} has no {options.split} images. Choose another split.")
    entries = {}
    measured = {}
    for colorizer, vividness in chosen:
        entries[colorizer.entry.name] = colorizer.entry
        measured[colorizer.entry.name] = evaluation.measure(
            colorizer, dataset, options.split, vividness, options.strength
        )
    about = {"dataset": options.dataset, "split": options.split, "images": len(images)}
    first = next(iter(measured.values()))
    title = f"on {options.dataset} {options.split}, {len(images):,} images"
    if not options.all:
        name = next(iter(entries))
        rows = [
            [metric, *(format(first[of][metric], style) for of in ("model", "gray_copy")), f"{better} is better"]
            for metric, (better, style) in METRICS.items()
        ]
        result = {"model": name, **about, "metrics": first["model"]} | {
            key: first[key] for key in ("gray_copy", "classes", "gray_copy_classes")
        }
        text = f"{name} {title}\n\n" + _table(["metric", name, "gray copy", ""], rows)
        classes = [
            [of, f"{mse:.5f}", f"{gray:.5f}", f"{mse / gray:.2f}"]
            for (of, mse), gray in zip(first["classes"].items(), first["gray_copy_classes"].values(), strict=True)
        ]
        return result, text + (
            f"\n\n{_table(['mse by class', name, 'gray copy', 'ratio'], classes)}" if classes else ""
        )
    baselines = {"gray copy": first["gray_copy"]} | evaluation.measure_baselines(images)
    table = {name: result["model"] for name, result in measured.items()} | baselines
    parameters = {name: f"{entry.card['parameters']:,}" for name, entry in entries.items()}
    rows = [
        [name, parameters.get(name, "0"), *(format(values[metric], style) for metric, (_, style) in METRICS.items())]
        for name, values in table.items()
    ]
    text = f"Models {title}\n\n{_table(['model', 'parameters', *METRICS], rows)}"
    if first["classes"]:
        by_class = {name: result["classes"] for name, result in measured.items()}
        by_class |= {"gray copy": first["gray_copy_classes"]}
        classes = [[name, *(f"{mse:.5f}" for mse in errors.values())] for name, errors in by_class.items()]
        text += f"\n\nmse by class\n\n{_table(['model', *first['classes']], classes)}"
    if options.figure:
        _write_figure(plotting.metrics_chart(table, f"Models {title}"), options.figure)
        text += f"\n\n{options.figure}"
    return {**about, "models": measured, "baselines": baselines}, text


def _colorize(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import inference
    from colorizer.images import decode_image, encode_png

    library.find_model(options.name)
    _import_tensorflow_quietly()
    colorizer = inference.load(options.name)
    colorizer.check_vividness(options.vividness)
    inference.check_strength(options.strength)
    written: list[str] = []
    failed: list[dict[str, str]] = []
    for path in tqdm(options.files, unit="picture", file=sys.stderr, disable=len(options.files) < 2):
        try:
            if not path.is_file():
                raise ImageError("There is no such file.")
            target = options.output / f"{path.stem}.png"
            if target.exists() and target.samefile(path):
                raise ImageError("The result would overwrite this file. Choose another --output folder.")
            if str(target) in written:
                raise ImageError(f"Another file has just become {target}. Rename one of them, or colorize it apart.")
            options.output.mkdir(parents=True, exist_ok=True)
            target.write_bytes(
                encode_png(colorizer.colorize(decode_image(path.read_bytes()), options.vividness, options.strength))
            )
            written.append(str(target))
        except (ColorizerError, OSError) as error:
            failed.append({"file": str(path), "error": str(error)})
            tqdm.write(f"{path}: {error}", file=sys.stderr)
    text = "\n".join(written) or "Nothing was written."
    return {"model": colorizer.entry.name, "written": written, "failed": failed}, text


def _report(options: argparse.Namespace) -> tuple[dict, str]:
    from colorizer import evaluation, inference, plotting
    from colorizer.color import gray_copy, to_uint8

    entry = library.find_model(options.name)
    samples = data.load_samples()
    predictions = evaluation.stored_predictions(entry, "samples", "test")
    if predictions is None:
        predictions = evaluation.predict_split(inference.load(entry.path), samples)
    predictions = predictions.at()

    def compare(shown: Any, title: str) -> Any:
        return plotting.comparison(
            samples.images[shown],
            to_uint8(gray_copy(samples.images[shown])),
            predictions.images[shown],
            [f"mse {mse:.4f}" for mse in predictions.mse[shown]],
            title,
        )

    figures = {
        "loss_curve_plot.png": plotting.loss_curve(
            library.load_history(entry), f"Learning curve of {entry.name}", entry.gray_copy_loss
        ),
        "results_visualization/original_vs_grayscale_vs_reconstructed.png": compare(
            slice(0, 10), f"{entry.name} on the built-in samples"
        ),
        "results_visualization/worst.png": compare(
            predictions.mse.argsort()[:-7:-1], f"Where {entry.name} fails: its worst of the built-in samples"
        ),
    }
    written = []
    for name, figure in figures.items():
        _write_figure(figure, options.output / name)
        written.append(str(options.output / name))
    return {"model": entry.name, "written": written}, "\n".join(written)


def _write_figure(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:  # Matplotlib: an unknown suffix
        raise ConfigError(f"{path} cannot be written ({error}). Choose another file name or folder.") from error


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a plain-text table; columns of numbers are set flush right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1].isdigit() or cell == "-" for cell in column[1:] if cell) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
