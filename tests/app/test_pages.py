"""Each page of the app, in process: what it shows, what its widgets do, and its empty and error states."""

import gc
import io
import json
import platform
import shutil
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from colorizer.app.widgets import estimate, state
from colorizer.config import TrainingSpec
from colorizer.data import cifar10, datasets
from colorizer.data.datasets import CLASS_NAMES
from colorizer.jobs import runs, service
from colorizer.jobs.service import training_service
from colorizer.models import library
from colorizer.presets import get_preset
from tests.trainings import wait_for

PAGES = ("start", "gallery", "photo", "train", "how")


def alt_texts(app):
    """Alt text of every picture and chart on the page."""
    pictures = [image.alt for element in app.image for image in element.proto.imgs]
    sliders = [json.loads(element.proto.json) for element in app.get("bidi_component")]
    pictures += [data[side]["alt"] for data in sliders for side in ("before", "after")]
    return pictures + [chart.proto.alt for chart in app.get("vega_lite_chart")]


def texts(app):
    return " ".join(str(element.value) for kind in ("markdown", "caption") for element in app.get(kind))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_without_an_error_and_names_its_pictures(open_page, page):
    app = open_page(page)
    assert not app.error and not app.warning
    assert all(alt_texts(app))


@pytest.mark.slow
def test_no_page_imports_tensorflow_on_the_way_to_its_first_paint(tmp_path):
    code = f"""
import os, sys
os.environ["COLORIZER_HOME"] = {str(tmp_path)!r}
from streamlit.testing.v1 import AppTest
from colorizer.app.widgets import estimate, state
state.warm_up = lambda: None
app = AppTest.from_file("streamlit_app.py", default_timeout=60).run()
for page in {PAGES[1:]!r}:
    app.switch_page(f"colorizer/app/pages/{{page}}.py").run()
    assert not app.exception, app.exception
app.switch_page("colorizer/app/pages/photo.py")
app.query_params["source"] = "Sample photos"
app.run()
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=datasets.ASSETS.parent, timeout=120)


@pytest.mark.slow
def test_a_page_neither_clears_keras_nor_walks_through_its_objects_after_each_run(open_page):
    state.import_keras()
    import keras

    before = keras.layers.Activation("relu").name
    open_page("photo").run()  # Streamlit calls keras.backend.clear_session(), and gc.collect()
    assert keras.layers.Activation("relu").name != before
    assert gc.get_freeze_count() > 100_000


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_threads_give_back_what_they_have_freed():
    code = """
import re, threading
from pathlib import Path
import numpy as np
from colorizer.app.widgets import estimate, state

def megabytes():
    return int(re.search(r"Anonymous: *([0-9]+)", Path("/proc/self/smaps_rollup").read_text())[1]) / 1000

def work():
    everybody.wait()
    np.ones(3 * 2**19)  # 12 MB
    everybody.wait()

state.give_memory_back()
np.ones(2**21)  # freed, glibc would by itself keep twice these 16 MB in every arena
before, everybody = megabytes(), threading.Barrier(8)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(megabytes() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, cwd=datasets.ASSETS.parent, timeout=120, stdout=-1)
    assert float(run.stdout) < 50  # of 100


def test_start_shows_a_photo_before_and_after_by_the_model_that_learned_from_photos(open_page):
    best = next(entry.name for entry in library.list_models() if entry.train_config.photos)
    assert any(alt.endswith(f"colorized by {best}") for alt in alt_texts(open_page()))


def test_start_slider_goes_back_through_the_snapshots_of_a_model(open_page):
    app = open_page(history="notebook")
    app.select_slider(key="snapshot-notebook").set_value(0).run()
    assert any("notebook colorizes them after 0 epochs" in alt for alt in alt_texts(app))
    assert not app.exception


def test_gallery_offers_the_download_when_only_the_samples_are_here(open_page):
    app = open_page("gallery")
    assert "20 images" in texts(app)
    assert [button.label for button in app.button if "Download" in button.label]
    assert len([button for button in app.button if button.label.startswith("#")]) == 12


