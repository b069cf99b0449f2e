"""Loss curves on the pages: of a run as it goes, of several runs, and of a saved model."""

import streamlit as st

from colorizer.app.widgets import charts
from colorizer.config import TrainingSpec
from colorizer.errors import ColorizerError
from colorizer.jobs.runs import RunView
from colorizer.models import library

_LOG, _LINEAR = "Log", "Linear"


def curve(run: RunView) -> charts.Curve:
    """Batches and validation of a run."""
    return run.curve, [(float(epoch["epoch"]), epoch["val_loss"]) for epoch in run.epochs]


def gray_copy_loss(spec: TrainingSpec) -> float | None:
    """The gray copy's loss on the validation images beside a training curve; None where it has none."""
    split = library.VALIDATION_SPLITS.get(spec.train.dataset)
    return _gray_copy_loss(split) if split and spec.model.target != "gray" else None


@st.cache_data(show_spinner=False)
def _gray_copy_loss(split: str) -> float | None:
    measured = [entry.card["metrics"] for entry in library.list_models() if not entry.damage]  # any model's card has it
    return next((metrics[split]["gray_copy"]["mse"] for metrics in measured if split in metrics), None)


def show_run(run: RunView, others: dict[str, charts.Curve]) -> None:
    """Show the curve of a run, and of the visitor's choice of others by their names."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        axis = st.segmented_control("Axis", (_LOG, _LINEAR), default=_LOG, required=True, key=f"axis-{run.run_id}")
        chosen = []
        if others:
            chosen = st.multiselect(
                "Beside it", list(others), key=f"beside-{run.run_id}", max_selections=charts.MAX_OTHERS,
                placeholder="Lay earlier runs over it",
            )  # fmt: skip
    beside = {name: others[name] for name in chosen if name in others}
    alt = "Loss of each batch, smoothed, validation loss and the gray copy, over epochs"
    _draw(curve(run), gray_copy_loss(run.spec), run.spec.train.epochs, alt, beside, axis == _LOG, key="loss")


def show_runs(runs: list[RunView]) -> None:
    """Show the curves of several runs, if they have some."""
    curves = {run.spec.name: curve(run) for run in runs if run.curve}
    if curves:
        longest = max(run.spec.train.epochs for run in runs)
        alt = f"Loss of {', '.join(curves)} over epochs: smoothed, and validation"
        _draw(None, gray_copy_loss(runs[0].spec), longest, alt, curves)
        if len(curves) > charts.MAX_OTHERS:
            st.caption(f"The first {charts.MAX_OTHERS} are drawn.")


def show_history(entry: library.ModelEntry) -> None:
    """Show the loss curve that is kept with a model; one that cannot be read is said so."""
    try:
        history = library.load_history(entry)
        if not history["batch_loss"]:
            st.caption("Solved in closed form: there is no loss curve.")
            return
        batches = list(zip(history["batch_epochs"], history["batch_loss"], strict=True))
        validation = list(zip(history["epoch"], history["val_loss"], strict=True))
        alt = f"Loss curve of {entry.name}: training batches, smoothed, validation, and the gray copy"
        _draw((batches, validation), entry.gray_copy_loss, max(history["batch_epochs"]), alt)
    except (ColorizerError, KeyError, ValueError):
        st.caption("Its loss curve cannot be read.")


def _draw(
    shown: charts.Curve | None,
    gray_copy: float | None,
    epochs: float,
    alt: str,
    others: dict[str, charts.Curve] | None = None,
    log: bool = True,
    key: str | None = None,
) -> None:
    chart = charts.loss_chart(shown, gray_copy, epochs, others, log, st.context.theme.type == "dark")
    st.vega_lite_chart(spec=chart, height=charts.HEIGHT, alt=alt, key=key)
