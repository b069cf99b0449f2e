"""What comes from outside harms no page: addresses, names of files, and damaged folders with paths in their errors."""

import json
import os
import shutil
from pathlib import Path

import pytest

from colorizer.data import datasets
from colorizer.jobs.service import training_service
from colorizer.models import library
from tests.app.conftest import ROOT
from tests.app.test_text import INLINE

PAGES = ("start", "gallery", "photo", "train", "how")
SHOWING = ("title", "header", "markdown", "caption", "error", "warning", "info", "toast", "metric")


def shown_texts(app):
    """Everything on the page that Streamlit renders as Markdown."""
    bodies = [str(element.value) for kind in SHOWING for element in app.get(kind)]
    labels = [widget.label for kind in ("button", "selectbox", "toggle", "slider") for widget in app.get(kind)]
    links = [link.proto.label for link in app.get("page_link")]
    return bodies + labels + links + [bar.proto.text for bar in app.get("progress")]


def damage(folder, name, **card):
    """Put a copy of a shipped model into a folder, with these values of its card changed."""
    shutil.copytree(library.SHIPPED / "linear", folder / name)
    content = json.loads((folder / name / "card.json").read_text()) | card
    (folder / name / "card.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("start", INLINE[0]),
        *(("train", text) for text in INLINE[:1]),
        *(pytest.param("train", text, marks=pytest.mark.slow) for text in INLINE[1:]),
    ],
)
def test_a_hostile_run_in_the_address_is_shown_letter_by_letter(open_page, page, text):
    app = open_page(page, run=text)
    assert app.warning and not app.exception
    assert not any(text in shown for shown in shown_texts(app))


@pytest.mark.slow
@pytest.mark.parametrize("text", INLINE[:3])
def test_a_hostile_file_name_is_shown_letter_by_letter(open_page, text):
    app = open_page("start")
    app.file_uploader(key="start-upload").upload(f"{text}.png", (datasets.ASSETS / "icon.png").read_bytes()).run()
    assert not app.exception
    assert any("Photo: " in shown for shown in shown_texts(app))
    assert not any(text in shown for shown in shown_texts(app))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_hostile_model_folders_and_cards_are_shown_letter_by_letter(open_page, home, page):
    for number, text in enumerate(INLINE):
        damage(home / "models", f"broken-{number}", model={text: 1})
        damage(home / "models", text.replace("/", "-"), sha256=5)
    damage(home / "models", os.fsdecode(b"not-utf-8-\xff"), sha256=5)
    app = open_page(page)
    assert not app.exception
    for text in INLINE:
        for hostile in (text, text.replace("/", "-")):
            assert not any(hostile in shown for shown in shown_texts(app))


WRONG = {
    "start": ({"history": "nope"}, {"history": ""}, {"run": ".."}, {"run": ""}, {"run": "x", "key": "y"}),
    "gallery": (
        {"model": "nope", "page": "-3", "image": "99999999"},
        {"page": "99999999", "class": "nope", "sort": "nope", "view": "nope"},
        {"page": "x", "vividness": "nan", "image": ""},
        {"model": "unet-vivid", "vividness": "7"},
        {"view": "Compare models", "compared": "nope"},
        {"image": "\N{ARABIC-INDIC DIGIT THREE}"},
    ),
    "photo": (
        {"source": "nope", "photo": "nope", "model": "nope", "strength": "99", "size": "7", "raw": "maybe"},
        {"source": "Sample photos", "photo": "nope", "strength": "inf"},
    ),
    "train": (
        {"run": ".."},
        {"run": "../../etc/passwd"},
        {"preset": "nope", "epochs": "-1", "latent_dim": "x", "batch_size": "1e9", "learning_rate": "nan"},
        {"preset": "unet", "latent_dim": "2", "dataset": "folder:/etc", "init_from": "nope"},
        {"train_images": "45000", "sweep": "nope"},
        {"train_images": "99999999", "dataset": "samples"},
    ),
    "how": ({"sample": "nope", "k": "9999"}, {"k": "-1"}, {"sample": "", "k": "x"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "query"), [(page, query) for page in PAGES for query in WRONG[page]])
def test_wrong_values_in_the_address_harm_no_page(open_page, page, query):
    app = open_page(page, **query)
    assert not app.exception and not app.error
    assert app.title


def damaged_run(home):
    """Start a run that no worker takes, and damage what can be damaged."""
    (home / "runs" / "20200101-000000-abcdef").mkdir(parents=True)


def broken_archive(home, monkeypatch):
    source = home.parent / "my archives" / "broken.tar.gz"
    source.parent.mkdir()
    source.write_bytes(b"no archive")
    monkeypatch.setenv("COLORIZER_CIFAR10", str(source))


def read_only_model(home):
    """Models whose files are missing, or are not what the card says."""
    damage(home / "models", "no-predictions", sha256="0" * 64)
    for name in ("predictions.npz", "snapshots.npz", "history.json"):
        (home / "models" / "no-predictions" / name).write_bytes(b"damaged")
    damage(home / "models", "broken", model={"init": str(home)})
    damage(home / "models", "no-network")
    for path in (home / "models" / "no-network").glob("model.*"):
        path.unlink()


@pytest.mark.slow
def test_no_page_names_a_path_of_the_server_whatever_is_damaged(open_page, home, monkeypatch):
    damaged_run(home)
    broken_archive(home, monkeypatch)
    read_only_model(home)
    visits = [(page, {}) for page in PAGES]
    visits += [("train", {"run": run}) for run in ("20200101-000000-abcdef", "..", "nope", str(home))]
    visits += [("gallery", {"model": "no-predictions"}), ("gallery", {"view": "Compare models"})]
    visits += [("photo", {"source": "Sample photos", "model": "no-predictions"}), ("start", {"run": "nope"})]
    said = []
    for page, query in visits:
        app = open_page(page, **query)
        assert not app.exception
        said += shown_texts(app)
    assert any("damaged" in text for text in said) and any("broken.tar.gz" in text for text in said)
    for path in (home, home.parent, ROOT, Path.home()):
        assert not [text for text in said if f"{path}{os.sep}" in text]


def test_a_start_that_the_disk_refuses_names_no_path(open_page, home):
    home.mkdir(parents=True, exist_ok=True)
    app = open_page("train")
    shutil.rmtree(home, ignore_errors=True)
    home.write_text("a file where the folder should be")
    next(button for button in app.button if button.label == "Start training").click().run()
    home.unlink()
    assert not app.exception and app.error
    assert str(home) not in app.error[0].value
    assert not training_service().active_runs()
