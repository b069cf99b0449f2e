"""Sweeps on the Train page: what came of them, the preset that each offers, and folders that are no sweeps."""

import pytest

from colorizer.jobs import sweeps
from tests.conftest import TINY_MODEL, TINY_TRAIN, sweep_trial, write_sweep


@pytest.fixture
def open_train(open_page):
    """A function that opens the Train page without an error or exception."""

    def open_train(**query):
        app = open_page("train", **query)
        assert not app.error and not app.warning and not app.exception
        return app

    return open_train


def _alts(app):
    return [chart.proto.alt for chart in app.get("vega_lite_chart")]


def test_without_a_sweep_the_page_says_how_to_make_one(open_train):
    assert "python -m colorizer sweep --preset dense" in [code.value for code in open_train().code]


def test_a_sweep_is_shown_and_its_best_settings_fill_the_sliders(open_train, tiny_sweep):
    better = sweep_trial(val_loss=[0.03, 0.019], settings=sweep_trial()["settings"] | {"batch_size": 128})
    write_sweep(tiny_sweep, sweep_trial(), sweep_trial(val_loss=[0.04]), better)
    app = open_train(preset="tiny")
    said = " ".join(element.value for element in app.markdown)
    assert "**3** trials from the preset notebook, 1 of which were not trained to the end." in said
    assert "The best trial has a validation loss of **0.01900**." in said
    assert "One line for each trial across learning_rate, batch_size, weight_decay, activation" in " ".join(_alts(app))
    table = app.dataframe[-1].value
    assert list(table["val_loss"]) == [0.019, 0.02, 0.04] and list(table["batch_size"]) == [128, 64, 64]
    sliders = {slider.key: slider.value for slider in app.select_slider}
    assert sliders == {
        "latent_dim": 4, "epochs": 2, "batch_size": 128, "learning_rate": 0.0012, "train_images": 64,
    }  # fmt: skip
    assert "The best of 3 trials of a sweep from notebook: validation mse 0.01900." in [c.value for c in app.caption]


def test_bottlenecks_are_drawn_beside_the_closed_form(open_train, tiny_sweep):
    plan = sweeps.plan_sweep("dims", "notebook", TINY_MODEL, TINY_TRAIN, latent_dims=(2, 4))
    plan = sweeps.replace(plan, closed_form=(0.05, 0.04))
    write_sweep(plan, *(sweep_trial(settings={"latent_dim": dim}) for dim in (4, 2)))
    write_sweep(tiny_sweep, sweep_trial())
    app = open_train(sweep="dims")
    assert "Validation loss over the bottleneck, of the trained models and of the best linear autoencoder" in _alts(app)
    table = app.dataframe[-1].value
    assert list(zip(table["latent_dim"], table["val_loss"], table["closed_form"], strict=True)) == [
        (2, 0.02, 0.05),
        (4, 0.02, 0.04),
    ]
    assert app.selectbox(key="sweep").options == ["dims", "tiny"]


def test_a_damaged_sweep_harms_no_page(open_train, tiny_sweep):
    write_sweep(tiny_sweep, sweep_trial())
    (tiny_sweep.folder / "sweep.json").write_text('{"preset": []}')
    assert "tiny" not in open_train().get("button_group")[0].options
