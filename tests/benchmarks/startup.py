"""Start: from the start of the server to the gallery and to an uploaded photo, beside bare pages; gallery reruns."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright
from streamlit.testing.v1 import AppTest

from colorizer.data import datasets
from colorizer.jobs.service import TrainingService
from colorizer.models import library
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.images import encode_png, load_photo, tile_rows
from tests.benchmarks.home import own_home, prepare_gallery
from tests.benchmarks.measurement import Measurement
from tests.browser.conftest import CHROMIUM_ARGUMENTS, ROOT, find_chromium, serve

_PICTURES = 12  # on the first page of the gallery
_LAPS = 8  # of six switches each, in a run
_BARE_PAGE = """
import streamlit as st

st.set_page_config(layout="wide")
with st.grid(min_column_width=280, gap="medium"):
    for index in range({number}):
        st.image(f"{folder}/{{index}}.png", width="stretch")
"""
_BARE_UPLOAD = """
import streamlit as st

st.set_page_config(layout="wide")
upload = st.file_uploader("Drop your own picture")
if upload is not None:
    st.image(upload, alt="the photo")
"""
_PAINTED = """number => [...document.querySelectorAll("[data-testid=stImage] img")]
    .filter(image => image.complete && image.naturalWidth).length >= number"""


def measure(runs: int) -> list[Measurement]:
    """Measure all of it; later starts and reruns have the full test set where CIFAR-10 is to be had."""
    prepared = prepare_gallery()
    measurements = _starts(runs, prepared)
    with own_home(*prepared):
        return measurements + _photos(runs) + _reruns(runs)


def _starts(runs: int, prepared: tuple[str, ...]) -> list[Measurement]:
    """Seconds to the first pictures, in turns."""
    seconds: dict[str, list[float]] = {"bare": [], "first": [], "later": []}
    with (
        tempfile.TemporaryDirectory(prefix="colorizer-bare-") as folder,
        own_home(*prepared) as home,
        sync_playwright() as playwright,
    ):
        bare = _write_bare_page(Path(folder))
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        without_data = {key: value for key, value in os.environ.items() if key != "COLORIZER_CIFAR10"}
        for run in range(runs):
            fresh = without_data | {"COLORIZER_HOME": f"{folder}/home-{run}"}
            seconds["bare"].append(_seconds_to_pictures(chromium, str(bare), "/", fresh))
            seconds["first"].append(_seconds_to_pictures(chromium, "streamlit_app.py", "/gallery", fresh))
            later = dict(os.environ) | {"COLORIZER_HOME": str(home)}
            seconds["later"].append(_seconds_to_pictures(chromium, "streamlit_app.py", "/gallery", later))
        chromium.close()
    ratios = {
        start: [own / bare for own, bare in zip(seconds[start], seconds["bare"], strict=True)]
        for start in ("first", "later")
    }
    shown = "the full test set" if prepared else "the built-in samples"
    return [
        Measurement("bare Streamlit page, server start to pictures", "s", seconds["bare"]),
        Measurement("first start to gallery", "s", seconds["first"]),
        Measurement("first start, times the bare page", "x", ratios["first"], at_most=1.2),
        Measurement(f"later start to gallery with {shown}", "s", seconds["later"]),
        Measurement("later start, times the bare page", "x", ratios["later"], at_most=1.2),
    ]


def _write_bare_page(folder: Path) -> Path:
    """A page that shows pictures like the gallery's first and does nothing else."""
    samples = datasets.load_samples().images[:_PICTURES]
    for index, image in enumerate(samples):
        tiles = tile_rows([[image, to_uint8(gray_copy(image)), image]], 6)
        (folder / f"{index}.png").write_bytes(encode_png(tiles))
    page = folder / "bare.py"
    page.write_text(_BARE_PAGE.format(folder=folder, number=_PICTURES))
    return page


def _seconds_to_pictures(chromium: Browser, script: str, path: str, environment: dict[str, str]) -> float:
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        begin = time.perf_counter()
        with serve(script, environment, Path(log.name)) as (address, _):
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address + path, wait_until="commit")
            page.wait_for_function(_PAINTED, arg=_PICTURES, polling="raf", timeout=120_000)
            seconds = time.perf_counter() - begin
            page.close()
    return seconds


