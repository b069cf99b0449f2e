"""linear: the closed form against ridge regression written out, and what it reaches on the real test set."""

import numpy as np
import pytest

from colorizer.data import datasets
from colorizer.models import linear
from colorizer.pixels.color import LUMINANCE_WEIGHTS, split_luminance, to_luminance
from colorizer.pixels.metrics import image_mse

OUTPUTS = {"rgb": 3072, "chroma": 2048, "gray": 1024}


@pytest.fixture(scope="module")
def statistics():
    return datasets.load_statistics()


@pytest.fixture(scope="module")
def solution(statistics):
    return linear.solve(statistics.mean, statistics.factors)


def test_a_bottleneck_of_32_reaches_the_number_of_the_design(solution, cifar10):
    images = cifar10.test.images
    prediction = solution.decode(solution.encode(to_luminance(images), 32))
    assert image_mse(prediction, images).mean() <= 0.0158


@pytest.mark.slow
def test_the_error_falls_as_the_bottleneck_widens(solution, samples):
    luminance = to_luminance(samples.images)
    errors = [image_mse(solution.decode(solution.encode(luminance, k)), samples.images).mean()
              for k in (1, 8, 16, 32, 64, 128, 256, 512)]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.02


@pytest.mark.parametrize(("target", "outputs"), OUTPUTS.items())
def test_shapes(statistics, target, outputs):
    solution = linear.solve(statistics.mean, statistics.factors[:64], target)
    shapes = [getattr(solution, name).shape for name in ("input_mean", "encoder", "decoder", "output_mean")]
    assert shapes == [(1024,), (1024, 64), (64, outputs), (outputs,)]
    latent = solution.encode(np.zeros((5, 32, 32, 1), np.float32), 7)
    assert latent.shape == (5, 7)
    assert solution.decode(latent).shape == (5, 32, 32, outputs // 1024)
    assert solution.decode(latent).dtype == np.float32


def _covariances(statistics, target):
    """C_yy, (1024, 1024), and C_xy, (outputs, 1024), from the covariance of whole images."""
    to_gray = np.kron(np.eye(1024), LUMINANCE_WEIGHTS.astype(np.float64))  # (1024, 3072)
    gray = statistics.factors.astype(np.float64) @ to_gray.T
    pixels = statistics.factors.reshape(512, 1024, 3)
    output = {"rgb": pixels, "chroma": split_luminance(pixels)[1], "gray": gray}[target].reshape(512, -1)
    return gray.T @ gray, output.T @ gray


@pytest.mark.slow
@pytest.mark.parametrize(("target", "rank"), [("rgb", 512), ("chroma", 512), ("gray", 512), ("gray", 16)])
def test_agrees_with_ridge_regression_written_out(statistics, target, rank):
    solution = linear.solve(statistics.mean, statistics.factors, target)
    input_covariance, cross_covariance = _covariances(statistics, target)
    ridge = linear._RIDGE * np.trace(input_covariance) / 1024 * np.eye(1024)
    expected = np.linalg.solve(input_covariance + ridge, cross_covariance.T).T  # B
    if rank < 512:  # V V^T B, with V the top eigenvectors of the fitted covariance
        axes = np.linalg.eigh(expected @ (input_covariance + ridge) @ expected.T)[1][:, -rank:]
        expected = axes @ (axes.T @ expected)
    actual = (solution.encoder[:, :rank] @ solution.decoder[:rank]).T
    assert np.linalg.norm(actual - expected) < 1e-3 * np.linalg.norm(expected)


def test_the_mean_image_is_reproduced(statistics):
    solution = linear.solve(statistics.mean, statistics.factors[:64])
    mean = statistics.mean.reshape(1, 32, 32, 3)
    np.testing.assert_allclose(solution.decode(solution.encode(to_luminance(mean), 8)), mean, atol=1e-4)


def test_an_unknown_target_is_refused(statistics):
    with pytest.raises(ValueError, match="expected target rgb, chroma or gray, received 'lab'"):
        linear.solve(statistics.mean, statistics.factors, "lab")
