"""Defines `Settings`, the base of configurations that are checked by Pydantic and stored as JSON."""

from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from colorizer.errors import ConfigError


class Settings(BaseModel):
    """Settings that cannot be changed. Any unknown key or invalid value raises `ConfigError` with one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(self._explain(error.errors()[0])) from None

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Build from a JSON object; unknown keys and values out of range raise `ConfigError`."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} must be a JSON object, received {type(values).__name__}.")
        return cls(**{str(key): tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return self.model_dump()

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with `changes` applied."""
        return type(self)(**{**dict(self), **changes})

    @classmethod
    def limits(cls, name: str) -> tuple[float, float] | None:
        """Return the lowest and highest value of a numeric setting; None for any other setting."""
        return cls._bounds(cls.model_fields[name].metadata)

    @staticmethod
    def _bounds(metadata: list[Any]) -> tuple[float, float] | None:
        bounds = {type(bound).__name__: bound for bound in metadata}
        return (bounds["Ge"].ge, bounds["Le"].le) if {"Ge", "Le"} <= bounds.keys() else None

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        """Return the words that a setting can be; an empty tuple for any other setting."""
        kind = cls.model_fields[name].annotation
        return get_args(kind) if get_origin(kind) is Literal else ()

    @classmethod
    def _explain(cls, error: Any) -> str:
        """Turn Pydantic's first error into one sentence, which says what was expected and what was received."""
        name, value = str(error["loc"][0]), repr(error["input"])
        value = value if len(value) <= 80 else f"{value[:80]}…"
        if error["type"] == "extra_forbidden":
            return f"{cls.__name__} has no setting {name[:60]!r}. Known: {', '.join(sorted(cls.model_fields))}."
        kind = cls.model_fields[name].annotation
        if choices := cls.choices(name):
            wanted = f"one of {', '.join(choices)}"
        elif get_origin(kind) is tuple and len(error["loc"]) > 1:
            low, high = cls._bounds(get_args(kind)[0].__metadata__[0].metadata)
            return f"{name} takes whole numbers from {low:g} to {high:g}, received {value}."
        elif get_origin(kind) is tuple:
            wanted = "a list of at most 8 layer widths"
        elif limits := cls.limits(name):
            wanted = f"{'a whole number' if kind is int else 'a number'} from {limits[0]:g} to {limits[1]:g}"
        else:
            wanted = {bool: "true or false", str: "text"}[kind]
        return f"{name} must be {wanted}, received {value}."
