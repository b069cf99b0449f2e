"""A home of its own for what a benchmark writes, with what is prepared in the real one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from colorizer import config
from colorizer.data import datasets
from colorizer.models import evaluation, library
from colorizer.models.colorizer import load


@contextlib.contextmanager
def own_home(*prepared: str) -> Iterator[Path]:
    """A home that is deleted afterwards, with links to these folders of the real one."""
    before, real = os.environ.get("COLORIZER_HOME"), config.home()
    with tempfile.TemporaryDirectory(prefix="colorizer-benchmark-") as folder:
        for name in prepared:
            (Path(folder) / name).symlink_to(real / name, target_is_directory=True)
        os.environ["COLORIZER_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("COLORIZER_HOME")
            if before is not None:
                os.environ["COLORIZER_HOME"] = before


def prepare_gallery() -> tuple[str, ...]:
    """Prepare CIFAR-10 and every shipped model's predictions in the real home, as the app does when asked to.

    Returns:
        the folders to link; none where CIFAR-10 is not to be had.
    """
    if datasets.cifar10_status()["state"] not in ("prepared", "found"):
        return ()
    test = datasets.load_dataset("cifar10").test
    for entry in library.list_models():
        if entry.shipped and evaluation.stored_predictions(entry, "cifar10", "test") is None:
            evaluation.store_predictions(load(entry.path), "cifar10", "test", test)
    return "data", "predictions"
