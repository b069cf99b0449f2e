"""A training run as it happens: progress, reconstructions, loss curve, and what to do with the result."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from colorizer import data, library
from colorizer.errors import ColorizerError
from colorizer.runs import RunView
from colorizer.service import training_service
from colorizer.ui import charts, pictures, state
from colorizer.worker import TrainingSpec

DATASETS = {
    "cifar10": "CIFAR-10, photographs of ten kinds of things, 32 x 32 pixels",
    "synthetic": "synthetic clouds with CIFAR-10's mean and covariance: what second-order statistics alone can teach",
    "samples": "the 20 built-in samples",
}
_STATES = {
    "starting": "Getting ready: the training process is loading TensorFlow",
    "training": "Learning",
    "stopping": "Stopping",
    "saving": "Saving the model",
    "measuring": "In the library. Measuring it on 10,000 test images",
    "paused": "Paused",
    "done": "Done",
    "stopped": "Stopped; what it had learned is kept",
    "failed": "The training failed",
    "interrupted": "Interrupted: the server was stopped during this run",
}


def start_run(spec: TrainingSpec) -> None:
    """Start a run and put its id and key into the URL; on failure say why."""
    try:
        run_id, key = training_service().start(spec, _visitor_key())
    except ColorizerError as error:
        st.error(str(error), icon=":material/error:")
        if training_service().active_runs():
            st.page_link("colorizer/ui/train.py", label="Watch the one that is running", icon=":material/monitoring:")
        return
    st.session_state.key = key  # survives a look at another page
    st.query_params.update(run=run_id, key=key)  # survives a reload


def _visitor_key() -> str:
    return st.session_state.get("key") or st.query_params.get("key", "")


def training_dataset() -> str:
    """The best data set that is on this machine."""
    return "cifar10" if data.cifar10_status()["state"] == "prepared" else "synthetic"


def show_run() -> None:
    """Show the run that the URL names, live as long as it lasts; a wrong id is said so."""
    run_id = st.query_params["run"]
    try:
        run = training_service().view(run_id)
    except ColorizerError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    if run.active:
        _poll(run_id)
    else:
        _render(run)


@st.fragment(run_every=0.5)
def _poll(run_id: str) -> None:
    try:
        run = training_service().view(run_id)
    except ColorizerError:  # discarded meanwhile
        st.query_params.pop("run", None)
        st.rerun()
    if not run.active:
        st.rerun()
    _render(run)


def _render(run: RunView) -> None:
    with st.container(border=True, key="run"):
        _show_status(run)
        st.caption(f"It learns from: {DATASETS[run.spec.train.dataset]}.")
        if run.snapshots:
            panes = st.grid(min_column_width=440, gap="medium")
            with panes, st.container():
                index = len(run.snapshots) - 1
                marks = [f"{epochs:.2f}" for epochs, _ in run.snapshots]
                if not run.active and index:
                    index = st.select_slider("Back in time, epochs", range(len(marks)), index, marks.__getitem__)
                epochs = run.snapshots[index][0]
                st.markdown(f"**After {epochs:.2f} epochs**")
                pictures.show_snapshot(
                    run.snapshot_images(index),
                    f"Eight test images as the network colorizes them after {epochs:.2f} epochs, "
                    "between their grayscale and original versions",
                )
            with panes:
                _show_curve(run)
        elif run.active:
            st.skeleton(height=240)


def _show_status(run: RunView) -> None:
    words = _STATES.get(run.stage if run.state == "running" else run.state, run.state)
    if run.state == "queued":
        words = f"Waiting, number {run.position} in the queue"
    text = f"**{run.spec.name}** · {words}"
    if run.stage == "training" and run.curve:
        text += f" · step {run.step:,} of {run.steps:,} · loss {run.curve[-1][1]:.5f}"
    if run.active:
        st.progress(run.progress, text=text)
        key = _visitor_key()
        if training_service().may_control(run.run_id, key):
            with st.container(horizontal=True):
                ask = {"args": (training_service().stop, run.run_id, key)}
                ask["disabled"] = run.stage in ("stopping", "saving", "measuring")
                st.button("Stop and keep", icon=":material/stop_circle:", on_click=_control, **ask)
                st.button("Discard", icon=":material/delete:", on_click=_discard, args=(run.run_id, key))
        if run.stage == "measuring":
            _show_result(run)
        return
    if run.state in ("failed", "interrupted"):
        st.error(f"{text}. {run.message}", icon=":material/error:")
        return
    st.success(text, icon=":material/check_circle:")
    _show_result(run)


def _show_result(run: RunView) -> None:
    try:
        entry = library.find_model(run.spec.name)
    except ColorizerError:
        st.caption("Its model has been deleted since.")
        return
    split, where = entry.reported
    columns = st.columns(3)
    columns[0].metric(f"Error (mse), {where}", f"{entry.metric(split):.5f}")
    columns[1].metric("Gray copy, the baseline", f"{entry.card['metrics'][split]['gray_copy']['mse']:.5f}")
    columns[2].metric("Time", f"{entry.card['seconds']:.1f} s")
    with st.container(horizontal=True):
        link = {"query_params": {"model": entry.name}}
        st.page_link("colorizer/ui/gallery.py", label="See it in the gallery", icon=":material/grid_view:", **link)
        st.page_link("colorizer/ui/photo.py", label="Try it on a photo", icon=":material/photo_camera:", **link)


def _control(method: Callable[..., None], *arguments: Any) -> None:
    """Ask the service for something; on failure say why."""
    try:
        method(*arguments)
    except ColorizerError as error:
        st.error(str(error), icon=":material/error:")


def _discard(run_id: str, key: str) -> None:
    _control(training_service().discard, run_id, key)
    st.query_params.pop("run", None)


def _show_curve(run: RunView) -> None:
    epochs = [(float(event["epoch"]), event["val_loss"]) for event in run.epochs]
    st.altair_chart(
        charts.loss_chart(run.curve, epochs, _gray_copy_loss(run.spec), max(1, run.spec.train.epochs)),
        alt="Loss of each training batch, validation loss of each epoch and the gray copy, over epochs",
    )


def _gray_copy_loss(spec: TrainingSpec) -> float | None:
    """The gray copy's loss beside a training curve: on CIFAR-10's test images or the samples."""
    if spec.model.target == "gray":
        return None
    prepared = spec.train.dataset == "cifar10" and data.cifar10_status()["state"] == "prepared"
    return float(state.gray_copy_mse("cifar10" if prepared else "samples").mean())
