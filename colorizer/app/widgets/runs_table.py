"""Shows a table of all runs, in which visitors compare curves, download results and delete their own runs."""

import io
from collections.abc import Callable

import pandas as pd
import streamlit as st

from colorizer.app import figures
from colorizer.app.widgets import live, losses
from colorizer.config import TrainingSpec
from colorizer.jobs.runs import RunView
from colorizer.models import library

_METRICS = {"mse": "%.5f", "psnr": "%.2f", "ssim": "%.3f", "delta_e": "%.2f"}


@st.fragment
def show_runs(trainings: list[RunView]) -> None:
    """Show these runs, which come newest first."""
    st.header("All runs", anchor=False)
    if not trainings:
        st.caption("There are no runs yet. Each run that somebody starts is listed here, with its curve and its model.")
        return
    models = {run.run_id: run.model() for run in trainings}

    def pick() -> None:
        st.session_state.picked = [trainings[row].run_id for row in st.session_state.runs_table.selection.rows]

    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame([_row(run, models[run.run_id]) for run in trainings]),
        hide_index=True,
        placeholder="",
        key="runs_table",
        on_select=pick,
        alt="All runs with their preset, settings, state, best validation loss, test metrics and time",
        column_config={"best val_loss": number(format="%.5f"), "time": number("time, s", format="%.0f")}
        | {name: number(f"test {name}", format=style) for name, style in _METRICS.items()}
        | {"started": st.column_config.DatetimeColumn(format="distance")},
    )
    by_id = {run.run_id: run for run in trainings}
    chosen = st.multiselect(
        "Compare, download or delete",
        list(by_id),
        key="picked",
        format_func=lambda run_id: by_id[run_id].spec.name,
        placeholder="Choose runs here or tick them in the table",
    )
    picked = [by_id[run_id] for run_id in chosen]
    losses.show_runs(picked)
    for run in picked:
        _show_actions(run, models[run.run_id])


def settings(spec: TrainingSpec) -> str:
    """Return the settings that tell trainings apart, in a few words."""
    train, images = spec.train, f"{spec.train.train_images:,} " if spec.train.train_images else ""
    words = [f"bottleneck {spec.model.latent_dim}", f"{train.epochs} epochs", f"batch {train.batch_size}"]
    words += [f"rate {train.learning_rate:g}", f"{images}{live.describe_dataset(train.dataset)}"]
    if train.init_from:
        words.append(f"from {train.init_from}{', encoder frozen' if train.freeze_encoder else ''}")
    return ", ".join(words)


def _row(run: RunView, entry: library.ModelEntry | None) -> dict[str, object]:
    row = {
        "name": run.spec.name,
        "preset": str(run.spec.preset or ""),
        "settings": settings(run.spec),
        "state": live.describe_state(run)[0],
        "best val_loss": run.best_val_loss,
    }
    row |= {name: entry.metric("test", name) if entry else None for name in _METRICS}
    return row | {"time": run.seconds, "started": pd.to_datetime(run.created, errors="coerce")}


def _show_actions(run: RunView, entry: library.ModelEntry | None) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{run.spec.name}**", width="content")
        st.page_link(
            "colorizer/app/pages/train.py", label="Open", icon=":material/visibility:", query_params={"run": run.run_id}
        )
        if entry is not None:
            files = (("ONNX, runs anywhere", "onnx"), ("Keras", "keras"))
            for label, suffix in ((label, suffix) for label, suffix in files if f"model.{suffix}" in entry.networks):
                _download(run, label, (entry.path / f"model.{suffix}").read_bytes, suffix, "application/octet-stream")
        if run.curve:
            _download(run, "History", lambda: history_csv(run), "csv", "text/csv")
            _download(run, "PNG", lambda: _figure(run, "png"), "png", "image/png")
            _download(run, "SVG", lambda: _figure(run, "svg"), "svg", "image/svg+xml")
        if not run.active and (key := live.key_of(run.run_id)):
            live.confirm_delete(run, key, "Delete run")


def _download(run: RunView, label: str, content: Callable[[], bytes], suffix: str, mime: str) -> None:
    st.download_button(
        label,
        content,
        f"{run.spec.name}.{suffix}",
        mime,
        key=f"{suffix}-{run.run_id}",
        icon=":material/download:",
        on_click="ignore",
        help=f"Download {run.spec.name}.{suffix}",
    )


def history_csv(run: RunView) -> bytes:
    """Return the curve and the epochs of a run as one CSV table, ordered by epochs."""
    batches = pd.DataFrame(run.curve, columns=["epochs", "batch_loss"])
    epochs = pd.DataFrame(run.epochs, columns=["epoch", "loss", "val_loss", "seconds"], dtype=float).rename(
        columns={"epoch": "epochs"}
    )
    joined = batches.merge(epochs, on="epochs", how="outer").sort_values("epochs", kind="stable")
    return joined.to_csv(index=False).encode()


def _figure(run: RunView, kind: str) -> bytes:
    history = {"batch_epochs": [x for x, _ in run.curve], "batch_loss": [y for _, y in run.curve]}
    history |= {key: [epoch[key] for epoch in run.epochs] for key in ("epoch", "val_loss")}
    buffer = io.BytesIO()
    figures.loss_curve(history, run.spec.name, losses.gray_copy_loss(run.spec)).savefig(buffer, format=kind)
    return buffer.getvalue()
