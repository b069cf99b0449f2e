"""Loss charts: smoothing keeps a level, each line has its colour, and axes show every loss with round ticks."""

import numpy as np
import pytest

from colorizer.app.widgets.losses import MAX_OTHERS, log_axis, loss_chart, smooth

CURVE = ([(0.5, 0.1), (1.0, 0.05)], [(1.0, 0.06)])


def names(chart):
    return chart["layer"][-1]["encoding"]["color"]["scale"]["domain"]


def test_smoothing_keeps_a_level_and_takes_the_noise_away():
    epochs = np.linspace(0, 5, 400)
    assert smooth([(x, 0.01) for x in epochs]) == pytest.approx([0.01] * 400)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.2, 400))
    smoothed = np.log(smooth(list(zip(epochs, 0.01 * noise, strict=True))))
    assert np.std(smoothed) < 0.08


@pytest.mark.parametrize("points", [[], [(1.0, 0.5)], [(1.0, 0.0), (2.0, 0.5)]])
def test_smoothing_takes_any_curve(points):
    assert len(smooth(points)) == len(points)
    assert np.isfinite(smooth(points)).all()


def test_a_run_is_drawn_raw_smoothed_with_validation_and_the_gray_copy():
    chart = loss_chart(CURVE, 0.0066, 5)
    assert names(chart) == ["each batch", "smoothed", "validation", "gray copy"]
    assert list(chart["datasets"]["batches"][0]) == ["epochs", "loss", "smoothed"]
    assert chart["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    assert loss_chart(CURVE, None, 5, log=False)["layer"][0]["encoding"]["y"]["scale"]["type"] == "linear"


def test_others_are_drawn_beside_it_up_to_a_limit():
    chart = loss_chart(None, 0.0066, 5, {f"run-{number}": CURVE for number in range(9)})
    assert names(chart) == ["gray copy", *(f"run-{number}" for number in range(MAX_OTHERS))]
    assert {row["line"] for row in chart["datasets"]["others"]} == {f"run-{number}" for number in range(MAX_OTHERS)}


@pytest.mark.parametrize("losses", [[0.0046, 0.023], [1e-5, 3.0], [0.02], [0.00511, 0.00512], [0.0101, 0.0099, 0.5]])
def test_a_logarithmic_axis_shows_every_loss_and_a_few_round_ticks(losses):
    axis = log_axis(losses)
    low, high = axis["scale"]["domain"]
    assert low < min(losses) and max(losses) < high
    ticks = axis["axis"]["values"]
    assert len(ticks) >= 3 and all(low <= tick <= high for tick in ticks)
    assert all(tick == float(f"{tick:.2g}") for tick in ticks)
