"""What a training will cost: parameters and operations by arithmetic, seconds by a measurement on this machine."""

import os
import time
from collections.abc import Iterator

import numpy as np
import streamlit as st

from colorizer.config import CONV_WIDTHS, ModelConfig, TrainConfig
from colorizer.jobs.runs import RunView

_PASSES = 3  # forward, and backward to the weights and to the layer below
_SHARE_OF_PRODUCT = {"dense": 0.35, "conv": 0.7, "unet": 0.8}  # beside a small product; measured on two to four cores
_FIXED_COST = 2e6  # operations that an image costs outside the network: gathered, mirrored, shifted

Layer = tuple[int, int, int, int]  # inputs, outputs, biases, places at which its kernel is applied


def count(config: ModelConfig) -> tuple[int, int]:
    """Return a model's parameters, and the operations of one 32 x 32 image through it, without building it."""
    layers = list(_dense(config) if config.architecture == "dense" else _convolutions(config))
    if config.target == "chroma":
        layers.append((3, 3, 0, 1024))  # luminance and chroma to RGB
    parameters = sum(inputs * outputs + biases for inputs, outputs, biases, _ in layers)
    return parameters, sum(2 * inputs * outputs * places for inputs, outputs, _, places in layers)


def _dense(config: ModelConfig) -> Iterator[Layer]:
    first = config.input_components or 1024
    if config.input_components:
        yield 1024, first, first, 1
    pixels = 1024 * {"rgb": 3, "chroma": 2, "gray": 1}[config.target]
    width = config.output_components or pixels
    paths = ((1024, first, config.encoder_widths, config.latent_dim), (config.latent_dim,) * 2)
    for start, hidden, widths, end in (paths[0], (*paths[1], config.decoder_widths, width)):
        if config.linear_path:
            yield start, end, end, 1
        if widths or not config.linear_path:
            for inputs, outputs in zip((hidden, *widths), (*widths, end), strict=True):
                yield inputs, outputs, outputs, 1
    if config.output_components:
        yield width, pixels, pixels, 1


def _convolutions(config: ModelConfig) -> Iterator[Layer]:
    unet, dim = config.architecture == "unet", config.latent_dim
    top, middle, low = (dim // 4, dim // 2, dim) if unet else CONV_WIDTHS

    def convolution(size: int, inputs: int, outputs: int, places: int) -> Layer:
        return size * size * inputs, outputs, outputs, places

    def blocks(number: int, width: int, places: int) -> Iterator[Layer]:
        yield from [convolution(3, width, width, places)] * (2 * number)

    yield convolution(4, 1, top, 256)
    yield from blocks(1, top, 256)
    yield convolution(2, top, middle, 64)
    yield from blocks(1, middle, 64)
    yield convolution(2, middle, low, 16)
    yield from blocks(2, low, 16)
    if not unet:
        yield convolution(1, low, dim // 16, 16)
        yield convolution(1, dim // 16, low, 16)
        yield from blocks(1, low, 16)
    yield convolution(1, low, middle, 16)
    yield from blocks(1, middle, 64)
    yield convolution(1, middle, top, 64)
    yield from blocks(1, top, 256)
    if not unet:
        yield 16 * top, 3, 3, 256
    elif config.chroma_bins:
        yield convolution(1, top, config.chroma_bins, 256)
        yield config.chroma_bins, 2, 0, 256
    else:
        yield convolution(3, top, 2, 256)


def _work(model: ModelConfig) -> float:
    return _PASSES * count(model)[1] + _FIXED_COST


def seconds(model: ModelConfig, train: TrainConfig, earlier: list[RunView]) -> tuple[float, str]:
    """Estimate the time of a training, and say from what.

    Args:
        model, train: of the training; its `train_images` counts.
        earlier: runs on this machine; the first of the same architecture with an epoch gives the speed.
    """
    work = _work(model) * train.train_images * train.epochs
    for run in earlier:
        if run.spec.model.architecture == model.architecture and run.epochs and run.seconds > 1:
            images = run.epochs[-1]["epoch"] * run.steps / max(1, run.spec.train.epochs) * run.spec.train.batch_size
            return work * run.seconds / (_work(run.spec.model) * images), f"going by the run {run.spec.name}"
    speed = _product_speed() * _SHARE_OF_PRODUCT[model.architecture]
    return work / speed, "going by a matrix product timed here"


@st.cache_resource(show_spinner=False)
def _product_speed() -> float:
    """Operations a second of matrix products on all cores: some milliseconds on one of them, once a server."""
    factor = np.ones((64, 64), np.float32)  # so small that it stays on one core, and is not held up by a busy one
    best = float("inf")
    for _ in range(300):
        begin = time.perf_counter()
        factor @ factor
        best = min(best, time.perf_counter() - begin)
    return 2 * 64**3 / best * (os.cpu_count() or 1)
