"""Train: choose, start, and watch a network learn."""

import streamlit as st

from colorizer import config, data
from colorizer.config import PRESETS
from colorizer.errors import ColorizerError
from colorizer.service import training_service
from colorizer.ui import live
from colorizer.worker import TrainingSpec

_LATENT_DIMS = (2, 4, 8, 16, 32, 64, 128, 192, 256, 512)
_EPOCHS = (1, 2, 3, 4, 5, 8, 12, 16, 20, 30, 40, 60, 80)
_BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
_LEARNING_RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
_TRAIN_IMAGES = (1_000, 2_000, 5_000, 10_000, 20_000, 45_000)
_SLIDERS = {
    "latent_dim": (
        "Bottleneck",
        _LATENT_DIMS,
        "{}",
        "How many numbers the whole picture is squeezed into. More lets more detail through.",
    ),
    "epochs": ("Epochs", _EPOCHS, "{}", "How often the network sees every training image."),
    "batch_size": ("Batch size", _BATCH_SIZES, "{}", "Images per step. Smaller means more steps, each one noisier."),
    "learning_rate": (
        "Learning rate",
        _LEARNING_RATES,
        "{:g}",
        "How far each step goes. Too large and the loss jumps, too small and it crawls.",
    ),
    "train_images": (
        "Training images",
        _TRAIN_IMAGES,
        "{}",
        "With fewer, an epoch is shorter and there is less to learn from.",
    ),
}
_DEFAULT_PRESET = "dense-chroma"
# `unet-photo` learns from a folder of photos, which a page cannot name.
_trainable = {name: preset for name, preset in PRESETS.items() if preset.train.epochs and name != "unet-photo"}


def _nearest(options: tuple, value: float) -> float:
    return min(options, key=lambda option: abs(option - value))


def _slider_values(preset: config.Preset) -> dict[str, float]:
    """The slider positions nearest to a preset; 0 training images mean all of them."""
    values = preset.model.to_dict() | preset.train.to_dict()
    return {key: _nearest(options, values[key] or options[-1]) for key, (_, options, _, _) in _SLIDERS.items()}


def _fill_sliders() -> None:
    """Let every slider start again from the chosen preset."""
    for key in _SLIDERS:
        st.session_state.pop(key, None)


def _start() -> None:
    preset = PRESETS[st.session_state.preset]
    settings = {key: st.session_state[key] for key in ("dataset", *_SLIDERS)}
    try:
        name = config.validate_name(st.session_state.name or config.default_name(preset.name))
        model = preset.model.replace(latent_dim=settings.pop("latent_dim"))
        train = preset.train.replace(**settings)
        if model != preset.model:  # the encoder that it would start from does not fit
            train = train.replace(init_from="")
        live.start_run(TrainingSpec(name, model, train, preset.name))
    except ColorizerError as error:
        st.error(str(error), icon=":material/error:")


st.title("Train")
st.markdown("Choose a preset, change what you like, and watch it learn. The result is on the other pages at once.")
have_cifar10 = data.cifar10_status()["state"] != "missing"
datasets = ["cifar10", "synthetic"] if have_cifar10 else ["synthetic"]

settings, view = st.columns([1, 2], gap="large")
with settings:
    names = list(_trainable)
    chosen = st.selectbox(
        "Preset", names, names.index(_DEFAULT_PRESET), key="preset", bind="query-params", on_change=_fill_sliders
    )
    st.caption(PRESETS[chosen].summary)
    defaults = _slider_values(PRESETS[chosen])
    for key, (label, options, style, explanation) in _SLIDERS.items():
        if key == "latent_dim":  # a convolutional model needs room for its channels
            options = [dim for dim in options if PRESETS[chosen].model.architecture == "dense" or dim % 16 == 0]
        st.select_slider(label, options, defaults[key], style.format, key=key, help=explanation, bind="query-params")
    captions = [live.DATASETS[name] for name in datasets]
    st.radio("Data set", datasets, key="dataset", captions=captions, bind="query-params")
    if not have_cifar10:
        st.caption(
            "CIFAR-10 is not on this machine; the gallery offers its download. Synthetic shows what second-order "
            "statistics alone can teach: true colours, but only the most general ones."
        )
    st.text_input(
        "Name of the model",
        key="name",
        placeholder="chosen for you",
        max_chars=48,
        help="Lower-case letters, digits and hyphens.",
    )
    active = training_service().active_runs()
    st.button(
        "Start training",
        type="primary",
        icon=":material/play_arrow:",
        on_click=_start,
        help="One training at a time: yours waits for its turn." if active else None,
        width="stretch",
    )
with view:
    if "run" not in st.query_params and active:
        st.query_params["run"] = active[0].run_id  # anyone may watch
    if "run" in st.query_params:
        live.show_run()
    else:
        st.info("Nothing is being trained. Set the sliders and press *Start training*.", icon=":material/monitoring:")
