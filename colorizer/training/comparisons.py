"""Trains the short runs that the chapter on learning lays side by side.

`python -m colorizer.training.comparisons FOLDER` trains the network of the notebook on CIFAR-10 as it is, and again
with one setting changed, each time from the same seed. It writes an .npz file for each run, and `runs.json`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from colorizer.config import apply_settings
from colorizer.data.datasets import load_dataset
from colorizer.errors import ColorizerError
from colorizer.presets import get_preset
from colorizer.storage import write_json
from colorizer.training.loop import train

_RUNS = {
    "usual": ("the notebook's own settings", {}),
    "low-rate": ("a learning rate of 0.00003 instead of 0.001", {"learning_rate": 3e-5}),
    "high-rate": ("a learning rate of 0.01 instead of 0.001", {"learning_rate": 1e-2}),
    "narrow": ("a bottleneck of 8 numbers instead of 32", {"latent_dim": 8}),
    "tanh": ("the activation tanh instead of relu", {"activation": "tanh"}),
}


def main() -> None:
    """Train all runs and write them into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m colorizer.training.comparisons")
    parser.add_argument("folder", type=Path, help="Write the trainings into this folder.")
    folder, preset = parser.parse_args().folder, get_preset("notebook")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        dataset, index = load_dataset("cifar10"), {}
        for name, (words, changes) in _RUNS.items():
            result = train(*apply_settings(preset.model, preset.train, changes), dataset)
            np.savez_compressed(
                folder / f"{name}.npz",
                epochs=np.array([snapshot.epochs for snapshot in result.snapshots]),
                images=np.stack([snapshot.images for snapshot in result.snapshots]),
                batch_epochs=np.array(result.history["batch_epochs"]),
                batch_loss=np.array(result.history["batch_loss"]),
            )
            index[name] = {"words": words, "settings": changes, "val_loss": min(result.history["val_loss"])}
            print(f"{name}: validation loss {index[name]['val_loss']:.5f}")
        write_json(folder / "runs.json", index)
    except (ColorizerError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