def test_gallery_download_without_a_network_says_so_in_one_sentence(open_page, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR10_URL", "http://127.0.0.1:9/cifar.tar.gz")
    app = open_page("gallery")
    next(button for button in app.button if "Download" in button.label).click().run()
    assert "could not be downloaded" in app.error[0].value
    assert not app.exception


def test_gallery_filters_by_class_and_sorts_by_error(open_page):
    app = open_page("gallery", **{"class": "ship", "sort": "worst", "model": "notebook"})
    items = [button.label for button in app.button if button.label.startswith("#")]
    errors = [float(label.split("mse ")[1].split()[0]) for label in items]
    assert len(items) == 4 and all("ship" in label for label in items)
    assert errors == sorted(errors, reverse=True)


def test_gallery_says_when_a_class_has_no_images(open_page):
    assert "There is no image of the class" in open_page("gallery", **{"class": "deer"}).info[0].value


def test_gallery_shows_one_image_closely_with_its_metrics(open_page):
    app = open_page("gallery", image="3")
    assert any("where it is wrong" in alt for alt in alt_texts(app))
    assert "#3, airplane" in texts(app)


def test_gallery_leaves_nothing_of_an_earlier_run_in_memory(open_page, monkeypatch):
    predictions, shown = state.predictions, []

    def noted(*arguments):
        made = predictions(*arguments)
        shown.append(weakref.ref(made))
        return made

    monkeypatch.setattr(state, "predictions", noted)
    app = open_page("gallery", model="notebook")
    for chosen in ("ship", "frog"):
        app.selectbox(key="class").set_value(chosen).run()
    gc.collect()
    assert len(shown) >= 3 and all(made() is None for made in shown[:-1])


@pytest.mark.parametrize("image", ["-1", "99999", "abc", "1e9"])
def test_gallery_ignores_an_impossible_image_in_the_url(open_page, image):
    assert not any("where it is wrong" in alt for alt in alt_texts(open_page("gallery", image=image)))


def test_gallery_pages_through_the_full_test_set(open_page, cifar10, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: cifar10)
    monkeypatch.setattr(datasets, "cifar10_status", lambda: {"state": "prepared", "path": "", "bytes": 0})
    app = open_page("gallery", model="linear", page="834")
    items = [button.label for button in app.button if button.label.startswith("#")]
    label = CLASS_NAMES[cifar10.test.labels[9999]]
    assert len(items) == 4 and items[-1].startswith(f"#9999 {label} ")


def test_gallery_names_a_broken_source_and_goes_on_with_the_samples(open_page, monkeypatch, tmp_path):
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    monkeypatch.setenv("COLORIZER_CIFAR10", str(broken))
    app = open_page("gallery")
    assert "cannot be read as a CIFAR-10 archive" in app.warning[0].value
    assert "20 images" in texts(app)


def test_gallery_compares_every_model_with_the_gray_copy(open_page):
    app = open_page("gallery", view="Compare models", compared="1 ship")
    table = app.dataframe[0].value.set_index("model")
    names = [entry.name for entry in library.list_models()]
    assert list(table.index) == [*names, "gray copy"]
    assert table.loc["linear", "mse"] == library.find_model("linear").metric("test")
    assert {f"1 ship: {name}" for name in ("original", "grayscale", *names)} <= set(alt_texts(app))


def test_gallery_compares_models_whose_history_is_damaged(open_page, monkeypatch, tmp_path):
    shutil.copytree(library.SHIPPED / "notebook", tmp_path / "models" / "notebook")
    (tmp_path / "models" / "notebook" / "history.json").write_text("{")
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "models")
    assert len(open_page("gallery", view="Compare models").dataframe[0].value) == 2


def copy_model(folder, name, factor=1.0, dataset="cifar10"):
    """Copy the shipped model `notebook`, with its validation losses multiplied and its data set changed."""
    shutil.copytree(library.SHIPPED / "notebook", folder / name)
    history = json.loads((folder / name / "history.json").read_text())
    history["val_loss"] = [factor * loss for loss in history["val_loss"]]
    (folder / name / "history.json").write_text(json.dumps(history))
    card = json.loads((folder / name / "card.json").read_text())
    card["train"]["dataset"] = dataset
    (folder / name / "card.json").write_text(json.dumps(card))


def test_gallery_compares_in_one_chart_only_models_that_were_validated_on_the_same_images(
    open_page, monkeypatch, tmp_path
):
    folder = tmp_path / "models"
    copy_model(folder, "usual")
    copy_model(folder, "far-above", 50)
    copy_model(folder, "far-below", 0.01)
    copy_model(folder, "clouds", dataset="synthetic")
    shutil.copytree(library.SHIPPED / "linear", folder / "linear")
    monkeypatch.setattr(library, "SHIPPED", folder)
    app = open_page("gallery", view="Compare models")
    charts = app.get("vega_lite_chart")
    drawn = [set(name for name in ("usual", "far-above", "far-below", "clouds") if name in c.proto.alt) for c in charts]
    assert drawn == [{"usual", "far-above", "far-below"}, {"clouds"}]
    low, high = json.loads(charts[0].proto.spec)["encoding"]["y"]["scale"]["domain"]
    losses = json.loads((folder / "usual" / "history.json").read_text())["val_loss"]
    assert low <= 0.01 * min(losses) and high >= 50 * max(losses)
    assert "linear (it was solved in closed form)" in texts(app)


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


@pytest.fixture
def fake_service(monkeypatch):
    """The server's training service, with a worker that only pretends to learn."""
    trainings = service.TrainingService((sys.executable, "-m", "tests.fake_worker"))
    monkeypatch.setattr(service, "_service", trainings)
    yield trainings
    trainings.close()


