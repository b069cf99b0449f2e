"""What the pages share: cached models, data and predictions, and the warm-up in the background."""

import contextlib
import ctypes
import functools
import gc
import platform
import threading
import time
from typing import Literal

import numpy as np
import streamlit as st
from PIL import Image

from colorizer.config import DEFAULT_VIVIDNESS, VIVIDNESS_LEVELS, nearest_level
from colorizer.data import datasets
from colorizer.errors import DataError, ModelError
from colorizer.jobs.service import training_service
from colorizer.models import evaluation, library, linear
from colorizer.models.colorizer import Colorizer, load
from colorizer.pixels import guided, images
from colorizer.pixels.color import to_luminance
from colorizer.pixels.metrics import compute_metrics, gray_copy_metrics

_PAGE_PIXELS = 1200  # longest side of a photo on a page
MEASURED_PIXELS = 600  # the same, when it is measured, which takes long on larger ones
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 8 * 2**20  # less, and the pages of a photo's arrays are taken from the system again and again
_importing = threading.Lock()
_BY_CHECKSUM = {library.ModelEntry: lambda entry: (str(entry.path), entry.checksum)}

load_samples = st.cache_resource(show_spinner=False)(datasets.load_samples)


@functools.cache  # once a server
def warm_up() -> None:
    """After the first page is painted, import TensorFlow here and in a worker, in the background."""
    give_memory_back()

    def work() -> None:
        time.sleep(1)  # let the browser fetch the page's pictures first
        training_service().prepare()
        import_keras()

    threading.Thread(target=work, daemon=True).start()


def give_memory_back() -> None:
    """Have glibc give every freed block of 8 MB or more back to the system at once (mallopt(3), M_MMAP_THRESHOLD).

    By itself it raises that limit to the largest block ever freed, up to 32 MB, and then keeps up to twice as much in
    each of its arenas, of which threads share eight a core: most of it malloc_trim does not reach.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def import_keras() -> None:
    """Import Keras and TensorFlow, one thread at a time: two at once can each find half of them."""
    with _importing:
        _import_keras()


@functools.cache
def _import_keras() -> None:
    """Import Keras, and keep it from slowing down every page.

    After each script run Streamlit collects garbage and clears the session of a Keras that is imported: 0.4 s with
    TensorFlow's objects in the heap, and the state of a model that another visitor's thread is just loading.
    """
    import keras

    keras.backend.clear_session = lambda free_memory=True: None
    gc.collect()
    gc.freeze()


def usable_models() -> list[library.ModelEntry]:
    """Models that are not damaged, best first; with none, say what to do and end the page."""
    entries = [entry for entry in library.list_models() if not entry.damage]
    if not entries:
        st.info(
            "There is no model yet. Train one, which takes a few seconds, or restore the folder assets/models.",
            icon=":material/model_training:",
        )
        st.page_link("colorizer/app/pages/train.py", label="Train a model", icon=":material/model_training:")
        st.stop()
    return entries


def models_for_photos() -> list[library.ModelEntry]:
    """Usable models that colorize, those that learned from photos first."""
    entries = usable_models()
    entries = [entry for entry in entries if entry.model_config.target != "gray"] or entries
    return sorted(entries, key=lambda entry: not entry.train_config.photos)


def show_damaged_models() -> None:
    """Name each damaged model with the reason; the user's own can be deleted on the spot."""
    for entry in library.list_models():
        if not entry.damage:
            continue
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/warning: **{entry.name}** is damaged and left out: {entry.damage}.")
            if not entry.shipped:
                st.button("Delete it", key=f"delete-{entry.name}", on_click=library.delete_model, args=(entry.name,))


def pick_model(entries: list[library.ModelEntry], key: str) -> library.ModelEntry:
    """Show a selection of models, kept in the URL under `key`."""
    names = [entry.name for entry in entries]
    name = st.selectbox(
        "Model",
        names,
        key=key,
        bind="query-params",
        help="Best first, by error; for photos, first what learned from photos.",
    )
    return entries[names.index(name) if name in names else 0]


