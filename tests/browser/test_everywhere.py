"""What holds on every page, in Chromium: widths, colours, accessibility, keyboard, reload, a damaged library."""

import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from colorizer.app.chapters import CHAPTERS
from colorizer.models import library
from tests.browser.conftest import settle

pytestmark = pytest.mark.slow
PATHS = (
    "/",
    "/gallery",
    "/gallery?view=Compare+models",
    "/photo",
    "/photo?source=Sample+photos&photo=coffee&model=dense-chroma&model=unet-vivid&raw=true",
    "/photo?source=Sample+photos&photo=coffee&pointer=Ask+and+hint&uncertain=true&hints=100.100.a0522d",
    "/gallery?model=unet-vivid&image=4&ask=true&hints=9.9.a0522d",
    "/train",
    *(f"/how-it-works?chapter={chapter.slug}" for chapter in CHAPTERS),
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_page_fits_every_width_is_described_and_accessible(open_page, path, color_scheme):
    page = open_page(path, 1440, color_scheme)
    expect(page.locator("[data-testid=stSpinner]")).to_have_count(0)
    for width in (1440, 768, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(
            """[document.documentElement, document.querySelector("[data-testid=stMain]")].every(
                element => element.scrollWidth <= element.clientWidth)"""
        )
    assert page.evaluate("[...document.images].every(image => image.alt)")
    for chart in page.get_by_test_id("stVegaLiteChart").all():
        expect(chart).to_have_attribute("aria-label", re.compile(".* .* "))  # It is more than a name.
    violations = serious_violations(page)
    for _ in range(10):  # while colours still fade in
        if not violations:
            break
        page.wait_for_timeout(500)
        violations = serious_violations(page)
    assert not violations


def serious_violations(page):
    """What axe-core finds of serious or critical impact, and headings out of order."""
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in Axe().run(page).response["violations"]
        if found["impact"] in ("serious", "critical") or found["id"] == "heading-order"
        for node in found["nodes"]
    ]


def tab_to(page, target):
    """Press Tab until the target has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("element => element.matches(':focus-within')"):
            return
    raise AssertionError("Tab does not lead there")


def test_the_keyboard_alone_leads_through_the_app(open_page):
    page = open_page()
    slider = page.get_by_role("slider", name="how much of it")
    tab_to(page, slider)
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "51% before, 49% after")
    page.reload()
    settle(page)
    tab_to(page, page.get_by_role("link", name="Gallery", exact=True))
    page.keyboard.press("Enter")
    picture = page.get_by_role("button", name="#0 cat")
    expect(picture).to_be_visible()
    settle(page)
    tab_to(page, picture)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_text("#0, cat")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_keyboard_alone_starts_a_training(open_page):
    page = open_page("/train?preset=quick&epochs=80&train_images=20000")
    tab_to(page, page.get_by_role("button", name="Start training"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="Eight test images")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Yes, delete it").click()
    expect(page.get_by_text("Nothing is being trained")).to_be_visible()


def test_gallery_is_filtered_sorted_and_paged_and_a_new_tab_has_the_same(open_page, server):
    page = open_page("/gallery?model=dense-chroma")
    page.get_by_role("radio", name="worst").click()
    page.wait_for_url("**sort=worst**")
    first = page.locator("[class*=st-key-image-]").first
    expect(first).to_contain_text("mse 0.0242")  # The largest error of all samples.
    page.get_by_role("button", name="Next page").click()
    expect(page.get_by_text("This is page 2 of 2.")).to_be_visible()
    expect(first).not_to_contain_text("mse 0.0242")
    title = first.inner_text()
    again = open_page(page.url.removeprefix(server))
    expect(again.get_by_text("page 2 of 2")).to_be_visible()
    expect(again.locator("[class*=st-key-image-]").first).to_have_text(title, use_inner_text=True)
    again.get_by_role("combobox", name="Class").click()
    again.get_by_role("option", name="frog").click()
    expect(again.get_by_role("button", name="airplane")).to_have_count(0)
    expect(again.get_by_role("button", name="frog").first).to_be_visible()
    again.reload()
    expect(again.get_by_role("button", name="frog").first).to_be_visible()


def test_an_enlarged_picture_survives_a_reload(open_page):
    page = open_page("/gallery?image=5")
    expect(page.get_by_role("dialog").get_by_text("#5, frog")).to_be_visible()
    page.reload()
    expect(page.get_by_role("dialog").get_by_text("#5, frog")).to_be_visible()


def test_how_it_works_follows_its_slider(open_page):
    page = open_page("/how-it-works?chapter=bottleneck")
    page.get_by_role("slider", name="Bottleneck").press("ArrowRight")
    page.wait_for_url("**k=33**")
    expect(page.get_by_text("33").first).to_be_visible()


def test_a_damaged_model_is_named_and_can_be_deleted(open_page, server_home):
    folder = server_home / "models" / "broken"
    shutil.copytree(library.SHIPPED / "dense-chroma", folder)
    (folder / "model.keras").write_bytes(b"not a model")
    page = open_page("/gallery")
    expect(page.get_by_text("is damaged and left out")).to_be_visible()
    expect(page.get_by_role("img", name="original, grayscale and reconstructed").first).to_be_visible()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("is damaged and left out")).to_have_count(0)
    assert not folder.exists()
