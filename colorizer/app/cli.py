"""The command line: results on stdout, progress on stderr; exit code 1 for a failure, 2 for wrong usage."""

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from colorizer import config
from colorizer.app import commands
from colorizer.errors import ColorizerError
from colorizer.jobs.sweeps import LATENT_DIMS
from colorizer.presets import PRESETS


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
    subparsers = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Any, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=summary, description=summary, parents=parents)
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

    command = add("data", commands.show_data, "What data is here, where, and how large.")
    command.add_argument("--download", action="store_true", help="download the official CIFAR-10 (170 MB)")
    command.add_argument("--write-statistics", action="store_true", help="compute assets/cifar10-statistics.npz")

    add("models", commands.list_models, "The models in the library, best first.")

    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument("--preset", choices=list(PRESETS), default="dense")
    group = settings.add_argument_group("settings", "each overrides the preset's value")
    for name, setting in (config.ModelConfig.model_fields | config.TrainConfig.model_fields).items():
        option, kind = "--" + name.replace("_", "-"), type(setting.default)
        if kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        elif kind is tuple:
            group.add_argument(option, type=_whole_numbers, metavar="N,N,...")
        else:
            group.add_argument(option, type=kind, metavar=kind.__name__.upper())

    summary = "Train a model and put it into the library. Ctrl-C keeps what is learned so far."
    command = add("train", commands.train, summary, settings)
    command.add_argument("--name", help="of the new model (default: preset, date and time)")
    shelf = "save there instead of into your own library"
    command.add_argument("--library", type=lambda text: Path(text).absolute(), metavar="DIR", help=shelf)
    command.add_argument("--replace", action="store_true", help="overwrite a model of that name")
    summary = "Search settings with Ray Tune, or try bottlenecks; the best goes into the library and to the Train page."
    command = add("sweep", commands.run_sweep, summary, settings)
    command.add_argument("--name", help="of the sweep and its model (default: preset and what is tried)")
    dims = "try these bottlenecks instead; without numbers, those of 2 to 512 that suit the preset"
    command.add_argument(
        "--latent-dims", type=_whole_numbers, nargs="?", const=LATENT_DIMS, metavar="N,N,...", help=dims
    )
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

    command = add(
        "evaluate", commands.evaluate, "Measure a model; every metric stands beside the gray copy's.", colours
    )
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", help="of a model, or its folder")
    which.add_argument("--all", action="store_true", help="every model of the library, and the baselines, in one table")
    command.add_argument("--dataset", default="cifar10", help="as train takes it: cifar10, folder:PATH, ...")
    command.add_argument("--split", choices=("train", "validation", "test"), default="test")
    command.add_argument("--photos", type=Path, metavar="DIR", help="measure on the photos in that folder, full size")
    command.add_argument("--figure", type=Path, metavar="FILE", help="with --all, also draw them (PNG, SVG, PDF)")

    command = add("colorize", commands.colorize, "Colorize pictures; the results are PNG files.", pictures, colours)
    command.add_argument("files", nargs="+", type=Path, help="pictures, or folders with some at any depth")
    command.add_argument("--size", type=int, metavar="PIXELS", help="shorter side at which a U-Net sees a picture")
    command.add_argument("--overwrite", action="store_true", help="make results again that are there, not skip them")
    ray = "spread the work with Ray: `local` for the cores of this machine, or a cluster's HOST:PORT"
    command.add_argument("--ray", metavar="ADDRESS", help=ray)

    add("report", commands.report, "Draw a model's loss curve, its reconstructions, and how it learned.", pictures)
    return parser


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers like 512,128, received {text!r}") from None


def _positive(kind: type, text: str) -> float:
    with contextlib.suppress(ValueError):
        if (number := kind(text)) > 0:
            return number
    raise argparse.ArgumentTypeError(f"expected a number above 0, received {text!r}")
