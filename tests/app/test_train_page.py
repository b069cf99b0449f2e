"""The Train page, in process: settings, controls and who may use them, the queue, and the table of runs."""

import io
import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from colorizer.app.widgets import estimate
from colorizer.data import datasets
from colorizer.jobs import runs
from colorizer.jobs.service import training_service
from colorizer.models import library
from colorizer.training.job import training_command
from tests.app.conftest import alt_texts, start_fake, start_training, texts
from tests.trainings import wait_for

pytestmark = pytest.mark.slow  # Whole pages are run.


def test_train_preset_fills_the_sliders(open_page):
    app = open_page("train", epochs="80")
    app.button_group(key="preset").set_value("notebook").run()
    assert (app.session_state.epochs, app.session_state.learning_rate) == (5, 1e-3)
    assert app.select_slider(key="train_images").value == datasets.num_train_images("synthetic")
    app.button_group(key="preset").set_value("conv").run()
    assert (app.session_state.epochs, app.session_state.latent_dim) == (12, 512)
    assert not app.exception


@pytest.fixture
def have_cifar10(monkeypatch):
    """Let the pages believe that CIFAR-10 is prepared."""
    monkeypatch.setattr(datasets, "cifar10_status", lambda: {"state": "prepared", "path": "", "bytes": 0})


def test_train_offers_and_counts_only_the_images_that_the_data_set_has(open_page, few_synthetic_images, monkeypatch):
    monkeypatch.setattr(datasets, "_SYNTHETIC_IMAGES", few_synthetic_images)
    app = open_page("train", preset="notebook")
    assert app.radio(key="dataset").value == "synthetic"
    assert app.select_slider(key="train_images").options[-1] == "20,000"
    assert app.session_state.train_images == 20_000
    assert "45,000" not in texts(app)


def test_train_estimates_the_time_for_the_images_of_the_chosen_data_set(open_page, have_cifar10, monkeypatch):
    counted = []
    seconds = estimate.seconds

    def noted(model, train, earlier):
        counted.append((train.dataset, train.train_images))
        return seconds(model, train, earlier)

    monkeypatch.setattr(estimate, "seconds", noted)
    app = open_page("train", preset="notebook")
    assert counted[-1] == ("cifar10", 45_000)
    app.radio(key="dataset").set_value("synthetic").run()
    assert counted[-1] == ("synthetic", datasets.num_train_images("synthetic"))
    app.radio(key="dataset").set_value("cifar10").run()
    assert counted[-1] == ("cifar10", 45_000)
    app.select_slider(key="train_images").set_value(1_000).run()
    app.radio(key="dataset").set_value("synthetic").run()
    assert counted[-1] == ("synthetic", 1_000)


def test_train_counts_parameters_and_seconds_as_the_sliders_move(open_page):
    app = open_page("train", preset="notebook")
    assert "**2,240,800** parameters" in texts(app)
    app.select_slider(key="latent_dim").set_value(64).run()
    assert f"**{2_240_800 + 32 * (128 + 1 + 128):,}** parameters" in texts(app)


def test_train_starts_from_any_model_of_the_library(open_page):
    app = open_page("train", preset="notebook")
    assert {entry.name for entry in library.list_models()} < {"", *app.selectbox(key="init_from").options}
    app.selectbox(key="init_from").set_value("notebook").run()
    assert "differs" not in texts(app)
    app.selectbox(key="init_from").set_value("conv").run()
    assert "whole architecture is taken" in texts(app)
    assert f"**{library.find_model('conv').card['parameters']:,}** parameters" in texts(app)
    app.toggle(key="freeze_encoder").set_value(True).run()
    assert not app.exception


def labels(app):
    return [button.label for button in app.button]


def test_train_shows_controls_to_the_starter_only(open_page, fake_service):
    run_id, key = start_fake(fake_service, "long", lambda run: len(run.snapshots) > 2)
    watched = open_page("train", run=run_id)
    assert not {"Pause", "Stop and keep", "Yes, delete it"} & set(labels(watched))
    assert "you are watching" in texts(watched)
    assert f"?run={run_id}" in watched.code[0].value and key not in watched.code[0].value
    app = open_page("train", run=run_id, key=key)
    assert {"Pause", "Stop and keep", "Yes, delete it"} <= set(labels(app))
    app.select_slider(key=f"factor-{run_id}").set_value(0.1).run()
    next(button for button in app.button if button.label == "Pause").click().run()
    deadline = time.monotonic() + 10
    while fake_service.view(run_id).state != "paused" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fake_service.view(run_id).learning_rate_factor == 0.1
    app.run()
    assert "Resume" in labels(app)
    assert not app.exception and not app.error


