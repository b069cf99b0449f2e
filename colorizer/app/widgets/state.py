"""Holds what the pages share: cached models, data and predictions."""

import contextlib
import ctypes
import functools
import hashlib
import platform
import threading
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import streamlit as st

from colorizer.app.widgets.text import describe, escape
from colorizer.config import MAX_PIXELS, MAX_WORKING_SIZE
from colorizer.data import datasets
from colorizer.errors import DataError, ModelError
from colorizer.models import evaluation, library, linear
from colorizer.models.belief import Belief
from colorizer.models.colorizer import Colorizer
from colorizer.models.credit import credit
from colorizer.models.network import ensure_exported
from colorizer.models.reference import DEFAULT_STRENGTH, PALETTES, REFERENCE_SIZE
from colorizer.models.scale import DEFAULT_VIVIDNESS, VIVIDNESS_LEVELS
from colorizer.pixels import images
from colorizer.pixels.budget import PictureCache, pixels_in_work
from colorizer.pixels.color import to_luminance
from colorizer.pixels.images import resize_planes
from colorizer.pixels.metrics import compute_metrics, gray_copy_metrics

_PAGE_PIXELS = 1200  # The longer side of a photo on a page has this many pixels.
MEASURED_PIXELS = 600  # The longer side is this when a result is measured, which takes long on larger pictures.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # These numbers are defined in malloc.h.
_KEPT_BYTES = 8 * 2**20  # With a lower threshold, the memory for a photo's arrays would be requested again each time.
_BY_CHECKSUM = {library.ModelEntry: lambda entry: (str(entry.path), entry.checksum)}

load_samples = st.cache_resource(show_spinner=False)(datasets.load_samples)


@functools.cache  # This runs once in each server.
def give_memory_back() -> None:
    """Tell the C library to give every freed block of 8 MB or more back to the system at once.

    By itself glibc raises its limit for that (M_MMAP_THRESHOLD, see mallopt(3)) to the largest block ever freed, up to
    32 MB. It then keeps up to twice as much in each arena, and threads use up to eight arenas a core.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def usable_models() -> list[library.ModelEntry]:
    """Return the models that are not damaged, best first; if there is none, say what to do and end the page."""
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
    """Return the usable models that colorize: first those with a backbone, then others that learned from photos."""
    entries = usable_models()
    in_colour = [entry for entry in entries if entry.model_config.target != "gray"]

    def rank(entry: library.ModelEntry) -> tuple[bool, bool]:
        return entry.model_config.architecture != "backbone", not entry.train_config.photos

    return sorted(in_colour or entries, key=rank)


def show_damaged_models() -> None:
    """Name each damaged model with the reason; the user's own can be deleted on the spot."""
    for entry in library.list_models():
        if not entry.damage:
            continue
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            name, reason = escape(entry.name), describe(entry.damage).rstrip(".")
            st.markdown(f":material/warning: **{name}** is damaged and left out: {reason}.")
            if not entry.shipped and library.may_delete(entry.path):
                st.button("Delete it", key=f"delete-{name}", on_click=_delete, args=(entry.name,))


def _delete(name: str) -> None:
    try:
        library.delete_model(name)
    except ModelError as error:
        st.toast(describe(error), icon=":material/error:")


def pick_model(entries: list[library.ModelEntry], key: str) -> library.ModelEntry:
    """Show a selection of models, which the URL keeps under `key`, and return the chosen one."""
    names = [entry.name for entry in entries]
    name = st.selectbox(
        "Model",
        names,
        key=key,
        bind="query-params",
        help="The model with the least error comes first; for photos, those that learned from photos do.",
    )
    entry = entries[names.index(name) if name in names else 0]
    try:
        return prepare(entry)
    except ModelError as error:
        st.error(describe(error), icon=":material/error:")
        st.stop()


def prepare(entry: library.ModelEntry) -> library.ModelEntry:
    """Return a model that can colorize; one that an earlier version saved is exported first, and the page says so."""
    if entry.exported:
        return entry
    with st.spinner(f"{entry.name} was saved by an earlier version. It is prepared once, about 15 seconds …"):
        return ensure_exported(entry)


