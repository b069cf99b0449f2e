"""Defines the commands `train` and `sweep`. Progress goes to stderr, and Ctrl-C keeps the model."""

import contextlib
import math
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from colorizer import config
from colorizer.app import tables
from colorizer.app.options import DEFAULT_PRESET, Preset, Result, read_number, read_path, read_whole_numbers
from colorizer.errors import ConfigError, TrainingError
from colorizer.models import library
from colorizer.presets import PRESETS
from colorizer.training import job


def train(
    settings: dict[str, Any],
    preset: Preset = DEFAULT_PRESET,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Give the new model this name.", show_default="preset, date and time")
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--library",
            metavar="DIR",
            parser=read_path,
            help="Save the model into this folder instead of your library.",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an existing model of the same name.")] = False,
) -> Result:
    """Train a model and put it into the library.

    A setting that you give replaces that of the preset; the defaults below are those of the preset dense. Ctrl-C ends
    the training early and saves what the model has learned.
    """
    configurations = config.apply_settings(PRESETS[preset].model, PRESETS[preset].train, settings)
    name = config.validate_name(name or config.default_name(preset))
    entry = _run_training(config.TrainingSpec(name, *configurations, preset), folder and folder.absolute(), replace)
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


def sweep(
    settings: dict[str, Any],
    preset: Preset = DEFAULT_PRESET,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Give the sweep and its model this name.", show_default="preset and what is tried"
        ),
    ] = "",
    latent_dims: Annotated[
        Any,
        typer.Option(
            metavar="[N,N,...]",
            parser=lambda text: text if text == "all" else read_whole_numbers(text),
            help="Train each of these bottleneck widths instead of searching; without numbers, those from 2 to 512 "
            "that suit the preset are trained.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(metavar="N", parser=read_number(int), help="Search with this many trials, at least 1.")
    ] = 20,
    time_budget: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            parser=read_number(float),
            help="Stop the unfinished trials after this time; the best is then trained once more.",
            show_default="no limit",
        ),
    ] = math.inf,
    address: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Use the cores of this machine (`local`), or a Ray cluster (HOST:PORT)."),
    ] = "local",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a sweep that was stopped or killed.")] = False,
) -> Result:
    """Try many settings or bottleneck widths, and train the best.

    Ray runs the trials. The best goes into the library and becomes a preset of the Train page. A setting that you give
    has the same value in all trials; the defaults below are those of the preset dense.
    """
    for option, number in (("--trials", trials), ("--time-budget", time_budget)):
        if not number > 0:  # The comparison also refuses nan.
            raise typer.BadParameter(f"{option} must be a number above 0, received {number:g}.")
    from colorizer.jobs import search, sweeps

    configurations = config.apply_settings(PRESETS[preset].model, PRESETS[preset].train, settings)
    name = name or f"{preset}-{'sweep' if latent_dims is None else 'latent-dims'}"
    if latent_dims == "all":
        latent_dims = sweeps.suitable_latent_dims(configurations[0])
    elif latent_dims == ():
        raise ConfigError("--latent-dims takes whole numbers like 8,32,128, or no value for those of 2 to 512.")
    plan = sweeps.plan_sweep(name, preset, *configurations, settings, latent_dims or ())
    if not resume:
        library.check_name_is_free(name)
    total = len(plan.choices.get("latent_dim", ())) or trials
    with (
        contextlib.redirect_stdout(sys.stderr),  # Ray prints to stdout that a node died.
        tqdm(desc=name, unit="trial", total=total, file=sys.stderr, delay=1) as bar,
    ):

        def show(trial: Any) -> None:
            bar.update()
            tried = [
                f"{key} {value:.2g}" if key == "learning_rate" else f"{key} {value}"
                for key, value in trial.settings.items()
            ]
            result = trial.error or f"validation {trial.val_loss[-1]:.5f} after {len(trial.val_loss)} epochs"
            bar.write(f"{result}: {', '.join(tried)}", file=sys.stderr)

        done = search.run_sweep(plan, trials, time_budget, address, resume, show)
    if not done.finished:
        raise TrainingError(f"No trial of {name} was finished. Go on with --resume, or give it more time.")
    best = done.configure(done.finished[0].settings)
    entry = next((entry for entry in library.list_models() if entry.name == name and not entry.damage), None)
    saved = entry and (entry.model_config, entry.train_config)
    if entry is None or entry.card.get("stopped") or saved != best:
        ours = saved in [done.configure(trial.settings) for trial in done.finished]
        entry = _run_training(config.TrainingSpec(name, *best, preset), None, replace=ours)
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
