"""What tests of trainings share: losses computed independently, and a process that dies in the middle of an epoch."""

import numpy as np

from colorizer.pixels.color import to_luminance
from colorizer.training.loop import Batch


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
