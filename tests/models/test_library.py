"""Models are saved and replaced in one step, listed, found and deleted; the shipped ones are whole."""

import errno
import hashlib
import io
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from colorizer.data import datasets
from colorizer.errors import ConfigError, ModelError
from colorizer.models import evaluation, library
from colorizer.models.colorizer import load
from colorizer.pixels.color import to_luminance
from colorizer.training.export import load_keras_model
from tests.models.conftest import own_models

SHIPPED = sorted(path.name for path in library.SHIPPED.iterdir() if path.is_dir())


def test_a_saved_model_is_listed_and_loads_as_it_was(save_tiny, samples, home):
    entry = save_tiny("mine")
    assert entry == own_models()["mine"]
    assert (entry.path, entry.damage, entry.shipped) == (home / "models" / "mine", None, False)
    luminance = to_luminance(samples.images)
    output = np.asarray(load_keras_model(entry)(luminance))
    assert entry.metric("samples") == pytest.approx(
        np.square(output.clip(0, 1) - samples.images / 255).mean(), rel=1e-4
    )
    assert entry.metric("test") is None
    assert entry.model_config.latent_dim == 4
    assert entry.train_config.dataset == "synthetic"
    assert library.load_history(entry)["val_loss"] == [0.3]
    assert library.load_arrays(entry, "snapshots.npz")["images"].shape == (2, 8, 32, 32, 3)


def test_the_folder_holds_the_six_files_with_the_checksums_on_the_card(save_tiny):
    entry = save_tiny()
    names = {"card.json", "history.json", "model.keras", "model.onnx", "predictions.npz", "snapshots.npz"}
    assert {path.name for path in entry.path.iterdir()} == names
    for file_name, stated in (("model.keras", ("sha256", "bytes")), ("model.onnx", ("onnx_sha256", "onnx_bytes"))):
        raw = (entry.path / file_name).read_bytes()
        assert tuple(entry.card[key] for key in stated) == (hashlib.sha256(raw).hexdigest(), len(raw))


def test_a_model_without_its_keras_file_colorizes_but_no_training_starts_from_it(save_tiny, samples):
    entry = save_tiny()
    (entry.path / "model.keras").unlink()
    assert own_models()["tiny"].damage is None
    assert load("tiny").predict(to_luminance(samples.images)).shape == (20, 32, 32, 3)
    with pytest.raises(ModelError, match=r"tiny has no model\.keras here, from which a training could start"):
        load_keras_model(entry)