def _photos(runs: int) -> list[Measurement]:
    """Seconds from the start of the server to an uploaded photo, in colour and on a bare page unchanged, in turns."""
    seconds: dict[str, list[float]] = {"bare": [], "colour": []}
    with tempfile.TemporaryDirectory(prefix="colorizer-bare-") as folder, sync_playwright() as playwright:
        bare, photo = Path(folder) / "bare.py", Path(folder) / "photo.png"
        bare.write_text(_BARE_UPLOAD)
        photo.write_bytes(encode_png(load_photo("coffee")))
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        for run in range(runs):
            home = dict(os.environ) | {"COLORIZER_HOME": f"{folder}/home-{run}"}
            shown = "[alt='the photo']"
            seconds["bare"].append(_seconds_to_photo(chromium, str(bare), home, photo, shown))
            shown = "[alt='photo.png, colorized by colorist']"
            seconds["colour"].append(_seconds_to_photo(chromium, "streamlit_app.py", home, photo, shown))
        chromium.close()
    later = [own - bare for own, bare in zip(seconds["colour"], seconds["bare"], strict=True)]
    return [
        Measurement("bare Streamlit page, server start to an uploaded photo", "s", seconds["bare"]),
        Measurement("server start to an uploaded photo in colour", "s", seconds["colour"]),
        Measurement("later than the bare page", "s", later, at_most=1.0),
    ]


def _seconds_to_photo(chromium: Browser, script: str, environment: dict[str, str], photo: Path, shown: str) -> float:
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        begin = time.perf_counter()
        with serve(script, environment, Path(log.name)) as (address, _):
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address, wait_until="commit")
            page.locator("input[type=file]").first.set_input_files(photo, timeout=60_000)
            page.locator(shown).first.wait_for(timeout=60_000)
            seconds = time.perf_counter() - begin
            page.close()
    return seconds


def _reruns(runs: int) -> list[Measurement]:
    """Milliseconds of the gallery's reruns, in process."""
    TrainingService.prepare = lambda self: None  # type: ignore[method-assign]
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
    app.run()
    app.switch_page("colorizer/app/pages/gallery.py")
    app.run()
    laps = [_lap(app, lap) for lap in range(_LAPS * runs + 1)][1:]  # in the first one caches are cold
    if app.exception:
        raise RuntimeError(f"the gallery failed: {app.exception[0].message}")
    number = (
        len(datasets.load_dataset("cifar10").test.images)
        if datasets.cifar10_status()["state"] in ("prepared", "found")
        else 20
    )
    parts = [[time for lap in laps[run * _LAPS :][:_LAPS] for time in lap.values()] for run in range(runs)]
    about = f"gallery rerun, {number:,} images"
    medians = [Measurement(f"{about}, {kind}", "ms", [lap[kind] for lap in laps]) for kind in laps[0]]
    return [
        Measurement(about, "ms", [statistics.median(part) for part in parts], at_most=100),
        Measurement(f"{about}, 95th percentile", "ms", [float(np.percentile(part, 95)) for part in parts], at_most=300),
        *medians,
    ]


def _lap(app: AppTest, lap: int) -> dict[str, float]:
    """Switch each thing once."""
    models = [entry.name for entry in library.list_models() if not entry.damage]
    app.query_params.pop("image", None)
    return {
        "model": _milliseconds(app, lambda: app.selectbox(key="model").set_value(models[lap % len(models)])),
        "sort": _milliseconds(app, lambda: app.segmented_control(key="sort").set_value(("worst", "best")[lap % 2])),
        "class": _milliseconds(app, lambda: app.selectbox(key="class").set_value(datasets.CLASS_NAMES[lap % 10])),
        "all classes": _milliseconds(app, lambda: app.selectbox(key="class").set_value("all classes")),
        "page": _milliseconds(app, lambda: app.pagination(key="page").set_value(2 if lap % 2 else 1)),
        "image": _milliseconds(app, lambda: _first_image(app).click()),
    }


def _first_image(app: AppTest) -> Any:
    return next(button for button in app.button if (button.key or "").startswith("image-"))


def _milliseconds(app: AppTest, switch: Callable[[], Any]) -> float:
    switch()
    begin = time.perf_counter()
    app.run()
    return 1000 * (time.perf_counter() - begin)
