"""The classifier learns, and is exported to ONNX."""

import keras
import numpy as np
import pytest

from colorizer.data.datasets import Split
from colorizer.models.recognition import Classifier
from colorizer.training.classifier import train_classifier


@pytest.fixture
def colored():
    """Return 256 images whose class is their colour."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 256).astype(np.uint8)
    images = generator.integers(0, 40, (256, 32, 32, 3))
    images[np.arange(256), :, :, labels] += 210
    return Split(images.astype(np.uint8), labels)


@pytest.mark.slow
def test_a_classifier_learns_and_is_exported(colored, tmp_path):
    graph = train_classifier(colored, colored, tmp_path, epochs=6, batch_size=8)
    classifier = Classifier(graph)
    assert classifier.accuracy(colored.images, colored.labels) > 0.8
    assert len(graph) < 3_000_000
    assert keras.config.dtype_policy().name == "float32"
