"""Saved models on disk: list, read, save atomically, verify, delete.

A model is a folder with `model.keras`, `card.json`, `history.json`, `snapshots.npz` and `predictions.npz`.
Listing and reading need no TensorFlow; only `load_keras_model` imports it.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colorizer import config
from colorizer.config import ModelConfig, TrainConfig
from colorizer.errors import ColorizerError, ModelError
from colorizer.pixels.metrics import METRICS
from colorizer.storage import delete_folder, read_json, replace_folder, write_json

if TYPE_CHECKING:
    import keras

SHIPPED = config.ASSETS / "models"
# Of each data set, the split on a card whose images a model was validated on; of any other it is `own_validation`.
VALIDATION_SPLITS = {"cifar10": "validation", "synthetic": "samples", "samples": "samples"}
_MAX_MODEL_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class ModelEntry:
    """A model folder as it was found."""

    name: str
    path: Path
    card: dict[str, Any]  # content of card.json; empty if the folder is damaged
    damage: str | None = None  # why it cannot be used

    @property
    def shipped(self) -> bool:
        """Whether it came with the package."""
        return self.path.parent == SHIPPED

    @property
    def model_config(self) -> ModelConfig:
        return ModelConfig.from_dict(self.card["model"])

    @property
    def train_config(self) -> TrainConfig:
        return TrainConfig.from_dict(self.card["train"])

    @property
    def checksum(self) -> str:
        """SHA-256 of model.keras, as the card has it."""
        return self.card["sha256"]

    @property
    def vivid(self) -> bool:
        """Whether it chooses among chroma bins, so that `vividness` matters."""
        return self.model_config.chroma_bins > 0

    def metric(self, split: str, name: str = "mse") -> float | None:
        """A metric of the model on a split of its card (see `job.run_training`), or None if it was not measured."""
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
    """Folder of the models trained on this machine."""
    return config.home() / "models"


def list_models() -> list[ModelEntry]:
    """All models, shipped and trained here: best first, damaged ones last."""
    entries = [read_entry(path) for folder in (SHIPPED, user_folder()) for path in sorted(folder.glob("[!.]*/"))]
    return sorted(entries, key=lambda entry: (entry.metric("test") or entry.metric("samples") or math.inf, entry.name))


def read_entry(path: Path) -> ModelEntry:
    """Read a model folder's card and check it without loading the model."""
    try:
        card = read_json(path / "card.json")
        entry = ModelEntry(path.name, path, card)
        config.validate_name(path.name)
        _ = entry.model_config, entry.train_config
        metrics = card["metrics"]
        if not isinstance(card["sha256"], str) or "samples" not in metrics:
            raise ModelError("its card has no checksum or no metrics on the samples")
        numbers = [card[key] for key in ("parameters", "epochs_done", "seconds", "best_val_loss", "bytes")]
        for measured in metrics.values():
            numbers += [measured[of][name] for of in ("model", "gray_copy") for name in METRICS]
        if not all(isinstance(number, int | float) and not math.isnan(number) for number in numbers):
            raise ModelError("its card has a value that is no number")
        size = (path / "model.keras").stat().st_size
        if size != card["bytes"]:
            raise ModelError(f"model.keras has {size:,} bytes, its card says {card['bytes']:,}")
    except FileNotFoundError as error:
        return ModelEntry(path.name, path, {}, f"{Path(error.filename).name} is missing")
    except KeyError as error:
        return ModelEntry(path.name, path, {}, f"its card lacks {error}")
    except (ColorizerError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return ModelEntry(path.name, path, {}, str(error))
    return entry


def find_model(name_or_path: str | Path) -> ModelEntry:
    """Return the model of that name, or in that folder; if there is none or it is damaged, raise `ModelError`."""
    if isinstance(name_or_path, Path) or "/" in name_or_path or os.sep in name_or_path:
        entry = read_entry(Path(name_or_path).expanduser().absolute())
    else:
        entries = list_models()
        matches = [entry for entry in entries if entry.name == name_or_path]
        if not matches:
            known = ", ".join(entry.name for entry in entries if not entry.damage) or "none yet"
            raise ModelError(f"There is no model {name_or_path!r}. Models here: {known}.")
        entry = matches[0]
    if entry.damage:
        raise ModelError(f"The model {entry.name} is damaged: {entry.damage}. Delete its folder {entry.path}.")
    return entry


def load_keras_model(entry: ModelEntry) -> "keras.Model":
    """Load the network in Keras's safe mode; another file than was saved, or one Keras refuses, raises `ModelError`."""
    path = entry.path / "model.keras"
    try:
        if path.stat().st_size > _MAX_MODEL_BYTES or _sha256(path) != entry.checksum:
            raise ModelError(
                f"model.keras of {entry.name} does not match the checksum on its card. "
                f"Delete its folder {entry.path} and train it again."
            )
        import keras

        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model) or model.input_shape[-1] != 1 or model.output_shape[-1] not in (1, 3):
            raise ModelError(f"model.keras of {entry.name} does not turn luminance into an image. Train it again.")
    except ModelError:
        raise
    except Exception as error:  # Keras raises many kinds on files that are not its own
        raise ModelError(f"The model {entry.name} cannot be loaded: {str(error)[:200]}. Train it again.") from error
    return model


