"""The shipped classifier names what CIFAR-10 images show; evaluations tell how many it names in whose colours."""

import numpy as np
import pytest

from colorizer.data import datasets
from colorizer.errors import ModelError
from colorizer.models import evaluation, recognition
from colorizer.models.colorizer import load
from colorizer.pixels.color import gray_copy


def test_the_classifier_is_small_and_names_the_built_in_samples():
    assert recognition.CLASSIFIER.stat().st_size < 3_000_000
    samples = datasets.load_samples()
    classifier = recognition.load_classifier()
    classes = classifier.classify(samples.images)
    assert np.mean(classes == samples.labels) >= 0.8
    np.testing.assert_array_equal(classifier.classify(samples.images.astype(np.float32) / 255), classes)
    many = np.repeat(samples.images, 40, axis=0)  # They fill more than one batch.
    np.testing.assert_array_equal(classifier.classify(many), np.repeat(classes, 40))


def test_an_evaluation_tells_how_many_images_are_recognised():
    samples, model = datasets.load_dataset("samples"), load("linear")
    measured = evaluation.measure(model, samples, "test", recognise=True)
    assert "recognition" not in evaluation.measure(model, samples, "test")
    classifier, split = recognition.load_classifier(), samples.test
    assert measured["recognition"]["original"] == np.mean(classifier.classify(split.images) == split.labels)
    gray = np.mean(classifier.classify(gray_copy(split.images)) == split.labels)
    assert measured["recognition"]["gray_copy"] == gray
    gray = evaluation.measure(model, samples, "test", strength=0.0)  # At strength 0, all predictions are gray.
    difference = measured["delta_colorfulness"] - gray["delta_colorfulness"]
    assert difference == pytest.approx(measured["model"]["colorfulness"], abs=0.01)


def test_images_of_other_classes_are_not_recognised():
    samples = datasets.load_samples()
    unlabelled = datasets.Dataset("mine", samples, samples, samples)
    assert "recognition" not in evaluation.measure(load("linear"), unlabelled, "test", recognise=True)


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 100])
def test_a_missing_or_damaged_classifier_is_one_sentence(monkeypatch, tmp_path, content):
    path = tmp_path / "classifier.onnx"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(recognition, "CLASSIFIER", path)
    recognition.load_classifier.cache_clear()
    with pytest.raises(ModelError, match=r"classifier\.onnx cannot be opened \(.*\)\. Restore the assets folder"):
        recognition.load_classifier()


def test_what_is_recognised_without_a_model_is_kept_on_disk(home, monkeypatch):
    samples = datasets.load_samples()
    small = datasets.Dataset("cifar10", samples, samples, samples, datasets.CLASS_NAMES)
    first = evaluation.measure(load("linear"), small, "test", recognise=True)
    (path,) = (home / "predictions").glob("recognised-*.json")
    path.write_text('{"original": 0.25, "gray_copy": 0.5}')
    again = evaluation.measure(load("linear"), small, "test", recognise=True)["recognition"]
    assert again == {"original": 0.25, "gray_copy": 0.5, "model": first["recognition"]["model"]}
    path.write_text("{}")
    assert evaluation.measure(load("linear"), small, "test", recognise=True) == first
