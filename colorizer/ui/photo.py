"""Your photo: a picture in, its colours back, at its own resolution."""

import hashlib

import numpy as np
import streamlit as st

from colorizer.color import gray_copy, to_uint8
from colorizer.config import MAX_STRENGTH
from colorizer.errors import ColorizerError
from colorizer.images import FORMAT_NAMES, PHOTOS, SUFFIXES, encode_png
from colorizer.ui import pictures, state

_OWN, _SAMPLE = "Your own", "Sample photos"


@st.cache_data(max_entries=3, show_spinner=False)
def _png(digest: str, _image: np.ndarray) -> bytes:
    return encode_png(_image)


st.title("Your photo")
entries = state.models_for_photos()
with st.container(horizontal=True, vertical_alignment="bottom"):
    entry = state.pick_model(entries, key="model")
    source = st.segmented_control(
        "Picture", (_OWN, _SAMPLE), default=_OWN, required=True, key="source", bind="query-params"
    )
    vividness = state.pick_vividness(entry)
    strength = st.slider(
        "Strength",
        0.0,
        MAX_STRENGTH,
        1.0,
        0.1,
        key="strength",
        bind="query-params",
        help="Factor on the colours: 0 is gray, 1 what the model thinks, more is bolder.",
        width=240,
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
        result = state.colorize_sample_photo(entry, name, vividness, strength)
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
        digest = hashlib.sha256(content).hexdigest()
        image, result = state.decode(content), state.colorize_upload(entry, content, vividness, strength)
except ColorizerError as error:
    st.error(str(error), icon=":material/broken_image:")
    st.stop()

height, width = image.shape[:2]
colours = pictures.fit_page(image)
gray = to_uint8(gray_copy(colours))
was_gray = bool(np.all(np.ptp(colours.astype(np.int16), axis=-1) <= 2))
columns = st.columns(2 if was_gray else 3)
columns[0].image(gray, width="stretch", caption="Grayscale", alt=f"{title}, in grayscale")
columns[1].image(
    pictures.fit_page(result), width="stretch", caption=f"Colorized by {entry.name}", alt=f"{title}, colorized"
)
if not was_gray:
    columns[2].image(colours, width="stretch", caption="Original", alt=f"{title}, the original colours")
with st.container(horizontal=True, vertical_alignment="center"):
    st.download_button(
        "Download the result",
        lambda: _png(f"{digest}-{entry.checksum}-{vividness}-{strength}", result),
        file_name=f"{stem}-{entry.name}.png",
        mime="image/png",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
    )
    st.caption(
        f"PNG, {width:,} x {height:,} pixels. The luminance is the photo's own; {entry.name} saw a small version of it "
        "and gave the chroma, so colours are broad and soft."
    )
