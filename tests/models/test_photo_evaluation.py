"""Models are measured on whole photos: errors, colorfulness, spots and features."""

import weakref

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000

from colorizer.errors import DataError
from colorizer.models.photo_evaluation import measure_photos
from colorizer.pixels.color import gray_copy, to_lab, to_uint8
from colorizer.pixels.images import load_photo
from colorizer.pixels.metrics import colorfulness

PHOTOS = [load_photo("coffee")[::4, ::4], load_photo("astronaut")[::4, ::4]]


def to_gray(photo):
    return to_uint8(gray_copy(photo))


def mean_colors(images):
    """Stand for a classifier whose features are the mean of each channel."""
    assert (images.shape[1:], images.dtype, images.max() <= 1) == ((224, 224, 3), np.float32, True)
    return images.mean(axis=(1, 2))


def test_a_model_is_compared_with_the_original_and_the_gray_copy(linear):
    measured = measure_photos({"linear": linear.colorize}, PHOTOS)["linear"]
    results = [linear.colorize(photo) for photo in PHOTOS]
    pairs = list(zip(PHOTOS, results, strict=True))
    errors = [deltaE_ciede2000(to_lab(photo), to_lab(result)).mean() for photo, result in pairs]
    gray = [deltaE_ciede2000(to_lab(photo), to_lab(gray_copy(photo))).mean() for photo in PHOTOS]
    psnr = [10 * np.log10(255**2 / np.mean((photo.astype(float) - result) ** 2)) for photo, result in pairs]
    colors = [np.mean([colorfulness(image[None]) for image in images]) for images in (results, PHOTOS)]
    assert measured == {
        "photos": 2,
        "delta_e": pytest.approx(np.mean(errors)),
        "gray_copy": pytest.approx(np.mean(gray)),
        "ratio": pytest.approx(np.mean(errors) / np.mean(gray)),
        "better": np.sum(np.less(errors, gray)),
        "colorfulness": pytest.approx(colors[0] / colors[1]),
        "spots": 0,
        "psnr": pytest.approx(np.mean(psnr)),
    }


def test_the_gray_copy_and_the_original_score_what_their_definitions_say():
    models = {"gray": to_gray, "perfect": lambda photo: photo}
    measured = measure_photos(models, PHOTOS, mean_colors)
    gray, perfect = measured["gray"], measured["perfect"]
    assert gray["ratio"] == pytest.approx(1, abs=1e-3)  # The result is rounded to 8 bits.
    assert gray["feature_distance"] == pytest.approx(1)
    assert (gray["colorfulness"], gray["spots"]) == (0, 0)
    assert perfect["feature_distance"] == pytest.approx(0, abs=1e-6)
    assert [perfect[key] for key in ("delta_e", "better", "colorfulness", "psnr")] == [0, 2, 1, 100]


def test_spots_are_pixels_whose_colour_is_far_worse_than_gray():
    def paint(photo):
        result = to_gray(photo)
        result[: len(result) // 4] = 255, 0, 0
        return result

    white = np.full((40, 40, 3), 200, np.uint8)
    assert measure_photos({"spotty": paint}, [white])["spotty"]["spots"] == pytest.approx(0.25)


def test_all_models_see_each_photo_and_larger_ones_are_shrunk():
    seen = {"one": [], "two": []}

    def look(name):
        return lambda photo: seen[name].append(photo.shape) or photo

    photos = [np.zeros(shape, np.uint8) for shape in ((512, 20, 3), (1024, 768, 3))]
    measured = measure_photos({name: look(name) for name in seen}, photos)
    assert list(measured) == ["one", "two"]
    assert seen == {name: [(512, 20, 3), (512, 384, 3)] for name in seen}


def test_one_photo_is_in_memory_at_a_time(linear):
    alive = []

    class Photo(np.ndarray):
        """An array that can be followed."""

    def decode():
        for _ in range(4):
            assert not any(reference() is not None for reference in alive)
            photo = load_photo("coffee")[::8, ::8].view(Photo)
            alive.append(weakref.ref(photo))
            yield photo
            del photo

    assert measure_photos({"linear": linear.colorize}, decode())["linear"]["photos"] == 4


def test_what_black_photos_do_not_define_is_none_and_no_photos_are_refused():
    measured = measure_photos({"gray": to_gray}, [np.zeros((9, 9, 3), np.uint8)], mean_colors)["gray"]
    assert (measured["gray_copy"], measured["better"], measured["psnr"]) == (0, 0, 100)
    assert measured["ratio"] is measured["colorfulness"] is None
    with pytest.raises(DataError, match="There is no photo to measure"):
        measure_photos({"gray": to_gray}, [])