def test_the_seed_is_in_the_address_and_a_run_shows_the_command_that_repeats_it(open_page, fake_service):
    run_id, _ = start_fake(fake_service, "quick", lambda run: run.state == "done", seed=7)
    app = open_page("train", run=run_id)
    commands = [code.value for code in app.code if code.value.startswith("python -m colorizer train")]
    assert commands == [training_command(fake_service.view(run_id).spec)]
    assert " --seed 7 " in commands[0]
    app = open_page("train", seed="12")
    assert app.number_input(key="seed").value == 12
    start_training(app, "quick-seeded")
    assert next(run for run in fake_service.list_runs() if run.spec.name == "quick-seeded").spec.train.seed == 12


@pytest.mark.slow
def test_a_run_of_a_network_with_bins_shows_what_it_believed_at_a_pixel(open_page, fake_service, home):
    vivid = {"preset": "unet-vivid", "init_from": ""}
    run_id, _ = start_fake(fake_service, "quick", lambda run: run.state == "done", **vivid)
    app = open_page("train", run=run_id)
    assert "**Pixel 16, 16 after 4 epochs.** The network is rather sure of light gray" in texts(app)
    assert not app.exception
    assert "picked" not in str([element.proto.json for element in app.get("bidi_component")])
    (home / "runs" / run_id / "picture.npy").unlink()  # Then nothing shows what these beliefs are about.
    app = open_page("train", run=run_id)
    assert "The network is" not in texts(app) and not app.exception
    plain, _ = start_fake(fake_service, "quick-plain", lambda run: run.state == "done")
    assert "The network is" not in texts(open_page("train", run=plain))


def test_a_key_in_the_address_is_good_for_its_run_only(open_page, fake_service):
    sent, key = start_fake(fake_service, "quick-1", lambda run: run.state == "done")
    app = open_page("train", run=sent, key=key)
    assert "Yes, delete it" in labels(app)
    mine = start_training(app, "long-2")
    assert mine != sent and app.query_params["key"] != key
    assert not fake_service.may_control(mine, key)
    assert fake_service.may_control(mine, app.query_params["key"])


@pytest.mark.slow
def test_a_session_starts_its_runs_with_one_key_and_a_reload_still_controls_them(open_page, fake_service):
    app = open_page("train")
    first = start_training(app, "quick-1")
    key = app.query_params["key"]
    deadline = time.monotonic() + 30
    while fake_service.view(first).active and time.monotonic() < deadline:
        time.sleep(0.02)
    second = start_training(app, "long-2")
    assert app.query_params["key"] == key and fake_service.may_control(second, key)
    wait_for(fake_service, second, "running")
    reloaded = open_page("train", run=second, key=key)
    assert "Stop and keep" in labels(reloaded)


@pytest.mark.slow
def test_a_key_of_another_run_gives_no_control_and_leaves_the_address(open_page, fake_service):
    theirs, _ = start_fake(fake_service, "quick-1", lambda run: run.state == "done")
    _, mine = start_fake(fake_service, "quick-2", lambda run: run.state == "done")
    app = open_page("train", run=theirs, key=mine)
    assert "Yes, delete it" not in labels(app)
    assert "key" not in app.query_params


@pytest.mark.slow
def test_a_model_of_the_same_name_that_another_training_saved_is_not_shown_as_a_runs_own(
    open_page, fake_service, save_tiny
):
    run_id, _ = start_fake(fake_service, "quick", lambda run: run.state == "done")
    shutil.rmtree(library.user_folder() / "quick", ignore_errors=True)
    save_tiny("quick")
    app = open_page("train", run=run_id)
    assert "The model of this run is not in the library." in texts(app)
    app.multiselect(key="picked").set_value([run_id]).run()
    assert "Model" not in {button.proto.label for button in app.get("download_button")}


@pytest.mark.slow
def test_train_slider_goes_back_in_time_on_the_visitors_picture(open_page, fake_service, home):
    run_id, _ = start_fake(fake_service, "quick", lambda run: run.state == "done")
    app = open_page("train", run=run_id)
    assert any("visitor's picture" in alt for alt in alt_texts(app))
    app.button_group(key=f"shown-{run_id}").set_value("Eight test images").run()
    app.select_slider(key=f"back-{run_id}").set_value("1").run()
    assert any("colorizes them after 1 epochs" in alt for alt in alt_texts(app))
    assert not app.exception
    for path in (home / "runs" / run_id).glob("snapshot-*.npy"):
        path.write_bytes(b"damaged")
    app.run()
    assert "cannot be read. Choose another moment." in app.warning[0].value and not app.exception
    assert app.get("vega_lite_chart")


