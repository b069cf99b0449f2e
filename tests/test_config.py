"""config and errors: validation, JSON in and out, names, the home folder."""

import json
import math
from pathlib import Path

import pytest

from colorizer import config, errors
from colorizer.config import ModelConfig, TrainConfig
from colorizer.presets import PRESETS, get_preset

PARTS = [
    pytest.param(getattr(preset, part), id=f"{preset.name}-{part}")
    for preset in PRESETS.values()
    for part in ("model", "train")
]

# For each number: its lowest and highest accepted value.
RANGES = {
    (ModelConfig, "latent_dim"): (1, 512),
    (ModelConfig, "input_components"): (0, 512),
    (ModelConfig, "output_components"): (0, 512),
    (TrainConfig, "train_images"): (0, 50_000),
    (TrainConfig, "epochs"): (0, 200),
    (TrainConfig, "batch_size"): (1, 4096),
    (TrainConfig, "learning_rate"): (1e-6, 1.0),
    (TrainConfig, "weight_decay"): (0, 1.0),
    (TrainConfig, "epsilon"): (1e-12, 0.1),
    (TrainConfig, "shift"): (0, 8),
    (TrainConfig, "seed"): (0, 2**31 - 1),
}
NUMBERS = pytest.mark.parametrize(("cls", "name"), RANGES, ids=[name for _, name in RANGES])


@pytest.mark.parametrize("value", PARTS)
def test_every_preset_survives_json(value):
    assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_presets_are_keyed_by_their_names_and_say_what_they_show():
    assert all(preset.name == name and preset.summary for name, preset in PRESETS.items())
    assert {"linear", "notebook", "dense", "dense-chroma"} <= set(PRESETS)


def test_the_notebook_preset_is_the_original_network():
    preset = get_preset("notebook")
    assert preset.model == ModelConfig(
        latent_dim=32, encoder_widths=(512, 128), decoder_widths=(128, 512), activation="relu",
        bottleneck_activation=True, output_activation="sigmoid", target="rgb",
    )  # fmt: skip
    assert (preset.train.epochs, preset.train.batch_size, preset.train.learning_rate) == (5, 256, 1e-3)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(errors.ConfigError, match=r"no preset 'nope'\. Choose one of linear, notebook"):
        get_preset("nope")


@pytest.mark.parametrize("cls", [ModelConfig, TrainConfig])
def test_unknown_settings_and_other_json_are_refused(cls):
    with pytest.raises(errors.ConfigError, match=r"has no setting 'depth'\. Known: "):
        cls.from_dict({"depth": 3})
    with pytest.raises(errors.ConfigError, match="must be a JSON object, received list"):
        cls.from_dict([1])


@NUMBERS
def test_numbers_are_accepted_to_their_limits_and_not_beyond(cls, name):
    low, high = RANGES[cls, name]
    for value in (low, high):
        needed = {"linear_path": True} if name == "output_components" else {}
        assert getattr(cls(**{name: value}, **needed), name) == value
    for value in (low - 1, high + 1, math.nan, math.inf):
        with pytest.raises(errors.ConfigError, match=rf"{name} must be .* from .* to .*, received"):
            cls(**{name: value})


@NUMBERS
@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_numbers_of_another_type_are_refused(cls, name, value):
    with pytest.raises(errors.ConfigError, match=f"{name} must be a"):
        cls(**{name: value})


@pytest.mark.parametrize("name", ["latent_dim", "epochs", "batch_size"])
def test_whole_numbers_refuse_fractions(name):
    cls = ModelConfig if name == "latent_dim" else TrainConfig
    with pytest.raises(errors.ConfigError, match=f"{name} must be a whole number"):
        cls(**{name: 2.5})


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (ModelConfig, "architecture"),
        (ModelConfig, "target"),
        (ModelConfig, "activation"),
        (ModelConfig, "output_activation"),
        (TrainConfig, "schedule"),
    ],
)
@pytest.mark.parametrize("value", ["other", 1, None, {}])
def test_choices_name_what_can_be_chosen(cls, name, value):
    with pytest.raises(
        errors.ConfigError, match=f"{name} must be one of .*{getattr(cls(), name)}.*, received {value!r}"
    ):
        cls(**{name: value})


@pytest.mark.parametrize(("cls", "name"), [(ModelConfig, "linear_path"), (TrainConfig, "flips")])
@pytest.mark.parametrize("value", [1, "true", None])
def test_flags_take_only_booleans(cls, name, value):
    with pytest.raises(errors.ConfigError, match=f"{name} must be true or false, received"):
        cls(**{name: value})


