"""Hints are checked, lie where the user put them, and change the colours of a model that takes them."""

import keras
import numpy as np
import pytest

from colorizer.config import MAX_HINTS, ModelConfig
from colorizer.errors import ConfigError
from colorizer.models.hints import check_hints, draw_hints, spread_hints
from colorizer.pixels.color import CHROMA_STEP, RGB_TO_CHROMA, split_luminance
from colorizer.training.networks import build_model
from tests.models.conftest import make_colorizer, random_image

BROWN = {"x": 12, "y": 30, "color": "#a0522d"}


@pytest.mark.parametrize(
    ("hints", "match"),
    [
        ("#a0522d", "hints must be a list of at most 200 hints, received a str"),
        ({"x": 1}, "received a dict"),
        ([BROWN] * (MAX_HINTS + 1), "received 201"),
        ([3], "A hint must have x, y and color, .* received 3"),
        ([{"x": 1, "y": 2}], "must have x, y and color"),
        ([BROWN | {"size": 3}], "must have x, y and color"),
        ([BROWN | {"x": 50}], "x must be a whole number from 0 to 49, received 50"),
        ([BROWN | {"y": -1}], "y must be a whole number from 0 to 39, received -1"),
        ([BROWN | {"x": 1.5}], "x must be a whole number .* received 1.5"),
        ([BROWN | {"x": float("nan")}], "received nan"),
        ([BROWN | {"x": True}], "received True"),
        ([BROWN | {"x": 10**400}], "x must be a whole number"),
        ([BROWN | {"color": "brown"}], "color must be like #a0522d, received 'brown'"),
        ([BROWN | {"color": "#a0522d\n"}], "color must be like"),
        ([BROWN | {"color": 7}], "received 7"),
    ],
)
def test_invalid_hints_get_one_sentence(hints, match):
    with pytest.raises(ConfigError, match=match) as raised:
        check_hints(hints, 40, 50)
    assert len(str(raised.value)) < 250


def test_a_hint_is_drawn_at_its_place_with_its_chroma():
    planes = draw_hints([{"x": 10, "y": 20, "color": "#a0522d"}], (40, 60), (256, 384))
    rows, columns = np.nonzero(planes[..., 2])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (129, 133, 65, 69)
    np.testing.assert_allclose(planes[131, 67], [*(np.array([160, 82, 45]) / 255 @ RGB_TO_CHROMA), 1], atol=1e-6)
    assert not planes[planes[..., 2] == 0].any()


@pytest.mark.parametrize("place", [(0, 0), (59, 39)])
def test_a_hint_at_the_edge_lies_inside(place):
    planes = draw_hints([{"x": place[0], "y": place[1], "color": "#ffffff"}], (40, 60), (64, 96))
    assert planes[..., 2].sum() == 1
    assert planes[63 * (place[1] > 0), 95 * (place[0] > 0), 2] == 1


def test_where_hints_overlap_their_mean_counts():
    hints = [{"x": 5, "y": 5, "color": "#ff0000"}, {"x": 5, "y": 5, "color": "#0000ff"}]
    planes = draw_hints(hints, (10, 10), (64, 64))
    expected = np.array([[1, 0, 0], [0, 0, 1]]) @ RGB_TO_CHROMA
    np.testing.assert_allclose(planes[planes[..., 2] == 1], [[*expected.mean(axis=0), 1]], atol=1e-6)


@pytest.fixture(scope="module", params=["unet", pytest.param("backbone", marks=pytest.mark.slow)])
def untrained(request):
    """Return a small model that takes hints, with random weights also for the hints."""
    keras.utils.set_random_seed(0)
    sizes = {"unet": 16, "backbone": 16}
    model = build_model(
        ModelConfig(
            architecture=request.param, latent_dim=sizes[request.param], target="chroma", chroma_bins=16, hints=True
        )
    )
    model.get_layer("bin_centres").set_weights([np.random.default_rng(0).uniform(-0.3, 0.3, (1, 1, 16, 2))])
    return model


