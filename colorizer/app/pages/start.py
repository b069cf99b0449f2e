"""Start: shows what the app does on a large photo, on the visitor's own, and on a network that learns."""

import streamlit as st

from colorizer.app.widgets import asking, live, pictures, state
from colorizer.app.widgets.before_after import show_before_after
from colorizer.app.widgets.text import escape, show_error
from colorizer.config import TrainingSpec, default_name
from colorizer.data.datasets import BELIEF_SAMPLE, SNAPSHOT_SAMPLES
from colorizer.errors import ColorizerError
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.images import PHOTOS, SUFFIXES
from colorizer.presets import get_preset

_HERO = "chelsea"
_LINKS = {
    "gallery": ("Browse the best and the worst test images", "grid_view"),
    "photo": ("Colorize your own pictures", "photo_camera"),
    "train": ("Train a network yourself", "model_training"),
    "how": ("See how it works", "school"),
}

st.title("Gray pictures, back in colour")
st.markdown("Small neural networks learn from photos and tiny pictures which colours belong to which shapes of gray.")

entries = state.usable_models()
best = state.models_for_photos()[0]
above = st.container()
hero, side = st.columns([3, 2], gap="large")
with side:
    upload = st.file_uploader("Drop your own picture", type=SUFFIXES, key="start-upload")
    if st.button("Watch one learn, now", type="primary", icon=":material/play_arrow:"):
        preset = get_preset("quick")
        train = preset.train.replace(dataset=live.training_dataset())
        live.start_run(TrainingSpec(default_name(preset.name), preset.model, train, preset.name))
    st.space("small")
    for page, (label, icon) in _LINKS.items():
        st.page_link(f"colorizer/app/pages/{page}.py", label=label, icon=f":material/{icon}:")
with hero:
    picture, title = _HERO, PHOTOS[_HERO]
    if upload is not None:
        try:
            state.open_picture(upload.getvalue())
            picture, title = upload.getvalue(), upload.name
        except ColorizerError as error:
            show_error(error, icon="broken_image")
    shown, line = st.container(), st.empty()
    with line, st.spinner("Colorizing …"):
        before = to_uint8(gray_copy(state.shrink_picture(picture)))
        after = state.colorize(best, picture, state.PhotoSettings())
    with shown:
        show_before_after(before, after, title, best.name, key="hero")
    line.caption(f"Photo: {escape(title)}. It was colorized by {best.name}. Move the line across it.")
if "run" in st.query_params:
    with above:
        live.show_run()

st.header("Epoch by epoch")
st.markdown("Each shipped model kept pictures while it learned. Move the slider to see how its colours came about.")
trained = [entry for entry in entries if entry.shipped and len(state.load_snapshots(entry)[0]) > 1]
if trained:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        entry = state.pick_model(trained, key="history")
        epochs, images = state.load_snapshots(entry)
        marks = [f"{epoch:.3g}" for epoch in epochs]
        last = len(marks) - 1
        index = st.select_slider("Epochs", range(len(marks)), last, marks.__getitem__, key=f"snapshot-{entry.name}")
    pictures.show_snapshot(images[index], entry.name, marks[index])
    if (logits := asking.load_past_logits(entry)) is not None:
        original, colored = state.load_samples().images[SNAPSHOT_SAMPLES[BELIEF_SAMPLE]], images[index][BELIEF_SAMPLE]
        asking.show_past_belief((original, colored), logits[index], marks[index], key=f"past-{entry.name}")
    if entry.card["note"]:
        st.caption(escape(entry.card["note"]))
else:
    st.caption("The shipped models are missing, so there is nothing to show. Restore the folder assets/models.")
state.load_soon(best)
live.keep_worker_ready()
