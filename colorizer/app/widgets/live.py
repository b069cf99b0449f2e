"""A training run as it happens: progress, controls, reconstructions, loss curve, and what to do with the result."""

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from colorizer import config
from colorizer.app.widgets import losses, pictures
from colorizer.app.widgets.charts import Curve
from colorizer.config import TrainingSpec
from colorizer.data import datasets
from colorizer.errors import ColorizerError
from colorizer.jobs import runs
from colorizer.jobs.runs import RunView
from colorizer.jobs.service import training_service
from colorizer.models import library

DATASETS = {
    "cifar10": "CIFAR-10, photographs of ten kinds of things, 32 x 32 pixels",
    "synthetic": "synthetic clouds, as CIFAR-10 in mean and covariance only",
    "samples": "the 20 built-in samples",
    "cifar100": "CIFAR-100, a hundred kinds of things; it is downloaded once, 170 MB",
}
_STATES = {
    "starting": ("Getting ready", "hourglass_top", "gray"),
    "training": ("Learning", "model_training", "green"),
    "stopping": ("Stopping", "stop_circle", "orange"),
    "saving": ("Saving the model", "save", "green"),
    "measuring": ("In the library, being measured", "speed", "green"),
    "queued": ("Waiting", "schedule", "gray"),
    "paused": ("Paused", "pause_circle", "orange"),
    "done": ("Done", "check_circle", "green"),
    "stopped": ("Stopped, what it learned is kept", "stop_circle", "gray"),
    "failed": ("Failed", "error", "red"),
    "interrupted": ("Interrupted", "power_off", "red"),
}
_low, _high = config.LEARNING_RATE_FACTORS
_FACTORS = (_low, 0.03, 0.1, 0.3, 1.0, 3.0, _high)
_EIGHT, _OWN = "Eight test images", "Uploaded picture"
_LATEST = "latest"


def start_run(spec: TrainingSpec, picture: np.ndarray | None = None) -> None:
    """Start a run and put its id and key into the URL; on failure say why."""
    try:
        run_id, key = training_service().start(spec, visitor_key(), picture)
    except ColorizerError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.session_state.key = key  # survives a look at another page
    st.query_params.update(run=run_id, key=key)  # survives a reload


def visitor_key() -> str:
    """The key of what this visitor has started, or an empty string."""
    return st.session_state.get("key") or st.query_params.get("key", "")


def training_dataset() -> str:
    """The best data set that is on this machine."""
    return "cifar10" if datasets.cifar10_status()["state"] == "prepared" else "synthetic"


def show_run(earlier: list[RunView] | None = None) -> None:
    """Show the run that the URL names, live as long as it lasts; a wrong id is said so.

    Args:
        earlier: runs whose curves may be laid over its own; by default all others.
    """
    run_id = st.query_params["run"]
    try:
        run = training_service().view(run_id)
    except ColorizerError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    earlier = training_service().list_runs() if earlier is None else earlier
    others = {other.spec.name: losses.curve(other) for other in earlier if other.curve}
    others.pop(run.spec.name, None)
    st.session_state.setdefault("key", st.query_params.get("key", ""))
    (_poll if run.active else _show_ended)(run_id, others)


@st.fragment(run_every=0.5)
def _poll(run_id: str, others: dict[str, Curve]) -> None:
    try:
        run = training_service().view(run_id)
    except ColorizerError:  # discarded meanwhile
        st.query_params.pop("run", None)
        st.rerun()
    if not run.active:
        st.rerun()
    _render(run, others)


@st.fragment
def _show_ended(run_id: str, others: dict[str, Curve]) -> None:
    try:
        run = training_service().view(run_id)
    except ColorizerError:
        st.rerun()
    if run.active:  # resumed
        st.rerun()
    _render(run, others)


def _render(run: RunView, others: dict[str, Curve]) -> None:
    with st.container(border=True, key="run"):
        _show_status(run)
        if run.snapshots:
            _show_reconstructions(run)
            if run.curve:
                losses.show_run(run, others)
                dataset = DATASETS[run.spec.train.dataset]
                st.caption(f"It learns from {dataset}. Validation: images that it does not learn from.")
        elif run.active:
            st.skeleton(height=240)


def describe_state(run: RunView) -> tuple[str, str, str]:
    """A run's state in words, its icon and colour."""
    return _STATES[(run.stage or "starting") if run.state == "running" else run.state]


