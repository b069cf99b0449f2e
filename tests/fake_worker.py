"""A worker that learns nothing, quickly: the real process and its protocol around a training that only pretends.

The name of a run, up to its first hyphen, says how it behaves:
`quick` does 40 steps in 4 epochs, and `warned` does so with a warning; `long` goes on for hours; `deaf` never looks
whether it should stop; `immortal` ignores the signal to terminate as well; `saving` waits in the middle of saving until
a file `go` is in the home; `full` finds the disk full, `unmeasured` only after the model is saved; `diverging` has an
infinite validation loss; `broken` ends without a word; `memory` runs out of it.
"""

import errno
import json
import math
import os
import signal
import time
import zipfile
from dataclasses import dataclass, field

import numpy as np

from colorizer import config
from colorizer.jobs import worker
from colorizer.models import library

STEPS_PER_EPOCH = 10


@dataclass
class Batch:
    step: int
    steps: int
    epochs: float
    loss: float


@dataclass
class Epoch:
    epoch: float
    loss: float
    val_loss: float
    seconds: float


@dataclass
class Snapshot:
    epochs: float
    images: np.ndarray
    logits: np.ndarray = field(default_factory=lambda: np.empty(0, np.float16))


class Model:
    """Saves like a Keras model, and takes its time if it is asked to."""

    def __init__(self, slow):
        self._slow = slow

    def save(self, path):
        path.write_bytes(b"half of a model")
        while self._slow and not (config.home() / "go").exists():
            time.sleep(0.01)
        with zipfile.ZipFile(path, "w") as archive:  # A `.keras` file is a zip.
            archive.writestr("config.json", "{}")


def find_no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def train(
    spec,
    on_event,
    should_stop,
    on_stage,
    checkpoint,
    learning_rate_factor,
    picture=None,
    own_pictures=None,
    run_id="",
    on_warning=print,
):
    behaviour = spec.name.split("-")[0]
    if behaviour == "immortal":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    steps = STEPS_PER_EPOCH * (4 if behaviour in ("quick", "saving", "unmeasured", "warned") else 10**6)
    on_stage("training")
    logits = np.zeros((16, 16, spec.model.chroma_bins), np.float16)
    logits[..., :1] = 9.0  # It is sure of the first bin, which is gray.
    done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    if not done:
        on_event(Snapshot(0.0, np.zeros((8 + (picture is not None), 32, 32, 3), np.uint8), logits))
    stopped = False
    for step in range(done + 1, steps + 1):
        time.sleep(0.005)
        epochs = step / STEPS_PER_EPOCH
        on_event(Batch(step, steps, epochs, learning_rate_factor() / step))
        if behaviour == "broken":
            os._exit(3)
        if behaviour == "warned" and step == 1:
            on_warning("The first checkpoint could not be written.")
        if behaviour == "memory":
            raise MemoryError
        if behaviour == "diverging":
            on_event(Epoch(1, 1.0, math.inf, 0.05))
        if behaviour == "full":
            find_no_room()
        if behaviour not in ("deaf", "immortal") and should_stop():
            stopped = True
            break
        if step % STEPS_PER_EPOCH == 0:
            on_event(Epoch(int(epochs), 1 / step, 2 / step, 0.05))
            on_event(Snapshot(epochs, np.full((8 + (picture is not None), 32, 32, 3), step % 256, np.uint8), logits))
            checkpoint.write_text(str(step))
    on_stage("saving")
    card = json.loads((library.SHIPPED / "linear" / "card.json").read_text())
    card |= {"run": run_id, "stopped": stopped, "model": spec.model.to_dict(), "train": spec.train.to_dict()}
    entry = library.save_model(spec.name, Model(behaviour == "saving"), b"a graph", card, {"epoch": [done]}, {})
    on_stage("measuring")
    if behaviour == "unmeasured":
        find_no_room()
    return entry


if __name__ == "__main__":
    worker.main(train)