@pytest.mark.parametrize("name", ["encoder_widths", "decoder_widths"])
@pytest.mark.parametrize("value", [(0,), (4097,), (True,), (2.0,), ("8",), ((8,),), (8,) * 9, 8, None, "8,8"])
def test_layer_widths_are_checked(name, value):
    with pytest.raises(errors.ConfigError, match=rf"{name} (takes whole numbers from 1 to 4096|must be a list of)"):
        ModelConfig(**{name: value})


@pytest.mark.parametrize("others", [{}, {"linear_path": True, "target": "chroma"}])
def test_output_components_need_a_linear_path_to_colour(others):
    with pytest.raises(errors.ConfigError, match="output_components needs linear_path and the target rgb"):
        ModelConfig(output_components=8, **others)


@pytest.mark.parametrize("name", ["cifar100", "cifar100:a.npz", "folder:~/photos", "folder:a:b"])
def test_data_sets_from_elsewhere_are_allowed(name):
    assert TrainConfig(dataset=name).dataset == name


@pytest.mark.parametrize("name", ["cifar100:", "folder:", "folder", "samples:x", ":x"])
def test_other_names_with_a_colon_are_not(name):
    with pytest.raises(
        errors.ConfigError, match=r"dataset must be one of .*cifar100:FILE\.npz or folder:PATH, received"
    ):
        TrainConfig(dataset=name)


@pytest.mark.parametrize("name", ["dataset", "photos", "init_from"])
@pytest.mark.parametrize("value", [None, 1, {}])
def test_texts_take_only_text(name, value):
    with pytest.raises(errors.ConfigError, match=f"{name} must be text, received"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"target": "chroma"}, "sigmoid needs the architecture dense and the target rgb or gray"),
        ({"architecture": "conv", "latent_dim": 64}, "sigmoid needs the architecture dense"),
        ({"linear_path": True, "output_components": 8}, "sigmoid cannot be combined with linear_path or output_comp"),
    ],
)
def test_a_sigmoid_output_is_refused_where_it_would_be_ignored_or_wrong(settings, match):
    assert ModelConfig(output_activation="sigmoid", target="gray").output_activation == "sigmoid"
    with pytest.raises(errors.ConfigError, match=match):
        ModelConfig(output_activation="sigmoid", **settings)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_dropout_is_refused_where_no_layer_has_it(architecture):
    with pytest.raises(errors.ConfigError, match="dropout needs the architecture unet"):
        ModelConfig(architecture=architecture, latent_dim=64, dropout=0.1)


@pytest.mark.parametrize("name", ["../evil", "A"])
def test_the_model_to_start_from_has_a_valid_name(name):
    with pytest.raises(errors.ConfigError, match="is not a valid name"):
        TrainConfig(init_from=name)


def test_an_encoder_is_frozen_only_if_it_comes_from_somewhere():
    assert TrainConfig(init_from="unet", freeze_encoder=True).freeze_encoder
    with pytest.raises(errors.ConfigError, match=r"freeze_encoder needs init_from\. Name the model"):
        TrainConfig(freeze_encoder=True)


def test_replace_validates_and_leaves_the_original_alone():
    base = TrainConfig()
    assert base.replace(epochs=7).epochs == 7
    with pytest.raises(errors.ConfigError, match="epochs"):
        base.replace(epochs=-1)
    assert base == TrainConfig()


@pytest.mark.parametrize("name", ["a", "0", "dense-32", "a" * 48])
def test_good_names_are_returned(name):
    assert config.validate_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "a\\b", "/etc", "A", "a b", "a\n", "-a", ".a", "é", "a" * 60, "a\0", None, 3]
)
def test_names_that_could_leave_a_folder_are_refused(name):
    with pytest.raises(errors.ConfigError, match=r"is not a valid name\. Use 1 to 48 lower-case letters"):
        config.validate_name(name)


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("COLORIZER_HOME", str(tmp_path / "elsewhere"))
    assert config.home() == tmp_path / "elsewhere"
    monkeypatch.setenv("COLORIZER_HOME", "~/colors")
    assert config.home() == Path.home() / "colors"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLORIZER_HOME", "relative")
    assert config.home() == tmp_path / "relative"
    monkeypatch.delenv("COLORIZER_HOME")
    assert config.home().is_absolute()
    assert config.home().name == "colorizer"


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "ImageError", "ModelError", "TrainingError"])
def test_one_base_catches_every_error(name):
    assert issubclass(getattr(errors, name), errors.ColorizerError)
