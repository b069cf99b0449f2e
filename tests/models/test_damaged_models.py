"""Damaged and hostile models are listed as damaged or refused with a sentence, and harm no other."""

import hashlib
import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from colorizer.errors import ModelError
from colorizer.models import library
from colorizer.models.network import load_network
from colorizer.training.export import load_keras_model
from tests.models.conftest import own_models


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
    "metrics are a list": (
        lambda p: _edit_card(p, lambda c: c.update(metrics=[])),
        "a wrong value for 'metrics'",
    ),
    "metric is text": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["model"].update(mse="<b>0</b>")),
        r"its card has a wrong value for .*\(Input should be a (valid|finite) number\)",
    ),
    "metric is null": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["gray_copy"].update(mse=None)),
        r"its card has a wrong value for .*\(Input should be a (valid|finite) number\)",
    ),
    "metric is not a number": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["model"].update(mse=float("nan"))),
        r"its card has a wrong value for .*\(Input should be a (valid|finite) number\)",
    ),
    "metric is missing": (
        lambda p: _edit_card(p, lambda c: c["metrics"]["samples"]["model"].pop("mae")),
        "its card lacks 'metrics.samples.model.mae'",
    ),
    "no seconds": (lambda p: _edit_card(p, lambda c: c.pop("seconds")), "its card lacks 'seconds'"),
    "split without metrics": (lambda p: _edit_card(p, lambda c: c["metrics"].update(test=3)), ""),
    "no checksum": (lambda p: _edit_card(p, lambda c: c.pop("sha256")), "its card lacks 'sha256'"),
    "checksum is a number": (
        lambda p: _edit_card(p, lambda c: c.update(sha256=3)),
        "a wrong value for 'sha256'",
    ),
    "unknown setting": (lambda p: _edit_card(p, lambda c: c["model"].update(depth=3)), "no setting 'depth'"),
    "setting out of range": (lambda p: _edit_card(p, lambda c: c["train"].update(epochs=-1)), "epochs must be"),
    "no model": (lambda p: (p / "model.onnx").unlink(), r"model\.onnx is missing"),
    "truncated graph": (lambda p: (p / "model.onnx").write_bytes(b"\x08"), r"model\.onnx has 1 bytes, its card says"),
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
    entries = own_models()
    assert entries.pop("good") == good
    (entry,) = entries.values()
    assert entry.damage
    assert entry.card == {}
    assert re.search(reason, entry.damage)
    assert library.list_models()[-1] == entry  # damaged ones last
    found = [path.name for path in entry.path.iterdir() if path.name in ("card.json", "model.keras", "model.onnx")]
    advice = "Delete it in the gallery" if found else f"{entry.name} is not a model"
    with pytest.raises(ModelError, match=advice):
        library.find_model(entry.path)


@pytest.mark.parametrize(("file_name", "read"), [("model.keras", load_keras_model), ("model.onnx", load_network)])
def test_changed_bytes_of_the_same_size_are_refused_at_loading(save_tiny, file_name, read):
    entry = save_tiny()
    path = entry.path / file_name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert library.read_entry(entry.path).damage is None  # listing does not read the weights
    with pytest.raises(ModelError, match=rf"{file_name} of tiny does not match the checksum on its card"):
        read(entry)


def _replace_model(entry, write):
    """Put another file in place of the model, with a card that agrees."""
    path = entry.path / "model.keras"
    write(path)
    card = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
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
        (_write_text, r"The model tiny cannot be loaded: .*train it again"),
        (_write_zip, r"The model tiny cannot be loaded: .*train it again"),
        (_write_lambda, r"The model tiny cannot be loaded: .*(?i:lambda)"),
        (_write_classifier, r"model\.keras of tiny does not turn luminance into an image"),
    ],
)
def test_files_that_are_no_model_of_ours_are_refused(save_tiny, write, match):
    entry = _replace_model(save_tiny(), write)
    with pytest.raises(ModelError, match=match):
        load_keras_model(entry)


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


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_card_whose_reading_would_never_end_is_damaged(save_tiny, kind):
    card = save_tiny().path / "card.json"
    card.unlink()
    os.mkfifo(card) if kind == "pipe" else card.symlink_to("/dev/zero")
    assert own_models()["tiny"].damage == "card.json is not a file"


