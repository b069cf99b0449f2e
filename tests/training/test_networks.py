"""The networks have the right shapes, sizes and targets, pass luminance through, and are saved in safe mode."""

import keras
import numpy as np
import pytest

from colorizer.config import ModelConfig
from colorizer.pixels.color import split_luminance, to_luminance
from colorizer.presets import PRESETS
from colorizer.training.networks import MODELS, build_model
from tests.training.checks import SMALL_BACKBONE

EVERY_PRESET = pytest.mark.parametrize("preset", PRESETS)
SMALL = {"latent_dim": 4, "encoder_widths": (8,), "decoder_widths": (6,)}


@pytest.fixture(scope="module")
def luminance(samples):
    return to_luminance(samples.images)


def run(model, luminance):
    """Return the output of a model as an array; one that takes hints gets none."""
    no_hints = np.zeros((*luminance.shape[:3], 3), np.float32)
    return np.asarray(model(luminance if len(model.inputs) == 1 else [luminance, no_hints]))


def test_every_architecture_of_the_config_has_a_builder():
    assert set(MODELS) == set(ModelConfig.choices("architecture"))


@EVERY_PRESET
def test_every_preset_builds_and_maps_luminance_to_colour(preset, luminance):
    model = build_model(PRESETS[preset].model)
    side = None if PRESETS[preset].model.architecture in ("unet", "backbone") else 32
    assert (model.inputs[0].shape, model.output_shape) == ((None, side, side, 1), (None, side, side, 3))
    output = run(model, luminance)
    assert output.shape == (20, 32, 32, 3)
    assert np.isfinite(output).all()


@EVERY_PRESET
def test_only_layers_of_keras_are_used(preset):
    layers = build_model(PRESETS[preset].model).layers
    assert {type(layer).__module__.split(".")[0] for layer in layers} == {"keras"}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param(PRESETS["notebook"].model, 2_240_800, id="notebook"),
        pytest.param(PRESETS["notebook"].model.replace(target="gray", latent_dim=512), 1_313_536, id="notebook-gray"),
        pytest.param(PRESETS["linear"].model, 1024 * 32 + 32 + 32 * 3072 + 3072, id="linear"),
    ],
)
def test_number_of_parameters(config, parameters):
    assert build_model(config).count_params() == parameters


@pytest.mark.parametrize(("target", "channels"), [("rgb", 3), ("chroma", 3), ("gray", 1)])
@pytest.mark.parametrize("linear_path", [True, False])
@pytest.mark.parametrize("widths", [(), (8,)], ids=["linear", "hidden"])
def test_every_target_gives_its_channels(target, channels, linear_path, widths):
    config = ModelConfig(
        latent_dim=4, target=target, linear_path=linear_path, encoder_widths=widths, decoder_widths=widths
    )
    assert build_model(config).output_shape == (None, 32, 32, channels)


def test_luminance_passes_through(luminance):
    output = np.asarray(build_model(ModelConfig(target="chroma", **SMALL))(luminance))
    np.testing.assert_allclose(to_luminance(output), luminance, atol=1e-5)
    assert np.abs(split_luminance(output)[1]).max() > 0.01  # There is some chroma.


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (64, 40)])
def test_a_unet_takes_any_multiple_of_8_and_keeps_its_luminance(height, width):
    luminance = np.random.default_rng(0).random((2, height, width, 1), np.float32)
    output = np.asarray(build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma"))(luminance))
    assert output.shape == (2, height, width, 3)
    np.testing.assert_allclose(to_luminance(output), luminance, atol=1e-5)


def test_a_unet_starts_near_gray(luminance):
    keras.utils.set_random_seed(0)  # Some weights would be farther from gray than others.
    output = np.asarray(build_model(PRESETS["unet"].model)(luminance))
    assert np.abs(output - luminance).max() < 0.2


def test_the_passthrough_is_not_trained():
    model = build_model(ModelConfig(target="chroma", **SMALL))
    assert [weight.shape for weight in model.non_trainable_variables] == [(1, 1, 3, 3)]


def test_bottleneck_has_its_width_and_activation(luminance):
    for activated in (False, True):
        model = build_model(ModelConfig(bottleneck_activation=activated, **SMALL))
        bottleneck = keras.Model(model.input, model.get_layer("encoder_output").output)
        latent = np.asarray(bottleneck(np.random.default_rng(0).random((500, 32, 32, 1), np.float32)))
        assert latent.shape == (500, 4)
        assert (latent.min() >= 0) == activated  # The activation is relu.


def test_sigmoid_stays_inside_the_range(luminance):
    output = np.asarray(build_model(ModelConfig(output_activation="sigmoid", **SMALL))(luminance * 100))
    assert output.min() >= 0
    assert output.max() <= 1


@pytest.mark.parametrize("name", ["input_components", "output_components"])
def test_components_narrow_their_end_of_the_network(name):
    model = build_model(ModelConfig(linear_path=True, **{name: 40}, **SMALL))
    layer = model.get_layer(name)
    assert layer.kernel.shape == ((1024, 40) if name == "input_components" else (40, 3072))
    assert layer.trainable == (name == "output_components")


def test_a_seed_gives_the_same_weights():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return build_model(ModelConfig(**SMALL)).get_weights()

    for first, again in zip(weights(1), weights(1), strict=True):
        np.testing.assert_array_equal(first, again)
    assert any((first != other).any() for first, other in zip(weights(1), weights(2), strict=True))


@pytest.mark.slow
@EVERY_PRESET
def test_a_saved_model_loads_in_safe_mode_and_gives_the_same(preset, luminance, tmp_path):
    config = PRESETS[preset].model
    model = build_model(config.replace(encoder_widths=config.encoder_widths and (8,)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(run(loaded, luminance), run(model, luminance), atol=1e-6)


def _paint(model, luminance, place):
    """Return the output for an image with one red hint."""
    hints = np.zeros((1, *luminance.shape[1:3], 3), np.float32)
    hints[0, *place] = [-0.1, 0.3, 1]
    return np.asarray(model([luminance, hints]))


@pytest.mark.parametrize("level", [16, 8])
def test_hints_reach_places_that_are_far_away_through_attention(level):
    model = build_model(SMALL_BACKBONE)
    luminance = np.random.default_rng(0).random((1, 256, 256, 1), np.float32)
    near, far = (4, 4), (250, 250)
    without = run(model, luminance)
    np.testing.assert_array_equal(_paint(model, luminance, near), without)  # The kernels that add hints start at zero.
    spread = model.get_layer(f"hints_spread_{level}")
    spread.set_weights([np.ones_like(weight) for weight in spread.get_weights()])
    painted = _paint(model, luminance, near)
    assert np.abs(painted - without)[0, *far].max() > 0
    model.get_layer("hints_4").set_weights(
        [np.ones_like(weight) for weight in model.get_layer("hints_4").get_weights()]
    )
    again = _paint(model, luminance, near)
    np.testing.assert_array_equal(again[0, *far], painted[0, *far])  # A convolution reaches its neighbourhood only.
    assert np.abs(again - painted)[0, *near].max() > 0