def pick_vividness(entry: library.ModelEntry, width: int | Literal["stretch"] = 240) -> float:
    """Show the slider of a model with chroma bins, kept in the URL; of any other the default."""
    if not entry.vivid:
        return DEFAULT_VIVIDNESS
    low, *_, high = VIVIDNESS_LEVELS
    return st.slider(
        "Vividness",
        low,
        high,
        DEFAULT_VIVIDNESS,
        VIVIDNESS_LEVELS[1],
        "%.1f",
        key="vividness",
        bind="query-params",
        help="0 is the safe mean of all colours that it thinks possible, 1 the likeliest one, at its boldest.",
        width=width,
    )


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def load_snapshots(entry: library.ModelEntry) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (S,) and reconstructions, uint8 (S, 8, 32, 32, 3), kept while a model learned; empty if unreadable."""
    try:
        arrays = library.load_arrays(entry, "snapshots.npz")
        return arrays["epochs"], arrays["images"]
    except (ModelError, KeyError):
        return np.empty(0), np.empty((0, 8, 32, 32, 3), np.uint8)


@st.cache_resource(
    max_entries=8, show_spinner="Loading the model; the first time, TensorFlow too …", hash_funcs=_BY_CHECKSUM
)
def load_colorizer(entry: library.ModelEntry) -> Colorizer:
    """Load a model once for all visitors; a new file under the same name is loaded anew."""
    import_keras()
    return load(entry.path)


def open_test_images() -> tuple[str, datasets.Split]:
    """Return `cifar10` and its test images where they are, else `samples`; a broken source is named on the page."""
    state = datasets.cifar10_status()["state"]
    if state != "missing":
        try:
            preparing = st.spinner("Preparing CIFAR-10, once, about 15 seconds …")
            with preparing if state == "found" else contextlib.nullcontext():
                return "cifar10", datasets.load_dataset("cifar10").test
        except DataError as error:
            st.warning(str(error), icon=":material/warning:")
    return "samples", load_samples()


def predictions(
    entry: library.ModelEntry, dataset: str, split: datasets.Split, vividness: float
) -> evaluation.Predictions:
    """What a model makes of the test images: from disk, or computed once for all levels of vividness."""
    stored = evaluation.stored_predictions(entry, dataset, "test")
    if stored is not None:
        return stored.at(vividness)
    with st.spinner(f"Colorizing {len(split.images):,} images with {entry.name}, once …"):
        return evaluation.store_predictions(load_colorizer(entry), dataset, "test", split).at(vividness)


@st.cache_resource(show_spinner="Solving the closed form, once …")
def linear_autoencoder() -> linear.LinearAutoencoder:
    """The closed-form autoencoder from luminance to RGB."""
    statistics = datasets.load_statistics()
    return linear.solve(statistics.mean, statistics.factors, "rgb")


Settings = tuple[float, float, int | None]
"""Vividness, strength and working size; a model without one of them ignores it."""
DEFAULT_SETTINGS: Settings = (DEFAULT_VIVIDNESS, 1.0, None)


# A picture is the content of a file, or the name of a sample photo; hashed whole, unlike a large array.
@st.cache_resource(max_entries=2, show_spinner=False)
def open_picture(picture: bytes | str) -> np.ndarray:
    """Decode a picture once, uint8 (H, W, 3 or 4); the array is shared and not to be changed."""
    return images.load_photo(picture) if isinstance(picture, str) else images.decode_image(picture)


@st.cache_data(max_entries=8, show_spinner=False)
def shrink_picture(picture: bytes | str, longest: int = _PAGE_PIXELS) -> np.ndarray:
    """Scale a picture down to what a page can show, uint8 (H, W, 3); what is transparent becomes white."""
    small = Image.fromarray(images.lay_on_white(open_picture(picture)))
    small.thumbnail((longest, longest))
    return np.asarray(small)


def has_working_size(entry: library.ModelEntry) -> bool:
    """Whether a model is convolutional, so that `size` matters; known without loading it."""
    return entry.model_config.architecture == "unet"


def _chroma(entry: library.ModelEntry, picture: bytes | str, settings: Settings) -> np.ndarray:
    """Chroma at the working size; of a sample photo as it was saved with the model, if it was: then no TensorFlow."""
    vividness, strength, size = settings
    size = size if has_working_size(entry) else None
    chroma = None
    if isinstance(picture, str) and size is None:
        with contextlib.suppress(ModelError, KeyError):
            chroma = library.load_arrays(entry, "predictions.npz")[f"photo_{picture}"]
    if chroma is None:
        chroma = _predict_chroma(entry, picture, size)
    return strength * (chroma[nearest_level(vividness)] if chroma.ndim == 4 else chroma)


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def _predict_chroma(entry: library.ModelEntry, picture: bytes | str, size: int | None) -> np.ndarray:
    """Chroma, of a vivid model at every level, so that its slider does not run the network."""
    colorizer = load_colorizer(entry)
    return colorizer.predict_chroma(to_luminance(open_picture(picture)[..., :3]), colorizer.levels, size)


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def colorize(
    entry: library.ModelEntry, picture: bytes | str, settings: Settings = DEFAULT_SETTINGS, longest: int = _PAGE_PIXELS
) -> np.ndarray:
    """Colorize a picture as `shrink_picture` shows it."""
    return guided.apply_chroma(shrink_picture(picture, longest), _chroma(entry, picture, settings))


def colorize_fully(entry: library.ModelEntry, picture: bytes | str, settings: Settings) -> bytes:
    """Colorize a picture at its own resolution, its alpha kept, as PNG."""
    return images.encode_png(guided.apply_chroma(open_picture(picture), _chroma(entry, picture, settings)))


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def reconstruct(entry: library.ModelEntry, picture: bytes | str, vividness: float) -> np.ndarray:
    """What the network itself makes of a picture, uint8 (32, 32, 3)."""
    colorizer = load_colorizer(entry)
    return colorizer.reconstruct(open_picture(picture), vividness if colorizer.vivid else None)


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def measure(entry: library.ModelEntry, picture: bytes | str, settings: Settings) -> dict[str, float]:
    """Metrics of what a model makes of a picture, against its own colours."""
    result = colorize(entry, picture, settings, MEASURED_PIXELS)
    return compute_metrics(result[None], shrink_picture(picture, MEASURED_PIXELS)[None])


@st.cache_data(max_entries=32, show_spinner=False)
def measure_gray_copy(picture: bytes | str) -> dict[str, float]:
    """The gray copy's metrics beside those of `measure`."""
    return gray_copy_metrics(shrink_picture(picture, MEASURED_PIXELS)[None])
