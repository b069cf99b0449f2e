"""metrics: against scikit-image called directly, against formulas written out, and against DESIGN.md's table."""

import math

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from colorizer.pixels.metrics import (
    METRICS,
    colorfulness,
    compute_metrics,
    cosine_distance,
    gray_copy_metrics,
    image_mse,
    photo_psnr,
    spot_share,
)

# DESIGN.md, section 5: the gray copy on the 10,000 test images.
GRAY_COPY = {
    "mse": 0.006616,
    "mae": 0.049989,
    "psnr": 21.794,
    "ssim": 0.934279,
    "delta_e": 10.48804,
    "ab_mae": 9.291969,
    "accuracy_2": 0.264299,
    "accuracy_5": 0.557623,
    "colorfulness": 0,
}


@pytest.fixture(scope="module")
def pair(samples):
    """A prediction that leaves [0, 1] here and there, and the truth."""
    noise = np.random.default_rng(0).normal(0, 0.08, samples.images.shape)
    return (samples.images / 255 + noise).astype(np.float32), samples.images


def test_gray_copy_reproduces_the_design_table(cifar10):
    measured = gray_copy_metrics(cifar10.test.images)
    assert {k: f"{v:.4g}" for k, v in measured.items()} == {k: f"{v:.4g}" for k, v in GRAY_COPY.items()}


def test_originals_are_as_colorful_as_the_design_says(cifar10):
    assert colorfulness(cifar10.test.images).mean() == pytest.approx(33.651153, rel=1e-5)


def test_metrics_agree_with_scikit_image_and_the_formulas(pair):
    prediction, truth = np.clip(pair[0], 0, 1).astype(np.float64), pair[1] / 255
    lab, true_lab = rgb2lab(prediction), rgb2lab(truth)
    error = prediction - truth
    expected = {
        "mse": (error**2).mean(),
        "mae": np.abs(error).mean(),
        "psnr": -10 * math.log10((error**2).mean()),
        "ssim": np.mean(
            [structural_similarity(a, b, channel_axis=-1, data_range=1) for a, b in zip(prediction, truth, strict=True)]
        ),
        "delta_e": deltaE_ciede2000(true_lab, lab).mean(),
        "ab_mae": np.abs(lab - true_lab)[..., 1:].mean(),
    }
    for tolerance in (2, 5):
        inside = np.abs(lab.round() - true_lab.round()) <= (tolerance, 2.2 * tolerance, 2.2 * tolerance)
        expected[f"accuracy_{tolerance}"] = inside.all(axis=-1).mean()
    measured = compute_metrics(*pair)
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=2e-3 if "accuracy" in name else 1e-4), name


def test_metrics_come_in_the_documented_order_as_floats(pair):
    measured = compute_metrics(*pair)
    assert list(measured) == list(METRICS) == list(GRAY_COPY)
    assert all(type(value) is float for value in measured.values())


def test_a_perfect_prediction(samples):
    measured = compute_metrics(samples.images, samples.images)
    perfect = {"mse": 0, "mae": 0, "psnr": math.inf, "ssim": 1, "delta_e": 0, "ab_mae": 0,
               "accuracy_2": 1, "accuracy_5": 1}  # fmt: skip
    assert {name: measured[name] for name in perfect} == pytest.approx(perfect)


@pytest.mark.parametrize("metric", ["mse", "mae", "delta_e", "ab_mae"])
def test_errors_grow_with_the_noise(samples, metric):
    noise = np.random.default_rng(0).normal(size=samples.images.shape)
    errors = [compute_metrics(samples.images / 255 + s * noise, samples.images)[metric] for s in (0.01, 0.05, 0.2)]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_predictions_are_clipped(samples):
    bright = np.full(samples.images.shape, 7.0, np.float32)
    white = np.full_like(samples.images, 255)
    assert compute_metrics(bright, samples.images) == compute_metrics(white, samples.images)
    np.testing.assert_array_equal(image_mse(bright, samples.images), image_mse(white, samples.images))


def test_chunks_weigh_by_their_size(samples, monkeypatch):
    prediction = np.roll(samples.images, 1, axis=0)
    whole = compute_metrics(prediction, samples.images)
    monkeypatch.setattr("colorizer.pixels.metrics._CHUNK", 7)
    assert compute_metrics(prediction, samples.images) == pytest.approx(whole, rel=1e-6)


def test_image_mse_is_one_number_an_image_and_pools_to_mse(pair):
    errors = image_mse(*pair)
    assert (errors.shape, errors.dtype) == ((20,), np.float64)
    assert errors[3] == pytest.approx(((np.clip(pair[0][3], 0, 1) - pair[1][3] / 255) ** 2).mean(), rel=1e-5)
    assert errors.mean() == pytest.approx(compute_metrics(*pair)["mse"], rel=1e-6)


def test_colorfulness_follows_its_paper(samples):
    red, green, blue = np.moveaxis(samples.images[0].astype(float), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    expected = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
    assert colorfulness(samples.images)[0] == pytest.approx(expected, rel=1e-5)
    assert colorfulness(np.full((1, 4, 4, 3), 77, np.uint8))[0] == 0


@pytest.mark.parametrize("shapes", [((2, 8, 8, 3), (3, 8, 8, 3)), ((8, 8, 3), (8, 8, 3)), ((2, 8, 8, 1), (2, 8, 8, 1)),
                                    ((0, 8, 8, 3), (0, 8, 8, 3))])  # fmt: skip
def test_shapes_that_do_not_match_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected two arrays of one shape \(N, H, W, 3\), received"):
        compute_metrics(*(np.zeros(shape) for shape in shapes))


def test_a_perfect_photo_has_100_db_and_others_their_psnr():
    photo = np.full((8, 8, 3), 100, np.uint8)
    assert photo_psnr(photo, photo) == 100
    assert photo_psnr(photo + np.uint8(51), photo) == pytest.approx(20 * math.log10(5))


def test_spots_count_only_what_is_over_25_units_farther_than_gray():
    truth, gray, result = np.zeros((3, 1, 4, 3))
    gray[..., 1] = 3
    result[0, :, 2] = 27.9, 28.1, 0, 60
    result[0, 2, 0] = 90  # Lightness does not count.
    assert spot_share(result, gray, truth) == 0.5


def test_the_cosine_distance_ignores_lengths():
    first, second = np.array([[3, 0], [1, 1]], np.float32)
    assert cosine_distance(first, second) == pytest.approx(1 - math.sqrt(0.5))
    assert cosine_distance(first, 7 * first) == pytest.approx(0)
    assert cosine_distance(first, 0 * first) == 1
