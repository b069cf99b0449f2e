"""Your photo: the visitor chooses a picture and gets it back in colour, at its own resolution."""

from functools import partial

import numpy as np
import streamlit as st

from colorizer.app.widgets import asking, files, pictures, state
from colorizer.app.widgets.before_after import show_before_after
from colorizer.app.widgets.text import show_error
from colorizer.config import MAX_FILES, MAX_PIXELS, MAX_STRENGTH, MAX_UPLOAD_BYTES
from colorizer.errors import ColorizerError
from colorizer.models import library
from colorizer.models.reference import DEFAULT_STRENGTH, PALETTES
from colorizer.pixels.color import gray_copy, to_uint8
from colorizer.pixels.images import FORMAT_NAMES, PHOTOS, SUFFIXES

_OWN, _CAMERA, _SAMPLE = "Your own", "Camera", "Sample photos"
_COMPARE, _ASK = "Compare", "Ask and hint"
_NONE, _DROPPED = "the network's own", "another picture"
_GRAY, _PLAIN, _ORIGINAL = "grayscale", "without hints and reference", "original"


def _choose_pictures() -> list[tuple[str, bytes | str]]:
    """Show the ways to choose a picture; return each picture's title, and its content or name."""
    sources = (_OWN, _CAMERA, _SAMPLE)
    source = st.segmented_control("Picture", sources, default=_OWN, required=True, key="source", bind="query-params")
    if source == _SAMPLE:
        names = list(PHOTOS)
        name = st.pills(_SAMPLE, names, default=names[0], required=True, wrap=True, key="photo", bind="query-params")
        return [(PHOTOS[name], name)]
    if source == _CAMERA:
        shot = st.camera_input("Take a picture", key="camera", label_visibility="collapsed")
        return [("camera.jpg", shot.getvalue())] if shot else []
    label = "Drop pictures here, gray or in colour"
    uploads = st.file_uploader(label, type=SUFFIXES, accept_multiple_files=True, key="upload")
    if len(uploads) > MAX_FILES:
        st.warning(f"These are {len(uploads)} files; the first {MAX_FILES} are taken.", icon=":material/warning:")
    return [(upload.name, upload.getvalue()) for upload in uploads[:MAX_FILES]]


def _steer(entries: list[library.ModelEntry]) -> tuple[list[library.ModelEntry], state.PhotoSettings]:
    """Show what can be set; return the chosen models and the settings."""
    by_name = {entry.name: entry for entry in entries}
    about = "Several models are shown side by side. Several files are all colorized by the first model."
    names = st.multiselect(
        "Models", by_name, entries[0].name, key="model", help=about, max_selections=6, wrap=True, bind="query-params"
    )
    chosen = [by_name[name] for name in names] or entries[:1]
    vividness = state.pick_vividness(next((entry for entry in chosen if entry.vivid), chosen[0]), "stretch")
    about = (
        "This is a factor on the colours: 0 makes them gray, 1 keeps those of the model, and more makes them bolder."
    )
    strength = st.slider(
        "Strength", 0.0, MAX_STRENGTH, 1.0, 0.1, "%.1f", key="strength", help=about, bind="query-params"
    )
    size = "auto"
    scales = [entry.scale for entry in chosen if entry.any_size]
    if scales:
        common = [size for size in scales[0].offered_sizes if all(size in scale.offered_sizes for scale in scales)]
        sizes = ["auto", *map(str, common)]
        usual = scales[0].default_sizes
        auto = f"is {usual[0]}" if len(usual) == 1 else f"averages the results of {' and '.join(map(str, usual))}"
        about = (
            "A U-Net sees the photo at this many pixels on its shorter side: few suit broad colours, many suit small "
            f"things. Auto {auto}."
        )
        size = st.select_slider("Working size", sizes, key="size", help=about, bind="query-params")
    reference, reference_strength = (
        _steer_by_reference() if any(entry.vivid for entry in chosen) else (None, DEFAULT_STRENGTH)
    )
    working_size = None if size == "auto" else int(size)
    return chosen, state.PhotoSettings(vividness, strength, working_size, (), reference, reference_strength)


