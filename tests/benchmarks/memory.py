"""Memory: what the server holds after one photo, after many, and together with a worker that trains."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from colorizer.data import datasets
from colorizer.pixels.images import encode_png, load_photo
from tests.benchmarks.home import own_home, prepare_gallery
from tests.benchmarks.measurement import Measurement, resident_megabytes
from tests.benchmarks.photo import make_jpeg
from tests.browser.conftest import CHROMIUM_ARGUMENTS, find_chromium, serve

_PHOTOS, _RERUNS = 200, 500
_TRAINING_SECONDS = 60
_SETTLED = "[data-testid=stApp][data-test-script-state=notRunning]"


def measure(runs: int) -> list[Measurement]:
    """Measure `runs` servers after one photo, the last of them after many, and one that trains; needs CIFAR-10."""
    datasets.load_dataset("cifar10")
    first: list[float] = []
    with own_home(*prepare_gallery()) as home, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        photo = home / "photo.png"
        photo.write_bytes(encode_png(load_photo("coffee")))
        for run in range(runs):
            with serve("streamlit_app.py", dict(os.environ), home / "server.log") as (address, process):
                page = chromium.new_page()
                _colorize(page, address, photo)
                time.sleep(2)
                first.append(resident_megabytes(process.pid))
                spare = len(_children(process.pid))
                page.close()
                if run == runs - 1:
                    page = chromium.new_page()
                    _colorize_many(page, address, home / "large.jpg")
                    _browse(page, address)
                    page.close()
                    time.sleep(2)
                    last = resident_megabytes(process.pid)
        training = _train(chromium.new_page, home)
        chromium.close()
    return [
        Measurement("memory of the server after one photo", "MB", first, at_most=300),
        Measurement("its spare workers", "", [spare], at_most=0),
        Measurement(f"after {_PHOTOS} photos of 12 megapixels and {_RERUNS} gallery reruns", "MB", [last]),
        Measurement("times as much as after one photo", "x", [last / first[-1]], at_most=1.2),
        Measurement("server and worker while dense trains on 45,000 images, highest", "MB", [training], at_most=1200),
    ]


def _colorize(page: Page, address: str, photo: Path) -> None:
    page.goto(f"{address}/photo")
    page.locator("input[type=file]").set_input_files(photo)
    expect(page.get_by_role("img", name=f"{photo.name}, colorized")).to_be_visible(timeout=60_000)


def _colorize_many(page: Page, address: str, photo: Path) -> None:
    picture = make_jpeg(4000, 3000)
    for number in range(_PHOTOS):
        photo.write_bytes(picture + str(number).encode())  # What follows a JPEG's end makes it another file.
        _colorize(page, address, photo)


def _browse(page: Page, address: str) -> None:
    page.goto(f"{address}/gallery")
    for number in range(_RERUNS):
        page.wait_for_selector(_SETTLED)
        page.get_by_role("radio", name=("worst", "best")[number % 2]).click()
        page.wait_for_timeout(100)


def _train(open_page: Callable[[], Page], home: Path) -> float:
    """Return the highest sum, in MB, of the memory of a server and of its workers, in the first minute of a run."""
    with serve("streamlit_app.py", dict(os.environ), home / "server.log") as (address, process):
        page, highest = open_page(), 0.0
        page.goto(f"{address}/train?preset=dense")
        page.get_by_role("button", name="Start training").click(timeout=60_000)
        expect(page.get_by_test_id("stVegaLiteChart").first).to_be_visible(timeout=120_000)
        end = time.monotonic() + _TRAINING_SECONDS
        while time.monotonic() < end:
            highest = max(highest, sum(resident_megabytes(number) for number in (process.pid, *_children(process.pid))))
            time.sleep(0.5)
        page.get_by_role("button", name="Discard").click()
        page.get_by_role("button", name="Yes, delete it").click()
        page.get_by_role("button", name="Discard").wait_for(state="detached")
        page.close()
    return highest


def _children(process: int) -> list[int]:
    """Return the ids of the processes that a process has started; on Linux."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for task in tasks for number in task.read_text().split()]
