"""Train: choose, start, and watch a network learn."""

import streamlit as st

from colorizer import config
from colorizer.app.widgets import estimate, live, losses, pictures, runs_table, state, sweeps_table
from colorizer.config import ModelConfig, TrainConfig, TrainingSpec
from colorizer.data import datasets
from colorizer.errors import ColorizerError, ConfigError
from colorizer.jobs.runs import RunView
from colorizer.jobs.service import training_service
from colorizer.jobs.sweeps import best_presets, list_sweeps
from colorizer.models import library
from colorizer.pixels.images import SUFFIXES, cut_small, lay_on_white
from colorizer.presets import PRESETS, Preset
from colorizer.training import shapes

_LATENT_DIMS = (2, 4, 8, 16, 32, 64, 128, 192, 256, 512)
_EPOCHS = (1, 2, 3, 4, 5, 8, 12, 16, 20, 30, 40, 60, 80)
_BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
_LEARNING_RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
_TRAIN_IMAGES = (1_000, 2_000, 5_000, 10_000, 20_000, 45_000)
_SLIDERS = {
    "latent_dim": ("Bottleneck", _LATENT_DIMS, "{}", "Numbers the picture is squeezed into. More keep more detail."),
    "epochs": ("Epochs", _EPOCHS, "{}", "How often it sees every training image."),
    "batch_size": ("Batch size", _BATCH_SIZES, "{}", "Images per step. Fewer make more steps, each one noisier."),
    "learning_rate": ("Learning rate", _LEARNING_RATES, "{:g}", "How far a step goes. Too far and it jumps."),
    "train_images": ("Training images", _TRAIN_IMAGES, "{}", "Fewer make shorter epochs with less to learn from."),
}
_DEFAULT_PRESET = "dense-chroma"


def _slider_values(preset: Preset) -> dict[str, float]:
    """The slider positions of a preset; 0 training images mean all of them."""
    values = preset.model.to_dict() | preset.train.to_dict()
    return {key: values[key] or options[-1] for key, (_, options, _, _) in _SLIDERS.items()}


def _fill_sliders() -> None:
    """Set every slider to the chosen preset."""
    preset = presets[st.session_state.preset]
    st.session_state.update(_slider_values(preset), init_from=preset.train.init_from, freeze_encoder=False)


def _plan(sources: dict[str, library.ModelEntry]) -> tuple[str, ModelConfig, TrainConfig]:
    """Preset, model and training as the widgets say; a source with another encoder brings its whole architecture."""
    chosen, preset = st.session_state, presets[st.session_state.preset]
    source = sources.get(chosen.init_from)
    name, model = preset.name, preset.model.replace(latent_dim=chosen.latent_dim)
    if source is not None:
        try:
            shapes.check_encoders(model, source.model_config, source.name)
        except ConfigError:
            name, model = source.card.get("preset"), source.model_config
            name = name if name in PRESETS else preset.name
    values = {key: chosen[key] for key in ("dataset", *_SLIDERS) if key != "latent_dim"}
    frozen = source is not None and chosen.freeze_encoder
    return name, model, preset.train.replace(**values, init_from=chosen.init_from, freeze_encoder=frozen)


def _show_settings(chosen: str, sources: dict[str, library.ModelEntry], earlier: list[RunView]) -> None:
    top, preset = st.container(), presets[chosen]
    defaults = _slider_values(preset)
    for key, (label, options, style, explanation) in _SLIDERS.items():
        if key == "latent_dim":  # a convolutional model needs room for its channels, a U-Net's grow by their square
            limits = {"dense": (1, 512), "conv": (16, 512), "unet": (16, 256)}[preset.model.architecture]
            options = [dim for dim in options if limits[0] <= dim <= limits[1]]
        options = sorted({*options, defaults[key]})
        with st.container(gap=None):
            st.select_slider(label, options, defaults[key], style.format, key=key, bind="query-params")
            st.caption(explanation)
    names = ["", *sources]
    wanted = preset.train.init_from if preset.train.init_from in sources else ""
    st.selectbox(
        "Start from",
        names,
        names.index(wanted),
        key="init_from",
        bind="query-params",
        format_func=lambda name: name or "scratch: new weights",
        help="Fine-tune: go on from what a model of the library has learned.",
    )
    if st.session_state.init_from:
        st.toggle("Freeze the encoder", key="freeze_encoder", help="Only what comes after the bottleneck learns.")
    have_cifar10 = datasets.cifar10_status()["state"] != "missing"
    names = ["cifar10"] * have_cifar10 + ["synthetic", "cifar100"]
    captions = [live.DATASETS[name] for name in names]
    st.radio("Data set", names, key="dataset", captions=captions, bind="query-params")
    if not have_cifar10:
        st.caption("CIFAR-10 is not on this machine; the gallery offers its download.")
    st.file_uploader(
        "Your own picture, to watch it get its colours",
        type=SUFFIXES,
        key="own_picture",
        help="It is cut to 32 x 32 pixels. Whoever watches the run sees it too; it is not learned from.",
    )
    st.text_input(
        "Name of the model",
        key="name",
        placeholder="chosen for you",
        max_chars=48,
        help="Lower-case letters, digits and hyphens.",
    )
    with top:
        _show_start(chosen, *_plan(sources), earlier)


