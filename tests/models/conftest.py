"""Models that the tests of this folder share, and random images."""

import keras
import numpy as np
import pytest

from colorizer.config import ModelConfig
from colorizer.data import datasets
from colorizer.models import library
from colorizer.models.colorizer import Colorizer, load
from colorizer.models.network import Network
from colorizer.pixels.color import chroma_bins
from colorizer.training.export import export_network
from colorizer.training.networks import build_model

GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def linear():
    return load("linear")


@pytest.fixture(scope="module")
def vivid_model():
    """A small untrained model with chroma bins whose logits are not all alike."""
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(architecture="unet", latent_dim=16, target="chroma", chroma_bins=32))
    centres, _ = chroma_bins(datasets.load_statistics().shares, 32)
    model.get_layer("bin_centres").set_weights([centres[None, None]])
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 100, bias])
    return model


@pytest.fixture(scope="module")
def vivid(vivid_model):
    return make_colorizer(vivid_model)


def make_colorizer(model):
    """Return a Keras model as a colorizer that is not saved."""
    return Colorizer(Network(export_network(model)), None)


def random_image(*shape):
    return GENERATOR.integers(0, 256, shape, np.uint8)


def own_models():
    """Return the entries of the models that are not shipped, by their names."""
    return {entry.name: entry for entry in library.list_models() if not entry.shipped}