def test_messages_that_visitors_see_hold_no_paths_of_the_server(save_tiny, home, monkeypatch):
    entry = _replace_model(save_tiny(), _write_text)
    (entry.path / "history.json").unlink()
    (entry.path / "snapshots.npz").unlink()
    for read in (load_keras_model, library.load_history, lambda e: library.load_arrays(e, "snapshots.npz")):
        with pytest.raises(ModelError) as caught:
            read(entry)
        assert str(home) not in str(caught.value)
    (entry.path / "card.json").unlink()
    (entry.path / "card.json").mkdir()
    assert str(home) not in library.read_entry(entry.path).damage
    monkeypatch.setenv("COLORIZER_HOME", str(entry.path / "model.keras"))
    with pytest.raises((ModelError, OSError)) as caught:
        save_tiny("other")
    assert isinstance(caught.value, ModelError) and str(home) not in str(caught.value)


DIGITS = "9" * 400


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(seconds=int(DIGITS)),
        lambda c: c.update(extra={"list": [int(DIGITS)]}),
        lambda c: c["model"].update(latent_dim=int(DIGITS)),
        lambda c: c["metrics"]["samples"]["model"].update(mse=-int(DIGITS)),
        lambda c: c["metrics"]["samples"]["classes"].update(cat=int(DIGITS)),
        lambda c: c.update(parameters=10**18),
        lambda c: c.update(best_val_loss=float("inf")),
        lambda c: c.update(seconds=True),
        lambda c: c.update(preset=3),
        lambda c: c.update(created=["2026"]),
        lambda c: c.update(command={}),
        lambda c: c.update(stopped="no"),
        lambda c: c.update(versions=[]),
        lambda c: c.update(machine="fast"),
        lambda c: c.update(run=7),
    ],
)
def test_a_card_with_a_wrong_value_anywhere_is_listed_as_damaged(save_tiny, change):
    entry = save_tiny()
    _edit_card(entry.path, change)
    assert own_models()["tiny"].damage


@pytest.mark.parametrize("depth", [40, 500, 990, 100_000])
def test_a_deeply_nested_card_is_listed_as_damaged(save_tiny, depth):
    entry = save_tiny()
    text = (entry.path / "card.json").read_text().rstrip().removesuffix("}")
    (entry.path / "card.json").write_text(f'{text}, "deep": {"[" * depth}{"]" * depth}}}')
    assert "nested too deeply" in own_models()["tiny"].damage


def test_a_folder_whose_name_cannot_be_printed_is_listed_as_damaged_and_can_be_deleted(save_tiny, home):
    save_tiny()
    names = [b"caf\xe9", b"caf\xea", b"two\nlines"]
    for name in names:
        (home / "models" / os.fsdecode(name)).mkdir()
    damaged = [entry for entry in library.list_models() if entry.damage]
    assert len({entry.name for entry in damaged}) == len(names)
    for entry in damaged:
        assert entry.name.isprintable() and entry.name.encode()
        library.delete_model(entry.name)
    assert [path.name for path in (home / "models").iterdir()] == ["tiny"]


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=strategies.data())
def test_no_content_of_a_card_takes_the_list_of_models_down(save_tiny, home, data):
    if not (home / "models" / "tiny").exists():
        save_tiny()
    path = home / "models" / "tiny" / "card.json"
    whole = path.with_name("whole.json")
    if not whole.exists():
        shutil.copy(path, whole)
    card = json.loads(whole.read_text())
    place = card
    while isinstance(place, dict) and place:  # It goes down to some value of the card and puts another in its place.
        key = data.draw(strategies.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(strategies.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    path.write_text(json.dumps(card) if data.draw(strategies.integers(0, 9)) else data.draw(strategies.text()))
    (entry,) = own_models().values()
    if not entry.damage:  # What the pages use works.
        f"{entry.card['parameters']:,} {entry.card['seconds']:.1f} {entry.metric('samples'):.4f} {entry.gray_copy_loss}"
        assert isinstance(entry.card["preset"], str) and isinstance(entry.card["created"], str)
        assert entry.vivid in (True, False) and entry.train_config.dataset


def test_a_network_that_its_card_does_not_describe_is_refused(save_tiny):
    entry = save_tiny()
    unet = {"architecture": "unet", "target": "chroma", "latent_dim": 16}
    entry = library.update_card(entry, model=entry.card["model"] | unet)
    with pytest.raises(ModelError, match="is not what its card describes"):
        load_keras_model(entry)
