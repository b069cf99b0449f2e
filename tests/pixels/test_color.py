"""color: luminance against Pillow, Lab against scikit-image, round trips, gamut, errors."""

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from colorizer.data import datasets
from colorizer.pixels import color

RANDOM = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)
FLOATS = RANDOM.astype(np.float32) / 255


def test_luminance_is_pillows_mode_l_before_rounding():
    luminance = color.to_luminance(RANDOM[0])[..., 0] * 255
    pillow = np.asarray(Image.fromarray(RANDOM[0]).convert("L"), np.float64)
    assert np.abs(luminance - pillow).max() < 0.51
    assert len(np.unique(luminance)) > 256  # unrounded


def test_luminance_of_primaries():
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]], np.uint8)
    np.testing.assert_allclose(color.to_luminance(primaries)[0, :, 0], [0.299, 0.587, 0.114, 1, 0], atol=1e-6)


@pytest.mark.parametrize("images", [RANDOM, FLOATS, FLOATS.astype(np.float64), RANDOM[0]], ids=["u1", "f4", "f8", "3d"])
def test_split_and_merge_are_inverse(images):
    luminance, chroma = color.split_luminance(images)
    assert (luminance.shape, chroma.shape) == ((*images.shape[:-1], 1), (*images.shape[:-1], 2))
    assert luminance.dtype == np.float32
    assert chroma.dtype in (np.float32, images.dtype)
    assert np.abs(chroma).max() <= 0.5 + 1e-6
    merged = color.merge_luminance(luminance, chroma)
    np.testing.assert_allclose(merged, color.as_float(images), atol=2e-6)
    np.testing.assert_array_equal(color.to_uint8(merged), color.to_uint8(color.as_float(images)))


@pytest.mark.parametrize("spread", [0.1, 0.5, 5.0])
def test_merge_keeps_the_luminance_of_any_chroma(spread):
    generator = np.random.default_rng(1)
    luminance = generator.random((50, 50, 1), np.float32)
    luminance[0], luminance[1] = 0, 1
    chroma = generator.uniform(-spread, spread, (50, 50, 2)).astype(np.float32)
    merged = color.merge_luminance(luminance, chroma)
    assert merged.min() >= 0
    assert merged.max() <= 1
    np.testing.assert_allclose(color.to_luminance(merged), luminance, atol=1e-5)
    np.testing.assert_array_equal(merged[0], 0)
    np.testing.assert_array_equal(merged[1], 1)


def test_merge_keeps_the_hue_of_a_colour_outside_the_gamut():
    luminance, chroma = np.full((1, 1), 0.5, np.float32), np.array([[0.9, -0.6]], np.float32)
    kept = color.split_luminance(color.merge_luminance(luminance, chroma))[1]
    assert kept[0, 0] / kept[0, 1] == pytest.approx(0.9 / -0.6, rel=1e-4)


def test_merge_without_chroma_is_the_gray_copy():
    luminance = color.to_luminance(RANDOM)
    merged = color.merge_luminance(luminance, np.zeros((*luminance.shape[:-1], 2), np.float32))
    np.testing.assert_array_equal(merged, color.gray_copy(RANDOM))


@pytest.mark.parametrize("function", [color.to_luminance, color.split_luminance, color.gray_copy])
@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 4), (3,)])
def test_other_shapes_are_refused(function, shape):
    with pytest.raises(ValueError, match=r"expected images of shape \(\.\.\., 3\), received"):
        function(np.zeros(shape, np.uint8))


def test_gray_copy_repeats_the_unrounded_luminance():
    copy = color.gray_copy(np.array([[[255, 0, 0], [0, 255, 0], [10, 20, 30]]], np.uint8))
    assert (copy.shape, copy.dtype) == ((1, 3, 3), np.float32)
    # 0.299 * 10 + 0.587 * 20 + 0.114 * 30 = 18.15
    np.testing.assert_allclose(copy[0], [[0.299] * 3, [0.587] * 3, [18.15 / 255] * 3], rtol=1e-6)


def test_to_uint8_inverts_as_float_rounds_and_clips():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(color.to_uint8(color.as_float(every)), every)
    np.testing.assert_array_equal(color.to_uint8(np.array([-1, 0.4 / 255, 0.6 / 255, 2])), [0, 0, 1, 255])


def test_as_float_leaves_floats_alone():
    assert color.as_float(FLOATS) is FLOATS
    assert color.as_float(FLOATS.astype(np.float64)).dtype == np.float32


@pytest.mark.parametrize("images", [RANDOM, FLOATS], ids=["uint8", "float32"])
def test_lab_is_scikit_images(images):
    lab = color.to_lab(images)
    assert lab.dtype == np.float32
    np.testing.assert_allclose(lab, rgb2lab(RANDOM), atol=2e-3)


def test_chroma_is_counted_at_half_resolution_in_cells_around_gray():
    gray = np.full((1, 4, 4, 3), 128, np.uint8)
    shares = color.chroma_shares(gray)
    assert shares.shape == (25, 25)
    assert shares[12, 12] == shares.sum() == 1
    red = gray.copy()
    red[:, :2, :2] = (255, 0, 0)  # Cb -0.169, Cr 0.5: four cells below gray, twelve (0.48) above
    np.testing.assert_allclose(color.chroma_shares(red)[[12, 8], [12, 24]], [0.75, 0.25])
    checkered = gray.copy()
    checkered[:, ::2, ::2] = (136, 136, 136)
    assert color.chroma_shares(checkered)[12, 12] == 1


def test_bins_are_the_most_frequent_cells_and_their_centres_lie_on_the_grid():
    shares = np.zeros((25, 25), np.float32)
    shares[12, 12], shares[10, 13], shares[0, 24], shares[1, 1] = 0.6, 0.3, 0.06, 0.04
    centres, chosen = color.chroma_bins(shares, 3)
    np.testing.assert_allclose(centres, [[0, 0], [-0.08, 0.04], [-0.48, 0.48]], atol=1e-7)
    np.testing.assert_allclose(chosen, [0.625, 0.3125, 0.0625], rtol=1e-6)


def test_the_shipped_shares_sum_to_one_and_put_gray_first():
    statistics = datasets.load_statistics()
    assert statistics.shares.sum() == pytest.approx(1, abs=1e-5)
    centres, chosen = color.chroma_bins(statistics.shares, 128)
    assert (centres[0] == 0).all()
    assert (np.diff(chosen) <= 0).all()


def test_the_shipped_shares_are_those_of_the_training_images(cifar10):
    np.testing.assert_allclose(color.chroma_shares(cifar10.train.images), datasets.load_statistics().shares, atol=1e-7)
