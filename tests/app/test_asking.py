"""The page keeps hints in its address, ignores gestures that a browser made up, and says what a network believes."""

import json

import pytest
import streamlit as st

from colorizer.app.widgets import asking
from colorizer.app.widgets.asking import Asking
from colorizer.config import MAX_PAGE_HINTS
from tests.app.conftest import texts

ADDRESS = {"source": "Sample photos", "photo": "chelsea", "pointer": "Ask and hint"}  # It has 451 x 300 pixels.


def points(app):
    return json.loads(json.loads(app.get("bidi_component")[0].proto.json)["points"])


def gesture(monkeypatch, about, /, **said):
    monkeypatch.setattr(st, "session_state", {"picture": said})
    asking.on_gesture(about, "picture")


def test_a_pixel_is_asked_given_a_colour_recoloured_and_all_is_undone(monkeypatch):
    asked = Asking("x", (100, 200))
    asked.give("#112233")
    assert asked.hints == ()  # No pixel was chosen yet.
    gesture(monkeypatch, asked, asked=[0.5, 1.0])
    asked.give("#112233")
    assert (asked.place, asked.hints) == ((0.5, 1.0), ((100, 99, "#112233"),))
    asked.place = (0.505, 0.995)
    asked.give("#445566")
    assert asked.hints == ((101, 99, "#445566"),)
    gesture(monkeypatch, asked, moved=[{"x": 0.25, "y": 0.5, "color": "#445566"}])
    assert asked.hints == ((50, 50, "#445566"),)
    gesture(monkeypatch, asked, moved=[])
    assert asked.hints == ()
    for expected in (((50, 50, "#445566"),), ((101, 99, "#445566"),), ((100, 99, "#112233"),), (), ()):
        gesture(monkeypatch, asked, undo=1)
        assert asked.hints == expected


@pytest.mark.parametrize(
    "place", [None, 1, "0.5", [0.5], [0.5, 2.0], [float("nan"), 0.5], [True, 0.5], {"x": 1}, [[], []]]
)
def test_a_place_that_no_page_of_ours_sends_is_ignored(monkeypatch, place):
    asked = Asking("x", (100, 200))
    gesture(monkeypatch, asked, asked=place)
    assert asked.place is None


@pytest.mark.parametrize(
    "moved",
    [
        "all",
        [1],
        [{}],
        [{"x": 0.5, "y": 0.5, "color": 3}],
        [{"x": 0.5, "y": 0.5, "color": "red"}],
        [{"x": 9, "y": 0.5, "color": "#112233"}],
        [{"x": 0.5, "y": 0.5, "color": "#112233"}] * (MAX_PAGE_HINTS + 1),
    ],
)
def test_points_that_no_page_of_ours_sends_are_ignored(monkeypatch, moved):
    asked = Asking("x", (100, 200), hints=((1, 2, "#123456"),))
    gesture(monkeypatch, asked, moved=moved)
    assert (asked.hints, asked.undo) == (((1, 2, "#123456"),), [])


def test_no_more_hints_than_the_limit_are_taken_and_the_visitor_is_told(monkeypatch):
    said = []
    monkeypatch.setattr(st, "toast", lambda text, **about: said.append(text))
    asked = Asking("x", (1000, 1000))
    for number in range(MAX_PAGE_HINTS + 3):
        asked.place = (0.5, number / 40)
        asked.give("#123456")
    assert len(asked.hints) == MAX_PAGE_HINTS
    assert said == ["A picture can have 32 hints here. Remove one first."] * 3


@pytest.mark.slow
def test_the_address_holds_the_hints_of_a_sample_photo(open_page):
    app = open_page("photo", **ADDRESS, hints="10.20.a0522d_450.299.00ff00")
    assert [point["color"] for point in points(app)] == ["#a0522d", "#00ff00"]
    assert "2 hints of at most 32" in texts(app)
    app.button_group(key="pointer").set_value("Compare").run()
    assert not app.exception


@pytest.mark.slow
def test_clearing_and_undoing_change_the_address(open_page):
    app = open_page("photo", **ADDRESS, hints="10.20.a0522d")
    next(button for button in app.button if button.label == "Remove all").click().run()
    assert points(app) == []
    assert "hints" not in app.query_params
    next(button for button in app.button if button.label == "Undo").click().run()
    assert [point["color"] for point in points(app)] == ["#a0522d"]
    assert app.query_params["hints"] == "10.20.a0522d"


@pytest.mark.slow
@pytest.mark.parametrize(
    "hints",
    ["x", "1.2", "1.2.zzzzzz", "451.0.123456", "-1.0.123456", "1.2.3.123456", "9" * 5000, "²....", "nan.1.123456"],
)
def test_hints_in_an_address_that_are_none_get_a_sentence(open_page, hints):
    app = open_page("photo", **ADDRESS, hints=hints)
    assert not app.exception
    assert points(app) == []
    (warning,) = app.warning
    assert warning.value == "The hints in the address are not hints for this picture, so they are left out."


@pytest.mark.slow
def test_references_change_the_picture_and_plain_results_can_stand_beside(open_page):
    app = open_page("photo", source="Sample photos", photo="coffee")
    first = json.loads(app.get("bidi_component")[0].proto.json)
    app.selectbox(key="reference").set_value("cold").run()
    second = json.loads(app.get("bidi_component")[0].proto.json)
    assert first["after"][0] != second["after"][0]
    assert first["before"] == second["before"]
    app.selectbox(key="before").set_value("without hints and reference").run()
    third = json.loads(app.get("bidi_component")[0].proto.json)
    assert third["before"][0] == first["after"][0]
    app.toggle(key="uncertain").set_value(True).run()
    assert "Yellow: it guesses." in texts(app)
    assert json.loads(app.get("bidi_component")[0].proto.json)["after"][1].endswith("where colorist guesses")
    assert not app.exception


@pytest.mark.slow
def test_the_hints_of_one_picture_are_not_those_of_the_next(open_page):
    app = open_page("photo", **ADDRESS, hints="10.20.a0522d")
    app.button_group(key="photo").set_value("coffee").run()
    assert points(app) == []
    assert "hints" not in app.query_params
    assert not app.warning


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet-vivid", "colorist"])
def test_a_test_image_is_asked_about_too(open_page, model):
    app = open_page("gallery", model=model, image="4", ask="true", hints="10.20.a0522d")
    assert not app.exception
    assert [point["color"] for point in points(app)] == ["#a0522d"]
    assert f"Test image 4, frog, colorized by {model}" in json.loads(app.get("bidi_component")[0].proto.json)["after"]
    assert "Click a pixel of the picture" in " ".join(info.value for info in app.info)
