"""Text from outside: no character of it is markup on a page, and no path of this machine is in it."""

import re

import pytest

from colorizer import config
from colorizer.app.widgets.text import describe, escape, hide_paths
from colorizer.errors import ConfigError

INLINE = (
    "![x](http://evil.example/x.png)",
    "[login](http://evil.example)",
    "<img src=http://evil.example/x.png>",
    "<http://evil.example>",
    "http://evil.example www.evil.example a@evil.example",
    ":material/home: :smile: :red[x] :red-badge[x] :streamlit:",
    "$\\frac{1}{2}$ and $$x$$",
    "**bold** _italic_ ~~gone~~ `code` | cell |",
    "a\n\n    code\n\n[x]: http://evil.example",
    "back\\*slash &lt; \\",
)
HOSTILE = (*INLINE, "# heading", "- item", "1. item")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_markup_is_left_unescaped(text):
    escaped = escape(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]<|~$&]", escaped.replace("\\\\", ""))
    assert not re.search(r":\S|@\S|www\.", escaped.replace(":\u2060", ": ").replace("@\u2060", "@ "))
    assert not re.match(r"[-+#>=]|\d+[.)]", escaped)


@pytest.mark.parametrize("text", ["unet-vivid", "The model is damaged: its card lacks 'mse' (again).", "16 x 3, 50 %"])
def test_plain_sentences_stay_as_they_are(text):
    assert escape(text) == text


def test_letters_that_cannot_be_shown_are_replaced():
    escape("\udcff\u202ename").encode()
    assert escape("\udcff\u202ename") == "\N{REPLACEMENT CHARACTER}" * 2 + "name"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Delete its folder {home}/models/broken.", "Delete its folder models/broken."),
        (
            "It could not be saved in {home} (No space left).",
            "It could not be saved in the app's folder (No space left).",
        ),
        ("[Errno 13] Permission denied: '/etc/colorizer/x.npz'", "[Errno 13] Permission denied: 'x.npz'"),
        ("C:\\Users\\me\\x.npz is damaged.", "x.npz is damaged."),
        ("Samples are missing from {assets}/samples.", "Samples are missing from assets/samples."),
        ("https://example.org/a/b and 30 KB/s or 1 / 2", "https://example.org/a/b and 30 KB/s or 1 / 2"),
    ],
)
def test_paths_of_this_machine_are_left_out(home, text, shown):
    assert hide_paths(text.format(home=home, assets=config.ASSETS)) == shown


def test_an_error_is_described_without_markup_and_paths(home):
    error = ConfigError(f"The file {home}/runs/![x](http://evil.example) is damaged.")
    assert describe(error) == "The file runs/!\\[x\\](http:\u2060//evil.example) is damaged."
