"""estimate: the seconds of a training agree with what earlier runs took."""

import pytest

from colorizer.app.widgets import estimate
from colorizer.config import TrainConfig, TrainingSpec
from colorizer.jobs.runs import RunView
from colorizer.presets import PRESETS


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


def test_a_run_without_steps_gives_no_speed():
    run = run_of(10.0)
    damaged = RunView("2", run.spec, "", "done", steps=0, epochs=run.epochs)
    assert estimate.seconds(run.spec.model, run.spec.train, [damaged, run])[1] == "going by the run earlier"


def test_without_an_earlier_run_a_matrix_product_is_timed():
    model, train = PRESETS["notebook"].model, TrainConfig(train_images=10_000, epochs=2)
    time, source = estimate.seconds(model, train, [])
    assert 0.05 < time < 300
    assert "matrix product" in source
    assert estimate.seconds(model, train.replace(epochs=4), [])[0] == pytest.approx(2 * time)
