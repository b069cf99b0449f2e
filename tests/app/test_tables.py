"""tables: measured values in plain text, each in its metric's style and beside the gray copy."""

from pathlib import Path

from colorizer.app import tables
from colorizer.pixels.metrics import METRICS

HALF, ONE = (dict.fromkeys(METRICS, value) for value in (0.5, 1.0))
MEASURED = {"model": HALF, "gray_copy": ONE, "classes": {}, "gray_copy_classes": {}}
CLASSES = {"classes": {"cat": 0.25, "dog": 0.5}, "gray_copy_classes": {"cat": 0.5, "dog": 0.5}}


def test_words_are_set_flush_left_and_numbers_flush_right():
    assert tables.layout(["name", "mse", ""], [["a", "1.5", "x"], ["bcdef", "-", ""], ["", "10.25", "yz"]]) == (
        "name     mse\n"
        "-----  -----  --\n"
        "a        1.5  x\n"
        "bcdef      -\n"
        "       10.25  yz"
    )  # fmt: skip
    assert tables.layout(["name"], []) == "name\n----"


def test_a_model_stands_beside_the_gray_copy():
    lines = tables.one_model("mine", MEASURED).splitlines()
    assert lines[0].split() == ["metric", "mine", "gray", "copy"]
    assert [line.split()[0] for line in lines[2:]] == list(METRICS)
    assert lines[2].split() == ["mse", "0.50000", "1.00000", "lower", "is", "better"]
    lines = tables.one_model("mine", MEASURED | CLASSES).splitlines()
    assert lines[-2].split() == ["cat", "0.25000", "0.50000", "0.50"]


def test_models_and_baselines_have_a_row_each():
    metrics = {"mine": HALF, "gray copy": ONE}
    lines = tables.all_models({"mine": MEASURED}, metrics, {"mine": 12345}).splitlines()
    assert lines[0].split() == ["model", "parameters", *METRICS]
    assert [line.split()[:3] for line in lines[2:]] == [["mine", "12,345", "0.50000"], ["gray", "copy", "0"]]
    lines = tables.all_models({"mine": MEASURED | CLASSES}, metrics, {"mine": 12345}).splitlines()
    assert lines[-6] == "mse by class"
    assert lines[-1].split() == ["gray", "copy", "0.50000", "0.50000"]


PHOTOS = {
    "photos": 9,
    "delta_e": 8.0,
    "gray_copy": 10.0,
    "ratio": 0.8,
    "better": 7,
    "colorfulness": 0.755,
    "spots": 0.0123,
    "psnr": 24.5,
}


def test_photos_have_a_row_for_each_model():
    lines = tables.photos({"mine": PHOTOS}, Path("holiday.zip")).splitlines()
    assert lines[0] == "Means over 9 photos in holiday.zip"
    assert lines[2].split("  ")[0] == "model"
    row = ["mine", "8.00", "10.00", "0.800", "7 of 9, 78%", "76%", "1.23%", "24.50"]
    assert [cell.strip() for cell in lines[-1].split("  ") if cell] == row


def test_photos_show_features_and_hints_where_they_were_measured():
    hinted = PHOTOS | {"feature_distance": 0.75, "hint_gain": {"1": 0.7, "5": -0.25}}
    lines = tables.photos({"plain": PHOTOS | {"feature_distance": None}, "hinted": hinted}, Path("x")).splitlines()
    assert lines[2].split()[-5:] == ["features", "1", "hint", "5", "hints"]
    assert [line.split()[-3:] for line in lines[4:]] == [["-", "-", "-"], ["0.750", "0.70", "-0.25"]]


def test_ratios_that_are_not_defined_are_left_out():
    """The gray copy of gray photos makes no error, and such photos have no colorfulness."""
    row = tables.photos({"mine": PHOTOS | {"ratio": None, "colorfulness": None}}, Path("x")).splitlines()[-1].split()
    assert (row[3], row[8]) == ("-", "-")
