"""How it works: every chapter opens, moves, is short, and computes what it says."""

import shutil

import numpy as np
import pytest

from colorizer.app.chapters import CHAPTERS, game, gray, learning, numbers
from colorizer.models import library
from colorizer.pixels.color import LUMINANCE_WEIGHTS
from tests.app.conftest import alt_texts, texts

pytestmark = pytest.mark.slow  # Whole pages are run.


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)
def test_a_chapter_opens_by_its_address_and_is_short(open_page, chapter):
    app = open_page("how", chapter=chapter.slug)
    assert chapter.title in [header.value for header in app.header]
    assert chapter.text in texts(app)
    assert len(chapter.text.split()) <= 90
    assert not app.exception and not app.error


def test_next_and_back_lead_through_all_chapters_and_an_unknown_one_is_the_first(open_page):
    app, seen = open_page("how", chapter="nonsense"), []
    for _ in CHAPTERS:
        seen.append(app.header[0].value)
        if following := [button for button in app.button if button.label.startswith("Next: ")]:
            following[0].click().run()
    assert seen == [chapter.title for chapter in CHAPTERS]
    next(button for button in app.button if button.label.startswith("Back: ")).click().run()
    assert app.header[0].value == CHAPTERS[-2].title
    assert app.query_params["chapter"] == CHAPTERS[-2].slug


def test_an_address_that_changes_wins_over_the_chapter_that_was_shown(open_page):
    app = open_page("how", chapter="game")
    app.query_params["chapter"] = "numbers"
    app.run()
    assert (app.header[0].value, app.query_params["chapter"]) == ("A picture is numbers", "numbers")


@pytest.mark.parametrize(
    ("chapter", "query"),
    [
        ("gray", {"color": "#abc", "r": "nan", "g": "-1", "sample": "99"}),
        ("gray", {"color": "red; --", "b": "1e9"}),
        ("numbers", {"rows": "5", "row": "25.5"}),
        ("numbers", {"rows": "7.5", "row": "-3"}),
        ("bottleneck", {"k": "0", "number": "33"}),
        ("bottleneck", {"k": "4", "number": "32"}),
        ("why-gray", {"p": "inf", "x": "2", "vividness": "9"}),
    ],
)
def test_a_hostile_address_breaks_no_chapter(open_page, chapter, query):
    app = open_page("how", chapter=chapter, **query)
    assert not app.exception and not app.error
    assert app.header[0].value


def test_a_damaged_model_or_training_breaks_no_chapter(open_page, monkeypatch, tmp_path):
    shutil.copytree(library.SHIPPED / "unet-vivid", tmp_path / "models" / "unet-vivid")
    graph = tmp_path / "models" / "unet-vivid" / "model.onnx"
    graph.write_bytes(bytes(graph.stat().st_size))
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "models")
    app = open_page("how", chapter="why-gray")
    assert "unet-vivid" in app.error[0].value and not app.exception
    assert not open_page(history="unet-vivid").exception
    shutil.copytree(learning._FOLDER, tmp_path / "learning")
    monkeypatch.setattr(learning, "_FOLDER", tmp_path / "learning")
    for name, content in (("usual.npz", b"PK\3\4"), ("runs.json", b"{}"), ("runs.json", b"[1]")):
        (tmp_path / "learning" / name).write_bytes(content)
        assert "are missing or damaged" in texts(open_page("how", chapter="learning"))


def test_the_story_from_the_notebook_is_told_in_measured_numbers(open_page):
    app = open_page("how", chapter="notebook")
    for name in ("notebook-gray", "notebook", "linear", "dense", "dense-chroma", "unet", "unet-vivid", "colorist"):
        assert f"mse {library.find_model(name).metric('test'):.5f}" in texts(app)
        assert f"Six test images: {name}" in alt_texts(app)


def test_the_weights_of_the_channels_are_followed(open_page):
    app = open_page("how", chapter="gray")
    assert "Together the weights are 1.000" in texts(app)
    app.slider(key="g").set_value(0.0).run()
    assert "0.299 R + 0 G + 0.114 B. Together the weights are 0.413" in texts(app)
    for key in "rb":
        app.slider(key=key).set_value(0.0).run()
    assert "All weights are 0" in app.info[0].value
    assert not app.exception


@pytest.mark.parametrize("color", [(0.9, 0.2, 0.1), (0, 0, 1), (0.5, 0.5, 0.5), (1, 1, 1), (0, 0, 0)])
def test_the_opposite_colour_has_the_same_gray_and_is_on_its_other_side(color):
    color = np.array(color, float)
    opposite = gray.opposite_color(color, LUMINANCE_WEIGHTS)
    assert opposite @ LUMINANCE_WEIGHTS == pytest.approx(color @ LUMINANCE_WEIGHTS, abs=1e-6)
    assert ((opposite >= 0) & (opposite <= 1)).all()
    middle = color @ LUMINANCE_WEIGHTS
    assert ((opposite - middle) * (color - middle) <= 1e-9).all()
    if np.ptp(color) and 0 < middle < 1:
        assert np.abs(opposite - color).max() > 0.1