def pick_vividness(entry: library.ModelEntry, width: int | Literal["stretch"] = 240) -> float:
    """Show the slider of a model with chroma bins, which the URL keeps; for any other model return the default."""
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
        help="0 gives the safe mean of all colours that the model thinks possible, and 1 gives the boldest colours.",
        width=width,
    )


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def load_snapshots(entry: library.ModelEntry) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs (S,) and reconstructions, uint8 (S, 8, 32, 32, 3), kept while a model learned; empty if damaged."""
    with contextlib.suppress(ModelError, KeyError):
        arrays = library.load_arrays(entry, "snapshots.npz")
        epochs, pictures = arrays["epochs"], arrays["images"]
        shape = (*epochs.shape, 8, 32, 32, 3)
        if pictures.shape == shape and pictures.dtype == np.uint8 and epochs.dtype.kind in "iuf":
            return epochs, pictures
    return np.empty(0), np.empty((0, 8, 32, 32, 3), np.uint8)


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def load_colorizer(entry: library.ModelEntry) -> Colorizer:
    """Return a model that all visitors share and whose network is loaded when it is first run."""
    return Colorizer(None, entry)


def load_soon(entry: library.ModelEntry) -> None:
    """Load the network of a model while the visitor still looks at the page, so that their first picture is quick."""

    def load() -> None:
        with contextlib.suppress(ModelError):  # Whoever needs the network gets the error.
            load_colorizer(entry).open_network()

    threading.Thread(target=load, daemon=True).start()


def open_test_images() -> tuple[str, datasets.Split]:
    """Return `cifar10` and its test images where they are, else `samples`; a broken source is named on the page."""
    state = datasets.cifar10_status()["state"]
    if state != "missing":
        try:
            preparing = st.spinner("Preparing CIFAR-10, once, about 15 seconds …")
            with preparing if state == "found" else contextlib.nullcontext():
                return "cifar10", datasets.load_dataset("cifar10").test
        except DataError as error:
            st.warning(describe(error), icon=":material/warning:")
    return "samples", load_samples()


def predictions(
    entry: library.ModelEntry, dataset: str, split: datasets.Split, vividness: float
) -> evaluation.Predictions:
    """Return a model's predictions for the test images, from disk or computed once, at all levels of vividness."""
    stored = evaluation.stored_predictions(entry, dataset, "test")
    if stored is not None:
        return stored.at(vividness)
    with st.spinner(f"Colorizing {len(split.images):,} images with {entry.name}, once …"):
        return evaluation.store_predictions(load_colorizer(entry), dataset, "test", split).at(vividness)


@st.cache_resource(show_spinner="Solving the closed form, once …")
def linear_autoencoder() -> linear.LinearAutoencoder:
    """Return the closed-form autoencoder from luminance to RGB."""
    statistics = datasets.load_statistics()
    return linear.solve(statistics.mean, statistics.factors, "rgb")


class PhotoSettings(NamedTuple):
    """What a visitor sets for a photo; a model without one of these settings ignores it."""

    vividness: float = DEFAULT_VIVIDNESS
    strength: float = 1.0
    working_size: int | None = None
    hints: tuple[tuple[int, int, str], ...] = ()  # The column, the row and the colour of pixels.
    reference: str | bytes | None = None  # A palette, the name of a sample photo, or the content of a picture.
    reference_strength: float = DEFAULT_STRENGTH


