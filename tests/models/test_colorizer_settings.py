"""A Colorizer checks its settings and arrays; working size and vividness do what they say."""

import keras
import numpy as np
import pytest

from colorizer.data import datasets
from colorizer.errors import ConfigError, ImageError
from colorizer.models import library
from colorizer.models.colorizer import Colorizer
from colorizer.models.scale import SCALES
from colorizer.pixels.color import chroma_bins, split_luminance, to_luminance
from colorizer.pixels.images import resize_planes
from tests.models.conftest import random_image


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.zeros((4, 4, 3)), "must be a uint8 array, received a float64 array. Read files with decode_image"),
        (np.zeros((4, 4, 3), np.int64), "received a int64 array"),
        ([[1, 2]], "received a list"),
        ("photo.jpg", "received a str"),
        (None, "received a NoneType"),
        (np.zeros((4, 4, 2), np.uint8), r"the shape \(H, W, 3\), \(H, W, 4\) or \(H, W\), received \(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"received \(1, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"received \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"received \(0, 4, 3\)"),
        (np.broadcast_to(np.uint8(0), (8000, 8000, 3)), "more than 50 megapixels"),
    ],
)
def test_other_arrays_are_refused(linear, image, match):
    with pytest.raises(ImageError, match=match):
        linear.colorize(image)


@pytest.mark.parametrize("size", [*SCALES["unet"].offered_sizes, 256])
def test_the_working_size_is_the_shorter_side_that_the_network_sees(vivid, size):
    luminance = to_luminance(random_image(90, 200, 3))
    chroma = vivid.predict_chroma(luminance, size=size)
    assert chroma.shape == (size, round(size * 200 / 90 / 8) * 8, 2)
    small = resize_planes(luminance, *chroma.shape[:2]).clip(0, 1)
    np.testing.assert_array_equal(chroma, split_luminance(vivid.predict(small[None]).clip(0, 1))[1][0])


def test_by_default_it_is_the_mean_of_two_sizes(vivid):
    luminance = to_luminance(random_image(90, 200, 3))
    small, large = (vivid.predict_chroma(luminance, size=size) for size in (32, 64))
    expected = (resize_planes(small, *large.shape[:2]) + large) / 2
    np.testing.assert_allclose(vivid.predict_chroma(luminance), expected, atol=1e-6)
    photo = random_image(90, 200, 3)
    assert (vivid.colorize(photo, size=128) != vivid.colorize(photo)).any()


@pytest.mark.parametrize(
    "chroma",
    [
        [[0, 0]],
        np.zeros((32, 32)),
        np.zeros((32, 32, 3)),
        np.zeros((5, 32, 32, 2)),
        np.zeros((0, 32, 2)),
        np.zeros((32, 32, 2), int),
        np.full((32, 32, 2), np.nan),
        np.full((32, 32, 2), np.inf),
    ],
)
def test_other_chroma_is_refused(linear, chroma):
    with pytest.raises(ValueError, match="expected chroma of "):
        linear.colorize(random_image(40, 40, 3), chroma=chroma)


def test_settings_are_checked_before_a_network_is_loaded(monkeypatch):
    monkeypatch.setattr("colorizer.models.colorizer.load_network", None)
    flat, unet = (Colorizer(None, library.find_model(name)) for name in ("linear", "unet"))
    for model, settings, match in (
        (flat, {"strength": 2}, "strength must be"),
        (flat, {"size": 64}, "sees every photo at 32 x 32"),
        (flat, {"vividness": 0.4}, "no vividness"),
        (unet, {"size": 63}, "size must be"),
    ):
        with pytest.raises(ConfigError, match=match):
            model.check_settings(**settings)
        with pytest.raises(ConfigError, match=match):
            model.colorize(random_image(40, 40, 3), **settings)


@pytest.mark.parametrize(
    ("luminance", "match"),
    [
        ([[0.5]], r"expected luminance of shape \(N, 32, 32, 1\), received a list"),
        (np.zeros((32, 32, 1), np.float32), r"received \(32, 32, 1\)"),
        (np.zeros((2, 32, 32, 3), np.float32), r"received \(2, 32, 32, 3\)"),
        (np.zeros((2, 64, 64, 1), np.float32), r"received \(2, 64, 64, 1\)"),
        (np.zeros((2, 32, 32, 1), np.uint8), "as floats in .*received uint8; divide uint8 by 255"),
        (np.zeros((2, 32, 32, 1), complex), "received complex128"),
        (np.zeros((2, 32, 32, 1), object), "received object"),
        (np.full((2, 32, 32, 1), np.nan), "received values from nan to nan"),
        (np.full((2, 32, 32, 1), np.inf), "received values from inf to inf"),
        (np.full((2, 32, 32, 1), 255.0), "received values from 255 to 255"),
        (np.full((2, 32, 32, 1), -0.1), "received values from -0.1"),
    ],
)
def test_predict_refuses_what_is_no_luminance(linear, luminance, match):
    with pytest.raises(ValueError, match=match):
        linear.predict(luminance)