@pytest.mark.slow
def test_train_lays_earlier_runs_beside_the_curve(open_page, fake_service):
    start_fake(fake_service, "quick-1", lambda run: run.state == "done")
    run_id, _ = start_fake(fake_service, "quick-2", lambda run: run.state == "done")
    app = open_page("train", run=run_id)
    app.multiselect(key=f"beside-{run_id}").set_value(["quick-1"]).run()
    app.button_group(key=f"axis-{run_id}").set_value("Linear").run()
    chart = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert "quick-1" in chart["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert chart["layer"][0]["encoding"]["y"]["scale"]["type"] == "linear"


@pytest.mark.slow
def test_train_queue_names_what_is_under_way(open_page, fake_service):
    start_fake(fake_service, "long-1", lambda run: run.curve)
    waiting, key = start_fake(fake_service, "long-2", lambda run: True)
    app = open_page("train", run=waiting, key=key)
    assert any("Number 1 in the queue" in bar.proto.text for bar in app.get("progress"))
    assert "Under way" in texts(app)


@pytest.mark.slow
def test_runs_table_deletes_after_a_confirmation_what_is_the_visitors(open_page, fake_service):
    run_id, key = start_fake(fake_service, "quick", lambda run: run.state == "done")
    watcher = open_page("train")
    watcher.multiselect(key="picked").set_value([run_id]).run()
    offered = {button.proto.label for button in watcher.get("download_button")}
    assert {"ONNX, runs anywhere", "Keras", "History", "PNG", "SVG"} <= offered
    assert "Yes, delete it" not in labels(watcher)
    app = open_page("train", run=run_id, key=key)
    row = app.dataframe[0].value.iloc[0]
    assert (row["name"], row["preset"], row["state"], row["best val_loss"]) == ("quick", "notebook", "Done", 0.05)
    app.multiselect(key="picked").set_value([run_id]).run()
    app.button(key=f"delete-{run_id}-Delete run").click().run()
    assert not fake_service.list_runs()
    app.run()
    assert not app.exception


def test_a_history_is_one_table_of_batches_and_epochs(home, fake_service):
    from colorizer.app.widgets import runs_table

    run_id, _ = start_fake(fake_service, "quick", lambda run: run.state == "done")
    run = fake_service.view(run_id)
    lines = runs_table.history_csv(run).decode().splitlines()
    assert lines[0] == "epochs,batch_loss,loss,val_loss,seconds"
    assert len(lines) == 1 + len({x for x, _ in run.curve} | {epoch["epoch"] for epoch in run.epochs})


def test_train_settings_come_from_the_url(open_page):
    app = open_page("train", epochs="20", latent_dim="64")
    assert (app.session_state.epochs, app.session_state.latent_dim) == (20, 64)


def test_train_refuses_a_bad_name_in_one_sentence(open_page):
    app = open_page("train")
    app.text_input(key="name").set_value("../evil").run()
    next(button for button in app.button if button.label == "Start training").click().run()
    assert "is not a valid name" in app.error[0].value
    assert not app.exception


def test_train_shows_an_uploaded_picture_in_the_run_what_is_transparent_as_white(open_page):
    content = io.BytesIO()
    Image.new("RGBA", (60, 40), (255, 0, 0, 0)).save(content, "PNG")
    app = open_page("train", preset="quick", epochs="1", train_images="1000")
    app.file_uploader(key="own_picture").upload("mine.png", content.getvalue())
    next(button for button in app.button if button.label == "Start training").click().run()
    assert not app.exception
    assert not app.error
    picture = runs.load_picture(app.query_params["run"])
    np.testing.assert_array_equal(picture, np.full((32, 32, 3), 255))


def test_train_says_when_the_run_in_the_url_is_unknown(open_page):
    assert "no training run" in open_page("train", run="20200101-000000-abcdef").warning[0].value


@pytest.mark.slow
def test_train_runs_shows_its_end_and_the_model_is_in_the_gallery(open_page):
    app = open_page("train", preset="quick", epochs="1", train_images="1000")
    app.text_input(key="name").set_value("mine").run()
    next(button for button in app.button if button.label == "Start training").click().run()
    assert not app.error
    run_id = app.query_params["run"]
    deadline = time.monotonic() + 90
    while training_service().view(run_id).active and time.monotonic() < deadline:
        time.sleep(0.5)
    app.run()
    assert any("Done" in badge.value for badge in app.markdown)
    assert any("Eight test images" in alt for alt in alt_texts(app))
    assert "mine" in open_page("gallery").selectbox(key="model").options
