"""evaluation: tables beside the gray copy, predictions kept on disk, the shipped ones without TensorFlow."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from colorizer.config import ModelConfig, TrainConfig, TrainingSpec
from colorizer.data import datasets
from colorizer.models import evaluation, library
from colorizer.models.colorizer import load
from colorizer.pixels.color import to_luminance, to_uint8
from colorizer.pixels.metrics import gray_copy_metrics, image_mse
from colorizer.presets import get_preset
from colorizer.training import loop
from colorizer.training.job import run_training


@pytest.fixture(scope="module")
def linear():
    return load("linear")


def test_a_table_has_the_model_beside_the_gray_copy(linear, samples):
    measured = evaluation.measure(linear, datasets.load_dataset("samples"), "test")
    assert measured["images"] == 20
    stated = linear.entry.card["metrics"]["samples"]  # They were measured when the model was trained.
    for name in ("model", "gray_copy"):
        assert measured[name] == pytest.approx(stated[name], rel=1e-2)
    cats = samples.labels == datasets.CLASS_NAMES.index("cat")
    gray = np.repeat(samples.images[cats] / 255 @ [0.299, 0.587, 0.114], 3).reshape(-1, 32, 32, 3)
    assert measured["gray_copy_classes"]["cat"] == pytest.approx(np.square(gray - samples.images[cats] / 255).mean())
    assert set(measured["classes"]) == {datasets.CLASS_NAMES[label] for label in samples.labels}


@pytest.fixture
def small_cifar10(samples):
    """Called `cifar10`, but small."""
    return datasets.Dataset("cifar10", samples, samples, samples)


def test_the_gray_copy_of_cifar10_is_kept_on_disk(linear, small_cifar10, samples, monkeypatch):
    first = evaluation.measure(linear, small_cifar10, "validation")
    assert first["gray_copy"] == gray_copy_metrics(samples.images)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "gray_copy_metrics", None)
        assert evaluation.measure(linear, small_cifar10, "validation") == first


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"mse": 1}'])
def test_a_damaged_file_of_the_gray_copy_is_made_anew(linear, small_cifar10, samples, home, content):
    evaluation.measure(linear, small_cifar10, "test")
    (path,) = (home / "predictions").glob("gray-copy-*.json")
    path.write_text(content)
    assert evaluation.measure(linear, small_cifar10, "test")["gray_copy"] == gray_copy_metrics(samples.images)


def test_predictions_are_those_of_the_model(linear, samples):
    predicted = evaluation.predict_split(linear, samples)
    output = linear.predict(to_luminance(samples.images)).clip(0, 1)
    assert predicted.images.dtype == np.uint8
    assert np.abs(predicted.images / 255 - output).max() < 0.51 / 255
    errors = np.square(output - samples.images / 255).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(predicted.mse, errors, rtol=1e-4)


def test_stored_predictions_are_mapped_from_disk_and_equal_the_computed(linear, samples, monkeypatch):
    assert evaluation.stored_predictions(linear.entry, "cifar10", "test") is None
    computed = evaluation.store_predictions(linear, "cifar10", "test", samples)
    stored = evaluation.stored_predictions(linear.entry, "cifar10", "test")
    assert isinstance(stored.images, np.memmap)
    np.testing.assert_array_equal(stored.images, computed.images)
    np.testing.assert_array_equal(stored.mse, computed.mse)
    assert evaluation.stored_predictions(linear.entry, "cifar10", "validation") is None
    monkeypatch.setattr(evaluation, "predict_split", None)  # a second call does not compute
    again = evaluation.store_predictions(linear, "cifar10", "test", samples)
    np.testing.assert_array_equal(again.images, computed.images)


def test_a_model_of_the_same_name_does_not_get_anothers_predictions(save_tiny, samples):
    first = load(save_tiny().path)
    evaluation.store_predictions(first, "cifar10", "test", samples)
    assert evaluation.stored_predictions(save_tiny(replace=True), "cifar10", "test") is None


@pytest.mark.parametrize("file_name", ["images.npy", "mse.npy"])
@pytest.mark.parametrize("keep", [0, 200])
def test_damaged_predictions_are_made_anew(linear, samples, home, file_name, keep):
    computed = evaluation.store_predictions(linear, "cifar10", "test", samples)
    (folder,) = (home / "predictions").iterdir()
    (folder / file_name).write_bytes((folder / file_name).read_bytes()[:keep])
    assert evaluation.stored_predictions(linear.entry, "cifar10", "test") is None
    evaluation.store_predictions(linear, "cifar10", "test", samples)
    np.testing.assert_array_equal(evaluation.stored_predictions(linear.entry, "cifar10", "test").mse, computed.mse)


def test_a_disk_that_refuses_costs_nothing_else(linear, samples, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COLORIZER_HOME", str(tmp_path / "file"))
    computed = evaluation.store_predictions(linear, "cifar10", "test", samples)
    np.testing.assert_array_equal(computed.images, evaluation.predict_split(linear, samples).images)


def test_two_threads_compute_once(linear, samples, monkeypatch):
    calls, predict = [], evaluation.predict_split
    monkeypatch.setattr(evaluation, "predict_split", lambda *args: calls.append(1) or predict(*args))
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(evaluation.store_predictions, linear, "cifar10", "test", samples) for _ in range(2)]
        first, second = (task.result() for task in tasks)
    assert calls == [1]
    np.testing.assert_array_equal(first.images, second.images)


def test_shipped_predictions_on_the_samples_need_no_tensorflow(linear, samples):
    stored = evaluation.stored_predictions(library.find_model("linear"), "samples", "test")
    computed = evaluation.predict_split(linear, samples)
    assert np.abs(stored.images.astype(int) - computed.images).max() <= 1
    np.testing.assert_allclose(stored.mse, computed.mse, rtol=1e-3)
    code = (
        "import sys; from colorizer.models import evaluation, library; "
        "print(evaluation.stored_predictions(library.find_model('linear'), 'samples', 'test').images.shape, "
        "'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("(20, 32, 32, 3) False\n", "")


def test_a_model_without_predictions_has_none(save_tiny):
    entry = save_tiny()
    (entry.path / "predictions.npz").unlink()
    assert evaluation.stored_predictions(entry, "samples", "test") is None


@pytest.fixture
def vivid():
    """A model with chroma bins, saved by a short training."""
    small = get_preset("unet-vivid")
    model = small.model.replace(latent_dim=8, chroma_bins=16)
    train = small.train.replace(dataset="synthetic", train_images=32, epochs=1, batch_size=16, init_from="")
    return run_training(TrainingSpec("vivid", model, train, "unet-vivid"), lambda *_: None, bool, lambda *_: None)


@pytest.mark.slow
def test_a_vivid_model_keeps_its_predictions_at_every_level(vivid, samples):
    stored = evaluation.stored_predictions(vivid, "samples", "test")
    assert stored.images.shape == (6, 20, 32, 32, 3)
    colorizer, luminance = load("vivid"), to_luminance(samples.images)
    for vividness in (0, 0.4, 1):
        expected = colorizer.predict(luminance, vividness)
        np.testing.assert_allclose(stored.at(vividness).images, to_uint8(expected), atol=1)
        np.testing.assert_allclose(stored.at(vividness).mse, image_mse(expected, samples.images), rtol=1e-4)
    computed = evaluation.store_predictions(colorizer, "cifar10", "test", samples)
    again = evaluation.stored_predictions(vivid, "cifar10", "test")
    np.testing.assert_array_equal(again.at(1).images, computed.at(1).images)
    assert library.load_arrays(vivid, "predictions.npz")["photo_coffee"].shape[0] == 6


@pytest.mark.slow
def test_a_card_of_a_vivid_model_is_measured_at_the_default(vivid):
    measured = evaluation.measure(load("vivid"), datasets.load_dataset("samples"), "test", 0.4)
    assert measured["model"]["mse"] == pytest.approx(vivid.metric("samples"), rel=1e-4)


def test_strength_does_not_change_the_error_of_luminance(samples):
    dense, dataset = load("dense"), datasets.load_dataset("samples")
    luminance = to_luminance(samples.images)

    def luminance_error(strength):
        return np.square(to_luminance(dense.predict(luminance, strength=strength)) - luminance).mean()

    assert luminance_error(1.0) > 1e-5  # This model does not pass the luminance through.
    assert luminance_error(1.5) == pytest.approx(luminance_error(1.0), rel=1e-3)
    gray = dense.predict(luminance, strength=0)
    assert np.ptp(gray, axis=-1).max() < 1e-5
    measured = evaluation.measure(dense, dataset, "test", strength=0.0)
    assert measured["model"]["colorfulness"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("target", ["rgb", "chroma", "gray"])
def test_the_closed_forms_loss_is_that_of_the_network_it_is_the_start_of(target, samples, tiny):
    config = ModelConfig(latent_dim=16, target=target, encoder_widths=(), decoder_widths=(), linear_path=True)
    network = loop.train(config, TrainConfig(epochs=0), tiny)
    fewer, sixteen = evaluation.closed_form_losses(samples.images, target, (8, 16))
    assert sixteen == pytest.approx(network.history["val_loss"][-1], rel=1e-4)
    assert fewer > sixteen
