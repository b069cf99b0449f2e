"""A Colorizer keeps the luminance of photos of any size; batches, threads and kept chroma do not change the result."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import colorizer
from colorizer.config import ModelConfig
from colorizer.errors import ConfigError, ModelError
from colorizer.models import library
from colorizer.models.colorizer import Colorizer, load
from colorizer.models.scale import SCALES
from colorizer.pixels.color import split_luminance, to_luminance, to_uint8
from colorizer.training.networks import build_model
from tests.models.conftest import make_colorizer, random_image


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 1), (1, 50, 3), (33, 31, 3), (32, 32, 3), (7, 200, 3), (200, 301), (500, 333, 3)]
)
def test_a_photo_of_any_size_keeps_its_luminance(linear, shape):
    image = random_image(*shape)
    result = linear.colorize(image)
    assert (result.shape, result.dtype) == ((*shape[:2], 3), np.uint8)
    luminance = to_luminance(image) if image.ndim == 3 else image[..., None] / 255
    assert np.abs(to_luminance(result) - luminance).max() < 1 / 255


def test_photos_get_some_colour(linear):
    gray = to_luminance(colorizer.pixels.images.load_photo("astronaut"))[..., 0]
    result = linear.colorize((gray * 255).astype(np.uint8))
    assert np.abs(split_luminance(result)[1]).mean() > 0.005


def test_only_the_luminance_of_the_input_is_used(linear):
    colours = random_image(400_000, 3).astype(int)
    luminance = colours @ [299, 587, 114]
    colours = colours[luminance % 1000 == 0][:300].reshape(15, 20, 3).astype(np.uint8)  # whole gray values
    gray = (colours @ np.array([299, 587, 114])) // 1000
    assert np.ptp(colours.astype(int), axis=-1).mean() > 50
    difference = linear.colorize(colours).astype(int) - linear.colorize(gray.astype(np.uint8))
    assert np.abs(difference).max() <= 1


def test_alpha_is_kept_and_changes_nothing_else(linear):
    image = random_image(40, 50, 4)
    result = linear.colorize(image)
    np.testing.assert_array_equal(result[..., 3], image[..., 3])
    np.testing.assert_array_equal(result[..., :3], linear.colorize(image[..., :3]))


def test_strength_scales_the_chroma_of_photos(linear):
    photo = colorizer.pixels.images.load_photo("coffee")
    spread = [np.abs(split_luminance(linear.colorize(photo, strength=s))[1]).mean() for s in (0, 0.5, 1, 1.5)]
    assert spread[0] < 0.002
    np.testing.assert_allclose(spread[1:], spread[2] * np.array([0.5, 1, 1.5]), rtol=0.1)
    with pytest.raises(ConfigError, match=r"strength must be a number from 0 to 1\.5, received 1\.6"):
        linear.colorize(photo, strength=1.6)


def test_a_reconstruction_is_what_the_network_makes_of_the_small_image(linear, samples):
    expected = to_uint8(linear.predict(to_luminance(samples.images[:1]))[0])
    np.testing.assert_array_equal(linear.reconstruct(samples.images[0]), expected)
    large = samples.images[0].repeat(3, axis=0).repeat(5, axis=1)
    for image in (large, np.dstack([large, large[..., 0]])):
        np.testing.assert_allclose(linear.reconstruct(image).astype(int), expected, atol=1)
    assert linear.reconstruct(random_image(1, 900)).shape == (32, 32, 3)


def test_the_chroma_is_that_of_the_model_on_the_small_image(linear, samples):
    luminance = to_luminance(samples.images)
    expected = split_luminance(linear.predict(luminance[3:4]).clip(0, 1))[1][0]
    np.testing.assert_allclose(linear.predict_chroma(luminance[3]), expected, atol=1e-5)


def test_batches_give_what_single_images_give(linear, samples, monkeypatch):
    luminance = to_luminance(samples.images)
    whole = linear.predict(luminance)
    assert (whole.shape, whole.dtype) == ((20, 32, 32, 3), np.float32)
    monkeypatch.setattr("colorizer.models.colorizer._BATCH_PIXELS", 7 * 1024)
    np.testing.assert_allclose(linear.predict(luminance), whole, atol=1e-5)
    assert linear.predict(luminance[:0]).shape == (0, 32, 32, 3)


def test_two_threads_give_what_one_gives(linear):
    images = [random_image(40 + n, 50, 3) for n in range(12)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(linear.colorize, images))
    for result, image in zip(together, images, strict=True):
        np.testing.assert_array_equal(result, linear.colorize(image))


def test_sizes_first_met_in_several_threads_give_what_one_gives(vivid):
    photos = [random_image(40, 40 + 10 * n, 3) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(vivid.colorize, photos))
    for result, photo in zip(together, photos, strict=True):
        np.testing.assert_array_equal(result, vivid.colorize(photo))


def test_a_gray_model_leaves_a_photo_gray(tiny_model, samples):
    from colorizer.training.networks import build_model

    gray = make_colorizer(build_model(tiny_model.replace(target="gray")))
    predicted = gray.predict(to_luminance(samples.images))
    assert predicted.shape == (20, 32, 32, 3)
    assert (predicted == predicted[..., :1]).all()
    image = random_image(10, 12)
    np.testing.assert_allclose(gray.colorize(image), np.repeat(image[..., None], 3, axis=-1), atol=1)


def test_models_load_by_name_or_folder(linear, samples):
    luminance = to_luminance(samples.images)
    for place in (library.SHIPPED / "linear", str(library.SHIPPED / "linear")):
        np.testing.assert_array_equal(load(place).predict(luminance), linear.predict(luminance))
    with pytest.raises(ModelError, match="There is no model 'nope'"):
        load("nope")


def test_the_public_names(samples):
    png = colorizer.pixels.images.encode_png(samples.images[0])
    assert colorizer.load is load
    assert colorizer.Colorizer is Colorizer
    np.testing.assert_array_equal(colorizer.decode_image(png), samples.images[0])
    with pytest.raises(AttributeError, match="module 'colorizer' has no attribute 'nope'"):
        _ = colorizer.nope


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(50, 70), (1, 1), (300, 8), (64, 64)])
def test_a_convolutional_model_colorizes_photos_of_any_shape(height, width):
    from colorizer.training.networks import build_model

    model = make_colorizer(build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma")))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    result = model.colorize(image)
    assert result.shape == image.shape
    assert np.abs(to_luminance(result) - to_luminance(image)).max() < 1 / 255
    assert min(model.predict_chroma(to_luminance(image)).shape[:2]) == 64


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        *(((1, 5000), size) for size in (None, *SCALES["unet"].offered_sizes)),
        ((5000, 1), None),
        ((5000, 1), 96),
        ((20, 3000), 64),
        ((100, 3000), 96),
        ((3, 7), 248),
        ((1, 1), 40),
    ],
)
def test_every_shape_works_at_every_size(vivid, shape, size):
    image = random_image(*shape)
    chroma = vivid.predict_chroma(to_luminance(image[..., None].repeat(3, -1)), size=size)
    assert chroma.shape[0] % 8 == chroma.shape[1] % 8 == 0
    assert min(chroma.shape[:2]) == (size or 64)
    result = vivid.colorize(image, size=size)
    assert np.abs(to_luminance(result)[..., 0] - image / 255).max() < 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in library.list_models() if entry.shipped])
def test_every_shipped_model_colorizes_panoramas(name):
    model = load(name)
    for shape, size in (((100, 3000), 96), ((20, 3000), 64), ((1, 5000), None), ((5000, 1), 32)):
        image = random_image(*shape)
        result = model.colorize(image, size=size if model.any_size else None)
        assert np.abs(to_luminance(result)[..., 0] - image / 255).max() < 1 / 255


def test_a_kept_chroma_gives_the_same_picture_and_loads_no_network(linear, vivid, monkeypatch):
    photo = random_image(90, 120, 3)
    kept = vivid.predict_chroma(to_luminance(photo), vivid.levels)
    for settings in ({"vividness": 0.0}, {"vividness": 1.0, "strength": 1.5}, {"strength": 0.3}):
        np.testing.assert_array_equal(vivid.colorize(photo, **settings, chroma=kept), vivid.colorize(photo, **settings))
    chroma = linear.predict_chroma(to_luminance(photo))
    monkeypatch.setattr("colorizer.models.colorizer.load_network", None)
    lazy = Colorizer(None, library.find_model("linear"))
    np.testing.assert_array_equal(
        lazy.colorize(photo, strength=0.7, chroma=chroma), linear.colorize(photo, strength=0.7)
    )


def test_colorizing_with_a_kept_chroma_needs_no_tensorflow():
    code = """if True:
        import sys
        from colorizer.models import evaluation, library
        from colorizer.models.colorizer import Colorizer
        from colorizer.pixels.images import load_photo
        entry = library.find_model("unet-vivid")
        chroma = evaluation.stored_chroma(entry, "coffee")
        result = Colorizer(None, entry).colorize(load_photo("coffee"), 1.0, chroma=chroma)
        print(result.shape, [name for name in ("tensorflow", "keras") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("(400, 600, 3) []\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unet", "conv"])
def test_a_callers_model_is_left_as_it_was(samples, architecture):
    target = "chroma" if architecture == "unet" else "rgb"
    model = build_model(ModelConfig(architecture=architecture, latent_dim=16, target=target))
    luminance = to_luminance(samples.images)[:2]
    before, attributes = np.asarray(model(luminance)), [set(vars(layer)) for layer in model.layers]
    make_colorizer(model).predict(luminance)
    assert [set(vars(layer)) for layer in model.layers] == attributes
    np.testing.assert_array_equal(np.asarray(model(luminance)), before)


def test_a_long_panorama_is_squeezed_to_bound_the_memory(vivid):
    assert vivid.predict_chroma(to_luminance(random_image(10, 3000, 3)), size=32).shape == (32, 8192, 2)
    assert vivid.predict_chroma(to_luminance(random_image(10, 3000, 3)), size=256).shape == (256, 1024, 2)


def test_a_unet_averages_over_the_mirrored_image(samples):
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma"))
    luminance = to_luminance(samples.images)
    mirrored = np.asarray(model(luminance[:, :, ::-1]))[:, :, ::-1]
    expected = (np.asarray(model(luminance)) + mirrored) / 2
    assert np.abs(mirrored - expected).max() > 1e-4
    np.testing.assert_allclose(make_colorizer(model).predict(luminance), expected, atol=1e-6)
