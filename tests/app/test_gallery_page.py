"""The gallery, in process: what it shows and filters, how it compares models, and its empty and error states."""

import gc
import json
import shutil
import weakref

import numpy as np
import pytest

from colorizer.app.widgets import state
from colorizer.data import cifar10, datasets
from colorizer.data.datasets import CLASS_NAMES
from colorizer.models import library
from tests.app.conftest import alt_texts, texts


def test_gallery_offers_the_download_when_only_the_samples_are_here(open_page):
    app = open_page("gallery")
    assert "20 images" in texts(app)
    assert [button.label for button in app.button if "Download" in button.label]
    assert len([button for button in app.button if button.label.startswith("#")]) == 12


def test_gallery_download_without_a_network_says_so_in_one_sentence(open_page, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR10_URL", "http://127.0.0.1:9/cifar.tar.gz")
    app = open_page("gallery")
    next(button for button in app.button if "Download" in button.label).click().run()
    assert "could not be downloaded" in app.error[0].value
    assert not app.exception


def test_gallery_filters_by_class_and_sorts_by_error(open_page):
    app = open_page("gallery", **{"class": "ship", "sort": "worst", "model": "notebook"})
    items = [button.label for button in app.button if button.label.startswith("#")]
    errors = [float(label.split("mse ")[1].split()[0]) for label in items]
    assert len(items) == 4 and all("ship" in label for label in items)
    assert errors == sorted(errors, reverse=True)


def test_gallery_says_when_a_class_has_no_images(open_page):
    assert "There is no image of the class" in open_page("gallery", **{"class": "deer"}).info[0].value


def test_gallery_shows_one_image_closely_with_its_metrics(open_page):
    app = open_page("gallery", image="3")
    assert any("where it is wrong" in alt for alt in alt_texts(app))
    assert "#3, airplane" in texts(app)


@pytest.mark.slow
def test_gallery_leaves_nothing_of_an_earlier_run_in_memory(open_page, monkeypatch):
    predictions, shown = state.predictions, []

    def noted(*arguments):
        made = predictions(*arguments)
        shown.append(weakref.ref(made))
        return made

    monkeypatch.setattr(state, "predictions", noted)
    app = open_page("gallery", model="notebook")
    for chosen in ("ship", "frog"):
        app.selectbox(key="class").set_value(chosen).run()
    gc.collect()
    assert len(shown) >= 3 and all(made() is None for made in shown[:-1])


@pytest.mark.parametrize(
    "image", ["99999", *(pytest.param(image, marks=pytest.mark.slow) for image in ("-1", "abc", "1e9"))]
)
def test_gallery_ignores_an_impossible_image_in_the_url(open_page, image):
    assert not any("where it is wrong" in alt for alt in alt_texts(open_page("gallery", image=image)))


def test_gallery_pages_through_the_full_test_set(open_page, cifar10, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: cifar10)
    monkeypatch.setattr(datasets, "cifar10_status", lambda: {"state": "prepared", "path": "", "bytes": 0})
    app = open_page("gallery", model="linear", page="834")
    items = [button.label for button in app.button if button.label.startswith("#")]
    label = CLASS_NAMES[cifar10.test.labels[9999]]
    assert len(items) == 4 and items[-1].startswith(f"#9999 {label} ")


def test_gallery_names_a_broken_source_and_goes_on_with_the_samples(open_page, monkeypatch, tmp_path):
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    monkeypatch.setenv("COLORIZER_CIFAR10", str(broken))
    app = open_page("gallery")
    assert "cannot be read as a CIFAR-10 archive" in app.warning[0].value
    assert "20 images" in texts(app)


def test_gallery_compares_every_model_with_the_gray_copy(open_page):
    app = open_page("gallery", view="Compare models", compared="1 ship")
    table = app.dataframe[0].value.set_index("model")
    names = [entry.name for entry in library.list_models()]
    assert list(table.index) == [*names, "gray copy"]
    assert table.loc["linear", "mse"] == library.find_model("linear").metric("test")
    assert {f"1 ship: {name}" for name in ("original", "grayscale", *names)} <= set(alt_texts(app))


def test_gallery_tells_how_many_images_are_recognised_in_the_colours_of_each_model(open_page, monkeypatch, tmp_path):
    app = open_page("gallery", view="Compare models")
    table = app.dataframe[1].value.set_index("images")
    assert list(table.index[:2]) == ["originals", "gray copy"]
    stored = library.find_model("unet").card["metrics"]["test"]
    assert table.loc["unet", "top-1"] == stored["recognition"]["model"] > stored["recognition"]["gray_copy"]
    assert table.loc["gray copy", "Δ colorfulness"] == pytest.approx(-33.65, abs=0.01)
    assert table.loc["unet", "Δ colorfulness"] == stored["delta_colorfulness"]
    assert f"names {stored['recognition']['original']:.1%} of the originals" in texts(app)
    shutil.copytree(library.SHIPPED / "notebook", tmp_path / "models" / "notebook")
    card = json.loads((tmp_path / "models" / "notebook" / "card.json").read_text())
    del card["metrics"]["test"]["recognition"]  # A card of an earlier version does not have it.
    (tmp_path / "models" / "notebook" / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "models")
    app = open_page("gallery", view="Compare models")
    assert len(app.dataframe) == 1 and not app.exception


def test_gallery_compares_models_whose_history_is_damaged(open_page, monkeypatch, tmp_path):
    shutil.copytree(library.SHIPPED / "notebook", tmp_path / "models" / "notebook")
    (tmp_path / "models" / "notebook" / "history.json").write_text("{")
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "models")
    assert len(open_page("gallery", view="Compare models").dataframe[0].value) == 2


