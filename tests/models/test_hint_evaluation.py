"""Hints are measured: where they are drawn, what they gain, and the optimisation that they are compared with."""

import numpy as np
import pytest

from colorizer.errors import DataError
from colorizer.models.colorizer import load
from colorizer.models.hint_evaluation import draw_random_hints, measure_hints, methods_of, optimize_hints
from colorizer.models.hints import check_hints
from colorizer.pixels.color import RGB_TO_CHROMA, gray_copy, to_luminance, to_uint8
from colorizer.pixels.images import load_photo

PHOTOS = [load_photo("coffee")[::4, ::4], load_photo("astronaut")[::4, ::4]]


def read_color(hint):
    return [int(hint["color"][start : start + 2], 16) for start in (1, 3, 5)]


def paint(photo, hints):
    """Stand for a model that paints the half of a photo that holds a hint in the colour of the hint."""
    result = to_uint8(gray_copy(photo))
    for hint in hints:
        half = slice(0, 20) if hint["x"] < 20 else slice(20, 40)
        result[:, half] = read_color(hint)
    return result


def test_psnr_and_colour_difference_are_told_for_each_method_and_number_of_hints():
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:, :20], photo[:, 20:] = (250, 0, 0), (0, 0, 250)
    gray = lambda photo, hints: to_uint8(gray_copy(photo))  # noqa: E731
    measured = measure_hints({"paints": paint, "gray": gray}, [photo] * 3, (0, 1, 20))
    assert measured["gray"]["0"] == measured["gray"]["20"] == measured["paints"]["0"]
    psnr, delta_e = ([measured["paints"][number][key] for number in ("0", "1", "20")] for key in ("psnr", "delta_e"))
    assert psnr[0] + 2.5 < psnr[1] < psnr[2]  # Half of the photo without an error is 3 dB.
    assert delta_e[1] == pytest.approx(delta_e[0] / 2, rel=0.25)
    assert delta_e[2] < 2  # The patches at the border of the halves mix both colours.
    with pytest.raises(DataError, match="There is no photo to measure"):
        measure_hints({"paints": paint}, [], (1,))


def test_hints_reveal_the_mean_colour_of_a_patch_and_are_drawn_alike_each_time():
    photo = PHOTOS[0]
    hints = draw_random_hints(photo, 50, 7)
    assert draw_random_hints(photo, 20, 7) == hints[:20]
    assert draw_random_hints(photo, 50, 8) != hints
    assert check_hints(hints, *photo.shape[:2]) == hints  # `Colorizer.colorize` takes them.
    for hint in hints:
        x, y = hint["x"], hint["y"]
        patch = photo[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(read_color(hint), patch, atol=0.5)
    places = np.array([(hint["y"], hint["x"]) for hint in draw_random_hints(photo, 4000, 0)])
    np.testing.assert_allclose(places.mean(axis=0), (np.array(photo.shape[:2]) - 1) / 2, rtol=0.05)


def hint(x, y, color):
    return {"x": x, "y": y, "color": color}


def test_optimized_hints_fill_what_is_evenly_bright_and_stop_at_an_edge():
    """The published optimisation gives each of two flat regions the colour of the hint inside it."""
    luminance = np.full((40, 60, 1), 0.3, np.float32)
    luminance[:, 30:] = 0.8
    predicted = np.full((40, 60, 2), 0.02, np.float32)
    red, blue = hint(10, 20, "#c03030"), hint(50, 20, "#3040c0")
    spread = optimize_hints(predicted, luminance, [red, blue], (40, 60))
    wanted = [np.array(read_color(given)) / 255 @ RGB_TO_CHROMA for given in (red, blue)]
    np.testing.assert_allclose(spread[20, 10], wanted[0], atol=1e-6)
    np.testing.assert_allclose(spread[:, :28], np.broadcast_to(wanted[0], (40, 28, 2)), atol=0.02)
    np.testing.assert_allclose(spread[:, 32:], np.broadcast_to(wanted[1], (40, 28, 2)), atol=0.02)


def test_optimized_hints_solve_the_published_equations():
    """Each pixel without a hint has the weighted mean of its neighbours' changes."""
    generator = np.random.default_rng(0)
    luminance = generator.random((12, 14, 1)).astype(np.float32)
    predicted = generator.normal(0, 0.1, (12, 14, 2)).astype(np.float32)
    hints = [hint(3, 4, "#c03030"), hint(10, 8, "#3040c0")]
    change = optimize_hints(predicted, luminance, hints, (12, 14)).astype(np.float64) - predicted
    plane = luminance[..., 0].astype(np.float64)
    for y, x in [(0, 0), (6, 6), (11, 3), (5, 13)]:
        window = np.pad(plane, 1, mode="edge")[y : y + 3, x : x + 3]
        around = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
        around = [place for place in around if 0 <= place[0] < 12 and 0 <= place[1] < 14]
        squares = np.array([(plane[place] - plane[y, x]) ** 2 for place in around])
        weights = np.exp(-squares / max(0.6 * window.var(), squares.min() / np.log(100)))
        mean = np.average([change[place] for place in around], axis=0, weights=weights)
        np.testing.assert_allclose(change[y, x], mean, atol=1e-6)


@pytest.mark.slow
def test_both_methods_begin_with_the_model_without_hints():
    model, photo = load("unet-vivid"), PHOTOS[0]
    methods = methods_of(model, vividness=None, strength=1.0, size=32)
    assert list(methods) == ["unet-vivid", "unet-vivid, Levin et al."]
    for colorize in methods.values():
        np.testing.assert_array_equal(colorize(photo, hints=[]), model.colorize(photo, size=32))
        y, x = 30, 40
        result = colorize(photo, hints=[hint(x, y, "#c03030")])
        chroma = result[y, x] / 255 @ RGB_TO_CHROMA
        assert abs(to_luminance(result)[y, x] - to_luminance(photo)[y, x]) < 0.005
        np.testing.assert_allclose(chroma, np.array([0xC0, 0x30, 0x30]) / 255 @ RGB_TO_CHROMA, atol=0.08)
