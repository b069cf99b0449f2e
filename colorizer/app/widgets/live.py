"""Shows a training run: progress, controls, reconstructions, loss curve, and the model that it saved."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from colorizer import config
from colorizer.app.widgets import asking, losses, pictures, text
from colorizer.app.widgets.losses import Curve
from colorizer.config import TrainingSpec
from colorizer.data import datasets
from colorizer.errors import ColorizerError
from colorizer.jobs import runs
from colorizer.jobs.runs import RunView
from colorizer.jobs.service import training_service
from colorizer.models import library
from colorizer.training.job import training_command

DATASETS = {
    "cifar10": "Photographs of ten kinds of things, 32 x 32 pixels.",
    "synthetic": "Random clouds that share only their mean and covariance with CIFAR-10.",
    "cifar100": "Photographs of a hundred kinds of things. They are downloaded once, 170 MB.",
    config.OWN_PICTURES: f"From {config.MIN_OWN_PICTURES} to {config.MAX_OWN_PICTURES} pictures that you upload.",
}
_DATASET_NAMES = {
    "cifar10": "CIFAR-10",
    "synthetic": "synthetic clouds",
    "cifar100": "CIFAR-100",
    config.OWN_PICTURES: "pictures that the visitor uploaded",
}
_STATES = {
    "starting": ("TensorFlow is starting, some seconds", "hourglass_top", "gray"),
    "training": ("Learning", "model_training", "green"),
    "stopping": ("Stopping", "stop_circle", "orange"),
    "saving": ("Saving the model", "save", "green"),
    "measuring": ("Saved, being measured", "speed", "green"),
    "queued": ("Waiting", "schedule", "gray"),
    "paused": ("Paused", "pause_circle", "orange"),
    "done": ("Done", "check_circle", "green"),
    "stopped": ("Stopped", "stop_circle", "gray"),
    "failed": ("Failed", "error", "red"),
    "interrupted": ("Interrupted", "power_off", "red"),
}
_low, _high = config.LEARNING_RATE_FACTORS
_FACTORS = (_low, 0.03, 0.1, 0.3, 1.0, 3.0, _high)
_PAINTED = 3.0  # After so many seconds a visitor has the page and its first picture, so a worker's start slows nobody.
_EIGHT, _OWN = "Eight test images", "Uploaded picture"
_LATEST = "latest"


@st.fragment(run_every=60)
def keep_worker_ready() -> None:
    """Have the server keep a worker ready while this page is open, so that a run starts at once."""
    threading.Timer(_PAINTED, training_service().prepare).start()


def start_run(spec: TrainingSpec, picture: np.ndarray | None = None, own_pictures: np.ndarray | None = None) -> None:
    """Start a run and put its id and key into the URL; on failure say why.

    Only a key that this session itself was given starts another run. The key of an address that somebody sent would let
    the sender control what is started here.
    """
    try:
        run_id, key = training_service().start(spec, st.session_state.get("visitor_key", ""), picture, own_pictures)
    except ColorizerError as error:
        text.show_error(error)
        return
    st.session_state.visitor_key = key
    show_in_url(run_id)


def key_of(run_id: str) -> str:
    """Return the key with which this visitor controls a run, or an empty string where they only watch it.

    It is the session's own key, or that of an address which named this run: the session remembers it for this run only.
    """
    named = st.query_params.get("key", "") if st.query_params.get("run") == run_id else ""
    keys = st.session_state.setdefault("run_keys", {})
    for key in (keys.get(run_id), st.session_state.get("visitor_key"), named):
        if key and training_service().may_control(run_id, key):
            keys[run_id] = key
            return key
    return ""


def show_in_url(run_id: str) -> None:
    """Put a run into the URL, with its key where this visitor has it, so that a reload still controls the run."""
    key = key_of(run_id)
    st.query_params["run"] = run_id
    st.query_params.pop("key", None)
    if key:
        st.query_params["key"] = key


def training_dataset() -> str:
    """Return the best data set that is on this machine."""
    return "cifar10" if datasets.cifar10_status()["state"] == "prepared" else "synthetic"


def describe_dataset(name: str) -> str:
    """Return a data set in words; the path of a folder or a file is the server's and is left out."""
    return _DATASET_NAMES.get(name, "other pictures")