def _show_status(run: RunView) -> None:
    words, icon, color = describe_state(run)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(run.spec.name, anchor=False, width="content")
        st.badge(words, icon=f":material/{icon}:", color=color)
        st.space("stretch")
        with st.popover("Share", icon=":material/share:"):
            st.markdown("Whoever has this link can watch, and cannot change anything.")
            st.code(f"{(st.context.url or '').split('?')[0]}?run={run.run_id}", language=None, wrap_lines=True)
    if run.active:
        st.progress(run.progress, text=_progress_text(run))
    elif run.state in ("failed", "interrupted"):
        st.error(run.message or "The server was stopped during this run. Its curve is still here.")
    elif run.message:
        st.info(run.message)
    if training_service().may_control(run.run_id, visitor_key()):
        _show_controls(run)
    elif run.active:
        st.caption("Somebody else started it; you are watching.")
    if run.stage == "measuring" or run.state in ("done", "stopped"):
        _show_result(run)


def _progress_text(run: RunView) -> str:
    if run.state == "queued":
        return f"Number {run.position} in the queue. It starts by itself; you may close this page and come back."
    if not run.curve:
        return "The training process is getting ready"
    text = f"Step {run.step:,} of {run.steps:,} · loss {run.curve[-1][1]:.5f}"
    if run.epochs and run.stage == "training":
        rest = run.seconds * (run.steps - run.step) / max(run.epochs[-1]["epoch"] / run.spec.train.epochs, 1e-9)
        text += f" · about {duration(rest / max(run.steps, 1))} to go"
    return text


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _show_controls(run: RunView) -> None:
    key, trainings = visitor_key(), training_service()
    target = (run.run_id, key)
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
            confirm_delete(run, "Discard" if run.active else "Delete")
        if run.stage == "training":
            st.select_slider(
                "Learning rate, times",
                _FACTORS,
                min(_FACTORS, key=lambda factor: abs(factor - run.learning_rate_factor)),
                "{:g}".format,
                key=f"factor-{run.run_id}",
                help="Multiplies the schedule from the next batch on.",
                on_change=_set_factor,
                args=target,
                width=260,
            )


def _button(label: str, icon: str, method: Callable[..., None], *arguments: str, **options: Any) -> None:
    st.button(label, icon=f":material/{icon}:", on_click=_control, args=(method, *arguments), **options)


def confirm_delete(run: RunView, label: str) -> None:
    """Show a button that deletes a run of this visitor's once they have confirmed it."""
    with st.popover(label, icon=":material/delete:"):
        st.markdown(f"Delete the run **{run.spec.name}** and the model that it saved? This cannot be undone.")
        arguments = (training_service().discard, run.run_id, visitor_key())
        st.button("Yes, delete it", key=f"delete-{run.run_id}-{label}", on_click=_control, args=arguments)


def _set_factor(run_id: str, key: str) -> None:
    _control(training_service().set_learning_rate_factor, run_id, key, st.session_state[f"factor-{run_id}"])


def _control(method: Callable[..., None], *arguments: Any) -> None:
    """Ask the service for something; on failure say why."""
    try:
        method(*arguments)
    except ColorizerError as error:
        st.toast(str(error), icon=":material/error:", duration="long")


def _show_reconstructions(run: RunView) -> None:
    marks = [f"{epochs:.3g}" for epochs, _ in run.snapshots]
    picture, index = runs.load_picture(run.run_id), -1
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = _EIGHT
        if picture is not None:
            label = "Reconstructions of"
            shown = st.segmented_control(label, (_EIGHT, _OWN), default=_OWN, required=True, key=f"shown-{run.run_id}")
        if len(marks) > 1:
            options = [*marks[:-1], _LATEST]  # a name of its own: it stays chosen as new ones come
            index = options.index(st.select_slider("Back in time, epochs", options, _LATEST, key=f"back-{run.run_id}"))
    try:
        images = run.snapshot_images(index)
    except ColorizerError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    if shown == _OWN and len(images) > len(datasets.SNAPSHOT_SAMPLES):
        pictures.show_own_snapshot(images[-1], picture, marks[index])
    else:
        pictures.show_snapshot(images[: len(datasets.SNAPSHOT_SAMPLES)], "the network", marks[index])


def _show_result(run: RunView) -> None:
    try:
        entry = library.find_model(run.spec.name)
    except ColorizerError:
        st.caption("There is no model of it in the library." if not run.active else "")
        return
    split, where = entry.reported
    columns = st.columns(3)
    columns[0].metric(f"Error (mse), {where}", f"{entry.metric(split):.5f}")
    columns[1].metric("Gray copy, the baseline", f"{entry.card['metrics'][split]['gray_copy']['mse']:.5f}")
    columns[2].metric("Time", duration(entry.card["seconds"]))
    with st.container(horizontal=True):
        link = {"query_params": {"model": entry.name}}
        st.page_link(
            "colorizer/app/pages/gallery.py", label="See it in the gallery", icon=":material/grid_view:", **link
        )
        st.page_link("colorizer/app/pages/photo.py", label="Try it on a photo", icon=":material/photo_camera:", **link)
