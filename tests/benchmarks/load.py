"""Load: five visitors in Chromium browse, colorize and move sliders while one of them trains."""

import asyncio
import itertools
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from colorizer.pixels.images import encode_png, load_photo
from tests.benchmarks.home import own_home, prepare_gallery
from tests.benchmarks.measurement import Measurement, resident_megabytes
from tests.browser.conftest import CHROMIUM_ARGUMENTS, find_chromium, serve

_BROWSING = 4  # and one who trains
_SECONDS_A_RUN = 24  # five runs are two minutes
_MODELS = ("dense-chroma", "notebook", "dense")  # among which they switch
_CLASSES = ("cat", "ship", "frog", "truck")  # of which there are built-in samples
_PATIENCE = 60_000  # milliseconds
_PAUSE = 0.5  # seconds between what a visitor does
_SETTLED = "[data-testid=stApp][data-test-script-state=notRunning]"
_SEEN = "document.images.length && [...document.images].every(image => image.complete)"
# Noted in the page, so that no other process has a part in it: when it asked for a rerun (a slider some 0.2 s after the
# last touch), when the last message of the answer came, and when the state of the script last changed on the page,
# which a quick rerun on a busy page does not do.
_WATCH = """() => {
    window.asked = window.answered = null
    const answer = () => { answered = performance.now() }
    const observer = new MutationObserver(answer)
    const send = WebSocket.prototype.send
    WebSocket.prototype.send = function (message) {
        observer.observe(document, {subtree: true, attributeFilter: ["data-test-script-state"]})
        this.addEventListener("message", answer)  // a second time does nothing
        if (asked === null) asked = performance.now()
        return send.call(this, message)
    }
}"""
_ANSWERED = """asked !== null && answered > asked && performance.now() - answered > 300
    && document.querySelector("[data-testid=stApp]").dataset.testScriptState === "notRunning" """


@dataclass
class _Notes:
    """What all visitors met: milliseconds of each rerun with the time when it was asked for, and what went wrong."""

    reruns: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def hear(self, said: ConsoleMessage) -> None:
        """Take in what a page says; that Streamlit looks for its server below a page's path first is no error."""
        if said.type == "error" and "/_stcore/" not in said.location["url"]:
            self.errors.append(f"console of {said.page.url}: {said.text} {said.location['url']}")


def measure(runs: int) -> list[Measurement]:
    """Measure `runs` times 24 seconds, with the full test set where CIFAR-10 is to be had."""
    with own_home(*prepare_gallery()) as home:
        (home / "photo.png").write_bytes(encode_png(load_photo("chelsea")))
        with serve("streamlit_app.py", dict(os.environ), home / "server.log") as (address, process):
            return asyncio.run(_measure(runs, address, process.pid, home / "photo.png"))


async def _measure(runs: int, address: str, server: int, photo: Path) -> list[Measurement]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        warm = _Notes()
        await _visit(chromium, address, photo, warm, seconds=0)
        before = resident_megabytes(server)
        notes, begin = _Notes(errors=warm.errors), time.monotonic()
        await _visit(chromium, address, photo, notes, _SECONDS_A_RUN * runs)
        after = resident_megabytes(server)
        await chromium.close()
    for error in dict.fromkeys(notes.errors):
        print(error, file=sys.stderr)
    parts = [
        [took for at, took in notes.reruns if run == min(runs - 1, int((at - begin) / _SECONDS_A_RUN))]
        for run in range(runs)
    ]
    about = f"rerun in one of {_BROWSING + 1} browsers while one trains"
    return [
        Measurement(about, "ms", [float(np.median(part)) for part in parts], at_most=150),
        Measurement(f"{about}, 95th percentile", "ms", [float(np.percentile(part, 95)) for part in parts], at_most=400),
        Measurement("reruns", "", [float(len(notes.reruns))]),
        Measurement("errors", "", [float(len(notes.errors))], at_most=0),
        Measurement("memory of the server after a warm round", "MB", [before]),
        Measurement("memory of the server at the end", "MB", [after]),
        Measurement("memory at the end, times that after the warm round", "x", [after / before], at_most=1.15),
    ]