def test_without_hints_the_weights_for_hints_change_nothing(untrained):
    photo = random_image(60, 90, 3)
    plain = make_colorizer(untrained).colorize(photo)
    for layer in untrained.layers:
        if layer.name.startswith("hints_") and not layer.name.startswith("hints_attention"):
            layer.set_weights([np.random.default_rng(1).normal(0, 0.1, layer.kernel.shape)])
    hinted = make_colorizer(untrained)
    np.testing.assert_array_equal(hinted.colorize(photo), plain)
    np.testing.assert_array_equal(hinted.colorize(photo, hints=[]), plain)
    there = hinted.colorize(photo, hints=[BROWN])
    assert (there != plain).any()
    assert np.abs(split_luminance(there)[0] - split_luminance(photo)[0]).max() <= 1 / 255 + 1e-6


def test_a_model_without_hints_says_so(linear):
    with pytest.raises(ConfigError, match=r"linear takes no hints\. Choose a model that does, such as colorist"):
        linear.colorize(random_image(40, 50, 3), hints=[BROWN])


def test_a_hint_outside_of_the_photo_is_refused(untrained):
    with pytest.raises(ConfigError, match="x must be a whole number from 0 to 11"):
        make_colorizer(untrained).colorize(random_image(40, 12, 3), hints=[BROWN])


def test_a_photo_has_the_colours_of_the_hints_at_their_pixels(untrained):
    photo = np.full((120, 160, 3), 128, np.uint8)
    hints = [{"x": 20, "y": 30, "color": "#a07060"}, {"x": 140, "y": 90, "color": "#5080a0"}]
    result = make_colorizer(untrained).colorize(photo, hints=hints)
    for hint in hints:
        wanted = np.array([int(hint["color"][start : start + 2], 16) for start in (1, 3, 5)]) / 255 @ RGB_TO_CHROMA
        found = split_luminance(result)[1][hint["y"], hint["x"]]
        np.testing.assert_allclose(found, wanted, atol=CHROMA_STEP / 2)


def test_a_hint_fades_with_the_distance_in_place_luminance_and_predicted_colour():
    """The prediction is gray but for the lower half, and the right half of the image is darker."""
    chroma, luminance = np.zeros((60, 80, 2), np.float32), np.full((60, 80, 1), 0.7, np.float32)
    chroma[30:], luminance[:, 40:] = 0.2, 0.2
    change = spread_hints(chroma, luminance, [{"x": 10, "y": 10, "color": "#ff0000"}], (60, 80)) - chroma
    amounts = np.linalg.norm(change, axis=-1)
    assert amounts[10, 10] > amounts[10, 30] > amounts[10, 50] > 0
    assert amounts[10, 10] > amounts[20, 10] > amounts[50, 10] > 0
    assert (change[..., 1] > 0).all()  # Red has a positive Cr.
    np.testing.assert_allclose(np.argwhere(amounts == amounts.max()), [[10, 10]])


def test_hints_that_agree_with_the_prediction_change_nothing():
    chroma = np.tile(np.array([128, 64, 32]) / 255 @ RGB_TO_CHROMA, (40, 50, 1)).astype(np.float32)
    hints = [{"x": place, "y": place, "color": "#804020"} for place in range(0, 40, 5)]
    result = spread_hints(chroma, np.full((40, 50, 1), 0.5, np.float32), hints, (40, 50))
    np.testing.assert_allclose(result, chroma, atol=1e-5)


def test_many_hints_at_one_pixel_have_their_mean_as_a_result():
    chroma, luminance = np.zeros((20, 20, 2), np.float32), np.full((20, 20, 1), 0.5, np.float32)
    hints = [{"x": 5, "y": 5, "color": color} for color in ["#ff8000", "#0080ff"] * (MAX_HINTS // 2)]
    result = spread_hints(chroma, luminance, hints, (20, 20))
    colors = np.array([[255, 128, 0], [0, 128, 255]]) / 255 @ RGB_TO_CHROMA
    np.testing.assert_allclose(result[5, 5], colors.mean(axis=0), atol=0.01)
