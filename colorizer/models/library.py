"""Lists, reads, verifies, saves and deletes the models on disk.

A model is a folder with `model.keras`, `model.onnx`, `card.json`, `history.json`, `snapshots.npz` and
`predictions.npz`. Colorizing needs `model.onnx`; only a training that starts from the model needs `model.keras`.
"""

import contextlib
import hashlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colorizer import config
from colorizer.config import ModelConfig, TrainConfig
from colorizer.errors import ColorizerError, ModelError
from colorizer.models.card import check_card
from colorizer.models.compact import compress_weights
from colorizer.models.scale import SCALES, Scale
from colorizer.storage import clean_up, delete_folder, read_json, replace_folder, write_bytes, write_json

SHIPPED = config.ASSETS / "models"
# The metrics on its validation images stand under this name on a model's card, or under `own_validation`.
VALIDATION_SPLITS = {"cifar10": "validation", "synthetic": "samples", "samples": "samples"}
_MAX_MODEL_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class ModelEntry:
    """A model folder that was found, whole or damaged."""

    name: str  # The folder's name, with escapes for what cannot be printed.
    path: Path
    card: dict[str, Any]  # The content of card.json; empty if the folder is damaged.
    damage: str | None = None  # Why the model cannot be used.

    @property
    def shipped(self) -> bool:
        """Whether the model came with the package."""
        return self.path.parent == SHIPPED

    @property
    def model_config(self) -> ModelConfig:
        return ModelConfig.from_dict(self.card["model"])

    @property
    def train_config(self) -> TrainConfig:
        return TrainConfig.from_dict(self.card["train"])

    @property
    def checksum(self) -> str:
        """The SHA-256 of model.keras that the card states."""
        return self.card["sha256"]

    @property
    def networks(self) -> dict[str, tuple[str, int]]:
        """The SHA-256 and the bytes of `model.keras` and `model.onnx` that the card states.

        A model of an earlier version has no `model.onnx`.
        """
        stated = {"model.keras": (self.checksum, self.card["bytes"])}
        return stated | ({"model.onnx": (self.card["onnx_sha256"], self.card["onnx_bytes"])} if self.exported else {})

    @property
    def exported(self) -> bool:
        """Whether the model has a `model.onnx`, which models of earlier versions have not."""
        return bool(self.card["onnx_sha256"])

    @property
    def vivid(self) -> bool:
        """Whether the model chooses among chroma bins, so that `vividness` matters."""
        return self.model_config.chroma_bins > 0

    @property
    def any_size(self) -> bool:
        """Whether the model takes images of more than one size, so that the working size matters."""
        return self.scale.multiple > 0

    @property
    def scale(self) -> Scale:
        """How the model sees a photo, and what vividness means for it."""
        return SCALES[self.model_config.architecture]

    def metric(self, split: str, name: str = "mse") -> float | None:
        """Return a metric of the model on a split of its card (see `job.run_training`); None if it was not measured."""
        return self.card.get("metrics", {}).get(split, {}).get("model", {}).get(name)

    @property
    def reported(self) -> tuple[str, str]:
        """The split whose metrics are shown, `test` where it was measured, else `samples`, and its name in words."""
        if "test" in self.card["metrics"]:
            return "test", "10,000 test images"
        return "samples", "20 built-in samples"

    @property
    def gray_copy_loss(self) -> float | None:
        """The gray copy's mse on the images that the model was validated on; None for the target `gray`."""
        split = VALIDATION_SPLITS.get(self.train_config.dataset, "own_validation")
        measured = self.card["metrics"].get(split) if self.model_config.target != "gray" else None
        return measured["gray_copy"]["mse"] if measured else None


def user_folder() -> Path:
    """Return the folder of the models that were trained on this machine."""
    return config.home() / "models"


def predictions_folder() -> Path:
    """Return the folder of predictions, which can be computed again at any time."""
    return config.home() / "predictions"


def list_models() -> list[ModelEntry]:
    """Return all models, shipped and trained here: the best first, damaged ones last."""
    clean_up(user_folder())
    entries = [read_entry(path) for folder in (SHIPPED, user_folder()) for path in sorted(folder.glob("[!.]*/"))]
    return sorted(entries, key=lambda entry: (entry.metric("test") or entry.metric("samples") or math.inf, entry.name))


