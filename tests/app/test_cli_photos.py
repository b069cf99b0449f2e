"""cli: `evaluate --photos` measures folders and zips, at a working size, with features and with hints."""

import functools
import weakref
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from colorizer.data import photos
from colorizer.models import library
from colorizer.pixels.images import decode_image
from colorizer.training import backbone, efficientnet


@pytest.fixture
def folder(tmp_path, samples):
    """A folder with six small pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, image in enumerate(samples.images[:6]):
        Image.fromarray(image).resize((48, 40)).save(folder / f"{index}.png")
    return folder


def test_black_photos_have_no_ratio_and_the_json_says_null(run, run_json, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    code, result = run_json("evaluate", "linear", "--photos", tmp_path)
    assert (code, result["models"]["linear"]["ratio"]) == (0, None)
    code, out, _ = run("evaluate", "linear", "--photos", tmp_path)
    assert code == 0
    assert out.splitlines()[-1].split()[3] == "-"


@pytest.mark.slow
def test_all_models_see_each_photo_which_is_decoded_once(run_json, folder, monkeypatch):
    entries = [library.find_model(name) for name in ("dense", "linear")]
    monkeypatch.setattr(library, "list_models", lambda: entries)
    alive, decoded = set(), []

    def decode(data):
        image = decode_image(data)
        alive.add(id(image))
        weakref.finalize(image, alive.discard, id(image))
        assert len(alive) == 1
        decoded.append(id(image))
        return image

    monkeypatch.setattr(photos, "decode_image", decode)
    code, result = run_json("evaluate", "--all", "--photos", folder)
    assert code == 0
    assert [measured["photos"] for measured in result["models"].values()] == [6, 6]
    assert len(decoded) == 6


def test_evaluate_on_photos_tells_how_many_are_better_than_gray(run, run_json, folder, caplog):
    with zipfile.ZipFile(folder.with_name("photos.zip"), "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
        archive.writestr("broken.png", "no picture")
    code, result = run_json("evaluate", "linear", "--photos", folder)
    measured = result["models"]["linear"]
    assert (code, measured["photos"]) == (0, 6)
    assert measured["ratio"] == pytest.approx(measured["delta_e"] / measured["gray_copy"])
    assert not caplog.text
    code, out, _ = run("evaluate", "linear", "--photos", folder.with_name("photos.zip"))
    assert code == 0
    assert f"{measured['better']} of 6," in out
    assert "1 of 7 files left out, such as 'broken.png' (The file is not a picture" in caplog.text


def test_evaluate_compares_features_at_a_working_size(run_json, folder, monkeypatch):
    """The classifier is replaced, because its weights are not a part of the project."""
    read = []
    shrink = functools.partial(np.mean, axis=(1, 2))
    monkeypatch.setattr(efficientnet, "read_weights", lambda path: read.append(path) or {})
    monkeypatch.setattr(backbone, "build_classifier_features", lambda weights: SimpleNamespace(predict_on_batch=shrink))
    words = ["evaluate", "unet", "--photos", folder]
    results = [run_json(*words, "--size", size, "--backbone", "weights.pth")[1]["models"]["unet"] for size in (32, 64)]
    assert read == [Path("weights.pth")] * 2
    assert 0 < results[0]["feature_distance"] != results[1]["feature_distance"]
    assert results[0]["delta_e"] != results[1]["delta_e"]


def test_a_backbone_that_is_none_is_one_sentence(run, folder):
    code, out, err = run("evaluate", "linear", "--photos", folder, "--backbone", folder / "0.png")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: The backbone {folder / '0.png'} cannot be read (")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_evaluate_measures_hints_and_draws_what_they_do(run_json, run, folder):
    figure = folder.with_name("hints.png")
    words = ["evaluate", "--all", "--photos", folder, "--size", 64, "--hints", "0,5", "--figure", figure]
    code, result = run_json(*words)
    assert (code, decode_image(figure.read_bytes()).shape[1] > 500) == (0, True)
    names = [name for entry in ("colorist", "unet-vivid") for name in (entry, f"{entry}, Levin et al.")]
    assert set(result["hints"]) == set(names)
    assert [list(found) for found in result["hints"].values()] == [["0", "5"]] * 4
    assert result["hints"]["unet-vivid"]["5"]["psnr"] > result["hints"]["unet-vivid"]["0"]["psnr"]
    for words, reason in [
        (["linear", "--hints", "1"], "linear takes no hints"),
        (["unet-vivid", "--hints", "201"], "hints must be whole numbers from 0 to 200, received '201'"),
    ]:
        code, _, err = run("evaluate", *words, "--photos", folder)
        assert (code, reason in err) == (1, True)


@pytest.mark.slow
def test_a_figure_on_photos_varies_the_settings_of_the_models_that_see_whole_photos(run_json, folder, monkeypatch):
    entries = [library.find_model(name) for name in ("linear", "unet", "unet-vivid")]
    monkeypatch.setattr(library, "list_models", lambda: entries)
    figure = folder.with_name("trade-off.png")
    code, result = run_json("evaluate", "--all", "--photos", folder, "--figure", figure)
    measured = result["models"]
    assert (code, len(measured)) == (0, 6 + 6 + 6)
    assert {name.partition(",")[0] for name in measured} == {"unet", "unet-vivid"}
    assert measured["unet, strength 0.25"]["colorfulness"] < measured["unet, strength 1"]["colorfulness"]
    assert measured["unet-vivid, vividness 0.4"] == measured["unet-vivid, strength 1"]
    assert decode_image(figure.read_bytes()).shape[1] > 500
