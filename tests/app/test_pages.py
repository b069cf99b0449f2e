"""All pages of the app, in process: they open, are light, and survive missing and damaged models; How it works."""

import platform
import shutil
import subprocess
import sys

import pytest

from colorizer.data import datasets
from colorizer.models import library
from tests.app.conftest import alt_texts, texts

PAGES = ("start", "gallery", "photo", "train", "how")


@pytest.mark.parametrize("page", [*PAGES[:-1], pytest.param(PAGES[-1], marks=pytest.mark.slow)])
def test_every_page_opens_without_an_error_and_names_its_pictures(open_page, page):
    app = open_page(page)
    assert not app.error and not app.warning
    assert all(alt_texts(app))


@pytest.mark.slow
def test_no_page_imports_tensorflow_even_when_it_colorizes_a_photo(tmp_path):
    code = f"""
import os, sys
os.environ["COLORIZER_HOME"] = {str(tmp_path)!r}
from streamlit.testing.v1 import AppTest
from colorizer.jobs import service
service.TrainingService.prepare = lambda self: None
app = AppTest.from_file("streamlit_app.py", default_timeout=60).run()
for page in {PAGES[1:]!r}:
    app.switch_page(f"colorizer/app/pages/{{page}}.py").run()
    assert not app.exception, app.exception
app.switch_page("colorizer/app/pages/start.py").run()
app.file_uploader[0].upload("cat.png", open("assets/icon.png", "rb").read(), "image/png").run()
assert not app.exception and "cat" in app.caption[0].value
assert "onnxruntime" in sys.modules
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=datasets.ASSETS.parent, timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_threads_give_back_what_they_have_freed():
    code = """
import re, threading
from pathlib import Path
import numpy as np
from colorizer.app.widgets import estimate, state

def megabytes():
    return int(re.search(r"Anonymous: *([0-9]+)", Path("/proc/self/smaps_rollup").read_text())[1]) / 1000

def work():
    everybody.wait()
    np.ones(3 * 2**19)  # 12 MB
    everybody.wait()

state.give_memory_back()
np.ones(2**21)  # freed, glibc would by itself keep twice these 16 MB in every arena
before, everybody = megabytes(), threading.Barrier(8)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(megabytes() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, cwd=datasets.ASSETS.parent, timeout=120, stdout=-1)
    assert float(run.stdout) < 50  # Without the setting it is about 100.


def test_start_shows_a_photo_before_and_after_by_the_model_that_learned_from_photos(open_page):
    best = next(entry.name for entry in library.list_models() if entry.train_config.photos)
    assert any(alt.endswith(f"colorized by {best}") for alt in alt_texts(open_page()))


def test_start_slider_goes_back_through_the_snapshots_of_a_model(open_page):
    app = open_page(history="notebook")
    app.select_slider(key="snapshot-notebook").set_value(0).run()
    assert any("notebook colorizes them after 0 epochs" in alt for alt in alt_texts(app))
    assert not app.exception


def test_start_slider_goes_back_through_the_beliefs_of_a_model_with_bins(open_page):
    app = open_page(history="unet-vivid")
    slider, said = app.select_slider(key="snapshot-unet-vivid"), []
    assert "a second run of the same command" in texts(app)
    for place in (0, len(slider.options) - 1):
        slider.set_value(place).run()
        said.append(next(words.value for words in app.markdown if "**Pixel 16, 16 after" in words.value))
    assert said[0].startswith("**Pixel 16, 16 after 0 epochs.**")
    assert said[0].split("**")[2] != said[1].split("**")[2]
    assert not app.exception


@pytest.mark.slow
def test_pages_say_what_to_do_when_there_is_no_model(open_page, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "none")
    for page in ("start", "gallery", "photo"):
        assert "There is no model yet" in open_page(page).info[0].value
    assert not open_page("how").error


@pytest.mark.slow
def test_a_damaged_model_harms_no_page(open_page, monkeypatch, tmp_path):
    shipped = tmp_path / "models"
    shutil.copytree(library.SHIPPED / "linear", shipped / "linear")
    shutil.copytree(library.SHIPPED / "linear", shipped / "broken")
    (shipped / "broken" / "model.onnx").write_bytes(b"")
    (shipped / "linear" / "history.json").write_text("[]")
    (shipped / "linear" / "snapshots.npz").write_bytes(b"PK")
    monkeypatch.setattr(library, "SHIPPED", shipped)
    for page in PAGES:
        app = open_page(page)
        assert not app.error, page
    assert open_page("gallery").selectbox(key="model").options == ["linear"]
