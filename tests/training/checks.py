"""What tests of trainings share: losses computed independently, small photos for a small backbone, and a process that
dies in the middle of an epoch.
"""

import hashlib

import numpy as np
from PIL import Image

from colorizer.config import ModelConfig
from colorizer.pixels.color import to_luminance
from colorizer.training.loop import Batch

SMALL_BACKBONE = ModelConfig(
    architecture="backbone", latent_dim=16, target="chroma", activation="silu", chroma_bins=16, hints=True
)


def is_held_out(name):
    """Return whether a photo of this name is for validation."""
    return hashlib.sha256(name.encode()).digest()[0] * 40 < 256


def draw_photos(folder):
    """Write eight smooth photos for training and two for validation, each of 128 x 128 pixels, into a folder."""
    generator, names = np.random.default_rng(0), [f"{number}.png" for number in range(1000)]
    for name in [n for n in names if not is_held_out(n)][:8] + [n for n in names if is_held_out(n)][:2]:
        small = Image.fromarray(generator.integers(0, 256, (3, 3, 3), np.uint8))
        small.resize((128, 128), Image.Resampling.BICUBIC).save(folder / name)


def losses(history):
    """Return the parts of a history that a seed determines."""
    return {key: history[key] for key in ("batch_loss", "loss", "val_loss")}


def mse(model, images, target="rgb"):
    """Return the mean squared error of a model's output before it is clipped."""
    luminance = to_luminance(images)
    truth = luminance if target == "gray" else images / 255
    return np.square(np.asarray(model(luminance)) - truth).mean()


class KilledError(Exception):
    """Stands for a process that ends in the middle of an epoch."""


def kill_after(epochs, on_event=lambda event: None):
    """Return a callback that passes events on, and kills the training at its first batch after that many epochs."""

    def kill(event):
        on_event(event)
        if isinstance(event, Batch) and event.epochs > epochs:
            raise KilledError

    return kill
