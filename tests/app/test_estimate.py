"""ui.estimate: its arithmetic agrees with Keras, its seconds with what runs took."""

import pytest

from colorizer.app.widgets import estimate
from colorizer.config import ModelConfig, TrainConfig, TrainingSpec
from colorizer.jobs.runs import RunView
from colorizer.presets import PRESETS
from colorizer.training.networks import build_model

CONFIGS = {preset.name: preset.model for preset in PRESETS.values() if preset.name not in ("unet", "unet-photo")} | {
    "gray": ModelConfig(target="gray", latent_dim=512),
    "no hidden layers": ModelConfig(encoder_widths=(), decoder_widths=()),
    "small unet": PRESETS["unet"].model.replace(latent_dim=16),
    "small conv": PRESETS["conv"].model.replace(latent_dim=32),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_are_those_of_the_network(config):
    assert estimate.count(config)[0] == build_model(config).count_params()


def test_operations_of_a_dense_network_are_two_a_weight():
    config = ModelConfig(encoder_widths=(), decoder_widths=(), latent_dim=32)
    assert estimate.count(config)[1] == 2 * (1024 * 32 + 32 * 3072)


def run_of(seconds, preset="notebook"):
    preset = PRESETS[preset]
    spec = TrainingSpec("earlier", preset.model, preset.train.replace(train_images=10_240, epochs=2))
    epochs = [{"epoch": epoch, "loss": 1.0, "val_loss": 1.0, "seconds": seconds / 2} for epoch in (1, 2)]
    return RunView("1", spec, "", "done", step=80, steps=80, epochs=epochs)


def test_the_same_training_takes_as_long_as_it_took_before():
    run = run_of(10.0)
    time, source = estimate.seconds(run.spec.model, run.spec.train, [run_of(99, "conv"), run])
    assert time == pytest.approx(10)
    assert "earlier" in source


def test_without_an_earlier_run_a_matrix_product_is_timed():
    model, train = PRESETS["notebook"].model, TrainConfig(train_images=10_000, epochs=2)
    time, source = estimate.seconds(model, train, [])
    assert 0.05 < time < 300
    assert "matrix product" in source
    assert estimate.seconds(model, train.replace(epochs=4), [])[0] == pytest.approx(2 * time)
