"""figures: figures hold the numbers that they were given, and can be written."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from colorizer.app import figures
from colorizer.errors import ConfigError

TRAINED = {
    "epoch": [1, 2],
    "loss": [0.3, 0.1],
    "val_loss": [0.25, 0.12],
    "batch_epochs": [0.5, 1.0, 1.5, 2.0],
    "batch_loss": [0.4, 0.3, 0.2, 0.1],
}
CLOSED_FORM = {"epoch": [0], "loss": [], "val_loss": [0.0157], "batch_epochs": [], "batch_loss": []}


def _lines(figure):
    return {line.get_label(): SimpleNamespace(x=list(line.get_xdata()), y=list(line.get_ydata()))
            for line in figure.axes[0].lines}  # fmt: skip


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def test_loss_curve_draws_batches_validation_and_gray_copy():
    figure = figures.loss_curve(TRAINED, "Learning curve", gray_copy=0.0066)
    assert isinstance(figure, Figure)
    lines = _lines(figure)
    assert set(lines) == {"training batches", "validation", "gray copy, 0.00660"}
    assert (lines["training batches"].x, lines["training batches"].y) == (
        TRAINED["batch_epochs"],
        TRAINED["batch_loss"],
    )
    assert (lines["validation"].x, lines["validation"].y) == (TRAINED["epoch"], TRAINED["val_loss"])
    assert set(lines["gray copy, 0.00660"].y) == {0.0066}
    axes = figure.axes[0]
    assert (axes.get_title(), axes.get_yscale()) == ("Learning curve", "log")
    assert _png(figure).startswith(b"\x89PNG")


def test_loss_curve_of_a_closed_form_has_its_validation_point_alone():
    figure = figures.loss_curve(CLOSED_FORM, "linear")
    assert set(_lines(figure)) == {"validation"}
    assert _png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 5])
def test_comparison_shows_three_rows_of_the_images(count):
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 256, (count, 32, 32, 3), np.uint8) for _ in range(3)]
    captions = [f"mse {index}" for index in range(count)]
    figure = figures.comparison(*rows, captions, "A model")
    (axes,) = figure.axes
    assert axes.get_title() == "A model"
    shown = axes.images[0].get_array()
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = 34 * row + 1, 34 * column + 1
            np.testing.assert_array_equal(shown[top : top + 32, left : left + 32], image)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == captions
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["original", "grayscale", "reconstructed"]
    assert _png(figure).startswith(b"\x89PNG")


def test_comparison_refuses_rows_of_different_lengths():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="same shape"):
        figures.comparison(images, images[:1], images, ["", ""], "")


def test_a_figure_is_saved_as_its_name_tells_or_refused_in_a_sentence(tmp_path):
    figure = figures.metrics_chart({"gray copy": {"mse": 0.1}, "dense": {"mse": 0.05}}, "title")
    figures.save_figure(figure, tmp_path / "new" / "chart.svg")
    assert b"<svg" in (tmp_path / "new" / "chart.svg").read_bytes()
    with pytest.raises(ConfigError, match=r"x\.nope cannot be written .* Choose another file name"):
        figures.save_figure(figure, tmp_path / "x.nope")


def test_a_path_for_a_figure_can_be_checked_before_there_is_a_figure(tmp_path):
    figures.check_figure_path(tmp_path / "new" / "chart.PDF")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for name in ("x.nope", "x", "folder.png", "file/x.png"):
        with pytest.raises(ConfigError, match=f"{name} cannot be written .* Choose another file name"):
            figures.check_figure_path(tmp_path / name)


def test_a_training_is_animated_a_frame_for_each_snapshot(tmp_path):
    snapshots = np.repeat(np.uint8([0, 128, 255]), 8 * 32 * 32 * 3).reshape(3, 8, 32, 32, 3)
    history = {"batch_epochs": [0.1, 0.5, 1.0], "batch_loss": [0.1, 0.05, 0.02]}
    path = tmp_path / "training.webp"
    figures.save_training_animation(path, history, [0, 0.5, 1], snapshots, [snapshots[0], snapshots[2]])
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        brightness = [np.asarray(frame.convert("L")).mean() for frame in ImageSequence.Iterator(picture)]
    assert brightness[0] < brightness[1] < brightness[2]
    with pytest.raises(ConfigError, match=r"x\.nope cannot be written"):
        figures.save_training_animation(tmp_path / "x.nope", history, [0], snapshots[:1], [snapshots[0]] * 2)


def test_losses_are_drawn_over_the_bottleneck():
    figure = figures.bottleneck_curve([2, 4, 8], {"trained": [3, 2, 1], "closed form": [4, 3, 2]}, "Bottlenecks")
    assert {name: (line.x, line.y) for name, line in _lines(figure).items()} == {
        "trained": ([2, 4, 8], [3, 2, 1]),
        "closed form": ([2, 4, 8], [4, 3, 2]),
    }
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["2", "4", "8"]
    assert len(_png(figure)) > 10_000


def test_parallel_coordinates_have_a_line_for_each_trial_the_best_on_top():
    heights, ticks = {"a": [0, 1, 0.5], "b": [1, 0, 0.5]}, {"a": {"low": 0, "high": 1}, "b": {"128": 0.5}}
    figure = figures.parallel_coordinates(heights, ticks, [True, True, False], "Trials")
    (axes,) = figure.axes
    lines = [list(line.get_ydata()) for line in axes.lines[:3]]
    assert lines == [[0.5, 0.5], [1, 0], [0, 1]]
    assert axes.lines[2].get_color() == figures.ACCENT
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("low", (0, 0)), ("high", (0, 1)), ("128", (1, 0.5))]
    assert len(_png(figure)) > 10_000