def copy_model(folder, name, factor=1.0, dataset="cifar10"):
    """Copy the shipped model `notebook`, with its validation losses multiplied and its data set changed."""
    shutil.copytree(library.SHIPPED / "notebook", folder / name)
    history = json.loads((folder / name / "history.json").read_text())
    history["val_loss"] = [factor * loss for loss in history["val_loss"]]
    (folder / name / "history.json").write_text(json.dumps(history))
    card = json.loads((folder / name / "card.json").read_text())
    card["train"]["dataset"] = dataset
    (folder / name / "card.json").write_text(json.dumps(card))


def test_gallery_compares_in_one_chart_only_models_that_were_validated_on_the_same_images(
    open_page, monkeypatch, tmp_path
):
    folder = tmp_path / "models"
    copy_model(folder, "usual")
    copy_model(folder, "far-above", 50)
    copy_model(folder, "far-below", 0.01)
    copy_model(folder, "clouds", dataset="synthetic")
    shutil.copytree(library.SHIPPED / "linear", folder / "linear")
    monkeypatch.setattr(library, "SHIPPED", folder)
    app = open_page("gallery", view="Compare models")
    charts = app.get("vega_lite_chart")
    drawn = [set(name for name in ("usual", "far-above", "far-below", "clouds") if name in c.proto.alt) for c in charts]
    assert drawn == [{"usual", "far-above", "far-below"}, {"clouds"}]
    low, high = json.loads(charts[0].proto.spec)["encoding"]["y"]["scale"]["domain"]
    losses = json.loads((folder / "usual" / "history.json").read_text())["val_loss"]
    assert low <= 0.01 * min(losses) and high >= 50 * max(losses)
    assert "linear (it was solved in closed form)" in texts(app)


def test_reconstructions_in_the_gallery_are_the_models_own(open_page):
    from colorizer.models import evaluation
    from colorizer.models.colorizer import load

    entry = library.find_model("linear")
    shown = evaluation.stored_predictions(entry, "samples", "test")
    computed = evaluation.predict_split(load("linear"), datasets.load_samples())
    assert np.abs(shown.images.astype(int) - computed.images).max() <= 1
