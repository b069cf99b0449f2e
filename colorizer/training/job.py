"""Trains, saves and measures one model: what a training is, from its specification to the library."""

import os
import platform
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.data import datasets
from colorizer.models import evaluation, library
from colorizer.models.colorizer import Colorizer
from colorizer.pixels.color import to_luminance
from colorizer.pixels.images import PHOTOS, load_photo
from colorizer.presets import get_preset
from colorizer.training import transfer


def training_command(spec: TrainingSpec) -> str:
    """Return the command line that trains `spec` again: its preset, and every setting that differs from it."""
    preset = get_preset(spec.preset or "dense")
    words = ["python", "-m", "colorizer", "train", "--preset", preset.name]
    usual = preset.model.to_dict() | preset.train.to_dict()
    for key, value in (spec.model.to_dict() | spec.train.to_dict()).items():
        option = key.replace("_", "-")
        if isinstance(value, bool) and value != usual[key]:
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value != usual[key]:
            words += [f"--{option}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join([*words, "--name", spec.name])


def run_training(
    spec: TrainingSpec,
    on_event: Callable[[Any], None],
    should_stop: Callable[[], bool],
    on_stage: Callable[[str], None],
    folder: Path | None = None,
    replace: bool = False,
    checkpoint: Path | None = None,
    learning_rate_factor: Callable[[], float] = lambda: 1.0,
    picture: np.ndarray | None = None,
    run_id: str = "",
) -> library.ModelEntry:
    """Train a model, save it, then measure it.

    The card's metrics are those on `samples`; on `validation` and `test` of CIFAR-10 where it is prepared; and on
    `own_validation`, the validation images of any other data set that it was trained on.

    Args:
        on_stage: told `training`, `saving` and `measuring`; the model is in the library before it is measured.
        folder, replace: as in `library.save_model`.
        checkpoint: as in `loop.train`, as are the others; deleted when the model is saved.
        run_id: The run of the app that this training belongs to. The card keeps it under `run`.
    """
    library.check_name_is_free(spec.name, folder, replace)
    source = library.find_model(spec.train.init_from) if spec.train.init_from else None
    if source is not None:
        transfer.check_encoders(spec.model, source.model_config, source.name)
    dataset = datasets.load_dataset(spec.train.dataset)
    from colorizer.training import loop  # imports TensorFlow: after the checks that need none

    start = library.load_keras_model(source) if source is not None else None
    on_stage("training")
    result = loop.train(
        spec.model, spec.train, dataset, on_event, should_stop, checkpoint, start, learning_rate_factor, picture
    )
    on_stage("saving")
    colorizer = Colorizer(result.model, None)
    samples = datasets.load_samples()
    predictions = evaluation.predict_split(colorizer, samples)
    chroma = {name: colorizer.predict_chroma(to_luminance(load_photo(name)), colorizer.levels) for name in PHOTOS}
    card = {
        "name": spec.name,
        "preset": spec.preset,
        "command": training_command(spec),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git_commit(),
        "model": spec.model.to_dict(),
        "train": spec.train.to_dict(),
        "parameters": result.model.count_params(),
        "epochs_done": result.history["epoch"][-1],
        "stopped": result.stopped,
        "seconds": round(result.seconds, 1),
        "best_val_loss": min(result.history["val_loss"]),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("tensorflow", "keras", "numpy")},
        "metrics": {"samples": evaluation.measure(colorizer, datasets.load_dataset("samples"), "test")},
    }
    if run_id:
        card["run"] = run_id
    arrays = {
        "snapshots.npz": {
            "epochs": np.array([snapshot.epochs for snapshot in result.snapshots]),
            "images": np.stack([snapshot.images for snapshot in result.snapshots]),
        },
        "predictions.npz": {"samples": predictions.images, "samples_mse": predictions.mse}
        | {f"photo_{name}": planes.astype(np.float16) for name, planes in chroma.items()},
    }
    entry = library.save_model(spec.name, result.model, card, result.history, arrays, folder, replace)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    to_measure = {} if dataset.name in config.DATASETS else {"own_validation": (dataset, "validation")}
    if datasets.cifar10_status()["state"] == "prepared":
        to_measure |= {split: (datasets.load_dataset("cifar10"), split) for split in ("validation", "test")}
    if to_measure:
        on_stage("measuring")
        measured = {key: evaluation.measure(colorizer, *split) for key, split in to_measure.items()}
        entry = library.update_card(entry, metrics=entry.card["metrics"] | measured)
    return entry


def _git_commit() -> str | None:
    """Commit of the source tree, with a plus sign if it has changes; None outside a checkout."""
    try:
        root = Path(__file__).resolve().parent
        options = {"cwd": root, "capture_output": True, "text": True, "timeout": 5, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", "."], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")