def _show_start(chosen: str, name: str, model: ModelConfig, train: TrainConfig, earlier: list[RunView]) -> None:
    """Say what this training costs, and offer to start it."""
    parameters, _ = shapes.count(model)
    seconds, source = estimate.seconds(model, train, earlier)
    st.markdown(f"**{parameters:,}** parameters, about **{live.duration(max(1, seconds))}** here")
    st.caption(f"Time to learn, {source}; a few more seconds to save and measure it.")
    if name != presets[chosen].name or model.latent_dim != st.session_state.latent_dim:
        st.caption(f"The encoder of {train.init_from} differs from that of {chosen}: its whole architecture is taken.")
    if seconds > config.MAX_TRAINING_SECONDS:
        st.caption(f"It will be stopped and kept after {live.duration(config.MAX_TRAINING_SECONDS)}.")
    if st.button("Start training", type="primary", icon=":material/play_arrow:", width="stretch"):
        try:
            upload = st.session_state.own_picture
            picture = cut_small(lay_on_white(state.open_picture(upload.getvalue()))) if upload else None
            title = config.validate_name(st.session_state.name or config.default_name(chosen))
            live.start_run(TrainingSpec(title, model, train, name), picture)
        except ColorizerError as error:
            st.error(str(error), icon=":material/error:")


@st.fragment(run_every=2)
def _show_queue() -> None:
    """Name the runs under way, if they are not just the one on this page."""
    active = training_service().active_runs()
    if active and "run" not in st.query_params:
        st.rerun()
    if {run.run_id for run in active} - {st.query_params.get("run")}:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**Under way**", width="content")
            for place, run in enumerate(active):
                label = f"{run.spec.name}, {'waiting' if place else 'now'}"
                icon = ":material/schedule:" if place else ":material/model_training:"
                st.page_link("colorizer/app/pages/train.py", label=label, icon=icon, query_params={"run": run.run_id})


def _show_example(entry: library.ModelEntry | None) -> None:
    """Say that nothing is being trained, and show how the model with the preset's name learned."""
    st.info("Nothing is being trained. Choose a preset and press *Start training*.", icon=":material/monitoring:")
    epochs, images = state.load_snapshots(entry) if entry else ((), ())
    if len(images):
        with st.container(border=True):
            st.markdown(f"So learned **{entry.name}**{', which this app ships' * entry.shipped}:")
            pictures.show_snapshot(images[-1], entry.name, f"{epochs[-1]:.3g}")
            losses.show_history(entry)


st.title("Train")
st.markdown("Choose a preset, change what you like, and watch it learn. The result is on the other pages at once.")
sources = {entry.name: entry for entry in library.list_models() if not entry.damage}
sweeps = list_sweeps()
# `unet-photo` learns from a folder of photos, which a page cannot name.
presets = {name: preset for name, preset in PRESETS.items() if preset.train.epochs and name != "unet-photo"}
presets |= best_presets(sweeps)
trainings = training_service().list_runs()
if training_service().trouble:
    st.error(training_service().trouble, icon=":material/error:")
chosen = st.pills(
    "Preset",
    list(presets),
    default=_DEFAULT_PRESET,
    required=True,
    key="preset",
    bind="query-params",
    on_change=_fill_sliders,
    wrap=True,
)
st.caption(presets[chosen].summary)
view, settings = st.columns([2, 1], gap="large")  # on a phone what is going on comes first
with settings:
    _show_settings(chosen, sources, [run for run in trainings if not run.active])
with view:
    active = training_service().active_runs()
    if "run" not in st.query_params and active:  # the visitor's own, else anyone's
        mine = [run for run in active if training_service().may_control(run.run_id, live.visitor_key())]
        st.query_params["run"] = (mine or active)[0].run_id
    _show_queue()
    if "run" in st.query_params:
        live.show_run(trainings)
    else:
        _show_example(sources.get(chosen))
runs_table.show_runs(trainings)
sweeps_table.show_sweeps(sweeps, sources)
