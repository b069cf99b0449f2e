"""Your photo: a picture in, its colours back, at its own resolution."""

import hashlib

import numpy as np
import streamlit as st

from colorizer.color import gray_copy, to_uint8
from colorizer.errors import ColorizerError
from colorizer.images import FORMAT_NAMES, PHOTOS, SUFFIXES, decode_image, encode_png, resize_planes
from colorizer.ui import state

_SHOWN_PIXELS = 1200  # longest side of a picture on the page; the download has them all
_OWN, _SAMPLE = "Your own", "Sample photos"


@st.cache_data(max_entries=8, show_spinner="Reading the picture …")
def _decode(data: bytes) -> np.ndarray:
    return decode_image(data)


@st.cache_data(max_entries=8, show_spinner="Colorizing; the first time, TensorFlow has to be loaded …")
def _colorize(digest: str, path: str, checksum: str, _image: np.ndarray, _entry) -> np.ndarray:
    return state.load_colorizer(_entry).colorize(_image)


@st.cache_data(max_entries=8, show_spinner=False)
def _png(digest: str, _image: np.ndarray) -> bytes:
    return encode_png(_image)


def _shown(image: np.ndarray) -> np.ndarray:
    """Scale a picture down for the page, if it is larger than the page."""
    height, width = image.shape[:2]
    shrink = _SHOWN_PIXELS / max(height, width)
    if shrink >= 1:
        return image
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    return np.clip(np.rint(resize_planes(image, *size)), 0, 255).astype(np.uint8)


st.title("Your photo")
entries = state.usable_models()
with st.container(horizontal=True, vertical_alignment="bottom"):
    entry = state.pick_model(entries, key="model")
    source = st.segmented_control(
        "Picture", (_OWN, _SAMPLE), default=_OWN, required=True, key="source", bind="query-params"
    )

try:
    if source == _SAMPLE:
        name = st.pills(
            "Sample photos",
            list(PHOTOS),
            default=next(iter(PHOTOS)),
            required=True,
            format_func=str.capitalize,
            key="photo",
            bind="query-params",
            label_visibility="collapsed",
        )
        title, stem = PHOTOS[name], name
        image = state.sample_photo(name)
        result = state.colorize_sample_photo(entry, name)
        digest = name
    else:
        upload = st.file_uploader(
            "Drop a picture here, gray or in colour", type=[suffix[1:] for suffix in SUFFIXES], key="upload"
        )
        if upload is None:
            st.caption(
                f"{FORMAT_NAMES}, up to 20 MB. The picture stays on the computer that runs this app, in memory only. "
                "No picture at hand? Choose *Sample photos*."
            )
            st.stop()
        title, stem = upload.name, upload.name.rsplit(".", 1)[0]
        content = upload.getvalue()
        image = _decode(content)
        digest = hashlib.sha256(content).hexdigest()
        result = _colorize(digest, str(entry.path), entry.checksum, image, entry)
except ColorizerError as error:
    st.error(str(error), icon=":material/broken_image:")
    st.stop()

height, width = image.shape[:2]
gray = to_uint8(gray_copy(_shown(image)))
colours = _shown(image)
was_gray = bool(np.all(np.ptp(colours.astype(np.int16), axis=-1) <= 2))
columns = st.columns(2 if was_gray else 3)
columns[0].image(gray, width="stretch", caption="Gray: all that the network sees", alt=f"{title}, in grayscale")
columns[1].image(_shown(result), width="stretch", caption=f"Colorized by {entry.name}", alt=f"{title}, colorized")
if not was_gray:
    columns[2].image(colours, width="stretch", caption="Original", alt=f"{title}, the original colours")
with st.container(horizontal=True, vertical_alignment="center"):
    st.download_button(
        "Download the result",
        lambda: _png(f"{digest}-{entry.checksum}", result),
        file_name=f"{stem}-{entry.name}.png",
        mime="image/png",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
    )
    st.caption(
        f"PNG, {width:,} x {height:,} pixels. The luminance is the photo's own; {entry.name} looked at it in "
        "32 x 32 pixels and gave the chroma, so colours are broad and soft."
    )
