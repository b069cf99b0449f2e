"""Hints are checked, lie where the user put them, and change the colours of a model that takes them."""

import keras
import numpy as np
import pytest

from colorizer.config import MAX_HINTS, ModelConfig
from colorizer.errors import ConfigError
from colorizer.models.colorizer import Colorizer
from colorizer.models.hints import check_hints, draw_hints
from colorizer.pixels.color import RGB_TO_CHROMA, split_luminance
from colorizer.training.networks import build_model
from tests.models.conftest import random_image

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


@pytest.fixture(scope="module", params=["unet", "backbone"])
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
    plain = Colorizer(untrained, None).colorize(photo)
    for layer in untrained.layers:
        if layer.name.startswith("hints_"):
            layer.set_weights([np.random.default_rng(1).normal(0, 0.1, layer.kernel.shape)])
    hinted = Colorizer(untrained, None)
    np.testing.assert_array_equal(hinted.colorize(photo), plain)
    np.testing.assert_array_equal(hinted.colorize(photo, hints=[]), plain)
    there = hinted.colorize(photo, hints=[BROWN])
    assert (there != plain).any()
    assert np.abs(split_luminance(there)[0] - split_luminance(photo)[0]).max() <= 1 / 255 + 1e-6


def test_a_model_without_hints_says_so(linear):
    with pytest.raises(ConfigError, match=r"linear takes no hints. Choose a model that does, such as colorist"):
        linear.colorize(random_image(40, 50, 3), hints=[BROWN])


def test_a_hint_outside_of_the_photo_is_refused(untrained):
    with pytest.raises(ConfigError, match="x must be a whole number from 0 to 11"):
        Colorizer(untrained, None).colorize(random_image(40, 12, 3), hints=[BROWN])
