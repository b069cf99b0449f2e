"""library: saving in one step, every kind of damage, what is shipped, no TensorFlow for listing."""

import errno
import hashlib
import io
import json
import re
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

SHIPPED = sorted(path.name for path in library.SHIPPED.iterdir() if path.is_dir())


def _mine():
    return {entry.name: entry for entry in library.list_models() if not entry.shipped}


def test_a_saved_model_is_listed_and_loads_as_it_was(save_tiny, samples, home):
    entry = save_tiny("mine")
    assert entry == _mine()["mine"]
    assert (entry.path, entry.damage, entry.shipped) == (home / "models" / "mine", None, False)
    luminance = to_luminance(samples.images)
    output = np.asarray(library.load_keras_model(entry)(luminance))
    assert entry.metric("samples") == pytest.approx(
        np.square(output.clip(0, 1) - samples.images / 255).mean(), rel=1e-4
    )
    assert entry.metric("test") is None
    assert entry.model_config.latent_dim == 4
    assert entry.train_config.dataset == "synthetic"
    assert library.load_history(entry)["val_loss"] == [0.3]
    assert library.load_arrays(entry, "snapshots.npz")["images"].shape == (2, 8, 32, 32, 3)


def test_the_folder_holds_the_five_files_with_the_checksum_on_the_card(save_tiny):
    entry = save_tiny()
    names = {"card.json", "history.json", "model.keras", "predictions.npz", "snapshots.npz"}
    assert {path.name for path in entry.path.iterdir()} == names
    raw = (entry.path / "model.keras").read_bytes()
    assert (entry.checksum, entry.card["bytes"]) == (hashlib.sha256(raw).hexdigest(), len(raw))


@pytest.mark.parametrize("function", ["write_json", "_sha256"])
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
    assert _mine() == {"tiny": before}
    library.load_keras_model(before)


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


def _edit_card(path, change):
    card = json.loads((path / "card.json").read_text())
    change(card)
    (path / "card.json").write_text(json.dumps(card))


DAMAGE = {
    "no card": (lambda p: (p / "card.json").unlink(), r"card\.json is missing"),
    "empty card": (lambda p: (p / "card.json").write_text(""), "Expecting value"),
    "card is no json": (lambda p: (p / "card.json").write_text("{"), "Expecting property name"),
    "card is a list": (lambda p: (p / "card.json").write_text("[]"), r"card\.json holds no JSON object"),
    "card is binary": (lambda p: (p / "card.json").write_bytes(b"\xff\xfe\x00"), "can't decode"),
    "card is huge": (lambda p: (p / "card.json").write_text(" " * 2**21), r"card\.json is too large"),
    "card nests deeply": (lambda p: (p / "card.json").write_text("[" * 100_000), ""),
    "card is a folder": (lambda p: (p / "card.json").unlink() or (p / "card.json").mkdir(), ""),
    "no metrics": (lambda p: _edit_card(p, lambda c: c.pop("metrics")), "its card lacks 'metrics'"),
    "metrics are a list": (lambda p: _edit_card(p, lambda c: c.update(metrics=[])), "no metrics on the samples"),
    "metric is text": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["model"].update(mse="<b>0</b>")),
        "a value that is no number",
    ),
    "metric is null": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["gray_copy"].update(mse=None)),
        "a value that is no number",
    ),
    "metric is not a number": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["model"].update(mse=float("nan"))),
        "a value that is no number",
    ),
    "metric is missing": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["model"].pop("mae")),
        "its card lacks 'mae'",
    ),
    "no seconds": (lambda p: _edit_card(p, lambda c: c.pop("seconds")), "its card lacks 'seconds'"),
    "split without metrics": (lambda p: _edit_card(p, lambda c: c["metrics"].update(test=3)), ""),
    "no checksum": (lambda p: _edit_card(p, lambda c: c.pop("sha256")), "its card lacks 'sha256'"),
    "checksum is a number": (lambda p: _edit_card(p, lambda c: c.update(sha256=3)), "no checksum"),
    "unknown setting": (lambda p: _edit_card(p, lambda c: c["model"].update(depth=3)), "no setting 'depth'"),
    "setting out of range": (lambda p: _edit_card(p, lambda c: c["train"].update(epochs=-1)), "epochs must be"),
    "no model": (lambda p: (p / "model.keras").unlink(), r"model\.keras is missing"),
    "truncated model": (lambda p: (p / "model.keras").write_bytes(b"PK"), r"model\.keras has 2 bytes, its card says"),
    "foreign folder": (
        lambda p: [f.unlink() for f in p.iterdir()] and (p / "photo.jpg").touch(),
        "card.json is missing",
    ),
    "bad name": (lambda p: p.rename(p.with_name("My Model")), "is not a valid name"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_listed_with_its_reason_and_harms_no_other(save_tiny, damage):
    good, bad = save_tiny("good"), save_tiny("bad")
    break_it, reason = DAMAGE[damage]
    break_it(bad.path)
    entries = _mine()
    assert entries.pop("good") == good
    (entry,) = entries.values()
    assert entry.damage
    assert entry.card == {}
    assert re.search(reason, entry.damage)
    assert library.list_models()[-1] == entry  # damaged ones last
    with pytest.raises(ModelError, match=rf"The model {entry.name} is damaged: .*Delete its folder"):
        library.find_model(entry.path)


def test_files_and_hidden_folders_are_no_models(save_tiny, home):
    save_tiny()
    (home / "models" / ".staging-x1").mkdir()
    (home / "models" / "notes.txt").touch()
    assert set(_mine()) == {"tiny"}


def test_changed_bytes_of_the_same_size_are_refused_at_loading(save_tiny):
    entry = save_tiny()
    path = entry.path / "model.keras"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert library.read_entry(entry.path).damage is None  # listing does not read the weights
    with pytest.raises(ModelError, match=r"model\.keras of tiny does not match the checksum on its card"):
        library.load_keras_model(entry)


def _replace_model(entry, write):
    """Put another file in place of the model, with a card that agrees."""
    path = entry.path / "model.keras"
    write(path)
    card = {"sha256": library._sha256(path), "bytes": path.stat().st_size}
    return library.update_card(entry, **card)


def _write_text(path):
    path.write_text("not a model")


def _write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


def _write_lambda(path):
    import keras

    keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Lambda(lambda x: x)]).save(path)


