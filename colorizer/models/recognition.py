"""Asks a classifier whether the colours of a model help it to recognise what an image shows."""

import functools
import zlib

import numpy as np

from colorizer.config import ASSETS
from colorizer.errors import ModelError
from colorizer.models import library
from colorizer.models.network import open_session

CLASSIFIER = ASSETS / "classifier" / "classifier.onnx"
_BATCH = 500  # So many images are classified at a time, to bound memory.


class Classifier:
    """The classifier of CIFAR-10 images that `training.classifier` trained, in ONNX Runtime.

    Args:
        graph: content of the ONNX file.

    Attributes:
        checksum: the CRC-32 of that content.
    """

    def __init__(self, graph: bytes) -> None:
        self._session, self.checksum = open_session(graph), zlib.crc32(graph)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Return the likeliest class of images, int64 (N,), as an index into `CLASS_NAMES`.

        Args:
            images: (N, 32, 32, 3), uint8, or float32 in [0, 1].
        """
        classes = np.empty(len(images), np.int64)
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            part = part.astype(np.float32) / 255 if part.dtype == np.uint8 else np.clip(part, 0, 1, dtype=np.float32)
            (logits,) = self._session.run(["logits"], {"image": part})
            classes[start : start + _BATCH] = logits.argmax(axis=-1)
        return classes

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of images (N, 32, 32, 3) whose likeliest class is their label, (N,)."""
        return float(np.mean(self.classify(images) == labels))


@functools.cache
def load_classifier() -> Classifier:
    """Open the classifier that ships with the package; a missing or damaged file raises `ModelError`."""
    try:
        return Classifier(CLASSIFIER.read_bytes())
    except Exception as error:  # ONNX Runtime raises many kinds.
        reason = library.describe_error(error)
        raise ModelError(f"{CLASSIFIER} cannot be opened ({reason}). Restore the assets folder.") from error
