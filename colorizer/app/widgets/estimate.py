"""Estimates how long a training will take, from the operations of its network and the speed of this machine."""

import os
import time

import numpy as np
import streamlit as st

from colorizer.config import ModelConfig, TrainConfig
from colorizer.jobs.runs import RunView
from colorizer.training import shapes

_PASSES = 3  # A step passes each layer forward once and backward twice: to its weights, and to the layer below.
# A training reaches these shares of the speed of a small matrix product, as measured on two to four cores.
_SHARE_OF_PRODUCT = {"dense": 0.35, "conv": 0.7, "unet": 0.8}
_FIXED_COST = 2e6  # Augmenting an image takes as long as this many operations.


def _work(model: ModelConfig) -> float:
    return _PASSES * shapes.count(model)[1] + _FIXED_COST


def seconds(model: ModelConfig, train: TrainConfig, earlier: list[RunView]) -> tuple[float, str]:
    """Estimate how long a training takes, and say what the estimate is based on.

    Args:
        model: architecture of the model.
        train: settings of the training; `train_images` must be the number of images that it uses.
        earlier: runs on this machine; the first of the same architecture with an epoch gives the speed.

    Returns:
        the time in seconds, and words for what the estimate is based on.
    """
    work = _work(model) * train.train_images * train.epochs
    for run in earlier:
        if run.spec.model.architecture == model.architecture and run.epochs and run.steps and run.seconds > 1:
            images = run.epochs[-1]["epoch"] * run.steps / max(1, run.spec.train.epochs) * run.spec.train.batch_size
            return work * run.seconds / (_work(run.spec.model) * images), f"going by the run {run.spec.name}"
    speed = _product_speed() * _SHARE_OF_PRODUCT[model.architecture]
    return work / speed, "going by a matrix product timed here"


@st.cache_resource(show_spinner=False)
def _product_speed() -> float:
    """Return how many operations a second all cores do in matrix products; one core is measured, once a server."""
    factor = np.ones((64, 64), np.float32)  # So small a product stays on one core and does not wait for a busy one.
    best = float("inf")
    for _ in range(300):
        begin = time.perf_counter()
        factor @ factor
        best = min(best, time.perf_counter() - begin)
    return 2 * 64**3 / best * (os.cpu_count() or 1)
