"""Shows a row of colours with captions, which can be buttons."""

import json
from collections.abc import Callable
from typing import NamedTuple

import streamlit as st

_HTML = """<div class="title"></div><div class="row" role="group"></div>"""
_CSS = """
:host, div { font: 0.8rem var(--st-font); color: var(--st-text-color); }
.title { margin-bottom: 0.25rem; }
.row { display: flex; flex-wrap: wrap; gap: 0.4rem; }
.swatch { display: flex; flex-direction: column; align-items: center; gap: 0.15rem; min-width: 2.6rem;
  padding: 0.2rem; border: 1px solid transparent; border-radius: var(--st-base-radius); background: none;
  color: inherit; font: inherit; }
button.swatch { cursor: pointer; }
button.swatch:hover { border-color: var(--st-border-color); }
button.swatch:focus-visible { outline: 3px solid var(--st-primary-color); }
.color { width: 2.2rem; height: 2.2rem; border-radius: 0.3rem; box-shadow: inset 0 0 0 1px rgb(128 128 128 / 50%); }
"""
_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector(".title").textContent = data.title
  const row = parentElement.querySelector(".row")
  row.setAttribute("aria-label", data.title)
  row.replaceChildren(...JSON.parse(data.swatches).map(([color, caption, about]) => {
    const swatch = document.createElement(data.buttons ? "button" : "div")
    swatch.className = "swatch"
    swatch.title = [color, about].filter(Boolean).join(", ")
    const square = document.createElement("span")
    square.className = "color"
    square.style.background = color
    const text = document.createElement("span")
    text.textContent = caption
    swatch.append(square, text)
    if (data.buttons) {
      swatch.type = "button"
      swatch.setAttribute("aria-label", ["Choose " + color, caption, about].filter(Boolean).join(", "))
      swatch.onclick = () => setTriggerValue("chosen", color)
    }
    return swatch
  }))
}
"""

_mount = st.components.v2.component("swatches", html=_HTML, css=_CSS, js=_JS)


class Swatch(NamedTuple):
    """A colour such as "#a0522d", the caption below it, and words about it."""

    color: str
    caption: str
    about: str


def show_swatches(swatches: list[Swatch], title: str, on_choice: Callable[[str], None] | None, key: str) -> None:
    """Show colours in a row; with `on_choice` they are buttons, and it is called with the colour that is chosen."""

    def choose() -> None:
        color = st.session_state[key].get("chosen")
        if any(color == swatch.color for swatch in swatches):
            on_choice(color)

    data = {"title": title, "swatches": json.dumps(swatches), "buttons": on_choice is not None}
    _mount(key=key, data=data, on_chosen_change=choose)
