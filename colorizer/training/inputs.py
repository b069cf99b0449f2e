"""Checks the files that the training of a `backbone` reads, photos and ImageNet weights, without TensorFlow."""

from typing import Any

import numpy as np

from colorizer.config import ModelConfig, TrainConfig, expand_path
from colorizer.data.photos import Photos, open_photos, split_photos
from colorizer.errors import ConfigError, DataError
from colorizer.training.efficientnet import describe_weights


def check_backbone(model: ModelConfig, train: TrainConfig, source_card: dict[str, Any] | None = None) -> dict[str, str]:
    """Check the settings `photos`, `backbone` and `hint_epochs` against the architecture, and read the weights.

    Args:
        model, train: the settings of a training.
        source_card: the card of the model to start from, if there is one.

    Returns:
        what the card says about the ImageNet weights; it is empty if there are none. The weights of a model to start
        from replace those of the setting, so what its card says is repeated.

    Raises:
        ConfigError: the settings do not fit, or the file with the weights cannot be used.
    """
    if train.hint_epochs and not (model.architecture == "backbone" and model.hints):
        raise ConfigError(
            f"hint_epochs is {train.hint_epochs}, but only a backbone that takes hints can learn from them. Set it to "
            "0, or take the preset colorist."
        )
    if model.architecture != "backbone":
        if train.backbone:
            raise ConfigError(
                f"backbone needs the architecture backbone, received {model.architecture}. Leave --backbone out, or "
                "take the preset colorist."
            )
        return {}
    _check_that_photos_are_named(train)
    described = describe_weights(expand_path(train.backbone)) if train.backbone else {}
    return described if source_card is None else source_card["backbone"]


def open_training_photos(train: TrainConfig) -> tuple[Photos, np.ndarray, np.ndarray]:
    """Open the photos that a `backbone` learns from; the first time, they are decoded (see `photos.open_photos`).

    Returns:
        the photos, and the indexes of those for training and of those for validation.

    Raises:
        ConfigError: no photos are named.
        DataError: they cannot be used, or are too few.
    """
    _check_that_photos_are_named(train)
    photos = open_photos(expand_path(train.photos))
    chosen, held_out = split_photos(photos.names)
    if not len(chosen) or not len(held_out):
        raise DataError(
            f"About 1 in 40 photos is for validation, and of {len(photos)} it is {len(held_out)}. Give more photos."
        )
    return photos, chosen, held_out


def _check_that_photos_are_named(train: TrainConfig) -> None:
    if not train.photos:
        raise ConfigError("A backbone learns from photos. Name a folder or a zip with --photos.")
