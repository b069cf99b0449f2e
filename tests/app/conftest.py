"""A fresh app for every test: no caches, no spare worker, its own training service."""

import json
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from colorizer.jobs import service

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
