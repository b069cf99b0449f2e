"""What the pages share: cached models, data and predictions, and the warm-up in the background."""

import contextlib
import functools
import gc
import threading
import time

import numpy as np
import streamlit as st

from colorizer import data, evaluation, images, inference, library, linear
from colorizer.color import gray_copy, to_luminance
from colorizer.config import DEFAULT_VIVIDNESS, VIVIDNESS_LEVELS, nearest_level
from colorizer.errors import DataError, ModelError
from colorizer.metrics import image_mse
from colorizer.service import training_service

_BY_CHECKSUM = {library.ModelEntry: lambda entry: (str(entry.path), entry.checksum)}

load_samples = st.cache_resource(show_spinner=False)(data.load_samples)
sample_photo = st.cache_data(max_entries=16, show_spinner=False)(images.load_photo)
decode = st.cache_data(max_entries=3, show_spinner="Reading the picture …")(images.decode_image)


@functools.cache  # once a server
def warm_up() -> None:
    """After the first page is painted, import TensorFlow here and in a worker, in the background."""

    def work() -> None:
        time.sleep(1)  # let the browser fetch the page's pictures first
        training_service().prepare()
        import_keras()

    threading.Thread(target=work, daemon=True).start()


@functools.cache
def import_keras() -> None:
    """Import Keras and TensorFlow, and keep them from slowing down every page.

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
        st.page_link("colorizer/ui/train.py", label="Train a model", icon=":material/model_training:")
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


def pick_vividness(entry: library.ModelEntry) -> float:
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
        key="vividness",
        bind="query-params",
        help="0 is the safe mean of all colours that it thinks possible, 1 the likeliest one, at its boldest.",
        width=240,
    )


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def load_snapshots(entry: library.ModelEntry) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (S,) and reconstructions, uint8 (S, 8, 32, 32, 3), kept while a model learned; empty if unreadable."""
    try:
        arrays = library.load_arrays(entry, "snapshots.npz")
        return arrays["epochs"], arrays["images"]
    except (ModelError, KeyError):
        return np.empty(0), np.empty((0, 8, 32, 32, 3), np.uint8)


@st.cache_resource(max_entries=8, show_spinner="Loading the model …", hash_funcs=_BY_CHECKSUM)
def load_colorizer(entry: library.ModelEntry) -> inference.Colorizer:
    """Load a model once for all visitors; a new file under the same name is loaded anew."""
    import_keras()
    return inference.load(entry.path)


def open_test_images() -> tuple[str, data.Split]:
    """Return `cifar10` and its test images where they are, else `samples`; a broken source is named on the page."""
    state = data.cifar10_status()["state"]
    if state != "missing":
        try:
            preparing = st.spinner("Preparing CIFAR-10, once, about 15 seconds …")
            with preparing if state == "found" else contextlib.nullcontext():
                return "cifar10", data.load_dataset("cifar10").test
        except DataError as error:
            st.warning(str(error), icon=":material/warning:")
    return "samples", load_samples()


def predictions(entry: library.ModelEntry, dataset: str, split: data.Split, vividness: float) -> evaluation.Predictions:
    """What a model makes of the test images: from disk, or computed once for all levels of vividness."""
    stored = evaluation.stored_predictions(entry, dataset, "test")
    if stored is not None:
        return stored.at(vividness)
    with st.spinner(f"Colorizing {len(split.images):,} images with {entry.name}, once …"):
        return evaluation.store_predictions(load_colorizer(entry), dataset, "test", split).at(vividness)


@st.cache_resource(show_spinner=False)
def gray_copy_mse(dataset: str) -> np.ndarray:
    """Error of the gray copy of each test image, float64 (N,)."""
    images = load_samples().images if dataset == "samples" else data.load_dataset(dataset).test.images
    parts = [images[start : start + 1000] for start in range(0, len(images), 1000)]
    return np.concatenate([image_mse(gray_copy(part), part) for part in parts])


@st.cache_resource(show_spinner="Solving the closed form, once …")
def linear_autoencoder() -> linear.LinearAutoencoder:
    """The closed-form autoencoder from luminance to RGB."""
    statistics = data.load_statistics()
    return linear.solve(statistics.mean, statistics.factors, "rgb")


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def colorize_sample_photo(
    entry: library.ModelEntry, name: str, vividness: float = DEFAULT_VIVIDNESS, strength: float = 1.0
) -> np.ndarray:
    """Colorize one of the sample photos, from the chroma saved with the model if it is there: then no TensorFlow."""
    photo = sample_photo(name)
    try:
        chroma = library.load_arrays(entry, "predictions.npz")[f"photo_{name}"]
    except (ModelError, KeyError):
        chroma = _predict_chroma(entry, photo)
    return inference.apply_chroma(photo, strength * _at_level(chroma, vividness))


@st.cache_data(
    max_entries=8, show_spinner="Colorizing; the first time, TensorFlow has to be loaded …", hash_funcs=_BY_CHECKSUM
)
def _predict_chroma(entry: library.ModelEntry, image: np.ndarray) -> np.ndarray:
    """Chroma at the working size, of a vivid model at every level, so that its slider does not run the network."""
    colorizer = load_colorizer(entry)
    return colorizer.predict_chroma(to_luminance(image), colorizer.levels)


def _at_level(chroma: np.ndarray, vividness: float) -> np.ndarray:
    return chroma[nearest_level(vividness)] if chroma.ndim == 4 else chroma


@st.cache_data(max_entries=3, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def colorize_upload(
    entry: library.ModelEntry, content: bytes, vividness: float = DEFAULT_VIVIDNESS, strength: float = 1.0
) -> np.ndarray:
    """Colorize an uploaded file at its own resolution, uint8 (H, W, 3)."""
    image = decode(content)
    return inference.apply_chroma(image, strength * _at_level(_predict_chroma(entry, image), vividness))
