"""A fresh app for every test: no caches, no spare worker, its own training service."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from colorizer.config import TrainingSpec
from colorizer.jobs import service
from colorizer.presets import get_preset

ROOT = Path(__file__).resolve().parents[2]


def alt_texts(app):
    """Return the alt text of every picture and chart on a page."""
    pictures = [image.alt for element in app.image for image in element.proto.imgs]
    components = [json.loads(element.proto.json) for element in app.get("bidi_component")]
    pictures += [data[side][1] for data in components for side in ("before", "after") if side in data]
    return pictures + [chart.proto.alt for chart in app.get("vega_lite_chart")]


def texts(app):
    """Return all Markdown, captions and plain text of a page."""
    return " ".join(str(element.value) for kind in ("markdown", "caption", "text") for element in app.get(kind))


@pytest.fixture
def open_page(home, monkeypatch):
    """A function that opens a page of the app, by its file name, with query parameters."""
    st.cache_data.clear()
    st.cache_resource.clear()
    monkeypatch.setattr(service.TrainingService, "prepare", lambda self: None)
    monkeypatch.setattr(service, "_service", service.TrainingService())

    def opened(page="start", /, **query):
        app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
        if page == "how":
            app.run()  # AppTest learns from a first run that this page has another address than its file name.
        app.switch_page(f"colorizer/app/pages/{page}.py")
        app.query_params.update(query)
        app.run()
        assert not app.exception, app.exception[0].message
        return app

    yield opened
    service._service.close()


@pytest.fixture
def fake_service(monkeypatch):
    """The server's training service, with a worker that only pretends to learn."""
    trainings = service.TrainingService((sys.executable, "-m", "tests.fake_worker"))
    monkeypatch.setattr(service, "_service", trainings)
    yield trainings
    trainings.close()


def start_fake(trainings, name, until, key="", preset="notebook", **changes):
    """Start a pretended run and wait until its view says so; return its id and key."""
    preset = get_preset(preset)
    spec = TrainingSpec(name, preset.model, preset.train.replace(dataset="synthetic", **changes), preset.name)
    run_id, key = trainings.start(spec, key, np.full((32, 32, 3), 200, np.uint8))
    deadline = time.monotonic() + 30
    while not until(trainings.view(run_id)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return run_id, key


def start_training(app, name):
    app.text_input(key="name").set_value(name).run()
    next(button for button in app.button if button.label == "Start training").click().run()
    assert not app.error and not app.exception
    return app.query_params["run"]