def _write_classifier(path):
    import keras

    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(path)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (_write_text, r"The model tiny cannot be loaded: .*Train it again"),
        (_write_zip, r"The model tiny cannot be loaded: .*Train it again"),
        (_write_lambda, r"The model tiny cannot be loaded: .*(?i:lambda)"),
        (_write_classifier, r"model\.keras of tiny does not turn luminance into an image"),
    ],
)
def test_files_that_are_no_model_of_ours_are_refused(save_tiny, write, match):
    entry = _replace_model(save_tiny(), write)
    with pytest.raises(ModelError, match=match):
        library.load_keras_model(entry)


@pytest.mark.parametrize("content", [None, "", "[]", '{"loss": ["a"]}', '{"loss": {}}'])
def test_a_damaged_history_gives_a_sentence(save_tiny, content):
    entry = save_tiny()
    path = entry.path / "history.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match=r"The history of tiny cannot be read|history\.json holds no JSON object"):
        library.load_history(entry)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken"])
def test_damaged_arrays_give_a_sentence(save_tiny, content):
    entry = save_tiny()
    path = entry.path / "snapshots.npz"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ModelError, match=r"snapshots\.npz of tiny cannot be read"):
        library.load_arrays(entry, "snapshots.npz")


def test_pickled_arrays_are_refused(save_tiny):
    entry = save_tiny()
    np.savez(entry.path / "snapshots.npz", images=np.array([{}], dtype=object))
    with pytest.raises(ModelError, match=r"snapshots\.npz of tiny cannot be read"):
        library.load_arrays(entry, "snapshots.npz")


def test_models_are_found_by_name_or_folder(save_tiny, tmp_path):
    entry = save_tiny()
    assert library.find_model("tiny") == library.find_model(entry.path) == library.find_model(str(entry.path)) == entry
    elsewhere = shutil.copytree(entry.path, tmp_path / "copied")
    assert library.find_model(elsewhere).name == "copied"
    with pytest.raises(ModelError, match=r"There is no model 'nope'\. Models here: .*linear.*tiny"):
        library.find_model("nope")
    with pytest.raises(ModelError, match=r"card\.json is missing"):
        library.find_model(tmp_path / "nothing")


def test_deleting_takes_only_ones_own(save_tiny):
    save_tiny()
    library.delete_model("tiny")
    assert _mine() == {}
    for name in ("tiny", "linear", "../models"):
        with pytest.raises(ModelError, match=f"There is no model '{name}' of yours to delete"):
            library.delete_model(name)
    assert (library.SHIPPED / "linear" / "card.json").is_file()


def test_a_damaged_model_can_be_deleted(save_tiny):
    (save_tiny().path / "card.json").unlink()
    library.delete_model("tiny")
    assert _mine() == {}


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
    assert _mine()["tiny"].card["seconds"] == 3


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_whole_small_and_measures_what_its_card_says(name):
    entry = library.find_model(name)
    assert entry.shipped
    assert sum(path.stat().st_size for path in entry.path.iterdir()) < 10e6
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