def show_run(earlier: list[RunView] | None = None) -> None:
    """Show the run that the URL names, live while it goes on, or say that there is no such run.

    Args:
        earlier: The runs whose curves can be laid beside this one's; by default all others.
    """
    run_id = st.query_params["run"]
    try:
        run = training_service().view(run_id)
    except ColorizerError as error:
        st.warning(text.describe(error), icon=":material/warning:")
        return
    show_in_url(run_id)
    earlier = training_service().list_runs() if earlier is None else earlier
    others = {other.spec.name: losses.curve(other) for other in earlier if other.curve}
    others.pop(run.spec.name, None)
    st.fragment(_follow, run_every=0.5 if run.active else None)(run_id, others, run.active)


def _follow(run_id: str, others: dict[str, Curve], was_active: bool) -> None:
    """Show a run as it is now; if it has ended, was resumed or was deleted, run the whole page again."""
    try:
        run = training_service().view(run_id)
    except ColorizerError:  # Its owner has deleted it.
        for name in ("run", "key"):
            st.query_params.pop(name, None)
        st.rerun()
    if run.active != was_active:
        st.rerun()
    with st.container(border=True, key="run"):
        _show_status(run)
        if run.snapshots:
            _show_reconstructions(run)
            if run.curve:
                losses.show_run(run, others)
                dataset = describe_dataset(run.spec.train.dataset)
                st.caption(f"It learns from {dataset}. The validation images are ones that it does not learn from.")
        elif run.active:
            st.skeleton(height=240)


def describe_state(run: RunView) -> tuple[str, str, str]:
    """Return a run's state in words, with its icon and colour."""
    return _STATES[(run.stage or "starting") if run.state == "running" else run.state]


def _show_status(run: RunView) -> None:
    words, icon, color = describe_state(run)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(run.spec.name, anchor=False, width="content")
        st.badge(words, icon=f":material/{icon}:", color=color)
        st.space("stretch")
        with st.popover("Share", icon=":material/share:"):
            st.markdown("Whoever has this link can watch the run, but cannot change it.")
            st.code(f"{(st.context.url or '').split('?')[0]}?run={run.run_id}", language=None, wrap_lines=True)
        with contextlib.suppress(ColorizerError):  # The preset of an old run may no longer exist.
            own = run.spec.train.dataset == config.OWN_PICTURES
            train = run.spec.train.replace(dataset="folder:PICTURES") if own else run.spec.train
            command = text.hide_paths(training_command(replace(run.spec, train=train)))
            with st.popover("Repeat", icon=":material/terminal:"):
                st.markdown(
                    "This command starts the same training from the same seed where Colorizer is installed. A learning "
                    "rate that was changed on the way, or an early stop, is not repeated."
                )
                st.code(command, language="bash", wrap_lines=True)
                if own:
                    st.caption("PICTURES stands for a folder with the pictures, which this app keeps only for the run.")
    if run.active:
        if run.message:
            st.warning(text.describe(run.message), icon=":material/warning:")
        st.progress(run.progress, text=_progress_text(run))
    elif run.state in ("failed", "interrupted"):
        text.show_error(run.message or "The server was stopped during this run. Its curve is still here.")
    elif run.message:
        st.info(text.describe(run.message))
    if key := key_of(run.run_id):
        _show_controls(run, key)
    elif run.active:
        st.caption("Somebody else started this run, and you are watching it.")
    if run.stage == "measuring" or run.state in ("done", "stopped"):
        _show_result(run)


def _progress_text(run: RunView) -> str:
    if run.state == "queued":
        return f"Number {run.position} in the queue. It starts by itself; you may close this page and come back."
    if not run.curve:
        return "The training process is getting ready."
    words = f"Step {run.step:,} of {run.steps:,} · loss {run.curve[-1][1]:.5f}"
    if run.epochs and run.stage == "training":
        share_done = run.epochs[-1]["epoch"] / run.spec.train.epochs
        rest = run.seconds / max(share_done, 1e-9) * (1 - run.progress)
        words += f" · about {duration(rest)} to go"
    return words


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _show_controls(run: RunView, key: str) -> None:
    trainings, target = training_service(), (run.run_id, key)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        leaving = run.stage in ("stopping", "saving", "measuring")
        if run.state == "paused" or run.resumable:
            _button("Resume", "play_arrow", trainings.resume, *target, type="primary")
        elif run.state == "running":
            _button("Pause", "pause", trainings.pause, *target, disabled=run.stage != "training")
        if run.state in ("running", "paused"):
            _button("Stop and keep", "stop_circle", trainings.stop, *target, disabled=leaving)
        elif run.state == "queued":
            _button("Leave the queue", "logout", trainings.discard, *target)
        if run.state != "queued":
            confirm_delete(run, key, "Discard" if run.active else "Delete")
        if run.stage == "training":
            st.select_slider(
                "Learning rate, times",
                _FACTORS,
                min(_FACTORS, key=lambda factor: abs(factor - run.learning_rate_factor)),
                "{:g}".format,
                key=f"factor-{run.run_id}",
                help="The learning rate is multiplied by this from the next batch on.",
                on_change=_set_factor,
                args=target,
                width=260,
            )


