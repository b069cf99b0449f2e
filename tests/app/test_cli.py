"""cli: what each command prints, writes and returns, JSON alone on stdout, and what Ctrl-C keeps."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from colorizer.data import datasets
from colorizer.models import evaluation, library
from colorizer.models.colorizer import load
from colorizer.models.network import Network
from colorizer.pixels.color import to_luminance
from colorizer.pixels.metrics import METRICS

TINY = ["--preset", "notebook", "--encoder-widths", "8", "--decoder-widths", "8", "--dataset", "synthetic"]


def test_data_tells_what_is_here(run, run_json, home):
    code, result = run_json("data")
    assert (code, result["home"]) == (0, str(home))
    assert {name: entry["state"] for name, entry in result["datasets"].items()} == {
        "cifar10": "missing", "samples": "built in", "synthetic": "built in"
    }  # fmt: skip
    assert result["datasets"]["samples"]["bytes"] > 20 * 1000
    _, out, _ = run("data")
    assert all(word in out for word in ("cifar10", "missing", "samples", "synthetic", str(home)))


def test_a_download_without_a_network_fails_in_one_sentence(run, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    code, out, err = run("data", "--download")
    assert (code, out) == (1, "")
    assert "error: CIFAR-10 could not be downloaded from" in err


def test_models_lists_the_library_damaged_ones_too(run, run_json, save_tiny):
    save_tiny("mine")
    (save_tiny("broken").path / "model.onnx").unlink()
    code, result = run_json("models")
    models = {model["name"]: model for model in result["models"]}
    assert code == 0
    assert models["linear"]["shipped"]
    assert not models["mine"]["shipped"]
    assert models["mine"]["card"]["model"]["latent_dim"] == 4
    assert models["broken"]["damage"] == "model.onnx is missing"
    _, out, _ = run("models")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows["linear"].endswith("shipped")
    assert rows["mine"].endswith("yours")
    assert rows["broken"].endswith("model.onnx is missing")


def test_train_puts_a_model_into_the_library(run, home):
    code, out, err = run("train", *TINY, "--train-images", 64, "--epochs", 2, "--batch-size", 32, "--name", "mine")
    assert code == 0
    assert out.startswith(f"Saved mine in {home / 'models' / 'mine'}\nmse 0.")
    assert "on the 20 built-in samples; gray copy 0.00610" in out
    assert "epoch 2: loss 0." in err
    entry = library.find_model("mine")
    assert entry.card["preset"] == "notebook"
    assert (entry.model_config.encoder_widths, entry.train_config.epochs) == ((8,), 2)
    assert entry.train_config.learning_rate == 1e-3  # This is the value of the preset.


@pytest.mark.slow
def test_train_prints_its_card_as_json_and_can_replace(run, run_json, tmp_path):
    command = ["train", *TINY, "--train-images", 16, "--epochs", 1, "--name", "mine", "--library", tmp_path / "shelf"]
    code, result = run_json(*command)
    assert (code, result["name"], result["path"]) == (0, "mine", str(tmp_path / "shelf" / "mine"))
    assert result["card"]["metrics"]["samples"]["images"] == 20
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    assert "error: A model named mine is already here." in err
    assert run_json(*command, "--replace")[0] == 0


@pytest.fixture
def few_models(monkeypatch):
    """A library of two models, for loading all that are shipped takes its time."""
    entries = [library.find_model(name) for name in ("dense", "linear")]
    monkeypatch.setattr(library, "list_models", lambda: entries)


@pytest.mark.slow
def test_evaluate_all_measures_every_model_and_the_baselines(run, run_json, few_models, tmp_path):
    code, result = run_json("evaluate", "--all", "--dataset", "samples")
    names = [entry.name for entry in library.list_models()]
    assert (code, list(result["models"]), result["images"]) == (0, names, 20)
    assert set(result["baselines"]) == {"gray copy", "mean chroma", "closed form"}
    for values in [measured["model"] for measured in result["models"].values()] + list(result["baselines"].values()):
        assert set(values) == set(METRICS)
    # Chroma that is known from statistics alone is better than none.
    errors = {name: values["mse"] for name, values in result["baselines"].items()}
    assert errors["closed form"] < errors["mean chroma"] < errors["gray copy"]
    figure = tmp_path / "figures" / "metrics.png"
    _, out, _ = run("evaluate", "--all", "--dataset", "samples", "--figure", figure)
    assert [line.split("  ")[0] for line in out.splitlines()[4:]][: len(names) + 1] == [*names, "gray copy"]
    with Image.open(figure) as picture:
        assert min(picture.size) > 500


@pytest.mark.slow
def test_evaluate_all_loads_a_model_when_the_one_before_is_measured(run, few_models, monkeypatch):
    calls = []

    def note(name, function):
        return lambda *args, **options: calls.append(name) or function(*args, **options)

    monkeypatch.setattr("colorizer.app.evaluate_command.load", note("load", load))
    monkeypatch.setattr(evaluation, "measure", note("measure", evaluation.measure))
    assert run("evaluate", "--all", "--dataset", "samples")[0] == 0
    assert calls == ["load", "measure"] * 2


def test_error_of_the_classes_adds_up_to_the_whole(run_json, samples):
    _, result = run_json("evaluate", "linear", "--dataset", "samples")
    counts = {name: int((samples.labels == index).sum()) for index, name in enumerate(datasets.CLASS_NAMES)}
    for metrics, classes in (("metrics", "classes"), ("gray_copy", "gray_copy_classes")):
        total = sum(counts[name] * mse for name, mse in result[classes].items())
        assert total / 20 == pytest.approx(result[metrics]["mse"])


@pytest.fixture
def elsewhere(tmp_path, samples):
    """Names of two data sets of a few images that are not built in."""
    np.savez(tmp_path / "few.npz", x_train=datasets.draw_synthetic(32, seed=0), x_val=samples.images)
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(samples.images):
        Image.fromarray(image).resize((48, 40)).save(tmp_path / "photos" / f"{index}.png")
    return {"npz": f"cifar100:{tmp_path / 'few.npz'}", "folder": f"folder:{tmp_path / 'photos'}"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_a_model_is_trained_and_measured_on_other_images(run, run_json, elsewhere, kind):
    small = ["--preset", "dense-chroma", "--encoder-widths", "8", "--decoder-widths", "8", "--latent-dim", "4"]
    words = ["train", *small, "--dataset", elsewhere[kind], "--epochs", 1, "--batch-size", 8]
    code, _ = run_json(*words, "--name", "first")
    assert code == 0
    code, second = run_json(*words, "--name", "second", "--init-from", "first", "--freeze-encoder")
    assert code == 0
    assert "--init-from first --freeze-encoder" in second["card"]["command"]
    entry = library.find_model("first")
    images = {"npz": 20, "folder": 2}[kind]
    assert set(entry.card["metrics"]) == {"samples", "own_validation"}
    assert entry.card["metrics"]["own_validation"]["images"] == images
    code, measured = run_json("evaluate", "first", "--dataset", elsewhere[kind], "--split", "validation")
    assert (code, measured["images"], measured["classes"]) == (0, images, {})
    assert measured["metrics"] == pytest.approx(entry.card["metrics"]["own_validation"]["model"], rel=1e-5)
    assert measured["gray_copy"]["mse"] == pytest.approx(entry.gray_copy_loss)
    _, text, _ = run("evaluate", "--all", "--dataset", elsewhere[kind])
    assert "second" in text
    assert "mse by class" not in text


def test_evaluate_puts_every_metric_beside_the_gray_copy(run, run_json):
    code, result = run_json("evaluate", "linear", "--dataset", "samples")
    assert code == 0
    assert (result["model"], result["dataset"], result["split"], result["images"]) == ("linear", "samples", "test", 20)
    assert list(result["metrics"]) == list(result["gray_copy"]) == list(METRICS)
    assert result["metrics"]["mse"] == pytest.approx(library.find_model("linear").metric("samples"), rel=1e-4)
    _, out, _ = run("evaluate", library.SHIPPED / "linear", "--dataset", "samples", "--split", "validation")
    assert out.startswith("linear on samples validation, 20 images\n")
    assert all(f"\n{name} " in out for name in METRICS)
    assert "0.00610" in out


@pytest.mark.slow
def test_report_writes_its_pictures(run_json, tmp_path):
    code, result = run_json("report", "notebook", "--output", tmp_path / "report")
    names = ["original_vs_grayscale_vs_reconstructed.png", "worst.png", "photos.png"]
    names = ["loss_curve_plot.png", *(f"results_visualization/{name}" for name in names), "training.webp"]
    assert (code, result["written"]) == (0, [str(tmp_path / "report" / name) for name in names])
    for path in result["written"]:
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 300


def test_write_statistics_needs_the_real_data(run):
    before = datasets.STATISTICS_PATH.read_bytes()
    assert run("data", "--write-statistics")[0] == 1
    assert datasets.STATISTICS_PATH.read_bytes() == before


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_learned(tmp_path):
    command = [sys.executable, "-m", "colorizer", "train", *TINY, "--batch-size", "4", "--epochs", "200"]
    log = tmp_path / "stderr"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, "--name", "interrupted", "--json"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ,
        ) as process,
    ):
        end = time.monotonic() + 60
        while "loss=" not in log.read_text() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, log.read_text()
    assert "Stopping after this batch; what is learned so far is kept." in log.read_text()
    assert "Traceback" not in log.read_text()
    assert json.loads(out)["card"]["stopped"]
    assert library.find_model("interrupted").card["epochs_done"] > 0


def test_export_writes_the_network_and_float16_halves_it(run, run_json, tmp_path, samples):
    code, result = run_json("export", "dense", "--output", str(tmp_path / "new" / "dense.onnx"))
    assert (code, result["bytes"]) == (0, (library.SHIPPED / "dense" / "model.onnx").stat().st_size)
    assert (tmp_path / "new" / "dense.onnx").read_bytes() == (library.SHIPPED / "dense" / "model.onnx").read_bytes()
    code, out, _ = run("export", "dense", "--output", str(tmp_path / "new"), "--float16")
    assert (code, out.split()[0]) == (0, str(tmp_path / "new" / "dense.onnx"))
    half = (tmp_path / "new" / "dense.onnx").read_bytes()
    assert len(half) < 0.51 * result["bytes"]
    luminance = to_luminance(samples.images)
    difference = np.abs(Network(half)(luminance, [(1.0, 0.0)])[0] - load("dense").predict(luminance))
    assert 1e-6 < difference.max() < 0.01


@pytest.mark.parametrize("name", ["unet-vivid", "colorist"])
def test_a_float16_network_takes_photos_of_any_size(run, tmp_path, name):
    code, _, err = run("export", name, "--output", str(tmp_path), "--float16")
    assert (code, err) == (0, "")
    luminance = np.random.default_rng(0).random((1, 64, 96, 1), np.float32)
    half, full = (
        Network((folder / file).read_bytes())(luminance, [(0.6, 1.0)])
        for folder, file in ((tmp_path, f"{name}.onnx"), (library.SHIPPED / name, "model.onnx"))
    )
    assert np.abs(half - full).max() < 0.02


def test_export_says_in_one_sentence_what_is_wrong(run, tmp_path, save_tiny):
    graph = save_tiny("broken").path / "model.onnx"
    graph.write_bytes(bytes(graph.stat().st_size))
    (tmp_path / "file").touch()
    for words, reason in (
        (["nope", "--output", str(tmp_path / "x.onnx")], "There is no model 'nope'"),
        (["broken", "--output", str(tmp_path / "x.onnx")], "model.onnx of broken does not match the checksum"),
        (["linear", "--output", str(tmp_path / "file" / "x.onnx")], "Check the disk and the paths given"),
    ):
        code, out, err = run("export", *words)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert reason in err
    assert not (tmp_path / "x.onnx").exists()
