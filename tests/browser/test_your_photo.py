"""Your photo in Chromium: the slider by mouse and by keys, steering, downloads, several files, a phone."""

import io
import zipfile

import numpy as np
import pytest
import skimage.data
from PIL import Image
from playwright.sync_api import expect

from colorizer.pixels.color import to_luminance
from tests.browser.story import HEIGHT, WIDTH, tell

pytestmark = pytest.mark.slow
GRAY = skimage.data.coffee()[::2, ::2] @ np.array([0.299, 0.587, 0.114])
SENTENCE = "is not a picture this app can read"


@pytest.fixture
def pictures(tmp_path):
    """Files by name: a gray JPEG, a PNG in colour with alpha, and a text."""
    Image.fromarray(GRAY.astype(np.uint8)).save(tmp_path / "gray.jpg")
    rgba = np.dstack([skimage.data.chelsea(), np.full((300, 451), 255, np.uint8)])
    rgba[:, :100, 3] = 90
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    (tmp_path / "notes.png").write_text("not a picture")
    return tmp_path


def choose(page, *files):
    page.locator("input[type=file]").first.set_input_files(files)


def downloaded(page, button):
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name=button).click()
    return download.value.path().read_bytes()


def line(page):
    """The slider over the picture, and where its line is, as a share of the picture's width."""
    slider = page.get_by_role("slider", name="how much of it to show").first
    frame = page.locator(".frame").first
    middle, left, width = (
        page.locator(".line").first.evaluate("line => (line.getBoundingClientRect().left + 1)"),
        frame.bounding_box()["x"],
        frame.bounding_box()["width"],
    )
    return slider, (middle - left) / width


def test_the_line_follows_the_mouse_and_the_keys_and_stays_when_the_picture_changes(open_page, pictures):
    page = open_page("/photo?model=dense-chroma")
    choose(page, pictures / "gray.jpg")
    expect(page.get_by_role("img", name="gray.jpg, colorized by dense-chroma")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("img", name="gray.jpg, in grayscale")).to_be_visible()
    slider, at = line(page)
    assert at == pytest.approx(0.5, abs=0.01)
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + 0.5 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], y, steps=5)
    page.mouse.up()
    assert line(page)[1] == pytest.approx(0.2, abs=0.02)
    before = page.locator("img.before")
    assert before.evaluate("image => getComputedStyle(image).clipPath").startswith("inset(0")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    assert line(page)[1] == pytest.approx(0.22, abs=0.02)
    slider.press("End")
    assert line(page)[1] == pytest.approx(1, abs=0.01)
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "99% before, 1% after")
    assert page.locator(".handle").evaluate("handle => getComputedStyle(handle).outlineStyle") == "solid"

    after = page.locator("img.after")
    source = after.get_attribute("src")
    height = page.locator(".frame").bounding_box()["height"]
    page.get_by_role("slider", name="Strength").press("ArrowRight")
    expect(after).not_to_have_attribute("src", source)
    assert line(page)[1] == pytest.approx(0.99, abs=0.01)
    assert page.locator(".frame").bounding_box()["height"] == height


def test_vividness_changes_what_is_right_of_the_line(open_page):
    page = open_page("/photo?source=Sample+photos&photo=coffee&model=unet-vivid")
    after, before = page.locator("img.after"), page.locator("img.before")
    sources = after.get_attribute("src"), before.get_attribute("src")
    page.get_by_role("slider", name="Vividness").press("End")
    expect(after).not_to_have_attribute("src", sources[0])
    expect(before).to_have_attribute("src", sources[1])
    page.wait_for_url("**vividness=1**")


