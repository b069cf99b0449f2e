"""Says, in the metadata of a result, that its colours were added."""

from typing import Any

from colorizer.models.reference import PALETTES


def credit(model: str, **settings: Any) -> str:
    """Return the text that a result carries in its metadata.

    Args:
        model: name of the model.
        settings: those of `Colorizer.colorize`; what is None or empty is left out. A reference is written out
            by its name if it is a palette, and as "a reference picture" otherwise.
    """
    used = []
    for name, value in settings.items():
        if name == "hints":
            used += [f"{len(value)} hint{'s' if len(value) != 1 else ''}"] if value else []
        elif name == "reference":
            is_palette = isinstance(value, str) and value in PALETTES
            used += [] if value is None else [f"palette {value}" if is_palette else "a reference picture"]
        elif value is not None and not (name == "reference_strength" and settings.get("reference") is None):
            used.append(f"{name.replace('_', ' ')} {value:g}")
    return (
        f"The colours were added by a network and are a guess. Model: {model}. Settings: {', '.join(used) or 'none'}."
    )