async def _visit(chromium: Browser, address: str, photo: Path, notes: _Notes, seconds: float) -> None:
    """Let all visitors come, each do at least one round, and leave."""
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as visitors:
        visitors.create_task(_train(chromium, address, notes, end))
        for number in range(_BROWSING):
            visitors.create_task(_browse(chromium, address, photo, notes, end, number))


@asynccontextmanager
async def _open_page(chromium: Browser, notes: _Notes) -> AsyncIterator[Page]:
    """A window of its own whose errors are noted; one that the app shows on the page counts too."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(_PATIENCE)
    page = await context.new_page()
    page.on("pageerror", lambda error: notes.errors.append(f"page: {error}"))
    page.on("console", notes.hear)
    try:
        yield page
    finally:
        await context.close()


async def _go(page: Page, address: str) -> None:
    await page.goto(address)
    await page.wait_for_selector("h1")  # before the first run begins, nothing runs either
    await page.wait_for_selector(_SETTLED)
    await page.evaluate(_WATCH)


async def _act(page: Page, notes: _Notes, action: Callable[[], Awaitable[None]]) -> None:
    """Do something that reruns the script, and note how long that took."""
    await page.wait_for_selector(_SETTLED)
    await page.wait_for_function(_SEEN)  # Streamlit drops pictures that the next run does not show
    await page.evaluate("asked = null")
    at = time.monotonic()
    await action()
    await page.wait_for_function(_ANSWERED)
    notes.reruns.append((at, await page.evaluate("answered - asked")))
    await _note_exceptions(page, notes)
    await asyncio.sleep(_PAUSE)


async def _note_exceptions(page: Page, notes: _Notes) -> None:
    shown = page.get_by_test_id("stException").or_(page.get_by_test_id("stAlertContentError"))
    notes.errors += [f"shown: {text}" for text in await shown.all_inner_texts()]


async def _browse(chromium: Browser, address: str, photo: Path, notes: _Notes, end: float, number: int) -> None:
    """Look through the gallery, then colorize a photo, and again."""
    async with _open_page(chromium, notes) as page:
        for lap in itertools.count(number):
            await _look_through(page, address, notes, lap)
            await _colorize(page, address, photo, notes)
            if time.monotonic() > end:
                return


async def _look_through(page: Page, address: str, notes: _Notes, lap: int) -> None:
    await _go(page, f"{address}/gallery?model={_MODELS[lap % len(_MODELS)]}")

    async def choose(label: str, option: str) -> None:
        box = page.get_by_role("combobox", name=label)
        await box.click()
        await page.get_by_role("option", name=option, exact=True).wait_for()
        await _act(page, notes, page.get_by_role("option", name=option, exact=True).click)

    await _act(page, notes, page.get_by_role("radio", name="worst").click)
    await choose("Model", _MODELS[(lap + 1) % len(_MODELS)])
    await _act(page, notes, page.get_by_role("button", name="Page 2", exact=True).click)
    await choose("Class", _CLASSES[lap % len(_CLASSES)])
    await _act(page, notes, page.get_by_role("button", name=re.compile(r"#\d+ ")).first.click)
    await _act(page, notes, lambda: page.keyboard.press("Escape"))


async def _colorize(page: Page, address: str, photo: Path, notes: _Notes) -> None:
    await _go(page, f"{address}/photo?model=dense-chroma")
    await page.locator("input[type=file]").set_input_files(photo)
    await page.get_by_role("img", name="photo.png, colorized").wait_for()
    slider = page.get_by_role("slider", name="Strength")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
        await _act(page, notes, lambda key=key: slider.press(key))


async def _train(chromium: Browser, address: str, notes: _Notes, end: float) -> None:
    """Train for as long as the others are here, and watch."""
    async with _open_page(chromium, notes) as page:
        await _go(page, f"{address}/train?preset=quick&epochs=80&train_images=20000")
        await page.get_by_role("button", name="Start training").click()
        await page.get_by_test_id("stVegaLiteChart").first.wait_for()
        while time.monotonic() < end:
            await asyncio.sleep(1)
            await _note_exceptions(page, notes)
        await page.get_by_role("button", name="Discard").click()
        await page.get_by_role("button", name="Yes, delete it").click()
        await page.get_by_role("button", name="Discard").wait_for(state="detached")