def load_history(entry: ModelEntry) -> dict[str, list[float]]:
    """Read history.json: dict of lists, as `training.TrainResult.history`."""
    try:
        history = read_json(entry.path / "history.json")
        for values in history.values():
            np.asarray(values, np.float64)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"The history of {entry.name} cannot be read ({error}). Train the model again.") from error
    return history


def load_arrays(entry: ModelEntry, file_name: str) -> dict[str, np.ndarray]:
    """Read `snapshots.npz` (`epochs`, `images`) or `predictions.npz` of a model; no pickles."""
    try:
        with (entry.path / file_name).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # a damaged zip raises many kinds
        raise ModelError(f"{file_name} of {entry.name} cannot be read ({error}). Train the model again.") from error


def save_model(
    name: str,
    model: "keras.Model",
    card: dict[str, Any],
    history: dict[str, list[float]],
    arrays: dict[str, dict[str, np.ndarray]],
    folder: Path | None = None,
    replace: bool = False,
) -> ModelEntry:
    """Write a model folder in one step: it is there whole, or not at all.

    Args:
        name: see `config.validate_name`.
        model: a Keras model, not compiled, so that no optimizer is saved.
        card: JSON object with `model`, `train` and `metrics`; `sha256` and `bytes` are added.
        history: JSON object.
        arrays: for each .npz file name, its arrays.
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
            write_json(staging / "card.json", card | {"sha256": _sha256(file), "bytes": file.stat().st_size})
            write_json(staging / "history.json", history, indent=None)
            for file_name, content in arrays.items():
                np.savez_compressed(staging / file_name, **content)
    except OSError as error:
        raise ModelError(f"The model {name} could not be saved in {folder} ({error.strerror or error}).") from error
    return read_entry(target)


def check_name_is_free(name: str, folder: Path | None = None, replace: bool = False) -> None:
    """Raise `ModelError` if a model of that name would be hidden or overwritten."""
    folder = folder or user_folder()
    taken = {root for root in (folder, SHIPPED) if (root / name).exists()}
    if taken and not (replace and taken == {folder}):
        raise ModelError(f"A model named {name} is already here. Choose another name, or delete that one first.")


def update_card(entry: ModelEntry, **changes: Any) -> ModelEntry:
    """Change values on a model's card, atomically."""
    write_json(entry.path / "card.json", entry.card | changes)
    return read_entry(entry.path)


def delete_model(name: str) -> None:
    """Delete one of the user's models; shipped ones stay."""
    entry = next((e for e in list_models() if e.name == name and not e.shipped), None)
    if entry is None:
        raise ModelError(f"There is no model {name!r} of yours to delete.")
    delete_folder(entry.path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