def start_fake(trainings, name, until, key="", **changes):
    """Start a pretended run and wait until its view says so; return its id and key."""
    preset = get_preset("notebook")
    spec = TrainingSpec(name, preset.model, preset.train.replace(dataset="synthetic", **changes), preset.name)
    run_id, key = trainings.start(spec, key, np.full((32, 32, 3), 200, np.uint8))
    deadline = time.monotonic() + 30
    while not until(trainings.view(run_id)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return run_id, key


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


def start_training(app, name):
    app.text_input(key="name").set_value(name).run()
    next(button for button in app.button if button.label == "Start training").click().run()
    assert not app.error and not app.exception
    return app.query_params["run"]


def test_a_key_in_the_address_is_good_for_its_run_only(open_page, fake_service):
    sent, key = start_fake(fake_service, "quick-1", lambda run: run.state == "done")
    app = open_page("train", run=sent, key=key)
    assert "Yes, delete it" in labels(app)
    mine = start_training(app, "long-2")
    assert mine != sent and app.query_params["key"] != key
    assert not fake_service.may_control(mine, key)
    assert fake_service.may_control(mine, app.query_params["key"])


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


def test_a_key_of_another_run_gives_no_control_and_leaves_the_address(open_page, fake_service):
    theirs, _ = start_fake(fake_service, "quick-1", lambda run: run.state == "done")
    _, mine = start_fake(fake_service, "quick-2", lambda run: run.state == "done")
    app = open_page("train", run=theirs, key=mine)
    assert "Yes, delete it" not in labels(app)
    assert "key" not in app.query_params


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


def test_train_lays_earlier_runs_beside_the_curve(open_page, fake_service):
    start_fake(fake_service, "quick-1", lambda run: run.state == "done")
    run_id, _ = start_fake(fake_service, "quick-2", lambda run: run.state == "done")
    app = open_page("train", run=run_id)
    app.multiselect(key=f"beside-{run_id}").set_value(["quick-1"]).run()
    app.button_group(key=f"axis-{run_id}").set_value("Linear").run()
    chart = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert "quick-1" in chart["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert chart["layer"][0]["encoding"]["y"]["scale"]["type"] == "linear"


def test_train_queue_names_what_is_under_way(open_page, fake_service):
    start_fake(fake_service, "long-1", lambda run: run.curve)
    waiting, key = start_fake(fake_service, "long-2", lambda run: True)
    app = open_page("train", run=waiting, key=key)
    assert any("Number 1 in the queue" in bar.proto.text for bar in app.get("progress"))
    assert "Under way" in texts(app)


def test_runs_table_deletes_after_a_confirmation_what_is_the_visitors(open_page, fake_service):
    run_id, key = start_fake(fake_service, "quick", lambda run: run.state == "done")
    watcher = open_page("train")
    watcher.multiselect(key="picked").set_value([run_id]).run()
    assert {"Model", "History", "PNG", "SVG"} <= {button.proto.label for button in watcher.get("download_button")}
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


def test_pages_say_what_to_do_when_there_is_no_model(open_page, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "none")
    for page in ("start", "gallery", "photo"):
        assert "There is no model yet" in open_page(page).info[0].value
    assert not open_page("how").error


@pytest.mark.slow
def test_a_damaged_model_harms_no_page(open_page, monkeypatch, tmp_path):
    shipped = tmp_path / "models"
    shutil.copytree(library.SHIPPED / "linear", shipped / "linear")
    shutil.copytree(library.SHIPPED / "linear", shipped / "broken")
    (shipped / "broken" / "model.keras").write_bytes(b"")
    (shipped / "linear" / "history.json").write_text("[]")
    (shipped / "linear" / "snapshots.npz").write_bytes(b"PK")
    monkeypatch.setattr(library, "SHIPPED", shipped)
    for page in PAGES:
        app = open_page(page)
        assert not app.error, page
    assert open_page("gallery").selectbox(key="model").options == ["linear"]


def test_how_it_works_follows_the_bottleneck_slider(open_page):
    app = open_page("how")
    app.slider(key="k").set_value(200).run()
    assert "**4 · 200 numbers**" in texts(app)
    assert any("200 numbers" in alt for alt in alt_texts(app))


def test_how_it_works_tells_the_story_in_measured_numbers(open_page):
    table = texts(open_page("how"))
    for name in ("notebook-gray", "notebook", "linear", "dense", "dense-chroma"):
        assert f"{library.find_model(name).metric('test'):.5f}" in table


def test_reconstructions_in_the_gallery_are_the_models_own(open_page):
    from colorizer.models import evaluation
    from colorizer.models.colorizer import load

    entry = library.find_model("linear")
    shown = evaluation.stored_predictions(entry, "samples", "test")
    computed = evaluation.predict_split(load("linear"), datasets.load_samples())
    assert np.abs(shown.images.astype(int) - computed.images).max() <= 1