def _button(label: str, icon: str, method: Callable[..., None], *arguments: str, **options: Any) -> None:
    st.button(label, icon=f":material/{icon}:", on_click=_control, args=(method, *arguments), **options)


def confirm_delete(run: RunView, key: str, label: str) -> None:
    """Show a button that deletes a run once the visitor, who has its `key`, has confirmed it."""
    with st.popover(label, icon=":material/delete:"):
        st.markdown(f"Delete the run **{run.spec.name}** and the model that it saved? This cannot be undone.")
        arguments = (training_service().discard, run.run_id, key)
        st.button("Yes, delete it", key=f"delete-{run.run_id}-{label}", on_click=_control, args=arguments)


def offer_graph(entry: library.ModelEntry, key: str) -> None:
    """Show a button that downloads a model in ONNX."""
    st.download_button(
        "ONNX, runs anywhere",
        (entry.path / "model.onnx").read_bytes,
        f"{entry.name}.onnx",
        "application/octet-stream",
        key=key,
        icon=":material/download:",
        on_click="ignore",
        help="This file is the whole network. It runs in many languages with ONNX Runtime, without TensorFlow.",
    )


def _set_factor(run_id: str, key: str) -> None:
    _control(training_service().set_learning_rate_factor, run_id, key, st.session_state[f"factor-{run_id}"])


def _control(method: Callable[..., None], *arguments: Any) -> None:
    """Ask the service for something; on failure say why."""
    try:
        method(*arguments)
    except ColorizerError as error:
        st.toast(text.describe(error), icon=":material/error:", duration="long")


def _show_reconstructions(run: RunView) -> None:
    marks = [f"{epochs:.3g}" for epochs, _ in run.snapshots]
    picture, shown, index = runs.load_picture(run.run_id), _EIGHT, -1
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if picture is not None:
            label, key = "Reconstructions of", f"shown-{run.run_id}"
            shown = st.segmented_control(label, (_EIGHT, _OWN), default=_OWN, required=True, key=key)
        if len(marks) > 1:
            options = [*marks[:-1], _LATEST]  # This option has no number, so it stays chosen as new snapshots come.
            index = options.index(st.select_slider("Back in time, epochs", options, _LATEST, key=f"back-{run.run_id}"))
    try:
        images = run.snapshot_images(index)
    except ColorizerError as error:
        st.warning(text.describe(error), icon=":material/warning:")
        return
    num_samples = len(datasets.SNAPSHOT_SAMPLES)
    if shown == _OWN and len(images) > num_samples:
        pictures.show_own_snapshot(images[-1], picture, marks[index])
    else:
        pictures.show_snapshot(images[:num_samples], "the network", marks[index])
    own, logits = len(images) > num_samples, run.snapshot_logits(index)
    if logits is None or (own and picture is None):
        return
    frog = datasets.load_samples().images[datasets.SNAPSHOT_SAMPLES[datasets.BELIEF_SAMPLE]]
    pair = (picture, images[-1]) if own else (frog, images[datasets.BELIEF_SAMPLE])
    asking.show_past_belief(pair, logits, marks[index], key=f"past-{run.run_id}")


def _show_result(run: RunView) -> None:
    entry = run.model()
    if entry is None:
        if not run.active:
            st.caption("The model of this run is not in the library.")
        return
    split, where = entry.reported
    error, of_gray_copy, time = st.columns(3)
    error.metric(f"Error (mse) on {where}", f"{entry.metric(split):.5f}")
    of_gray_copy.metric("Error of the gray copy", f"{entry.card['metrics'][split]['gray_copy']['mse']:.5f}")
    time.metric("Training time", duration(entry.card["seconds"]))
    links = ("gallery", "See it in the gallery", "grid_view"), ("photo", "Try it on a photo", "photo_camera")
    with st.container(horizontal=True):
        for page, label, icon in links:
            query, icon = {"model": entry.name}, f":material/{icon}:"
            st.page_link(f"colorizer/app/pages/{page}.py", label=label, icon=icon, query_params=query)
        if entry.exported:
            offer_graph(entry, f"onnx-result-{run.run_id}")
