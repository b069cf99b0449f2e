"""Records the story of asking the network and giving it hints, as an animated picture for the README.

`python -m tests.browser.story FILE` starts the app, does in Chromium what a visitor does, and writes a WebP file.
"""

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.conftest import CHROMIUM_ARGUMENTS, find_chromium, serve, settle

WIDTH, HEIGHT = 1280, 1000
_CAPTION, _SECONDS = 56, 2.6
_SCROLL_UP = "document.querySelectorAll('*').forEach(element => { element.scrollTop = 0 })"
_POINTER = """([x, y]) => {
    document.querySelector("#pointer")?.remove()
    const dot = document.createElement("div")
    dot.id = "pointer"
    dot.style.cssText = `position: fixed; left: ${x - 13}px; top: ${y - 13}px; width: 26px; height: 26px; z-index: 1e9;
        border: 4px solid #ff5a1f; border-radius: 50%; pointer-events: none`
    document.body.append(dot)
}"""


class Recorder:
    """Keeps pictures of a page, each with a caption below it."""

    def __init__(self, page: Page) -> None:
        self.page, self.frames = page, []

    def show(self, caption: str) -> None:
        settle(self.page)
        self.page.evaluate(_SCROLL_UP)
        self.page.wait_for_timeout(600)  # What fades in is there.
        with tempfile.TemporaryDirectory() as folder:
            self.page.screenshot(path=Path(folder) / "frame.png")
            shot = Image.open(Path(folder) / "frame.png").convert("RGB")
        frame = Image.new("RGB", (shot.width, shot.height + _CAPTION), "#1f2430")
        frame.paste(shot)
        draw = ImageDraw.Draw(frame)
        draw.text((24, shot.height + 13), caption, "white", ImageFont.load_default(size=24))
        self.frames.append(frame)

    def ask(self, x: float, y: float) -> None:
        """Ask about a pixel of the picture, in shares of its width and height, and mark the place."""
        settle(self.page)
        self.page.evaluate(_SCROLL_UP)
        box = self.page.locator(".pad").first.bounding_box()
        place = [box["x"] + x * box["width"], box["y"] + y * box["height"]]
        self.page.mouse.click(*place)
        self.page.evaluate(_POINTER, place)
        expect(self.page.get_by_text("Its entropy is")).to_be_visible()


def tell(page: Page, address: str) -> list[Image.Image]:
    """Do what the story tells, first with a sample photo and then with a test image; return a picture of each step."""
    story, photo = Recorder(page), f"{address}/photo?source=Sample+photos&photo=coffee"
    page.goto(photo)
    story.show("The network has coloured this photo. The saucer stayed gray.")
    page.goto(f"{photo}&pointer=Ask+and+hint&uncertain=true")
    story.show("The uncertainty map: the network knows where it is blue, and guesses where it is yellow.")
    page.goto(f"{photo}&pointer=Ask+and+hint")
    story.ask(0.22, 0.62)
    story.show("Click a pixel: these colours seem possible to the network there. Their mean is gray.")
    _give(page, "#b0432f")
    story.show("Give the pixel its true colour: whatever looks like it follows.")
    page.goto(f"{address}/gallery?model=unet-vivid&image=4&ask=true")
    story.ask(0.5, 0.5)
    story.show("It works on test images too: the network hesitates about this frog.")
    page.get_by_role("group", name="What the network believes").get_by_role("button").nth(3).click()
    expect(page.locator(".point")).to_have_count(1)
    story.show("Choose one of the colours that it thinks possible.")
    return story.frames


def _give(page: Page, color: str) -> None:
    """Give the pixel that was asked about a colour, as the first hint."""
    before = page.locator("img.after").first.get_attribute("src")
    page.get_by_test_id("stColorPickerBlock").click()
    box = page.get_by_role("textbox").last
    box.fill(color)
    box.press("Enter")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Give the pixel this colour").click()
    expect(page.locator(".point")).to_have_count(1)
    expect(page.locator("img.after").first).not_to_have_attribute("src", before)


def main() -> None:
    """Record the story and write it into the file that the command line names."""
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        environment = {key: value for key, value in os.environ.items() if key != "COLORIZER_CIFAR10"}
        environment["COLORIZER_HOME"] = str(Path(folder) / "home")
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        with serve("streamlit_app.py", environment, Path(folder) / "server.log") as (address, _):
            frames = tell(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}), address)
        browser.close()
    first, *others = [frame.resize((frame.width * 3 // 4, frame.height * 3 // 4)) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=int(1000 * _SECONDS), loop=0, quality=70, method=6)
    print(f"{path}: {len(frames)} pictures, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
