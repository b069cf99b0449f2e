"""A running server and a real Chromium; the benchmarks use them too."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextlib.contextmanager
def serve(script: str, environment: dict[str, str], log: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address and process of a Streamlit server, started as a user would, from when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", script, "--server.headless=true"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, f"--server.port={port}", "--server.address=127.0.0.1"],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(f"{address}/_stcore/health", process)
        yield address, process
    finally:
        process.terminate()
        process.wait(20)


def wait_until_healthy(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the app's server did not start")


def find_chromium() -> str | None:
    """Path of Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def server_home(tmp_path_factory):
    """The home of the server's models and runs."""
    return tmp_path_factory.mktemp("server") / "home"


@pytest.fixture(scope="session")
def server(server_home):
    """Address of the app with an empty home of its own and no CIFAR-10."""
    environment = {key: value for key, value in os.environ.items() if key != "COLORIZER_CIFAR10"}
    environment["COLORIZER_HOME"] = str(server_home)
    with serve("streamlit_app.py", environment, server_home.with_name("server.log")) as (address, _):
        yield address


@pytest.fixture
def open_page(browser, server):
    """A function that opens a path of the app in a new window and waits until it is painted.

    What goes wrong in it is kept in `page.errors`, and fails the test at its end: exceptions, console errors, failed
    requests, and any to elsewhere, as there may be no network.
    """
    contexts, pages = [], []

    def opened(path="/", width=1280, color_scheme="light", has_touch=False):
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, color_scheme=color_scheme, has_touch=has_touch)
        contexts.append(context)
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(30_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda message: _note_message(page, message))
        page.on("response", lambda response: _note_response(page, response))
        page.on("request", lambda request: _note_request(page, request, server))
        page.goto(server + path)
        settle(page)
        return page

    yield opened
    errors = [error for page in pages for error in page.errors]
    for context in contexts:
        context.close()
    assert not errors


def _note_message(page, message):
    if message.type == "error" and not message.text.startswith("Failed to load resource"):  # the response tells more
        page.errors.append(message.text)


def _note_response(page, response):
    # Streamlit's client looks for its server below each page's path first.
    if response.status >= 400 and not response.url.endswith(("/_stcore/health", "/_stcore/host-config")):
        page.errors.append(f"{response.status} {response.url}")


def _note_request(page, request, server):
    if not request.url.startswith((server, server.replace("http", "ws"), "data:", "blob:")):
        page.errors.append(f"request to {request.url}")


# A component's element stands before its code has drawn anything in its shadow root, and a picture without a source
# counts as complete. On a busy machine all this comes long after the script has run.
DRAWN = """() => {
    const components = [...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")]
    const roots = components.map(component => component.shadowRoot)
    const loading = document.querySelector("[data-testid=stSkeleton]")  // the code of an element
    if (loading || !roots.every(root => root?.querySelector("img, .swatch"))) return false
    const images = [document, ...roots].flatMap(root => [...root.querySelectorAll("img")])
    return images.every(image => image.src && image.complete)
}"""


def settle(page):
    """Wait until the script has run, and its pictures have loaded, those of its components too."""
    page.wait_for_selector("[data-testid=stMain] h1")  # the first run has begun
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_function(  # the app's own style is painted last, and late on a busy machine
        "[...document.querySelectorAll('style')].some(style => style.textContent.includes('data-tag'))"
    )
    page.wait_for_function(DRAWN)
