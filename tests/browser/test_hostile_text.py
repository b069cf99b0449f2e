"""Hostile text in Chromium: it is shown letter by letter, nothing of it is a link or a picture, no request leaves."""

import shutil
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from colorizer.config import ASSETS
from colorizer.models import library
from tests.app.test_text import HOSTILE
from tests.browser.conftest import settle

pytestmark = pytest.mark.slow
MARKUP = "a, img, code, em, del, h1, h2, li, table, pre, .katex"


def plain(text):
    """Return a text as a page shows it: of one line, without the characters that have no width."""
    return " ".join(text.replace("\u2060", "").split())


def test_a_hostile_address_is_shown_letter_by_letter_and_nothing_is_fetched(open_page, server):
    page = open_page("/train")
    for text in HOSTILE:
        page.goto(f"{server}/train?run={quote(text)}")
        warning = page.locator("p", has_text="is not a valid name")
        expect(warning).to_be_visible()
        assert plain(warning.inner_text()).startswith(plain(repr(text)))
        assert warning.locator(MARKUP).count() == 0


def test_a_hostile_file_name_is_shown_letter_by_letter(open_page, server, tmp_path):
    page = open_page("/")
    for number, text in enumerate(text for text in HOSTILE if "/" not in text and "\n" not in text):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(ASSETS / "icon.png", folder / f"{text}.png")
        page.locator("input[type=file]").set_input_files(folder / f"{text}.png")
        caption = page.get_by_test_id("stCaptionContainer").filter(has_text="It was colorized by")
        expect(caption).to_contain_text(plain(text)[:5])
        assert plain(f"{text}.png") in plain(caption.inner_text())
        assert caption.locator(MARKUP).count() == 0
        page.reload()
        settle(page)


def test_a_hostile_model_folder_is_shown_letter_by_letter(open_page, server_home):
    folders = []
    for text in (text for text in HOSTILE if "\n" not in text):
        folders.append(server_home / "models" / text.replace("/", "-"))
        shutil.copytree(library.SHIPPED / "linear", folders[-1])
    try:
        page = open_page("/gallery")
        damaged = page.locator("p", has_text="is damaged and left out")
        expect(damaged).to_have_count(len(folders))
        assert damaged.locator(MARKUP).count() == 0
        shown = [plain(text) for text in damaged.all_inner_texts()]
        missing = [
            name for name in (ascii(folder.name)[1:-1] for folder in folders) if plain(name) not in " ".join(shown)
        ]
        assert not missing
    finally:
        for folder in folders:
            shutil.rmtree(folder)
