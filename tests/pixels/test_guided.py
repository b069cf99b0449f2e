"""guided: luminance to within 1 of 255 everywhere, colour that stops where the object stops, no halos, no seams."""

from pathlib import Path

import numpy as np
import pytest

from colorizer.pixels import guided, images
from colorizer.pixels.color import gray_copy, merge_luminance, split_luminance, to_uint8
from colorizer.pixels.images import PHOTOS, decode_image, load_photo, resize_planes

GENERATOR = np.random.default_rng(0)
SHARED = Path(__file__).parents[3] / "shared" / "data" / "photos"


def luminance_error(image, result):
    """Largest difference of luminance at any pixel, in units of 1 / 255, computed without the package."""
    return np.abs((result[..., :3].astype(float) - image[..., :3]) @ [0.299, 0.587, 0.114]).max()


def _wild_chroma(height=32, width=48):
    return GENERATOR.uniform(-0.6, 0.6, (height, width, 2)).astype(np.float32)


@pytest.mark.parametrize("name", PHOTOS)
def test_sample_photos_keep_their_luminance(name):
    photo = load_photo(name)
    assert luminance_error(photo, guided.apply_chroma(photo, _wild_chroma())) <= 1


def test_the_shared_photos_keep_their_luminance():
    paths = sorted(SHARED.glob("*.jpg"))
    if not paths:
        pytest.skip(f"no photos in {SHARED}")
    for path in paths:
        photo = decode_image(path.read_bytes())
        assert luminance_error(photo, guided.apply_chroma(photo, _wild_chroma())) <= 1, path.name


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 10_000, 3), (10_000, 1, 3), (7, 200, 3), (33, 31, 3), (64, 64, 4)])
@pytest.mark.parametrize("small", [(32, 32), (8, 256), (64, 88)])
def test_any_shape_keeps_its_luminance_and_its_alpha(shape, small):
    image = GENERATOR.integers(0, 256, shape, np.uint8)
    result = guided.apply_chroma(image, _wild_chroma(*small))
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    assert luminance_error(image, result) <= 1
    np.testing.assert_array_equal(result[..., 3:], image[..., 3:])


def test_without_chroma_it_is_the_gray_copy():
    photo = load_photo("chelsea")
    result = guided.apply_chroma(photo, np.zeros((32, 32, 2), np.float32))
    np.testing.assert_array_equal(result, to_uint8(gray_copy(photo)))


def test_one_chroma_everywhere_stays_that_whatever_the_luminance():
    image = GENERATOR.integers(100, 156, (90, 70, 3), np.uint8)
    result = guided.apply_chroma(image, np.broadcast_to(np.float32([0.1, -0.08]), (32, 32, 2)))
    assert np.abs(split_luminance(result)[1] - [0.1, -0.08]).max() < 0.6 / 255


@pytest.fixture(scope="module")
def disc():
    """A dark disc on a lighter ground, each with its own chroma: the true image, and its chroma as a network has it."""
    rows, columns = np.mgrid[0:512, 0:512]
    inside = (np.hypot(rows - 256, columns - 250) < 140)[..., None]
    luminance = np.where(inside, 0.4, 0.7).astype(np.float32)
    chroma = np.where(inside, [-0.1, 0.15], [0.05, -0.06]).astype(np.float32)
    image = to_uint8(merge_luminance(luminance, chroma))
    return image, resize_planes(resize_planes(split_luminance(image)[1], 16, 16), 32, 32)


def test_colour_stops_where_the_object_stops(disc):
    image, small = disc
    truth = split_luminance(image)[1]
    guided_error = np.abs(split_luminance(guided.apply_chroma(image, small))[1] - truth).mean()
    bicubic_error = np.abs(resize_planes(small, 512, 512) - truth).mean()
    assert guided_error < 0.4 * bicubic_error


def test_there_is_no_halo(disc):
    image, small = disc
    chroma = split_luminance(guided.apply_chroma(image, small))[1]
    low, high = small.min(axis=(0, 1)), small.max(axis=(0, 1))
    assert (chroma > low - 1 / 255).all()
    assert (chroma < high + 1 / 255).all()


def test_the_slope_is_that_of_the_guided_filter():
    luminance, chroma = GENERATOR.random((24, 20, 1), np.float32), _wild_chroma(24, 20)
    guide, target = (planes.reshape(12, 2, 10, 2, -1).mean(axis=(1, 3)) for planes in (luminance, chroma))

    def slope(row, column):
        box = np.s_[row - 1 : row + 2, column - 1 : column + 2]
        covariance = np.mean(guide[box] * target[box], axis=(0, 1)) - guide[box].mean() * target[box].mean(axis=(0, 1))
        return covariance / (guide[box].var() + guided._EPSILON)

    smoothed = {(row, column): slope(row, column) for row in range(2, 10) for column in range(2, 8)}
    grid = np.array([[smoothed[row, column] for column in range(2, 8)] for row in range(2, 10)])
    expected = np.lib.stride_tricks.sliding_window_view(grid, (3, 3), (0, 1)).mean(axis=(-2, -1))
    fitted = guided.fit(luminance, chroma)
    again = resize_planes(np.pad(expected, ((3, 3), (3, 3), (0, 0)), "edge"), 24, 20)
    np.testing.assert_allclose(fitted[11:13, 9:11, :2], again[11:13, 9:11], atol=1e-4)


def test_large_photos_are_merged_in_strips_without_seams(monkeypatch):
    photo, chroma = load_photo("coffee"), resize_planes(_wild_chroma(4, 4), 32, 32)
    whole = guided.apply_chroma(photo, chroma)
    monkeypatch.setattr(images, "_TILE_PIXELS", 5000)
    assert np.abs(guided.apply_chroma(photo, chroma).astype(int) - whole).max() <= 1
