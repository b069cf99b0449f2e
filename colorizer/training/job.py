"""Runs one training: checks its settings, trains the model, saves it in the library and measures it."""

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.data import datasets
from colorizer.errors import TrainingError
from colorizer.models import evaluation, library
from colorizer.models.colorizer import Colorizer
from colorizer.models.network import Network
from colorizer.pixels.color import to_luminance
from colorizer.pixels.images import PHOTOS, load_photo, resize_planes
from colorizer.presets import get_preset
from colorizer.training import shapes
from colorizer.training.inputs import check_backbone, open_training_photos

_log = logging.getLogger(__name__)
_FIXED_BYTES = 4 * 2**20  # The snapshots and predictions of a model take less than this.


def training_command(spec: TrainingSpec) -> str:
    """Return the command line that repeats a training: its preset, and every setting that differs from the preset."""
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


def checkpoint_path(spec: TrainingSpec) -> Path:
    """Return where the command line keeps the checkpoint of a training.

    The file is named after the model. A default name contains the time, so it would differ when the same command is
    given again. The file of such a training is named after a hash of its settings instead, and is found again.
    """
    stem = spec.name
    if re.fullmatch(rf"{re.escape(str(spec.preset))}-\d{{8}}-\d{{6}}", spec.name):
        settings = json.dumps([spec.model.to_dict(), spec.train.to_dict()], sort_keys=True)
        stem = f"{spec.preset}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
    return config.home() / "checkpoints" / f"{stem}.npz"


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
    own_pictures: np.ndarray | None = None,
    run_id: str = "",
    on_warning: Callable[[str], None] = _log.warning,
) -> library.ModelEntry:
    """Train a model, save it, then measure it.

    The name, the free space on the disk, the data set, the photos and the backbone's weights are checked before
    TensorFlow is imported. The card holds the metrics on `samples`; on `validation` and `test` of CIFAR-10, if it is
    prepared; and on `own_validation`, the validation images of any other data set that the model was trained on. The
    card's `best_epoch` is the epoch whose weights are saved, and `best_val_loss` is the validation loss with these
    weights. The card of a `backbone` says where its ImageNet weights come from.

    Args:
        spec: the name and the settings of the model.
        on_event, should_stop, learning_rate_factor, picture, on_warning: as in `loop.train`.
        on_stage: called with `training`, `saving` and `measuring`; the model is saved before it is measured.
        folder, replace: as in `library.save_model`.
        checkpoint: as in `loop.train`; it is deleted when the model is saved.
        own_pictures: for the data set `own`, its images, uint8 (N, 32, 32, 3).
        run_id: the run of the app that this training belongs to. The card keeps it under `run`.

    Raises:
        ModelError: the name is taken, or the model cannot be saved.
        TrainingError: another process trains a model of this name, the disk has no room or cannot be written, or a
            loss is not finite.
        ConfigError, DataError: the settings, the data set, the photos or the backbone's weights cannot be used.
    """
    source = library.find_model(spec.train.init_from) if spec.train.init_from else None
    if source is not None:
        shapes.check_encoders(spec.model, source.model_config, source.name)
    origin = check_backbone(spec.model, spec.train, None if source is None else source.card)
    with _claim_places(spec, folder or library.user_folder(), checkpoint):
        library.check_name_is_free(spec.name, folder, replace)
        has_own = own_pictures is not None
        dataset = datasets.own_dataset(own_pictures) if has_own else datasets.load_dataset(spec.train.dataset)
        if spec.model.architecture == "backbone":
            open_training_photos(spec.train)  # The first time, this decodes them into a cache.
        import_tensorflow_quietly()  # This is slow, so all checks come first.
        from colorizer.training import export, loop

        start = export.load_keras_model(source) if source is not None else None
        on_stage("training")
        arguments = (dataset, on_event, should_stop, checkpoint, start, learning_rate_factor, picture, on_warning)
        result = loop.train(spec.model, spec.train, *arguments)
        on_stage("saving")
        graph = export.export_network(result.model)
        colorizer = Colorizer(Network(graph), None)
        card = _make_card(spec, result, colorizer) | {"run": run_id, "backbone": origin}
        arrays = _make_arrays(result, colorizer)
        entry = library.save_model(spec.name, result.model, graph, card, result.history, arrays, folder, replace)
        on_stage("measuring")
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    to_measure = {} if dataset.name in config.DATASETS else {"own_validation": (dataset, "validation")}
    if datasets.cifar10_status()["state"] == "prepared":
        to_measure |= {split: (datasets.load_dataset("cifar10"), split) for split in ("validation", "test")}
    measured = {key: evaluation.measure(colorizer, *split) for key, split in to_measure.items()}
    return library.update_card(entry, metrics=entry.card["metrics"] | measured) if measured else entry