@pytest.mark.parametrize("name", ["gray.jpg", "alpha.png"])
def test_the_download_has_the_size_the_luminance_and_the_alpha_of_the_upload(open_page, pictures, name):
    page = open_page("/photo?model=dense-chroma&strength=1.5")
    choose(page, pictures / name)
    expect(page.get_by_role("img", name=f"{name}, colorized")).to_be_visible(timeout=60_000)
    with Image.open(pictures / name) as picture:
        given = np.asarray(picture.convert("RGBA"))
    with Image.open(io.BytesIO(downloaded(page, "Download the result"))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGBA" if name == "alpha.png" else "RGB")
        result = np.asarray(picture.convert("RGBA"))
    np.testing.assert_array_equal(result[..., 3], given[..., 3])
    assert np.abs(to_luminance(result[..., :3]) - to_luminance(given[..., :3])).max() <= 1 / 255 + 1e-6
    assert np.ptp(result[..., :3], axis=-1).max() > 5


def test_a_file_that_is_no_picture_gets_one_sentence_and_nothing_is_lost(open_page, pictures):
    page = open_page("/photo?model=dense-chroma&strength=0.5")
    choose(page, pictures / "notes.png")
    expect(page.get_by_role("alert").get_by_text(SENTENCE)).to_be_visible()
    choose(page, pictures / "gray.jpg")  # a second file, beside the first
    expect(page.get_by_text("1 of 2 colorized by dense-chroma")).to_be_visible(timeout=60_000)
    assert "strength=0.5" in page.url


def test_several_files_are_colorized_into_one_zip_and_a_bad_one_has_its_line(open_page, pictures):
    page = open_page("/photo?model=dense-chroma")
    choose(page, *(pictures / name for name in ("gray.jpg", "notes.png", "alpha.png")))
    expect(page.get_by_text("2 of 3 colorized by dense-chroma")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("alert").get_by_text(SENTENCE)).to_have_count(1)
    with zipfile.ZipFile(io.BytesIO(downloaded(page, "Download all as zip"))) as archive:
        sizes = {name: Image.open(archive.open(name)).size for name in archive.namelist()}
    assert sizes == {"gray.png": (GRAY.shape[1], GRAY.shape[0]), "alpha.png": (451, 300)}


@pytest.mark.parametrize("names", [("alpha.png",), ("gray.jpg", "notes.png", "alpha.png")])
def test_on_a_phone_nothing_scrolls_sideways(open_page, pictures, names):
    page = open_page("/photo?model=dense-chroma", width=390, color_scheme="dark")
    choose(page, *(pictures / name for name in names))
    expect(page.get_by_role("img", name="alpha.png, colorized")).to_be_visible(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for box in (image.bounding_box() for image in page.get_by_role("img").all()):
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_start_has_the_slider_too(open_page):
    page = open_page("/")
    slider, _ = line(page)
    slider.press("Home")
    assert line(page)[1] == pytest.approx(0, abs=0.01)
    expect(page.get_by_role("img", name="colorized by colorist")).to_be_visible()


ASKING = "/photo?source=Sample+photos&photo=coffee&pointer=Ask+and+hint"


def colours_of(page):
    """The source of the coloured picture, which changes with the hints."""
    return page.locator("img.after").first.get_attribute("src")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_pixel_is_asked_hinted_moved_undone_and_kept_in_the_address(open_page, width, scheme):
    touches = width < 400
    page = open_page(ASKING, width=width, color_scheme=scheme, has_touch=touches)
    pad, before = page.locator(".pad").first, colours_of(page)
    box = pad.bounding_box()
    place = {"x": box["width"] * 0.3, "y": box["height"] * 0.4}
    if touches:
        pad.tap(position=place)
    else:
        pad.click(position=place)
    expect(page.get_by_text("Its entropy is")).to_be_visible(timeout=30_000)
    swatches = page.get_by_role("group", name="What the network believes").get_by_role("button")
    expect(swatches).to_have_count(12)
    swatches.nth(4).click()
    expect(page.locator(".point")).to_have_count(1, timeout=30_000)
    page.wait_for_function("location.search.includes('hints=')")
    hinted = page.evaluate("new URL(location).searchParams.get('hints')")
    dot = page.locator(".point").bounding_box()
    page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6, steps=4)
    page.mouse.up()
    page.wait_for_function("old => new URL(location).searchParams.get('hints') !== old", arg=hinted)
    moved = page.evaluate("new URL(location).searchParams.get('hints')")
    pad.focus()
    page.keyboard.press("Control+z")
    page.wait_for_function("old => new URL(location).searchParams.get('hints') === old", arg=hinted)
    assert moved.split(".")[2] == hinted.split(".")[2]
    again = open_page(f"{ASKING}&hints={hinted}", width=width, color_scheme=scheme)
    expect(again.locator(".point")).to_have_count(1)
    assert colours_of(again) == colours_of(page) != before
    dot = page.locator(".point")
    dot.focus()
    for _ in range(2):  # The keyboard stays on the hint.
        old = page.evaluate("new URL(location).searchParams.get('hints')")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("old => new URL(location).searchParams.get('hints') !== old", arg=old)
        page.wait_for_function("document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'")
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".point")).to_have_count(0)


def test_a_pixel_is_asked_by_the_keyboard(open_page):
    page = open_page(ASKING)
    pad = page.locator(".pad").first
    pad.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator(".said").first).to_have_text("54 percent from the left, 48 percent from the top")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Pixel 324, 190.")).to_be_visible(timeout=30_000)
    page.keyboard.press("Escape")
    assert not pad.evaluate("pad => pad.getRootNode().activeElement === pad")


def test_the_story_of_the_readme_is_told_on_a_sample_photo_and_on_a_test_image(browser, server):
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    frames = tell(context.new_page(), server)
    context.close()
    assert len({frame.tobytes() for frame in frames}) == len(frames) >= 6