@pytest.mark.parametrize("function", ["write_json", "_checksum"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_saving_leaves_nothing(save_tiny, home, monkeypatch, function, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(library, function, fail)
    with pytest.raises((ModelError, KeyboardInterrupt), match=r"tiny could not be saved .*No space left|^$"):
        save_tiny()
    assert list((home / "models").iterdir()) == []


def test_a_failure_while_replacing_keeps_the_old_model(save_tiny, monkeypatch):
    before = save_tiny()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(ModelError, match=r"tiny could not be saved .*broken"):
            save_tiny(replace=True)
    assert own_models() == {"tiny": before}
    load_keras_model(before)


def test_a_taken_name_is_refused_unless_replaced(save_tiny):
    first = save_tiny()
    with pytest.raises(ModelError, match=r"A model named tiny is already here\. Choose another name"):
        save_tiny()
    assert save_tiny(replace=True).checksum != first.checksum


@pytest.mark.parametrize("replace", [False, True])
def test_the_name_of_a_shipped_model_is_taken(save_tiny, replace):
    with pytest.raises(ModelError, match="A model named linear is already here"):
        save_tiny("linear", replace=replace)


def test_a_name_that_leaves_the_folder_is_refused(save_tiny, home):
    with pytest.raises(ConfigError, match="is not a valid name"):
        save_tiny("../evil")
    assert not (home / "evil").exists()


def test_files_and_hidden_folders_are_no_models(save_tiny, home):
    save_tiny()
    (home / "models" / ".staging-x1").mkdir()
    (home / "models" / "notes.txt").touch()
    assert set(own_models()) == {"tiny"}


def test_models_are_found_by_name_or_folder(save_tiny, tmp_path):
    entry = save_tiny()
    assert library.find_model("tiny") == library.find_model(entry.path) == library.find_model(str(entry.path)) == entry
    elsewhere = shutil.copytree(entry.path, tmp_path / "copied")
    assert library.find_model(elsewhere).name == "copied"
    with pytest.raises(ModelError, match=r"There is no model 'nope'\. Models here: .*linear.*tiny"):
        library.find_model("nope")
    for missing in ("nothing", "x" * 5000):
        with pytest.raises(ModelError, match=f"{missing} is not a model: it has no "):
            library.find_model(tmp_path / missing)


def test_deleting_takes_only_ones_own(save_tiny):
    save_tiny()
    library.delete_model("tiny")
    assert own_models() == {}
    for name in ("tiny", "linear", "../models"):
        with pytest.raises(ModelError, match=f"There is no model '{name}' of yours to delete"):
            library.delete_model(name)
    assert (library.SHIPPED / "linear" / "card.json").is_file()


def test_a_damaged_model_can_be_deleted(save_tiny):
    (save_tiny().path / "card.json").unlink()
    library.delete_model("tiny")
    assert own_models() == {}


def test_a_folder_in_the_library_that_is_not_a_model_is_neither_replaced_nor_deleted(save_tiny, home):
    picture = home / "models" / "holiday" / "photo.jpg"
    picture.parent.mkdir(parents=True)
    picture.touch()
    with pytest.raises(ModelError, match="holiday is not a model"):
        save_tiny("holiday", replace=True)
    with pytest.raises(ModelError, match="There is no model 'holiday' of yours to delete"):
        library.delete_model("holiday")
    with pytest.raises(ModelError, match="damaged") as caught:
        library.find_model("holiday")
    assert "elete" not in str(caught.value)
    (home / "models" / "notes").touch()
    with pytest.raises(ModelError, match="notes is not a model"):
        save_tiny("notes", replace=True)
    assert picture.is_file() and (home / "models" / "notes").is_file()


@pytest.mark.parametrize("photos", ["photos", "photos/"])
def test_a_folder_of_photos_is_not_a_model_and_nothing_is_to_be_deleted(tmp_path, photos):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(ModelError, match="photos is not a model: ") as caught:
        library.find_model(f"{tmp_path}/{photos}")
    assert "elete" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_only_a_model_of_the_users_library_may_be_deleted(save_tiny, tmp_path, monkeypatch):
    mine = save_tiny()
    elsewhere = shutil.copytree(mine.path, tmp_path / "copied")
    shipped = shutil.copytree(mine.path, tmp_path / "shipped" / "old")
    monkeypatch.setattr(library, "SHIPPED", shipped.parent)
    advice = {
        mine.path: "Delete it in the gallery",
        elsewhere: "Get a whole copy",
        shipped: "Restore the folder assets",
    }
    for folder, sentence in advice.items():
        (folder / "model.onnx").unlink()
        with pytest.raises(ModelError, match=sentence) as caught:
            library.find_model(folder)
        assert ("elete" in str(caught.value)) == (folder == mine.path)
        assert str(tmp_path) not in str(caught.value)


def test_a_deleted_model_takes_its_predictions_along_and_no_others(save_tiny, samples, home):
    for name in ("tiny", "tiny-two"):
        save_tiny(name)
        evaluation.store_predictions(load(name), "cifar10", "test", samples)
    assert len(list((home / "predictions").iterdir())) == 2
    library.delete_model("tiny")
    (left,) = (home / "predictions").iterdir()
    assert left.name.startswith("tiny-two-")
    save_tiny("tiny-two", replace=True)
    assert not list((home / "predictions").iterdir())


def test_a_link_to_a_folder_is_deleted_without_the_folder(home, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    (home / "models").mkdir(parents=True)
    (home / "models" / "link").symlink_to(tmp_path / "photos")
    library.delete_model("link")
    assert [path.name for path in (home / "models").iterdir()] == [] and [
        path.name for path in (tmp_path / "photos").iterdir()
    ] == ["holiday.jpg"]


def test_models_are_listed_best_first(save_tiny):
    for name, error in {"worst": 0.3, "best": 0.0001, "middle": 0.1}.items():
        entry = save_tiny(name)
        samples = entry.card["metrics"]["samples"]
        test = samples | {"model": samples["model"] | {"mse": error}}
        library.update_card(entry, metrics={"samples": samples, "test": test})
    names = [entry.name for entry in library.list_models()]
    assert names[0] == "best"
    assert names.index("middle") < names.index("worst")


def test_a_card_is_updated_in_one_step(save_tiny, monkeypatch):
    entry = save_tiny()
    assert library.update_card(entry, seconds=3).card["seconds"] == 3
    with pytest.raises(TypeError, match="not JSON serializable"):
        library.update_card(entry, seconds=object())
    assert own_models()["tiny"].card["seconds"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_whole_small_and_measures_what_its_card_says(name):
    entry = library.find_model(name)
    assert entry.shipped
    sizes = {path.name: path.stat().st_size for path in entry.path.iterdir()}
    assert sizes.pop("model.onnx") < 10e6
    assert sum(sizes.values()) < 10e6
    with zipfile.ZipFile(entry.path / "model.keras") as archive:
        assert "optimizer" not in h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    measured = evaluation.measure(load(name), datasets.load_dataset("samples"), "test")
    stated = entry.card["metrics"]["samples"]
    assert measured["model"]["mse"] == pytest.approx(stated["model"]["mse"], rel=1e-3)
    assert measured["gray_copy"]["mse"] == pytest.approx(stated["gray_copy"]["mse"], rel=1e-5)
    assert len(library.load_arrays(entry, "snapshots.npz")["images"]) <= 30
    assert library.load_history(entry)["val_loss"]
    assert {"validation", "test"} <= set(entry.card["metrics"])
    assert f"--name {name}" in entry.card["command"]


def test_the_linear_model_is_shipped():
    assert "linear" in SHIPPED


def test_listing_needs_no_tensorflow(save_tiny):
    save_tiny()
    code = (
        "import sys; from colorizer.models import library; "
        "print(len(library.list_models()), [m for m in ('tensorflow', 'keras', 'streamlit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{len(library.list_models())} []\n", "")