def _steer_by_reference() -> tuple[str | bytes | None, float]:
    """Show from where the colours come; return the reference, and how much it changes."""
    options = [_NONE, *PALETTES, *PHOTOS, _DROPPED]
    about = "The belief of the network is biased toward the colours of a palette, a sample photo or a picture of yours."
    chosen = st.selectbox(
        "Colours",
        options,
        key="reference",
        help=about,
        bind="query-params",
        format_func=lambda name: PHOTOS.get(name, name),
    )
    if chosen == _NONE:
        return None, DEFAULT_STRENGTH
    reference: str | bytes | None = chosen
    if chosen == _DROPPED:
        upload = st.file_uploader("Drop a picture whose colours you like", type=SUFFIXES, key="reference-upload")
        reference = upload.getvalue() if upload else None
    strength = st.slider(
        "How much",
        0.0,
        1.0,
        DEFAULT_STRENGTH,
        0.1,
        "%.1f",
        key="reference-strength",
        bind="query-params",
        help="0 changes nothing.",
    )
    return reference, strength


def _choose_view(
    chosen: list[library.ModelEntry], settings: state.PhotoSettings, has_colours: bool
) -> tuple[bool, bool, str]:
    """Show what the pointer does, and what is shown; return whether it asks, whether the entropy is drawn, and the name
    of what is left of the line: gray, the original, the result without hints and reference, or that of another model.
    """
    before = [_GRAY, *([_ORIGINAL] * has_colours)]
    before += [_PLAIN] * (bool(settings.hints) or settings.reference is not None)
    before += [entry.name for entry in chosen[1:]]
    asks = uncertain = False
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if chosen[0].vivid:
            about = "Move a line between two versions, or click a pixel to see what the network believes there."
            pointer = st.segmented_control(
                "Pointer",
                (_COMPARE, _ASK),
                default=_COMPARE,
                required=True,
                key="pointer",
                bind="query-params",
                help=about,
                width="content",
            )
            asks = pointer == _ASK
        if len(before) > 1 and not asks:
            name = st.selectbox("Left of the line", before, key="before", width=240)
        else:
            name = _GRAY
        if chosen[0].vivid:
            about = "Show where the networks with chroma bins know the colour and where they guess."
            uncertain = st.toggle("Uncertainty map", key="uncertain", bind="query-params", help=about)
    return asks, uncertain, name


def _show_result(
    title: str,
    stem: str,
    picture: bytes | str,
    gray: np.ndarray,
    entry: library.ModelEntry,
    settings: state.PhotoSettings,
    raw: bool,
    before: tuple[np.ndarray, str],
    asked: asking.Asking | None,
    uncertain: bool,
) -> None:
    """Show a picture as a model colorizes it, with its download; with `raw`, show the network's small image too.

    With `asked`, the visitor points at pixels; with `uncertain`, a map of the entropy takes the place of the result.
    """
    result, key = state.colorize(entry, picture, settings), f"before-after-{entry.name}"
    shown = result
    if uncertain and (belief := state.belief(entry, picture, settings)) is not None:
        shown = asking.entropy_map(belief.entropy(), gray, len(belief.bins))
    image, name = before
    show_before_after(
        image,
        shown,
        title,
        entry.name,
        key,
        before_label="Before" if name == _GRAY else name.capitalize(),
        before_alt="in grayscale" if name == _GRAY else name,
        after_alt="" if shown is result else f"where {entry.name} guesses",
        asking=asked is not None,
        place=asked and asked.place,
        points=asked.points() if asked else (),
        on_gesture=partial(asking.on_gesture, asked, key) if asked else lambda: None,
    )
    if shown is not result:
        st.caption("Dark blue: the network knows. Green: it hesitates between a few colours. Yellow: it guesses.")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Colorized by {entry.name}", width="content")
        st.download_button(
            "Download the result",
            partial(state.colorize_fully, entry, picture, settings),
            file_name=f"{stem}-{entry.name}.png",
            mime="image/png",
            icon=":material/download:",
            key=f"download-{entry.name}",
            on_click="ignore",
        )
    if asked:
        asking.show_panel(asked, entry, picture, settings, result)
    if raw:
        made = state.reconstruct(entry, picture, settings.vividness)
        pictures.show_tiles([[made]], 12, f"{title}, the 32 x 32 pixels that {entry.name} made", width="content")


