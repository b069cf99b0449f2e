"""Shows a picture before and after it was colorized, with a line that can be moved across it, or with a crosshair.

The line is a range input, so that the keyboard and screen readers can move it too. In the mode `ask` the visitor points
at a pixel instead, and drags the hints that are there.
"""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

_folder = Path(__file__).parent
_mount = st.components.v2.component(
    "before_after",
    html=(_folder / "before_after.html").read_text(encoding="utf-8"),
    css=(_folder / "before_after.css").read_text(encoding="utf-8"),
    js=(_folder / "before_after.js").read_text(encoding="utf-8"),
)


def show_before_after(
    before: np.ndarray,
    after: np.ndarray,
    title: str,
    model: str,
    key: str,
    before_label: str = "Before",
    before_alt: str = "in grayscale",
    after_alt: str = "",
    asking: bool = False,
    place: tuple[float, float] | None = None,
    points: Sequence[dict[str, Any]] = (),
    on_gesture: Callable[[], None] = lambda: None,
) -> None:
    """Show one version of a photo left of a movable line, and another right of it.

    The line stays where it is when the pictures change under the same `key`.

    Args:
        before: The photo as it is left of the line, uint8 (H, W, 3).
        after: The photo in colour, uint8 (H, W, 3).
        title: What the photo shows, for screen readers.
        model: The name of the model that colorized it.
        key: The component's key in the session.
        before_label, before_alt: What the left version is, on the picture and for screen readers.
        after_alt: What the right version is, for screen readers; by default, that `model` colorized it.
        asking: Whether the visitor points at pixels instead of moving the line.
        place: The pixel that is asked about, as shares of the width and the height.
        points: Hints as dicts of `x` and `y`, which are such shares, and `color`.
        on_gesture: Called when `st.session_state[key]` has a new `asked` (x and y), `moved` (all points) or `undo`.
    """
    height, width = before.shape[:2]
    data = {
        "ratio": width / height,
        "label": f"{title}: how much of it to show before it was colorized",
        # These are tuples and text, since Streamlit would import pandas to see whether a dict is a table.
        "before": (_data_uri(before), f"{title}, {before_alt}", before_label),
        "after": (_data_uri(after), f"{title}, {after_alt or f'colorized by {model}'}", "After"),
        "asking": asking,
        "pad": f"{title}: choose a pixel. Arrow keys move the crosshair, Enter asks, Escape leaves.",
        "place": json.dumps(place),
        "points": json.dumps(list(points)),
    }
    _mount(key=key, data=data, on_asked_change=on_gesture, on_moved_change=on_gesture, on_undo_change=on_gesture)


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