# A picture on a page is the content of a file or the name of a sample photo, which is hashed whole, unlike an array.
@st.cache_resource(show_spinner=False)
def _decoded_pictures() -> PictureCache:
    return PictureCache(MAX_PIXELS // 2)


def open_picture(picture: bytes | str) -> np.ndarray:
    """Decode a picture, uint8 (H, W, 3 or 4); the array is shared and must not be changed.

    One or two are kept, since a picture can take 200 MB. Code that works on the array must use `_working_on`.
    """
    decode = images.load_photo if isinstance(picture, str) else images.decode_image
    key = picture if isinstance(picture, str) else hashlib.sha256(picture).digest()
    return _decoded_pictures().get(key, lambda: decode(picture))


@contextlib.contextmanager
def _working_on(picture: bytes | str) -> Iterator[np.ndarray]:
    """Wait until the server has room for a picture, then yield it decoded; nobody holds its pixels while waiting."""
    height, width = picture_size(picture)
    with pixels_in_work(height * width):
        yield open_picture(picture)


@st.cache_data(max_entries=64, show_spinner=False)
def picture_size(picture: bytes | str) -> tuple[int, int]:
    """Return the height and width of a picture."""
    return images.load_photo(picture).shape[:2] if isinstance(picture, str) else images.read_size(picture)


@st.cache_data(max_entries=8, show_spinner=False)
def shrink_picture(picture: bytes | str, longest: int = _PAGE_PIXELS) -> np.ndarray:
    """Scale a picture down to what a page can show, uint8 (H, W, 3); what is transparent becomes white."""
    with _working_on(picture) as image:
        return images.fit_inside(images.lay_on_white(image), longest)


def _options(entry: library.ModelEntry, settings: PhotoSettings) -> dict[str, float | int | None]:
    """Return those settings of `Colorizer.colorize` that the model has."""
    size = settings.working_size if entry.any_size else None
    return {"strength": settings.strength, "vividness": settings.vividness if entry.vivid else None, "size": size}


def _chroma(entry: library.ModelEntry, picture: bytes | str, settings: PhotoSettings) -> np.ndarray:
    """Return the chroma that a model predicts; for most sample photos it was saved with the model."""
    steered = steering(entry, settings)
    stored = None
    if isinstance(picture, str) and steered == steering(entry, PhotoSettings()):
        stored = evaluation.stored_chroma(entry, picture)
    return look(entry, picture, *steered)[0] if stored is None else stored


def steering(entry: library.ModelEntry, settings: PhotoSettings) -> tuple[Any, ...]:
    """Return those settings for which a model must run its network again, as the arguments of `look`."""
    size = settings.working_size if entry.any_size else None
    hints = settings.hints if entry.model_config.hints else ()
    reference = settings.reference if entry.vivid else None
    # Spreading hints at every level would take longer than to run the network again for another one.
    vividness = settings.vividness if hints and entry.vivid else None
    return size, hints, reference, settings.reference_strength if reference is not None else DEFAULT_STRENGTH, vividness


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def look(
    entry: library.ModelEntry,
    picture: bytes | str,
    size: int | None,
    hints: tuple[tuple[int, int, str], ...],
    reference: str | bytes | None,
    reference_strength: float,
    vividness: float | None,
) -> tuple[np.ndarray, Belief | None]:
    """Predict chroma and the belief; both are shared and must not be changed.

    Without `vividness` a vivid model predicts at every level, so that its slider does not run the network.
    """
    colorizer, luminance, (height, width) = load_colorizer(entry), _seen_luminance(picture), picture_size(picture)
    down, across = luminance.shape[0] / height, luminance.shape[1] / width
    given = [{"x": int(x * across), "y": int(y * down), "color": color} for x, y, color in hints]
    shown = reference if reference is None or reference in PALETTES else shrink_picture(reference, REFERENCE_SIZE)
    levels = colorizer.levels if vividness is None else vividness
    return colorizer.look(luminance, levels, size, given, shown, reference_strength)


@st.cache_resource(max_entries=8, show_spinner=False)
def _seen_luminance(picture: bytes | str) -> np.ndarray:
    """Return the luminance of a picture, float32 (h, w, 1), of a large one averaged to twice what a network sees.

    So a new hint does not go through all pixels of a photo. The array is shared and must not be changed.
    """
    with _working_on(picture) as image:
        luminance = to_luminance(image[..., :3])
    height, width = luminance.shape[:2]
    factor = 2 * MAX_WORKING_SIZE / min(height, width)
    return luminance if factor >= 1 else resize_planes(luminance, round(factor * height), round(factor * width))


def belief(entry: library.ModelEntry, picture: bytes | str, settings: PhotoSettings) -> Belief | None:
    """Return what a model believes about a picture, which the last run of its network left."""
    return look(entry, picture, *steering(entry, settings))[1]


@st.cache_data(max_entries=8, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def colorize(
    entry: library.ModelEntry, picture: bytes | str, settings: PhotoSettings, longest: int = _PAGE_PIXELS
) -> np.ndarray:
    """Colorize a picture as `shrink_picture` shows it."""
    chroma, small = _chroma(entry, picture, settings), shrink_picture(picture, longest)
    return load_colorizer(entry).colorize(small, **_options(entry, settings), chroma=chroma)


def colorize_fully(entry: library.ModelEntry, picture: bytes | str, settings: PhotoSettings) -> bytes:
    """Colorize a picture at its own resolution, its alpha kept, as PNG."""
    chroma = _chroma(entry, picture, settings)
    with _working_on(picture) as image:
        result = load_colorizer(entry).colorize(image, **_options(entry, settings), chroma=chroma)
    _, hints, reference, strength, _ = steering(entry, settings)
    about = _options(entry, settings) | {"hints": hints, "reference": reference, "reference_strength": strength}
    return images.encode_png(result, credit(entry.name, **about))


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def reconstruct(entry: library.ModelEntry, picture: bytes | str, vividness: float) -> np.ndarray:
    """Return the network's own prediction for a picture, uint8 (32, 32, 3)."""
    with _working_on(picture) as image:
        return load_colorizer(entry).reconstruct(image, vividness if entry.vivid else None)


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=_BY_CHECKSUM)
def measure(entry: library.ModelEntry, picture: bytes | str, settings: PhotoSettings) -> dict[str, float]:
    """Measure what a model makes of a picture against its own colours."""
    result = colorize(entry, picture, settings, MEASURED_PIXELS)
    return compute_metrics(result[None], shrink_picture(picture, MEASURED_PIXELS)[None])


@st.cache_data(max_entries=32, show_spinner=False)
def measure_gray_copy(picture: bytes | str) -> dict[str, float]:
    """Measure the gray copy as `measure` measures a model."""
    return gray_copy_metrics(shrink_picture(picture, MEASURED_PIXELS)[None])
