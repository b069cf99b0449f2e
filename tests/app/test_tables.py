"""tables: measured values in plain text, each in its metric's style and beside the gray copy."""

from pathlib import Path

from colorizer.app import tables
from colorizer.pixels.metrics import METRICS

HALF, ONE = (dict.fromkeys(METRICS, value) for value in (0.5, 1.0))
MEASURED = {"model": HALF, "gray_copy": ONE, "delta_colorfulness": -3.5, "classes": {}, "gray_copy_classes": {}}
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
    assert tables.layout(["change"], [["-1.50"], ["+10.50"]]) == "change\n------\n -1.50\n+10.50"


def test_a_model_stands_beside_the_gray_copy():
    lines = tables.one_model("mine", MEASURED).splitlines()
    assert lines[0].split() == ["metric", "mine", "gray", "copy"]
    assert [line.split()[0] for line in lines[2:] if line] == [*METRICS, "delta_colorfulness"]
    assert lines[2].split() == ["mse", "0.50000", "1.00000", "lower", "is", "better", "squared", "error"]
    lines = tables.one_model("mine", MEASURED | CLASSES).splitlines()
    assert lines[-2].split() == ["cat", "0.25000", "0.50000", "0.50"]


def test_recognition_is_told_where_it_was_measured():
    seen = MEASURED | {"recognition": {"original": 0.9, "gray_copy": 0.7, "model": 0.75}}
    lines = tables.one_model("mine", seen).splitlines()
    assert lines[-2:] == [
        "delta_colorfulness -3.50",
        "top-1 of the classifier: originals 90.0%, gray copy 70.0%, mine 75.0%",
    ]
    lines = tables.all_models({"mine": seen}, {"mine": HALF, "gray copy": ONE}, {"mine": 12345}).splitlines()
    assert [line.split() for line in lines[-5:]] == [
        ["model", "top-1", "delta_colorfulness"],
        ["-" * 9, "-" * 5, "-" * 18],
        ["originals", "90.0%"],
        ["gray", "copy", "70.0%"],
        ["mine", "75.0%", "-3.50"],
    ]


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


def test_photos_show_features_where_they_were_measured():
    measured = {"plain": PHOTOS | {"feature_distance": None}, "seen": PHOTOS | {"feature_distance": 0.75}}
    lines = tables.photos(measured, Path("x")).splitlines()
    assert [line.split()[-1] for line in (lines[2], *lines[4:])] == ["features", "-", "0.750"]


def test_hints_have_a_table_for_each_metric():
    found = {"0": {"psnr": 20.0, "delta_e": 9.0}, "1": {"psnr": 21.5, "delta_e": 8.25}}
    lines = tables.hints({"mine": found}, Path("holiday.zip")).splitlines()
    assert lines[0] == "Means over the photos in holiday.zip"
    assert [line.split() for line in (lines[2], lines[4], lines[6], lines[8])] == [
        ["psnr", "0", "hints", "1", "hint"],
        ["mine", "20.00", "21.50"],
        ["delta_e", "0", "hints", "1", "hint"],
        ["mine", "9.00", "8.25"],
    ]


def test_ratios_that_are_not_defined_are_left_out():
    """The gray copy of gray photos makes no error, and such photos have no colorfulness."""
    row = tables.photos({"mine": PHOTOS | {"ratio": None, "colorfulness": None}}, Path("x")).splitlines()[-1].split()
    assert (row[3], row[8]) == ("-", "-")