@contextlib.contextmanager
def _claim_places(spec: TrainingSpec, folder: Path, checkpoint: Path | None) -> Iterator[None]:
    """Lock the model's name and its checkpoint, and check that their folders can be written and have enough space."""
    weights = 4 * shapes.count(spec.model)[0]
    locks, size = [folder / f".{spec.name}.lock"], weights + _FIXED_BYTES
    if checkpoint is not None:
        # A checkpoint holds the weights, the best epoch's weights, and two numbers of Adam for each weight. The last
        # checkpoint is deleted only when the next one is complete, so there must be room for two.
        locks.append(checkpoint.with_suffix(".lock"))
        size += 2 * 4 * weights + _FIXED_BYTES
    with contextlib.ExitStack() as stack:
        for lock in locks:
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(lock, timeout=0))
                stack.callback(_unlink_lock, lock)
                free = shutil.disk_usage(lock.parent).free
            except filelock.Timeout:
                raise TrainingError(
                    f"Another process is training {spec.name} now. Wait until it has ended, or choose another name."
                ) from None
            except OSError as error:
                raise TrainingError(
                    f"The folder {lock.parent} cannot be written ({error.strerror or error}), so nothing could be "
                    "saved. Free some space, or set COLORIZER_HOME to another folder."
                ) from error
            if free < size:
                raise TrainingError(
                    f"The disk of {lock.parent} has {free / 1e6:.0f} MB free, and this training needs "
                    f"{size / 1e6:.0f} MB. Free some space, or set COLORIZER_HOME to another folder."
                )
        yield


def _unlink_lock(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows cannot delete an open file.
        path.unlink()


def _make_card(spec: TrainingSpec, result: Any, colorizer: Colorizer) -> dict[str, Any]:
    """Return the card of a model from `result`, which `loop.train` returned, with its metrics on the samples."""
    return {
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
        "best_epoch": result.history["epoch"][result.best],
        "best_val_loss": result.history["val_loss"][result.best],
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("tensorflow", "keras", "numpy")},
        "metrics": {"samples": evaluation.measure(colorizer, datasets.load_dataset("samples"), "test")},
    }


def _make_arrays(result: Any, colorizer: Colorizer) -> dict[str, dict[str, np.ndarray]]:
    """Return the snapshots of a training, and the model's predictions for the samples and the built-in photos."""
    predictions = evaluation.predict_split(colorizer, datasets.load_samples())
    chroma = {name: colorizer.predict_chroma(to_luminance(load_photo(name)), colorizer.levels) for name in PHOTOS}
    if colorizer.scale.boost:  # A backbone's logits have a quarter of this size.
        chroma = {name: np.stack([_quarter(planes) for planes in levels]) for name, levels in chroma.items()}
    return {
        "snapshots.npz": {
            key: np.stack([getattr(snapshot, key) for snapshot in result.snapshots])
            for key in ("epochs", "images", "logits")
        },
        "predictions.npz": {"samples": predictions.images, "samples_mse": predictions.mse}
        | {f"photo_{name}": planes.astype(np.float16) for name, planes in chroma.items()},
    }


def _quarter(planes: np.ndarray) -> np.ndarray:
    return resize_planes(planes, planes.shape[0] // 4, planes.shape[1] // 4)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow, and hide the messages on missing GPUs that its C++ code writes straight to the terminal."""
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


def _git_commit() -> str | None:
    """Return the commit of the source tree, with a plus sign if it has changes, or None outside a checkout."""
    try:
        root = Path(__file__).resolve().parent
        options = {"cwd": root, "capture_output": True, "text": True, "timeout": 5, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", "."], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")
