"""colorizer: photos of any size keep their luminance, batches and threads give the same, other arrays are refused."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import colorizer
from colorizer.config import WORKING_SIZES, ModelConfig
from colorizer.data import datasets
from colorizer.errors import ConfigError, ImageError, ModelError
from colorizer.models import library
from colorizer.models.colorizer import Colorizer, load
from colorizer.pixels.color import chroma_bins, split_luminance, to_luminance, to_uint8
from colorizer.pixels.images import resize_planes
from colorizer.training.networks import build_model

GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def linear():
    return load("linear")


@pytest.fixture(scope="module")
def vivid_model():
    """A small untrained model with chroma bins whose logits are not all alike."""
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma", chroma_bins=32))
    centres, _ = chroma_bins(datasets.load_statistics().shares, 32)
    model.get_layer("bin_centres").set_weights([centres[None, None]])
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 100, bias])
    return model


@pytest.fixture(scope="module")
def vivid(vivid_model):
    return Colorizer(vivid_model, None)


def _random(*shape):
    return GENERATOR.integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 1), (1, 50, 3), (33, 31, 3), (32, 32, 3), (7, 200, 3), (200, 301), (500, 333, 3)]
)
def test_a_photo_of_any_size_keeps_its_luminance(linear, shape):
    image = _random(*shape)
    result = linear.colorize(image)
    assert (result.shape, result.dtype) == ((*shape[:2], 3), np.uint8)
    luminance = to_luminance(image) if image.ndim == 3 else image[..., None] / 255
    assert np.abs(to_luminance(result) - luminance).max() < 1 / 255


def test_photos_get_some_colour(linear):
    gray = to_luminance(colorizer.pixels.images.load_photo("astronaut"))[..., 0]
    result = linear.colorize((gray * 255).astype(np.uint8))
    assert np.abs(split_luminance(result)[1]).mean() > 0.005


def test_only_the_luminance_of_the_input_is_used(linear):
    colours = _random(400_000, 3).astype(int)
    luminance = colours @ [299, 587, 114]
    colours = colours[luminance % 1000 == 0][:300].reshape(15, 20, 3).astype(np.uint8)  # whole gray values
    gray = (colours @ np.array([299, 587, 114])) // 1000
    assert np.ptp(colours.astype(int), axis=-1).mean() > 50
    difference = linear.colorize(colours).astype(int) - linear.colorize(gray.astype(np.uint8))
    assert np.abs(difference).max() <= 1


def test_alpha_is_kept_and_changes_nothing_else(linear):
    image = _random(40, 50, 4)
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
    assert linear.reconstruct(_random(1, 900)).shape == (32, 32, 3)


def test_the_chroma_is_that_of_the_model_on_the_small_image(linear, samples):
    luminance = to_luminance(samples.images)
    expected = split_luminance(linear.predict(luminance[3:4]).clip(0, 1))[1][0]
    np.testing.assert_allclose(linear.predict_chroma(luminance[3]), expected, atol=1e-5)


def test_batches_give_what_single_images_give(linear, samples, monkeypatch):
    luminance = to_luminance(samples.images)
    whole = linear.predict(luminance)
    assert (whole.shape, whole.dtype) == ((20, 32, 32, 3), np.float32)
    monkeypatch.setattr("colorizer.models.colorizer._BATCH", 7)
    np.testing.assert_allclose(linear.predict(luminance), whole, atol=1e-5)
    assert linear.predict(luminance[:0]).shape == (0, 32, 32, 3)


def test_two_threads_give_what_one_gives(linear):
    images = [_random(40 + n, 50, 3) for n in range(12)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(linear.colorize, images))
    for result, image in zip(together, images, strict=True):
        np.testing.assert_array_equal(result, linear.colorize(image))


def test_sizes_first_met_in_several_threads_give_what_one_gives(vivid):
    photos = [_random(40, 40 + 10 * n, 3) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(vivid.colorize, photos))
    for result, photo in zip(together, photos, strict=True):
        np.testing.assert_array_equal(result, vivid.colorize(photo))


def test_a_gray_model_leaves_a_photo_gray(tiny_model, samples):
    from colorizer.training.networks import build_model

    gray = Colorizer(build_model(tiny_model.replace(target="gray")), None)
    predicted = gray.predict(to_luminance(samples.images))
    assert predicted.shape == (20, 32, 32, 3)
    assert (predicted == predicted[..., :1]).all()
    image = _random(10, 12)
    np.testing.assert_allclose(gray.colorize(image), np.repeat(image[..., None], 3, axis=-1), atol=1)


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

    model = Colorizer(build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma")), None)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    result = model.colorize(image)
    assert result.shape == image.shape
    assert np.abs(to_luminance(result) - to_luminance(image)).max() < 1 / 255
    assert min(model.predict_chroma(to_luminance(image)).shape[:2]) == 64


@pytest.mark.parametrize("size", [*WORKING_SIZES, 256])
def test_the_working_size_is_the_shorter_side_that_the_network_sees(vivid, size):
    luminance = to_luminance(_random(90, 200, 3))
    chroma = vivid.predict_chroma(luminance, size=size)
    assert chroma.shape == (size, round(size * 200 / 90 / 8) * 8, 2)
    small = resize_planes(luminance, *chroma.shape[:2]).clip(0, 1)
    np.testing.assert_array_equal(chroma, split_luminance(vivid.predict(small[None]).clip(0, 1))[1][0])


def test_by_default_it_is_the_mean_of_two_sizes(vivid):
    luminance = to_luminance(_random(90, 200, 3))
    small, large = (vivid.predict_chroma(luminance, size=size) for size in (32, 64))
    expected = (resize_planes(small, *large.shape[:2]) + large) / 2
    np.testing.assert_allclose(vivid.predict_chroma(luminance), expected, atol=1e-6)
    photo = _random(90, 200, 3)
    assert (vivid.colorize(photo, size=128) != vivid.colorize(photo)).any()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        *(((1, 5000), size) for size in (None, *WORKING_SIZES)),
        ((5000, 1), None),
        ((5000, 1), 96),
        ((20, 3000), 48),
        ((100, 3000), 96),
        ((3, 7), 248),
        ((1, 1), 40),
    ],
)
def test_every_shape_works_at_every_size(vivid, shape, size):
    image = _random(*shape)
    chroma = vivid.predict_chroma(to_luminance(image[..., None].repeat(3, -1)), size=size)
    assert chroma.shape[0] % 8 == chroma.shape[1] % 8 == 0
    assert min(chroma.shape[:2]) == (size or 64)
    result = vivid.colorize(image, size=size)
    assert np.abs(to_luminance(result)[..., 0] - image / 255).max() < 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in library.list_models() if entry.shipped])
def test_every_shipped_model_colorizes_panoramas(name):
    model = load(name)
    for shape, size in (((100, 3000), 96), ((20, 3000), 48), ((1, 5000), None), ((5000, 1), 32)):
        image = _random(*shape)
        result = model.colorize(image, size=size if model.any_size else None)
        assert np.abs(to_luminance(result)[..., 0] - image / 255).max() < 1 / 255


def test_a_kept_chroma_gives_the_same_picture_and_loads_no_network(linear, vivid, monkeypatch):
    photo = _random(90, 120, 3)
    kept = vivid.predict_chroma(to_luminance(photo), vivid.levels)
    for settings in ({"vividness": 0.0}, {"vividness": 1.0, "strength": 1.5}, {"strength": 0.3}):
        np.testing.assert_array_equal(vivid.colorize(photo, **settings, chroma=kept), vivid.colorize(photo, **settings))
    chroma = linear.predict_chroma(to_luminance(photo))
    monkeypatch.setattr(library, "load_keras_model", None)
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
        linear.colorize(_random(40, 40, 3), chroma=chroma)


def test_settings_are_checked_before_a_network_is_loaded(monkeypatch):
    monkeypatch.setattr(library, "load_keras_model", None)
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
            model.colorize(_random(40, 40, 3), **settings)


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


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unet", "conv"])
def test_a_callers_model_is_left_as_it_was(samples, architecture):
    target = "chroma" if architecture == "unet" else "rgb"
    model = build_model(ModelConfig(architecture=architecture, latent_dim=16, target=target))
    luminance = to_luminance(samples.images)[:2]
    before, attributes = np.asarray(model(luminance)), [set(vars(layer)) for layer in model.layers]
    Colorizer(model, None).predict(luminance)
    assert [set(vars(layer)) for layer in model.layers] == attributes
    np.testing.assert_array_equal(np.asarray(model(luminance)), before)


def test_a_long_panorama_is_squeezed_to_bound_the_memory(vivid):
    assert vivid.predict_chroma(to_luminance(_random(10, 3000, 3)), size=32).shape == (32, 8192, 2)
    assert vivid.predict_chroma(to_luminance(_random(10, 3000, 3)), size=256).shape == (256, 1024, 2)


@pytest.mark.parametrize("size", [0, 24, 33, 264, 64.0, "64", True])
def test_other_working_sizes_are_refused(vivid, size):
    with pytest.raises(ConfigError, match="size must be a multiple of 8 from 32 to 256, received"):
        vivid.colorize(_random(40, 40, 3), size=size)


def test_a_model_that_is_not_convolutional_has_no_working_size(linear, vivid):
    assert (linear.any_size, vivid.any_size) == (False, True)
    with pytest.raises(ConfigError, match=r"linear sees every photo at 32 x 32 pixels\. Leave size out"):
        linear.colorize(_random(40, 40, 3), size=64)


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
    read = network._read
    monkeypatch.setattr(network, "_read", lambda batch: calls.append(1) or read(batch))
    np.testing.assert_array_equal(vivid.predict(luminance, (0, 0.5, 1)), expected)
    assert calls == [1]
    assert np.abs(expected[0] - expected[2]).max() > 0.01


def test_vividness_is_0_4_unless_told(vivid, samples):
    luminance = to_luminance(samples.images)
    np.testing.assert_array_equal(vivid.predict(luminance), vivid.predict(luminance, 0.4))
    photo = _random(40, 60, 3)
    np.testing.assert_array_equal(vivid.colorize(photo), vivid.colorize(photo, vividness=0.4))
    assert vivid.predict_chroma(to_luminance(photo), vivid.levels).shape == (6, 64, 96, 2)


@pytest.mark.parametrize("vividness", [-0.1, 1.5, float("nan"), "bold", True, []])
def test_vividness_out_of_range_is_refused(vivid, vividness):
    with pytest.raises(ConfigError, match="from 0 to 1, received"):
        vivid.colorize(_random(40, 40, 3), vividness)


def test_a_model_without_bins_has_no_vividness(linear):
    assert not linear.vivid
    with pytest.raises(ConfigError, match="linear has no vividness to set"):
        linear.colorize(_random(40, 40, 3), 0.4)


def test_a_unet_averages_over_the_mirrored_image(samples):
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma"))
    luminance = to_luminance(samples.images)
    mirrored = np.asarray(model(luminance[:, :, ::-1]))[:, :, ::-1]
    expected = (np.asarray(model(luminance)) + mirrored) / 2
    assert np.abs(mirrored - expected).max() > 1e-4
    np.testing.assert_allclose(Colorizer(model, None).predict(luminance), expected, atol=1e-6)
