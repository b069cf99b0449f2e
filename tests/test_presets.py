"""presets: the first losses of each on synthetic images are those that were recorded, to three digits.

A backbone learns from photos, so tests/training/test_photo_step.py holds how its preset trains.
"""

import pytest

from colorizer.presets import PRESETS, get_preset
from colorizer.training.loop import train

pytestmark = pytest.mark.slow  # These tests train or load whole networks.

# Losses of the first three steps, batches of 16 out of 48 synthetic images, and the validation loss on the samples.
RECORDED = {
    "notebook": (0.055846, 0.052237, 0.051223, 0.065146),
    "dense": (0.013988, 0.014809, 0.013283, 0.016621),
    "dense-chroma": (0.005003, 0.007092, 0.005405, 0.006121),
    "conv": (0.054123, 0.050660, 0.050943, 0.063880),
    "unet": (0.004988, 0.007147, 0.005287, 0.006165),
    "unet-vivid": (0.005904, 0.005828, 0.006148, 0.007041),
    "quick": (0.008401, 0.010377, 0.007878, 0.008277),
}


def first_losses(preset, dataset):
    """Train for three steps, small ones, so that rounding differences between machines do not grow."""
    chosen = PRESETS[preset]
    settings = chosen.train.replace(epochs=1, train_images=48, batch_size=16, learning_rate=1e-4)
    history = train(chosen.model, settings, dataset).history
    return (*history["batch_loss"], history["val_loss"][-1])


@pytest.mark.parametrize(
    "preset", [name for name, preset in PRESETS.items() if preset.train.epochs and not preset.train.frozen_epochs]
)
def test_a_preset_trains_as_it_was_recorded(preset, tiny):
    assert first_losses(preset, tiny) == pytest.approx(RECORDED[preset], rel=1e-3)


def test_a_retired_preset_is_the_one_that_took_its_place():
    assert get_preset("unet-photo").name == "colorist"


def test_every_preset_that_learns_from_small_images_was_recorded():
    learned = {name for name, preset in PRESETS.items() if preset.train.epochs}
    assert {name for name in learned if PRESETS[name].model.architecture != "backbone"} == set(RECORDED)
