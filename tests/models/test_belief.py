"""A belief has the numbers of hand-made logits, becomes what the graph makes of it, and follows a reference."""

import numpy as np
import pytest

from colorizer.errors import ConfigError, ImageError
from colorizer.models.belief import Belief, PixelBelief, decode, softmax
from colorizer.models.colorizer import load
from colorizer.models.reference import PALETTES, make_prior, reference_shares
from colorizer.models.scale import SCALES
from colorizer.pixels.color import split_luminance, to_luminance
from colorizer.pixels.images import fit_inside, load_photo
from colorizer.pixels.names import name_colors

BINS = np.array([[0, 0], [-0.3, -0.3], [-0.2, 0.2], [0.3, 0]], np.float32)  # Gray, green, orange and blue.
PHOTO = fit_inside(load_photo("chelsea"), 120)


def pixel(*probabilities, luminance=0.5):
    probabilities = np.array(probabilities, float)
    return PixelBelief(probabilities, BINS, luminance, probabilities @ BINS)


def test_mean_mode_entropy_and_order_are_those_of_the_probabilities():
    half = pixel(0, 0.5, 0.5, 0)
    assert half.entropy == pytest.approx(1)
    np.testing.assert_allclose(half.mean, [-0.25, -0.05], atol=1e-7)
    assert pixel(0.25, 0.25, 0.25, 0.25).entropy == pytest.approx(2)
    certain = pixel(0, 0, 1, 0)
    assert (certain.entropy, certain.mode, certain.likeliest(1)) == (pytest.approx(0, abs=1e-9), 2, [2])
    assert pixel(0.1, 0.4, 0.2, 0.3).likeliest(3) == [1, 3, 2]


def test_a_place_is_read_from_its_cell_and_the_vividness_picks():
    logits = np.zeros((2, 2, 4), np.float32)
    logits[1, 0] = np.log([0.1, 0.6, 0.2, 0.1])
    belief = Belief(logits, BINS, np.full((2, 2, 1), 0.3, np.float32), SCALES["unet"])
    found = belief.at(0.1, 0.9, vividness=0.0)
    np.testing.assert_allclose(found.probabilities, [0.1, 0.6, 0.2, 0.1], rtol=1e-5)
    np.testing.assert_allclose(found.picked, found.mean, rtol=1e-5)
    bold = belief.at(0.1, 0.9, vividness=1.0).picked
    assert np.linalg.norm(bold - BINS[1]) < 0.01
    np.testing.assert_allclose(belief.at(1.0, 0.0, 0.4).probabilities, 0.25)
    np.testing.assert_allclose(belief.entropy()[0, 1], 2, rtol=1e-5)