@pytest.mark.parametrize("shape", [(1, 36, 32, 1), (1, 32, 33, 1), (1, 0, 32, 1), (1, 32, 32, 2)])
def test_a_unet_refuses_sides_that_are_no_multiples_of_8(vivid, shape):
    with pytest.raises(ValueError, match="with H and W multiples of 8, received"):
        vivid.predict(np.zeros(shape, np.float32))
    assert vivid.predict(np.zeros((1, 40, 48, 1), np.float64)).shape == (1, 40, 48, 3)


@pytest.mark.parametrize(
    "luminance", [np.zeros((9, 9)), np.zeros((9, 9, 3)), np.zeros((0, 9, 1)), None, np.full((9, 9, 1), np.nan)]
)
def test_predict_chroma_refuses_what_is_no_luminance(linear, luminance):
    with pytest.raises(ValueError, match="expected luminance "):
        linear.predict_chroma(luminance)


@pytest.mark.parametrize("size", [0, 24, 33, 264, 64.0, "64", True])
def test_other_working_sizes_are_refused(vivid, size):
    with pytest.raises(ConfigError, match="size must be a multiple of 8 from 32 to 256, received"):
        vivid.colorize(random_image(40, 40, 3), size=size)


def test_a_model_that_is_not_convolutional_has_no_working_size(linear, vivid):
    assert (linear.any_size, vivid.any_size) == (False, True)
    with pytest.raises(ConfigError, match=r"linear sees every photo at 32 x 32 pixels\. Leave size out"):
        linear.colorize(random_image(40, 40, 3), size=64)


def test_vividness_goes_from_the_mean_of_the_bins_to_the_likeliest(vivid, vivid_model, samples):
    luminance = to_luminance(samples.images)[:2]
    read = keras.Model(vivid_model.input, vivid_model.get_layer("logits").output)
    mirrored = np.asarray(read(luminance[:, :, ::-1]))[:, :, ::-1]
    logits = (np.asarray(read(luminance)) + mirrored) / 2
    centres, _ = chroma_bins(datasets.load_statistics().shares, 32)
    for vividness in (0, 0.4, 1):
        heated = logits / 10**-vividness
        chances = np.exp(heated - heated.max(axis=-1, keepdims=True))
        chroma = chances / chances.sum(axis=-1, keepdims=True) @ centres
        predicted = split_luminance(vivid.predict(luminance, vividness))[1]
        # Bilinear enlargement keeps the mean but at the edges, where it repeats.
        inner = predicted[:, 2:-2, 2:-2].reshape(2, 14, 2, 14, 2, 2).mean(axis=(2, 4))
        smoothed = (chroma[:, :, :-2] + 6 * chroma[:, :, 1:-1] + chroma[:, :, 2:]) / 8
        smoothed = (smoothed[:, :-2] + 6 * smoothed[:, 1:-1] + smoothed[:, 2:]) / 8
        np.testing.assert_allclose(inner, smoothed, atol=1e-5)


def test_several_values_of_vividness_run_the_network_once(vivid, samples, monkeypatch):
    luminance = to_luminance(samples.images)
    expected = [vivid.predict(luminance, level) for level in (0, 0.5, 1)]
    calls = []
    network = vivid._network  # Nothing public tells how often the network ran.
    monkeypatch.setattr(vivid, "_network", lambda *batch: calls.append(1) or network(*batch))
    np.testing.assert_array_equal(vivid.predict(luminance, (0, 0.5, 1)), expected)
    assert calls == [1]
    assert np.abs(expected[0] - expected[2]).max() > 0.01


def test_vividness_is_0_4_unless_told(vivid, samples):
    luminance = to_luminance(samples.images)
    np.testing.assert_array_equal(vivid.predict(luminance), vivid.predict(luminance, 0.4))
    photo = random_image(40, 60, 3)
    np.testing.assert_array_equal(vivid.colorize(photo), vivid.colorize(photo, vividness=0.4))
    assert vivid.predict_chroma(to_luminance(photo), vivid.levels).shape == (6, 64, 96, 2)


@pytest.mark.parametrize("vividness", [-0.1, 1.5, float("nan"), "bold", True, []])
def test_vividness_out_of_range_is_refused(vivid, vividness):
    with pytest.raises(ConfigError, match="from 0 to 1, received"):
        vivid.colorize(random_image(40, 40, 3), vividness)


def test_a_model_without_bins_has_no_vividness(linear):
    assert not linear.vivid
    with pytest.raises(ConfigError, match="linear has no vividness to set"):
        linear.colorize(random_image(40, 40, 3), 0.4)
