"""The app's first story, in Chromium: look at reconstructions, colorize a picture, train, and use the result."""

import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import serve, settle

pytestmark = pytest.mark.slow
expect.set_options(timeout=30_000)  # The machine may be busy with a training.


def reconstructions(page):
    return page.get_by_role("img", name="original, grayscale and reconstructed")


def test_gallery_shows_reconstructions_enlarges_one_and_keeps_it_in_the_url(open_page, server):
    page = open_page("/gallery?model=dense-chroma")
    expect(reconstructions(page)).to_have_count(12)
    assert reconstructions(page).first.evaluate("image => image.naturalWidth") == 3 * 32 * 6 + 2 * 6
    page.get_by_role("button", name="#3 airplane").click()
    expect(page.get_by_role("dialog").get_by_role("img", name="Test image 3, airplane")).to_be_visible()
    expect(page.get_by_role("dialog").get_by_text("#3, airplane")).to_be_visible()
    page.wait_for_url("**image=3**")
    again = open_page(page.url.removeprefix(server))
    expect(again.get_by_role("dialog").get_by_text("#3, airplane")).to_be_visible()
    again.get_by_role("dialog").get_by_role("button", name="Next").click()
    expect(again.get_by_role("dialog").get_by_text("#4, frog")).to_be_visible()
    again.keyboard.press("Escape")
    expect(again.get_by_role("dialog")).to_have_count(0)


def test_a_training_run_is_watched_live_and_its_model_is_in_the_gallery(open_page):
    page = open_page("/train?preset=quick&epochs=1&train_images=5000")
    page.get_by_role("textbox", name="Name of the model").fill("browser-test")
    page.get_by_role("textbox", name="Name of the model").press("Enter")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("img", name="Eight test images")).to_be_visible(timeout=60_000)
    page.reload()  # The run goes on, and the page finds it again.
    expect(page.get_by_text("Error (mse)")).to_be_visible(timeout=60_000)
    page.get_by_role("link", name="See it in the gallery").click()
    expect(page.get_by_role("heading", name="browser-test")).to_be_visible()
    expect(reconstructions(page)).to_have_count(12)


def test_one_visitor_trains_while_another_watches_and_browses(open_page, server, tmp_path):
    owner = open_page("/train?preset=quick&epochs=80&train_images=20000&batch_size=32")
    owner.get_by_role("textbox", name="Name of the model").fill("shared")
    owner.get_by_role("textbox", name="Name of the model").press("Enter")
    owner.get_by_role("button", name="Start training").click()
    expect(owner.get_by_test_id("stVegaLiteChart")).to_be_visible(timeout=60_000)
    owner.get_by_role("button", name="Share").click()
    link = owner.locator("code", has_text="?run=").inner_text()
    assert "key=" in owner.url and "key=" not in link and link.startswith(server)

    watcher = open_page(link.removeprefix(server))
    expect(watcher.get_by_text("you are watching")).to_be_visible()
    expect(watcher.get_by_test_id("stVegaLiteChart")).to_be_visible()
    expect(watcher.get_by_role("button", name="Pause")).to_have_count(0)
    watcher.get_by_role("link", name="Gallery").click()
    expect(reconstructions(watcher)).to_have_count(12)

    owner.reload()  # The run goes on, and the page has its controls again.
    settle(owner)
    owner.get_by_role("button", name="Pause").click()
    expect(owner.locator(".st-key-run").get_by_text("Paused")).to_be_visible()
    watcher.goto(link)
    expect(watcher.locator(".st-key-run").get_by_text("Paused")).to_be_visible()
    owner.get_by_role("button", name="Resume").click()
    expect(watcher.locator(".st-key-run").get_by_text("Paused")).to_have_count(0)
    owner.get_by_role("slider", name="Learning rate, times").press("ArrowLeft")
    owner.wait_for_timeout(1500)  # The page polls its run three times, and the worker has read the change.
    owner.reload()
    expect(owner.get_by_role("slider", name="Learning rate, times")).to_have_attribute("aria-valuetext", "0.3")

    owner.get_by_role("button", name="Stop and keep").click()
    owner.get_by_role("link", name="Try it on a photo").click(timeout=60_000)
    expect(owner.get_by_role("heading", name="Your photo")).to_be_visible()
    picture = tmp_path / "mine.png"
    Image.linear_gradient("L").resize((64, 48)).save(picture)
    owner.locator("input[type=file]").set_input_files(picture)
    expect(owner.get_by_text("Colorized by shared")).to_be_visible(timeout=60_000)


def test_two_visitors_who_train_at_once_see_the_queue(open_page):
    first, second = (open_page("/train?preset=quick&epochs=80&train_images=20000") for _ in range(2))
    for page, name in ((first, "first"), (second, "second")):
        page.get_by_role("textbox", name="Name of the model").fill(name)
        page.get_by_role("textbox", name="Name of the model").press("Enter")
        page.get_by_role("button", name="Start training").click()
        expect(page.get_by_role("button", name="Share")).to_be_visible()
    expect(second.get_by_text("Number 1 in the queue")).to_be_visible()
    expect(first.get_by_role("link", name="second, waiting")).to_be_visible()
    first.get_by_role("button", name="Discard").click()
    first.get_by_role("button", name="Yes, delete it").click()
    expect(second.get_by_test_id("stVegaLiteChart")).to_be_visible(timeout=60_000)
    second.get_by_role("button", name="Discard").click()
    second.get_by_role("button", name="Yes, delete it").click()
    expect(second.get_by_text("Nothing is being trained")).to_be_visible()


def test_the_start_button_trains_from_gray_to_colour_on_the_same_page(open_page):
    page = open_page("/")
    page.get_by_role("button", name="Watch one learn").click()
    expect(page.get_by_text("Error (mse)")).to_be_visible(timeout=90_000)
    assert "run=" in page.url


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux, where a process lists its libraries")
def test_the_server_colours_and_browses_without_tensorflow_and_without_a_worker(browser, tmp_path):
    environment = dict(os.environ) | {"COLORIZER_HOME": str(tmp_path / "home")}
    picture = tmp_path / "mine.png"
    Image.linear_gradient("L").resize((64, 48)).save(picture)
    with serve("streamlit_app.py", environment, tmp_path / "server.log") as (address, process):
        page = browser.new_page()
        page.goto(address + "/photo")
        page.locator("input[type=file]").set_input_files(picture)
        expect(page.get_by_role("img", name="mine.png, colorized by colorist")).to_be_visible(timeout=60_000)
        page.get_by_role("link", name="Gallery").click()
        expect(reconstructions(page)).to_have_count(12)
        page.close()
        libraries = Path(f"/proc/{process.pid}/maps").read_text()
        workers = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
    assert "onnxruntime" in libraries
    assert "tensorflow" not in libraries
    assert not "".join(workers).split()