def test_rows_are_laid_end_to_end_and_numbers_stand_in_their_cells(open_page):
    image = np.arange(32 * 32, dtype=np.int64).reshape(32, 32, 1).repeat(3, 2) % 251
    line = numbers.unroll(image[:16].astype(np.uint8))[::16, ::3]
    np.testing.assert_array_equal(line.reshape(-1, 3), image[:16].reshape(-1, 3))
    drawn = numbers.draw_numbers(np.array([[0.0, 1.0]]))
    assert drawn.shape[1] == 2 * drawn.shape[0]
    assert (drawn[2, 2] == 0).all() and (drawn[2, -3] == 255).all()
    app = open_page("how", chapter="numbers")
    app.select_slider(key="rows").set_value(32).run()
    assert "This line of 1,024 numbers" in texts(app)


def test_a_wider_bottleneck_has_a_smaller_error_and_a_changed_number_another_picture(open_page):
    app = open_page("how", chapter="bottleneck")

    def error():
        words = next(caption.value for caption in app.caption if caption.value.startswith("Original"))
        return float(words.split("(mse) is ")[1].split(";")[0])

    narrow = error()
    pictures = [element.proto.imgs[0].url for element in app.image]
    value = next(slider for slider in app.slider if slider.label == "Value of number 2")
    value.set_value(-3.0).run()
    moved = [element.proto.imgs[0].url for element in app.image]
    assert (moved[0], moved[1] != pictures[1]) == (pictures[0], True)
    app.slider(key="k").set_value(256).run()
    assert error() < narrow
    app.slider(key="k").set_value(1).run()
    assert not app.exception


def test_the_squared_error_is_lowest_at_the_mean(open_page):
    app = open_page("how", chapter="why-gray")

    def errors():
        words = next(text.value for text in app.markdown if text.value.startswith("Your error is"))
        return [float(word.strip("*,.")) for word in words.split() if "0." in word]

    app.slider(key="p").set_value(0.3).run()
    for place, lowest in ((0.2, False), (0.3, True), (0.5, False)):
        app.slider(key="x").set_value(place).run()
        yours, best = errors()
        assert (yours == best) == lowest and yours >= best
    assert "The network" in texts(app)
    assert not app.exception


def test_a_confidence_interval_is_that_of_wilson():
    """The numbers are those of statsmodels' `proportion_confint` with the method `wilson`."""
    assert game.wilson_interval(15, 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert game.wilson_interval(0, 5) == pytest.approx((0, 0.4345), abs=1e-4)


def test_a_game_deals_fairly_and_keeps_the_score():
    drawn = [game.draw_game(["a", "b", "c"], 20, seed) for seed in range(50)]
    for one in drawn:
        assert len({image for image, _, _ in one.rounds}) == len(one.rounds) == 20
        assert max(sum(model == name for _, model, _ in one.rounds) for name in "abc") == 7
    assert 0.4 < np.mean([first for one in drawn for _, _, first in one.rounds]) < 0.6
    one = drawn[0]
    for _, model, first in one.rounds:
        one.answer(first if model == "a" else not first)
    one.answer(True)  # The game is over, so this is not counted.
    score = one.score()
    assert score["a"][0] == score["a"][1]
    assert score["b"][0] == score["c"][0] == 0
    assert sum(of for _, of in score.values()) == 20


def test_twenty_rounds_are_played_to_a_score(open_page):
    app = open_page("how", chapter="game")
    for number in range(20):
        assert app.get("progress")[0].proto.text == f"Round {number + 1} of 20"
        app.button(key="game-A").click().run()
        assert any(text.value.startswith(("Right.", "Wrong.")) for text in app.markdown)
    assert "of 20** rounds. With 95 % confidence" in texts(app)
    next(button for button in app.button if button.label == "Play again").click().run()
    assert app.get("progress")[0].proto.text == "Round 1 of 20"


def test_two_trainings_are_compared_at_the_same_epoch(open_page):
    app = open_page("how", chapter="learning")
    first = [element.proto.imgs[0].url for element in app.image]
    app.select_slider(key="learned").set_value(3).run()
    earlier = [element.proto.imgs[0].url for element in app.image]
    assert len(first) == len(earlier) == 2 and not set(first) & set(earlier)
    app.button_group(key="differs").set_value("narrow").run()
    other = [element.proto.imgs[0].url for element in app.image]
    assert (other[0], other[1] != earlier[1]) == (earlier[0], True)
    assert "with a bottleneck of 8 numbers instead of 32" in texts(app)
    assert not app.exception
