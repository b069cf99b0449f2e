"""images: resizing, tiles, sample photos, and the middle square of a picture."""

import numpy as np
import pytest

from colorizer.errors import ImageError
from colorizer.pixels import images


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (100, 7), (7, 100), (64, 48), (33, 31)])
def test_resizing_keeps_a_constant(size):
    planes = np.broadcast_to(np.float32([0.25, -0.5]), (48, 64, 2))
    resized = images.resize_planes(planes, *size)
    assert (resized.shape, resized.dtype) == ((*size, 2), np.float32)
    np.testing.assert_allclose(resized, np.broadcast_to(np.float32([0.25, -0.5]), (*size, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "tolerance"), [((32, 32), 1e-6), ((16, 48), 1e-6), ((96, 96), 1e-3), ((31, 29), 0.01)]
)
def test_resizing_keeps_the_mean(size, tolerance):
    planes = np.random.default_rng(0).random((96, 96, 3), np.float32)
    resized = images.resize_planes(planes, *size)
    np.testing.assert_allclose(resized.mean(axis=(0, 1)), planes.mean(axis=(0, 1)), atol=tolerance)


def test_shrinking_averages_and_enlarging_is_smooth():
    planes = np.random.default_rng(0).random((64, 64, 1), np.float32)
    blocks = planes.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(images.resize_planes(planes, 32, 32)[..., 0], blocks, atol=1e-6)
    ramp = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32)[None, :, None], (32, 32, 1))
    steps = np.diff(images.resize_planes(ramp, 32, 320)[0, 30:-30, 0])
    assert steps.min() > 0
    assert steps.max() < 2 / 320


@pytest.mark.parametrize("shape", [(90, 70), (1, 5000), (5000, 1), (64, 64)])
@pytest.mark.parametrize("size", [(32, 32), (8, 40), (45, 7)])
def test_a_large_plane_is_shrunk_in_tiles_to_the_same_values(shape, size, monkeypatch):
    planes = np.random.default_rng(0).random((*shape, 2), np.float32)
    whole = images.resize_planes(planes, *size)
    monkeypatch.setattr(images, "_SHRUNK_PIXELS", 300)
    np.testing.assert_allclose(images.resize_planes(planes, *size), whole, atol=0.02)


@pytest.mark.parametrize(("shape", "expected"), [((90, 60), (30, 20)), ((1, 900), (1, 30)), ((9, 4), (9, 4))])
def test_an_image_is_scaled_down_to_fit(shape, expected):
    image = np.full((*shape, 3), (10, 200, 90), np.uint8)
    small = images.fit_inside(image, 30)
    assert (small.shape, small.dtype) == ((*expected, 3), np.uint8)
    assert (small == (10, 200, 90)).all()


def test_tiles_are_enlarged_side_by_side_on_a_transparent_ground():
    first, second, third, fourth = (np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30, 40))
    second = second.copy()
    second[0, 1] = (1, 2, 3)
    canvas = images.tile_rows([[first, second], [third, fourth]], scale=4, gap=5)
    assert (canvas.shape, canvas.dtype) == ((2 * 8 + 5, 2 * 12 + 5, 4), np.uint8)
    np.testing.assert_array_equal(canvas[:8, :12], np.broadcast_to(np.uint8([10, 10, 10, 255]), (8, 12, 4)))
    np.testing.assert_array_equal(canvas[:4, 17 + 4 : 17 + 8], np.broadcast_to(np.uint8([1, 2, 3, 255]), (4, 4, 4)))
    np.testing.assert_array_equal(canvas[-1, -1], [40, 40, 40, 255])
    assert (canvas[8:13] == 0).all()
    assert (canvas[:, 12:17] == 0).all()


@pytest.mark.parametrize("name", images.PHOTOS)
def test_every_sample_photo_loads_without_a_network(name, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", None)
    photo = images.load_photo(name)
    assert photo.dtype == np.uint8
    assert photo.shape[2:] == (3,)
    assert min(photo.shape[:2]) >= 200
    assert images.PHOTOS[name]


def test_an_unknown_sample_photo_is_refused():
    with pytest.raises(ImageError, match=r"no sample photo 'lena'\. Choose one of astronaut"):
        images.load_photo("lena")


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (32, 32), (5, 9)])
def test_a_picture_is_cut_to_its_middle_square_and_shrunk(shape):
    image = np.zeros((*shape, 3), np.uint8)
    side = min(shape)
    top, left = ((length - side) // 2 for length in shape)
    image[top : top + side, left : left + side] = (10, 200, 90)
    small = images.cut_small(image)
    assert (small.shape, small.dtype) == ((32, 32, 3), np.uint8)
    assert (small == (10, 200, 90)).all()
