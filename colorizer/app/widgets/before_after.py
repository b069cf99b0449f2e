"""Shows a picture before and after it was colorized, with a line that can be moved across it.

The line is a range input, so that the keyboard and screen readers can move it too.
"""

import base64
import io

import numpy as np
import streamlit as st
from PIL import Image

_HTML = """
<div class="frame">
  <img class="after"><img class="before">
  <input type="range" min="0" max="100" value="50">
  <div class="line"><span class="handle" aria-hidden="true">◂▸</span></div>
  <span class="label" style="left: 0.5rem" aria-hidden="true">Before</span>
  <span class="label" style="right: 0.5rem" aria-hidden="true">After</span>
</div>
"""

# The input lies over the picture and is transparent. Its thumb is one pixel wide, so that it is under the pointer.
_CSS = """
.frame { position: relative; overflow: hidden; min-width: 3rem; min-height: 3rem; aspect-ratio: var(--ratio);
  max-width: calc(75vh * var(--ratio)); border-radius: var(--st-base-radius); }
img, input { position: absolute; width: 100%; height: 100%; margin: 0; }
.before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
input { appearance: none; opacity: 0; cursor: ew-resize; touch-action: pan-y; }
input::-webkit-slider-thumb { appearance: none; width: 1px; height: 100%; }
input::-moz-range-thumb { width: 1px; height: 100%; border: 0; }
.line { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px; background: white;
  box-shadow: 0 0 3px black; pointer-events: none; }
.handle { position: absolute; top: 50%; translate: calc(1px - 50%) -50%; padding: 0.3rem 0.5rem; border-radius: 1rem;
  background: white; box-shadow: 0 0 4px black; color: black; font-size: 1.2rem; line-height: 1; }
.label { position: absolute; bottom: 0.5rem; padding: 0.15rem 0.5rem; border-radius: var(--st-base-radius);
  background: rgb(0 0 0 / 60%); color: white; font: 0.8rem var(--st-font); pointer-events: none; }
input:focus-visible ~ .line .handle { outline: 3px solid var(--st-primary-color); outline-offset: 2px; }
"""

_JS = """
export default function ({ data, parentElement }) {
  const find = (selector) => parentElement.querySelector(selector)
  const [frame, range] = [find(".frame"), find("input")]
  frame.style.setProperty("--ratio", data.ratio)
  for (const side of ["before", "after"]) {
    const image = find("." + side)
    const [source, alt] = data[side]
    image.alt = alt
    if (image.src !== source) image.src = source
  }
  range.setAttribute("aria-label", data.label)
  range.oninput = () => {
    frame.style.setProperty("--at", range.value + "%")
    range.setAttribute("aria-valuetext", range.value + "% before, " + (100 - range.value) + "% after")
  }
  range.oninput()
}
"""

_mount = st.components.v2.component("before_after", html=_HTML, css=_CSS, js=_JS)


def show_before_after(before: np.ndarray, after: np.ndarray, title: str, model: str, key: str) -> None:
    """Show a photo in grayscale left of a movable line, and colorized right of it.

    The line stays where it is when the pictures change under the same `key`.

    Args:
        before: The photo in grayscale, uint8 (H, W, 3).
        after: The photo in colour, uint8 (H, W, 3).
        title: What the photo shows, for screen readers.
        model: The name of the model that colorized it.
        key: The component's key in the session.
    """
    height, width = before.shape[:2]
    data = {
        "ratio": width / height,
        "label": f"{title}: how much of it to show before it was colorized",
        # These are tuples, since Streamlit would import pandas to see whether a dict is a table.
        "before": (_data_uri(before), f"{title}, in grayscale"),
        "after": (_data_uri(after), f"{title}, colorized by {model}"),
    }
    _mount(key=key, data=data)


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