def _before(
    name: str,
    picture: bytes | str,
    chosen: list[library.ModelEntry],
    settings: state.PhotoSettings,
    gray: np.ndarray,
    colours: np.ndarray,
) -> np.ndarray:
    """Return what is left of the line, uint8 (H, W, 3)."""
    if name == _PLAIN:
        return state.colorize(chosen[0], picture, settings._replace(hints=(), reference=None))
    others = {entry.name: entry for entry in chosen}
    if name in others:
        return state.colorize(others[name], picture, settings)
    return colours if name == _ORIGINAL else gray


def _show_picture(
    title: str, picture: bytes | str, chosen: list[library.ModelEntry], settings: state.PhotoSettings, raw: bool
) -> None:
    """Show one picture by every chosen model, beside its own colours if it has some."""
    with st.spinner("Reading the picture …"):
        colours = state.shrink_picture(picture)
    gray = to_uint8(gray_copy(colours))
    was_gray = bool(np.all(np.ptp(colours.astype(np.int16), axis=-1) <= 2))
    stem = files.safe_names([title if isinstance(picture, bytes) else picture])[0]
    num_cells = len(chosen) + (not was_gray)
    worked = []
    asked = asking.current(picture, isinstance(picture, str)) if chosen[0].vivid else None
    if asked is not None:
        settings = settings._replace(hints=asked.hints)
    asks, uncertain, name = _choose_view(chosen, settings, not was_gray)
    with st.grid(min(3, num_cells), min_column_width=280):
        cells = [st.container() for _ in range(num_cells)]
    with st.spinner("Colorizing …"):  # It stands below the last results, which stay in place.
        for entry, cell in zip(chosen, cells, strict=False):
            try:
                with cell:
                    ready = state.prepare(entry)
                    before = _before(name, picture, chosen, settings, gray, colours)
                    _show_result(
                        title,
                        stem,
                        picture,
                        gray,
                        ready,
                        settings,
                        raw,
                        (before, name),
                        asked if asks and entry is chosen[0] else None,
                        uncertain and entry.vivid,
                    )
                worked.append(entry)
            except ColorizerError as error:
                with cell:
                    show_error(error)
    if not was_gray:
        cells[-1].image(colours, width="stretch", alt=f"{title}, the original colours")
        cells[-1].caption("Original")
    if raw:
        st.caption(
            "Below each result stands what its network makes of the photo shrunk to 32 x 32 pixels. The result takes "
            "only the colours from the network; light and detail are the photo's own."
        )
    height, width = state.picture_size(picture)
    st.caption(f"The download is a PNG of {width:,} x {height:,} pixels, with the photo's own luminance.")
    truth = state.shrink_picture(picture, state.MEASURED_PIXELS)
    if worked and not was_gray and min(truth.shape[:2]) >= 7:  # The window of ssim has 7 x 7 pixels.
        with st.spinner("Measuring …"):
            measured = {entry.name: state.measure(entry, picture, settings) for entry in worked}
        measured["gray copy"] = state.measure_gray_copy(picture)
        st.markdown(f"**Against the original**, at {max(truth.shape[:2])} pixels on the longer side")
        pictures.show_metrics(measured)


st.title("Your photo")
entries = state.models_for_photos()
side, main = st.columns([2, 5], gap="large")
with side:
    chosen_pictures = _choose_pictures()
    chosen, settings = _steer(entries)
    raw = st.toggle(
        "Raw network output", key="raw", bind="query-params", help="Show the 32 x 32 pixels that a network made."
    )
with main:
    if len(chosen_pictures) < 2:
        st.session_state.pop("results", None)
    if len(chosen_pictures) > 1:
        files.show_files(chosen_pictures, chosen[0], settings)
    elif chosen_pictures:
        try:
            _show_picture(*chosen_pictures[0], chosen, settings, raw)
        except ColorizerError as error:
            show_error(error, icon="broken_image")
    else:
        st.info(
            "Choose a picture, or several, to see them in colour. If you have none at hand, try the *Sample photos*."
        )
        st.caption(
            f"{FORMAT_NAMES}; up to {MAX_FILES} files of {MAX_UPLOAD_BYTES // 2**20} MB and "
            f"{MAX_PIXELS // 1_000_000} megapixels each. They stay on the computer that runs this app, in memory only."
        )
