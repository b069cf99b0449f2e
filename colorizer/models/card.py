"""The card of a model: which values card.json must have, so that every page can work with it."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, create_model

from colorizer.config import ModelConfig, TrainConfig
from colorizer.errors import ModelError
from colorizer.pixels.metrics import METRICS

_Number = Annotated[float, Field(ge=-(2**53), le=2**53, allow_inf_nan=False)]  # Floats cannot hold larger integers.
_Psnr = _Number | Annotated[float, Field(ge=math.inf)]  # Only a perfect prediction has an infinite psnr.


class _Stored(BaseModel, strict=True, extra="allow"):
    """A part of a card, which may hold more than is declared and checked here."""


_Metrics = create_model("_Metrics", __base__=_Stored, **dict.fromkeys(METRICS, _Number) | {"psnr": _Psnr})


class _Recognition(_Stored):
    original: _Number
    gray_copy: _Number
    model: _Number


class _Measured(_Stored):
    model: _Metrics
    gray_copy: _Metrics
    delta_colorfulness: _Number | None = None  # Earlier versions did not measure this and the next.
    recognition: _Recognition | None = None


class _Splits(_Stored):
    __pydantic_extra__: dict[str, _Measured] = Field(init=False)
    samples: _Measured


class _Card(_Stored):
    """The values of a card that pages rely on; null counts as missing where there is a default."""

    model: Annotated[ModelConfig, BeforeValidator(ModelConfig.from_dict)]
    train: Annotated[TrainConfig, BeforeValidator(TrainConfig.from_dict)]
    metrics: _Splits
    sha256: str
    bytes: _Number
    onnx_sha256: str = ""  # A model that an earlier version saved has no model.onnx.
    onnx_bytes: _Number = 0
    parameters: _Number
    epochs_done: _Number
    seconds: _Number
    best_val_loss: _Number
    preset: str = ""
    command: str = ""
    created: str = ""
    commit: str = ""
    run: str = ""
    note: str = ""
    stopped: bool = False
    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    backbone: dict[str, str] = {}  # What the card says about the ImageNet weights that the encoder started from.


_DEFAULTS = {name: field.default for name, field in _Card.model_fields.items() if not field.is_required()}


def check_card(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the content of card.json with the defaults of what is missing.

    Raises:
        ModelError: a value is missing or wrong.
        ConfigError: a setting of the model or of its training is wrong.
    """
    card = _DEFAULTS | {key: value for key, value in stored.items() if value is not None or key not in _DEFAULTS}
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        if wrong["type"] == "missing":
            raise ModelError(f"its card lacks {place!r}") from None
        raise ModelError(f"its card has a wrong value for {place!r} ({wrong['msg']})") from None
    return card
