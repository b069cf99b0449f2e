"""Gallery: shows test images as original, grayscale and reconstruction, each with its error."""

from functools import partial

import numpy as np
import streamlit as st

from colorizer.app.widgets import asking, live, losses, pictures, state
from colorizer.app.widgets.before_after import show_before_after
from colorizer.app.widgets.text import show_error
from colorizer.data.datasets import CLASS_NAMES, download_cifar10
from colorizer.errors import ColorizerError
from colorizer.models.scale import DEFAULT_VIVIDNESS
from colorizer.pixels.color import as_float, gray_copy, to_uint8
from colorizer.pixels.images import encode_png
from colorizer.pixels.metrics import compute_metrics, gray_copy_metrics, image_mse

_PAGE_SIZE = 12
_ENLARGED = 12  # A test image that the visitor asks about is shown this many times as large.


def _wanted_image() -> int | None:
    """Return the index of the image that the URL asks for, or None if there is no such image."""
    wanted = st.query_params.get("image", "")
    return int(wanted) if len(wanted) < 6 and wanted.isdecimal() and int(wanted) < len(split.images) else None


# No callback may be a function of this page. Streamlit keeps the callbacks of all buttons that a visitor ever saw, and
# such a function would keep all variables of its run in memory.
@st.dialog("One image in detail", width="large", on_dismiss=partial(st.query_params.pop, "image", None))
def _show_closely() -> None:
    index = _wanted_image()  # It is read here because a rerun of the dialog alone repeats its first arguments.
    if index is None:
        st.rerun()
    original, reconstructed = split.images[index], predictions.images[index]
    gray = to_uint8(gray_copy(original))
    error = np.abs(as_float(reconstructed) - as_float(original)).mean(axis=-1)
    scale = max(0.05, float(error.max()))
    heat = to_uint8(np.stack([error / scale, (error / scale) ** 2, 0.15 * error / scale], axis=-1))
    name = CLASS_NAMES[split.labels[index]]
    picture, numbers = st.columns([3, 2], gap="medium")
    about = "See what the network believes at a pixel, and tell it which colour is right."
    asks = entry.vivid and entry.any_size and numbers.toggle("Ask and hint", key="ask", bind="query-params", help=about)
    with picture:
        if asks:
            _ask(index, name)
        else:
            alt = (
                f"Test image {index}, {name}: original, grayscale, reconstructed by {entry.name}, and where it is wrong"
            )
            pictures.show_tiles([[original, gray], [reconstructed, heat]], 10, alt)
            st.caption(
                "The upper row shows the original and its grayscale version. The lower row shows the reconstruction by "
                f"{entry.name} and its absolute error, from black for 0 to yellow for {scale:.2f} of full scale."
            )
    truth = split.images[index : index + 1]
    numbers.markdown(f"**#{index}, {name}**")
    measured = {"model": compute_metrics(reconstructed[None], truth), "gray copy": gray_copy_metrics(truth)}
    with numbers:
        pictures.show_metrics(measured)
    with numbers.container(horizontal=True):
        shown = indices.tolist()
        place = shown.index(index) if index in shown else -1
        for label, icon, other in (("Previous", "arrow_back", place - 1), ("Next", "arrow_forward", place + 1)):
            inside = place >= 0 and 0 <= other < len(shown)
            target = {"image": str(shown[other] if inside else index)}
            change = st.query_params.update
            st.button(label, icon=f":material/{icon}:", on_click=change, kwargs=target, disabled=not inside)


def _ask(index: int, name: str) -> None:
    """Show a test image in colour, enlarged, and what the network believes about it."""
    content = encode_png(split.images[index])
    asked, key = asking.current(content, shared=True), f"asked-{entry.name}"
    settings = state.PhotoSettings(vividness, 1.0, entry.scale.small_size, asked.hints)
    result = state.colorize(entry, content, settings)
    before, after = (image.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1) for image in (to_uint8(gray_copy(result)), result))
    show_before_after(
        before,
        after,
        f"Test image {index}, {name}",
        entry.name,
        key,
        asking=True,
        place=asked.place,
        points=asked.points(),
        on_gesture=partial(asking.on_gesture, asked, key),
    )
    asking.show_panel(asked, entry, content, settings, result)


