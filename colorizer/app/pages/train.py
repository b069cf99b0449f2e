"""Train: choose what to train, start it, and watch a network learn."""

import streamlit as st

from colorizer import config
from colorizer.app.widgets import estimate, live, losses, own_pictures, pictures, runs_table, state, sweeps
from colorizer.app.widgets.text import show_error
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

# Each slider sets one setting. It has a label, its stops, a format, and a sentence on what moving it does.
_SLIDERS = {
    "latent_dim": ("Bottleneck", (2, 4, 8, 16, 32, 64, 128, 192, 256, 512), "{}", "More numbers keep more detail."),
    "epochs": (
        "Epochs",
        (1, 2, 3, 4, 5, 8, 12, 16, 20, 30, 40, 60, 80),
        "{}",
        "More epochs take longer and learn more, up to a point.",
    ),
    "batch_size": (
        "Batch size",
        (32, 64, 128, 256, 512, 1024),
        "{}",
        "Smaller batches make more steps, and each step is noisier.",
    ),
    "learning_rate": (
        "Learning rate",
        (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2),
        "{:g}",
        "A higher rate learns faster, until its steps are too large to learn at all.",
    ),
    "train_images": (
        "Training images",
        (1_000, 2_000, 5_000, 10_000, 20_000, 45_000),
        "{:,}",
        "Fewer images make shorter epochs, with less to learn from.",
    ),
}
# A convolutional model needs room for its channels, and the cost of a U-Net grows with the square of its own.
_LATENT_DIM_LIMITS = {"dense": (1, 512), "conv": (16, 512), "unet": (16, 256)}
_DEFAULT_PRESET = "dense-chroma"


def _num_images() -> int:
    """Return how many training images the chosen data set has."""
    if (images := own_pictures.chosen()) is not None:
        return len(datasets.own_dataset(images).train.images)
    if st.session_state.dataset == config.OWN_PICTURES:
        return config.MAX_OWN_PICTURES
    return datasets.num_train_images(st.session_state.dataset) or config.MAX_TRAIN_IMAGES


def _slider_values(preset: Preset) -> dict[str, float]:
    """Return the slider positions of a preset: 0 training images mean all, and no data set has more than it has."""
    values = preset.model.to_dict() | preset.train.to_dict()
    values["train_images"] = min(values["train_images"] or _num_images(), _num_images())
    return {key: values[key] for key in _SLIDERS}


def _fill_sliders() -> None:
    """Set every slider to the chosen preset."""
    preset = presets[st.session_state.preset]
    st.session_state.update(_slider_values(preset), init_from=preset.train.init_from, freeze_encoder=False)


def _plan() -> tuple[str, ModelConfig, TrainConfig]:
    """Return the preset, model and training that the widgets set; a source with another encoder decides both."""
    widgets, preset = st.session_state, presets[chosen]
    source = sources.get(widgets.init_from)
    name, model = preset.name, preset.model.replace(latent_dim=widgets.latent_dim)
    if source is not None:
        try:
            shapes.check_encoders(model, source.model_config, source.name)
        except ConfigError:
            model = source.model_config
            if source.card.get("preset") in list(PRESETS):
                name = source.card["preset"]
    values = {key: widgets[key] for key in ("dataset", "seed", *_SLIDERS) if key != "latent_dim"}
    frozen = source is not None and widgets.freeze_encoder
    return name, model, preset.train.replace(**values, init_from=widgets.init_from, freeze_encoder=frozen)


def _show_settings(earlier: list[RunView]) -> None:
    """Show what can be set, and above it what this training costs and the button that starts it."""
    top, sliders, source = st.container(), st.container(), st.container()
    _show_datasets()
    with sliders:
        _show_sliders()
    with source:
        _show_sources()
    st.file_uploader(
        "Your own picture, to watch it get its colours",
        type=SUFFIXES,
        key="own_picture",
        help="It is cut to 32 x 32 pixels. Whoever watches the run sees it too. The network does not learn from it.",
    )
    st.number_input(
        "Seed",
        0,
        2**31 - 1,
        key="seed",
        bind="query-params",
        help="The same seed and the same settings give the same training again.",
    )
    st.text_input(
        "Name of the model",
        key="name",
        placeholder="chosen for you",
        max_chars=48,
        help="A name has lower-case letters, digits and hyphens.",
    )
    with top:
        _show_start(*_plan(), earlier)


def _show_datasets() -> None:
    have_cifar10 = datasets.cifar10_status()["state"] in ("prepared", "found")
    names = [name for name in live.DATASETS if name != "cifar10" or have_cifar10]
    captions = [live.DATASETS[name] for name in names]
    st.radio("Data set", names, key="dataset", captions=captions, bind="query-params")
    if st.session_state.dataset == config.OWN_PICTURES:
        own_pictures.show()
    if not have_cifar10:
        st.caption("CIFAR-10 is not on this machine. The gallery offers its download.")