def read_entry(path: Path) -> ModelEntry:
    """Read a model folder's card and check it without loading the model; a folder of any content gives an entry."""
    name = "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode() for char in path.name
    )
    try:
        card = check_card(read_json(path / "card.json"))
        config.validate_name(path.name)
        entry = ModelEntry(name, path, card)
        for file_name, (_, stated) in entry.networks.items():
            if file_name == "model.keras" and entry.exported and not (path / file_name).exists():
                continue  # The model colorizes, but no training can start from it.
            size = (path / file_name).stat().st_size
            if size != stated:
                raise ModelError(f"{file_name} has {size:,} bytes, its card says {stated:,}")
    except FileNotFoundError as error:
        return ModelEntry(name, path, {}, f"{Path(error.filename).name} is missing")
    except (ColorizerError, OSError, ValueError) as error:
        return ModelEntry(name, path, {}, describe_error(error))
    return entry


def describe_error(error: Exception) -> str:
    """Say what went wrong in a few printable words, without the paths of this machine, which visitors must not see."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return "".join(char if char.isprintable() else " " for char in text)[:200]


def find_model(name_or_path: str | Path) -> ModelEntry:
    """Return the model of that name, or in that folder; a retired name gives the model that took its place.

    Raises:
        ModelError: there is no such model, or it is damaged. The message advises to delete a damaged model only if
            this app made it.
    """
    if isinstance(name_or_path, Path) or "/" in name_or_path or os.sep in name_or_path:
        entry = read_entry(config.expand_path(name_or_path))
        if not is_model(entry.path):
            raise ModelError(
                f"{entry.name} is not a model: it has no model.keras and no card.json. "
                "Give the name of a model or the folder of one."
            )
    else:
        entries = list_models()
        matches = [entry for entry in entries if entry.name == name_or_path]
        if not matches and name_or_path in config.RETIRED_NAMES:
            return find_model(config.RETIRED_NAMES[name_or_path])
        if not matches:
            known = ", ".join(entry.name for entry in entries if not entry.damage) or "none yet"
            raise ModelError(f"There is no model {str(name_or_path)[:80]!r}. Models here: {known}.")
        entry = matches[0]
    if entry.damage:
        raise ModelError(f"The model {entry.name} is damaged: {entry.damage}. {what_to_do(entry)}")
    return entry


def is_model(folder: Path) -> bool:
    """Return whether a folder has a model, whole or damaged."""
    with contextlib.suppress(OSError):  # The path may be too long.
        return any((folder / file).exists() for file in ("model.keras", "model.onnx", "card.json"))
    return False


def may_delete(folder: Path) -> bool:
    """Return whether a folder of the library holds only what this app made, so that deleting it is safe."""
    return is_model(folder) or folder.is_symlink() or (folder.is_dir() and not any(folder.iterdir()))


def what_to_do(entry: ModelEntry) -> str:
    """Return the advice for a damaged model; it never says to delete what this app did not make."""
    if entry.shipped:
        return "Restore the folder assets/models."
    if not may_delete(entry.path):
        return "It is not a model, so move its folder out of the library."
    if entry.path.parent == user_folder():
        return "Delete it in the gallery and train it again."
    return "Get a whole copy of its folder."


def read_network(entry: ModelEntry, file_name: str) -> bytes:
    """Return the content of `model.onnx` or `model.keras`.

    Raises:
        ModelError: the file is not the one that was saved, or cannot be read.
    """
    path, (checksum, _) = entry.path / file_name, entry.networks[file_name]
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{file_name} of {entry.name} cannot be read: {describe_error(error)}. {what_to_do(entry)}"
        ) from error
    if len(content) > _MAX_MODEL_BYTES or _checksum(content) != checksum:
        raise ModelError(f"{file_name} of {entry.name} does not match the checksum on its card. {what_to_do(entry)}")
    return content


def load_history(entry: ModelEntry) -> dict[str, list[float]]:
    """Return history.json, a dict of lists like `loop.TrainResult.history`; damage raises `ModelError`."""
    try:
        history = read_json(entry.path / "history.json")
        for values in history.values():
            np.asarray(values, np.float64)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"The history of {entry.name} cannot be read ({describe_error(error)}). Train it again."
        ) from error
    return history


def load_arrays(entry: ModelEntry, file_name: str) -> dict[str, np.ndarray]:
    """Return the arrays of `snapshots.npz` or `predictions.npz` of a model; damage and pickles raise `ModelError`."""
    try:
        with (entry.path / file_name).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # A damaged zip raises many kinds.
        reason = describe_error(error)
        raise ModelError(f"{file_name} of {entry.name} cannot be read ({reason}). Train the model again.") from error


def save_model(
    name: str,
    model: Any,
    graph: bytes,
    card: dict[str, Any],
    history: dict[str, list[float]],
    arrays: dict[str, dict[str, np.ndarray]],
    folder: Path | None = None,
    replace: bool = False,
) -> ModelEntry:
    """Write a model folder in one step: it is there whole, or not at all.

    The predictions of a model that it replaces are deleted.

    Args:
        name: see `config.validate_name`.
        model: a Keras model that is not compiled, so that no optimizer is saved. The weights of a `backbone` are stored
            as float16.
        graph: the same model in ONNX, see `training.export`.
        card: JSON object with `model`, `train` and `metrics`, to which the checksums and sizes of both are added.
        history: JSON object.
        arrays: the arrays of each .npz file, by its name.
        folder: the library to save into; by default the user's.
        replace: overwrite a model of that name.

    Raises:
        ModelError: the name is taken, or the disk refuses.
    """
    folder = folder or user_folder()
    target = folder / config.validate_name(name)
    check_name_is_free(name, folder, replace)
    try:
        with replace_folder(target) as staging:
            file = staging / "model.keras"
            model.save(file)
            compress_weights(file, half=ModelConfig.from_dict(card["model"]).architecture == "backbone")
            (staging / "model.onnx").write_bytes(graph)
            stored = {"sha256": _checksum(file.read_bytes()), "bytes": file.stat().st_size}
            write_json(staging / "card.json", card | stored | _describe_graph(graph))
            write_json(staging / "history.json", history, indent=None)
            for file_name, content in arrays.items():
                np.savez_compressed(staging / file_name, **content)
    except OSError as error:
        raise ModelError(f"The model {name} could not be saved ({describe_error(error)}).") from error
    if folder == user_folder():
        _delete_predictions(name)
    return read_entry(target)


def check_name_is_free(name: str, folder: Path | None = None, replace: bool = False) -> None:
    """Raise `ModelError` if a model of that name would be hidden or overwritten."""
    folder = folder or user_folder()
    taken = {root for root in (folder, SHIPPED) if (root / name).exists()}
    if taken and not (replace and taken == {folder}):
        raise ModelError(f"A model named {name} is already here. Choose another name, or delete that one first.")
    if taken and not may_delete(folder / name):
        raise ModelError(f"{name} is not a model, so it is not replaced. Choose another name.")


def add_graph(entry: ModelEntry, graph: bytes) -> ModelEntry:
    """Add `model.onnx` to a model that was saved by an earlier version; a disk that refuses raises `ModelError`."""
    try:
        write_bytes(entry.path / "model.onnx", graph)
        return update_card(entry, **_describe_graph(graph))
    except OSError as error:
        raise ModelError(f"model.onnx of {entry.name} could not be saved ({describe_error(error)}).") from error


def _describe_graph(graph: bytes) -> dict[str, Any]:
    return {"onnx_sha256": _checksum(graph), "onnx_bytes": len(graph)}


def update_card(entry: ModelEntry, **changes: Any) -> ModelEntry:
    """Change values on a model's card in one step."""
    write_json(entry.path / "card.json", entry.card | changes)
    return read_entry(entry.path)


def delete_model(name: str) -> None:
    """Delete one of the user's models and its predictions; shipped models stay.

    Raises:
        ModelError: there is no such model, or the disk refuses.
    """
    entry = next((e for e in list_models() if e.name == name and not e.shipped), None)
    if entry is None or not may_delete(entry.path):
        raise ModelError(f"There is no model {name!r} of yours to delete.")
    try:
        delete_folder(entry.path)
    except OSError as error:
        raise ModelError(f"The model {name} could not be deleted ({describe_error(error)}).") from error
    _delete_predictions(entry.path.name)


def _delete_predictions(name: str) -> None:
    """Delete what `evaluation` keeps for a model of that name, whatever its checksum was."""
    folders = predictions_folder().glob("*") if predictions_folder().is_dir() else ()
    for folder in folders:
        if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}-.+", folder.name):
            with contextlib.suppress(OSError):  # Files that remain only take space on the disk.
                delete_folder(folder)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