def _download() -> None:
    bar = st.progress(0.0, text="Downloading CIFAR-10 …")

    def show(received: int, total: int) -> None:
        bar.progress(min(1.0, received / max(total, 1)), text=f"Downloading CIFAR-10: {received / 1e6:.0f} MB")

    try:
        download_cifar10(show)
    except ColorizerError as error:
        bar.empty()
        show_error(error, icon="cloud_off")
        return
    st.rerun()


st.title("Gallery")
entries = state.usable_models()
views = ["Browse", "Compare models"]
view = st.segmented_control(
    "View", views, default="Browse", required=True, key="view", bind="query-params", label_visibility="collapsed"
)
if view == "Compare models":
    from colorizer.app.widgets import compare  # It imports pandas, which the first page does not need.

    compare.show_comparison(entries)
    state.show_damaged_models()
    st.stop()
dataset, split = state.open_test_images()
with st.container(horizontal=True, vertical_alignment="bottom"):
    entry = state.pick_model(entries, key="model")
    classes = ["all classes", *CLASS_NAMES]
    chosen = st.selectbox("Class", classes, key="class", bind="query-params")
    sorts = ["index", "best", "worst"]
    sort = st.segmented_control("Sort by", sorts, default="index", required=True, key="sort", bind="query-params")
    vividness = state.pick_vividness(entry)

try:
    predictions = state.predictions(entry, dataset, split, vividness)
except ColorizerError as error:
    show_error(error)
    st.stop()

indices = np.arange(len(split.images))
if chosen in CLASS_NAMES:
    indices = indices[split.labels == CLASS_NAMES.index(chosen)]
if sort in ("best", "worst"):
    order = np.argsort(predictions.mse[indices], kind="stable")
    indices = indices[order if sort == "best" else order[::-1]]

main, side = st.columns([5, 2], gap="large")
with main:
    if dataset == "samples":
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown("These are the 20 built-in test images. The full test set has 10,000 images.")
            if st.button("Download CIFAR-10 (170 MB)", icon=":material/download:"):
                _download()
    num_pages = max(1, -(-len(indices) // _PAGE_SIZE))
    page = st.pagination(num_pages, key="page", bind="query-params") if num_pages > 1 else 1
    st.caption(
        f"There are {len(indices):,} images, each as original, grayscale and reconstruction. "
        f"This is page {page} of {num_pages}."
    )
    if not len(indices):
        st.info(f"There is no image of the class {chosen} here. Choose another class.", icon=":material/search_off:")
    with st.grid(min_column_width=280, gap="medium"):
        for index in indices[(page - 1) * _PAGE_SIZE : page * _PAGE_SIZE].tolist():
            truth, name = split.images[index : index + 1], CLASS_NAMES[split.labels[index]]
            gray = gray_copy(truth)
            with st.container(gap="xxsmall"):
                with st.container(key=f"triptych-{index}"):
                    shown = [truth[0], to_uint8(gray[0]), predictions.images[index]]
                    pictures.show_tiles([shown], 6, f"{name}, three versions: original, grayscale and reconstructed")
                st.button(
                    f"#{index} {name} · mse {predictions.mse[index]:.4f} · gray {image_mse(gray, truth)[0]:.4f}",
                    key=f"image-{index}",
                    type="tertiary",
                    icon=":material/zoom_in:",
                    on_click=st.query_params.update,
                    kwargs={"image": str(index)},
                )
with side:
    st.header(entry.name)
    epochs, seconds = entry.card["epochs_done"], entry.card["seconds"]
    source = live.describe_dataset(entry.train_config.dataset)
    learned = f"learned from {source} for {epochs:g} epochs, which took {live.duration(seconds)}"
    st.caption(
        f"This model has {entry.card['parameters']:,} parameters and a bottleneck of {entry.model_config.latent_dim}. "
        f"It {learned if epochs else f'was solved in closed form from {source}'}."
    )
    losses.show_history(entry)
    measured, where = entry.reported
    st.markdown(f"**On {where}{f', at vividness {DEFAULT_VIVIDNESS}' if entry.vivid else ''}**")
    values = entry.card["metrics"][measured]
    pictures.show_metrics({"model": values["model"], "gray copy": values["gray_copy"]})
    st.caption("The gray copy has the gray value in all three channels. A model should beat it.")
    live.offer_graph(entry, f"onnx-{entry.name}")

state.show_damaged_models()

if _wanted_image() is not None:
    _show_closely()