def test_the_boost_grows_with_the_entropy_and_stops_at_three_bits():
    certain, half = np.array([[0, 99, 0, 0], [-99, 0, 0, -99]], np.float32)
    np.testing.assert_allclose(decode(certain, BINS, 1.0, 3.0), BINS[1], atol=1e-6)
    np.testing.assert_allclose(decode(half, BINS, 1.0, 3.0), (1 + 3 / 3) * (BINS[1] + BINS[2]) / 2, atol=1e-6)
    wide = np.zeros(16, np.float32)
    bins = np.tile(np.float32([0.1, 0.2]), (16, 1))
    np.testing.assert_allclose(decode(wide, bins, 1.0, 0.5), [0.15, 0.3], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet-vivid", "colorist"])
def test_the_belief_becomes_the_chroma_that_the_graph_makes(name):
    model, luminance = load(name), to_luminance(PHOTO)
    size = 64
    chroma, belief = model.look(luminance, 0.6, size=size)
    small = decode(belief.logits, belief.bins, *model.scale.decoding(0.6))
    factor = chroma.shape[0] // small.shape[0]
    inner = chroma.reshape(small.shape[0], factor, small.shape[1], factor, 2).mean(axis=(1, 3))
    difference = np.abs(inner - small)[1:-1, 1:-1]
    assert difference.mean() < 0.01  # Enlarging smooths, and what leaves the gamut is clipped.
    np.testing.assert_allclose(belief.probabilities.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.belief(PHOTO, size=size).logits, belief.logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet-vivid", "colorist"])
def test_no_hints_and_a_reference_of_no_strength_change_no_bit(name):
    model = load(name)
    plain = model.colorize(PHOTO)
    np.testing.assert_array_equal(model.colorize(PHOTO, hints=[]), plain)
    np.testing.assert_array_equal(model.colorize(PHOTO, reference="autumn", reference_strength=0), plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet-vivid", "colorist"])
def test_a_reference_moves_the_colours_toward_its_own(name):
    model = load(name)
    blue, red = (np.full((20, 30, 3), color, np.uint8) for color in ((60, 90, 220), (200, 40, 40)))

    def mean_chroma(**settings):
        return split_luminance(model.colorize(PHOTO, **settings))[1].mean(axis=(0, 1))

    plain = mean_chroma()
    cb, cr = (mean_chroma(reference=reference, reference_strength=1.0) for reference in (blue, red))
    assert cb[0] > plain[0] + 0.02
    assert cr[1] > plain[1] + 0.02
    weaker = mean_chroma(reference=red, reference_strength=0.2)
    assert plain[1] < weaker[1] < cr[1]
    assert mean_chroma(reference="cold")[0] > mean_chroma(reference="warm")[0] + 0.02


def test_a_prior_is_the_logarithm_of_the_ratio_of_shares():
    logits = np.log(np.array([[[0.7, 0.1, 0.1, 0.1]]], np.float32))
    shares = np.array([0.1, 0.7, 0.1, 0.1])
    prior = make_prior(logits, shares, 1.0)
    assert prior.dtype == np.float32
    assert prior[0] == pytest.approx(np.log(0.1 / 0.7), abs=0.05)
    assert prior[1] == pytest.approx(np.log(0.7 / 0.1), abs=0.2)
    assert softmax(logits[0, 0] + prior)[1] > 0.6
    np.testing.assert_array_equal(make_prior(logits, shares, 0.0), 0)


@pytest.mark.parametrize("palette", PALETTES)
def test_the_shares_of_a_palette_have_the_sum_1_and_rule_no_colour_out(palette):
    bins = load("unet-vivid").open_network().bins
    shares = reference_shares(palette, bins)
    assert shares.sum() == pytest.approx(1)
    assert shares.min() > 0


@pytest.mark.slow
def test_what_cannot_be_asked_is_refused_with_a_sentence():
    vivid, plain = load("unet-vivid"), load("unet")
    with pytest.raises(ConfigError, match="unet has no chroma bins, so it has no belief"):
        plain.belief(PHOTO)
    with pytest.raises(ConfigError, match="unet takes no reference"):
        plain.colorize(PHOTO, reference="autumn")
    with pytest.raises(ConfigError, match=r"no palette 'spring'\. Choose one of neutral"):
        vivid.colorize(PHOTO, reference="spring")
    with pytest.raises(ConfigError, match="The reference is gray"):
        vivid.colorize(PHOTO, reference=np.full((5, 5, 3), 90, np.uint8))
    with pytest.raises(ImageError, match="uint8"):
        vivid.colorize(PHOTO, reference=np.zeros((5, 5, 3)))
    for strength in (-0.1, 1.1, float("nan"), "1", True):
        with pytest.raises(ConfigError, match="reference_strength must be a number from 0 to 1"):
            vivid.colorize(PHOTO, reference="autumn", reference_strength=strength)


def test_a_sentence_says_whether_the_network_is_sure():
    assert pixel(0, 0.9, 0.1, 0).describe() == "The network is rather sure of green (90%)."
    assert (
        pixel(0, 0.5, 0.5, 0).describe().startswith("The network hesitates between green and orange; the mean of all")
    )
    assert "among many other colours" in pixel(0.6, 0.14, 0.13, 0.13).describe()


def test_colours_have_the_names_that_people_give_them():
    colors = [[255, 0, 0], [20, 20, 20], [128, 128, 128], [40, 90, 210], [60, 160, 60], [120, 80, 45], [250, 250, 250]]
    names = name_colors(np.array(colors, np.uint8))
    assert names == ["red", "black", "gray", "blue", "green", "brown", "white"]