def _show_sliders() -> None:
    """Show the sliders; that of the training images ends at what the chosen data set has."""
    preset, most = presets[chosen], _num_images()
    defaults, fields = _slider_values(preset), ModelConfig.model_fields | TrainConfig.model_fields
    former = st.session_state.get("num_images", most)
    st.session_state.num_images = most
    if st.session_state.get("train_images", 0) >= min(former, most) and former != most:
        st.session_state.train_images = most
    limits = {"latent_dim": _LATENT_DIM_LIMITS[preset.model.architecture], "train_images": (1, most)}
    for key, (label, stops, style, effect) in _SLIDERS.items():
        if key == "train_images" and st.session_state.dataset == config.OWN_PICTURES:
            st.session_state[key] = most  # All of them are few.
            continue
        low, high = limits.get(key, (stops[0], stops[-1]))
        options = {stop for stop in stops if low <= stop <= high} | {defaults[key]}
        options |= {most} if key == "train_images" else set()
        with st.container(gap=None):
            st.select_slider(
                label,
                sorted(options),
                defaults[key],
                style.format,
                key=key,
                bind="query-params",
                help=fields[key].description,
            )
            st.caption(effect)


def _show_sources() -> None:
    preset, names = presets[chosen], ["", *sources]
    wanted = preset.train.init_from if preset.train.init_from in sources else ""
    if st.session_state.get("init_from") not in names:
        st.session_state.init_from = wanted
    st.selectbox(
        "Start from",
        names,
        names.index(wanted),
        key="init_from",
        bind="query-params",
        format_func=lambda name: name or "scratch: new weights",
        help="Fine-tuning goes on from what a model of the library has learned.",
    )
    if st.session_state.init_from:
        st.toggle("Freeze the encoder", key="freeze_encoder", help="Only the layers after the bottleneck learn.")


def _show_start(name: str, model: ModelConfig, train: TrainConfig, earlier: list[RunView]) -> None:
    """Say what this training costs, and offer to start it."""
    parameters, _ = shapes.count(model)
    seconds, source = estimate.seconds(model, train, earlier)
    st.markdown(f"**{parameters:,}** parameters, about **{live.duration(max(1, seconds))}** here")
    st.caption(f"This time is an estimate, {source}. Saving and measuring the model takes a few seconds more.")
    if name != presets[chosen].name or model.latent_dim != st.session_state.latent_dim:
        st.caption(f"The encoder of {train.init_from} differs from that of {chosen}: its whole architecture is taken.")
    if seconds > config.MAX_TRAINING_SECONDS:
        st.caption(f"The run will be stopped and kept after {live.duration(config.MAX_TRAINING_SECONDS)}.")
    if st.button("Start training", type="primary", icon=":material/play_arrow:", width="stretch"):
        try:
            upload = st.session_state.own_picture
            picture = cut_small(lay_on_white(state.open_picture(upload.getvalue()))) if upload else None
            title = config.validate_name(st.session_state.name or config.default_name(chosen))
            live.start_run(TrainingSpec(title, model, train, name), picture, own_pictures.chosen())
        except ColorizerError as error:
            show_error(error)


@st.fragment(run_every=2)
def _show_queue() -> None:
    """Name the runs under way, unless it is just the one on this page."""
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
            st.markdown(f"This is how **{entry.name}** learned{', which comes with this app' * entry.shipped}.")
            pictures.show_snapshot(images[-1], entry.name, f"{epochs[-1]:.3g}")
            losses.show_history(entry)


st.title("Train")
st.markdown("Choose a preset, change what you like, and watch it learn. The other pages can use the model at once.")
sources = {entry.name: entry for entry in library.list_models() if not entry.damage}
all_sweeps = list_sweeps()
# A backbone learns from a folder of photos, which a page cannot name.
presets = {
    name: preset for name, preset in PRESETS.items() if preset.train.epochs and preset.model.architecture != "backbone"
}
presets |= best_presets(all_sweeps)
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
view, settings = st.columns([2, 1], gap="large")  # On a phone the running training comes first.
with settings:
    _show_settings([run for run in trainings if not run.active])
with view:
    active = training_service().active_runs()
    if "run" not in st.query_params and active:  # Show the visitor's own run, or else somebody else's.
        mine = [run for run in active if live.key_of(run.run_id)]
        live.show_in_url((mine or active)[0].run_id)
    _show_queue()
    if "run" in st.query_params:
        live.show_run(trainings)
    else:
        _show_example(sources.get(chosen))
runs_table.show_runs(trainings)
sweeps.show_sweeps(all_sweeps, sources)
live.keep_worker_ready()
