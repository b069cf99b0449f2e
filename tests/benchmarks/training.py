"""Training: from start to first point, the page while it learns, and the cost of an epoch beside Keras `fit`."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from colorizer import config
from colorizer.config import TrainingSpec
from colorizer.data import datasets
from colorizer.jobs.service import TrainingService, training_service
from colorizer.presets import get_preset
from tests.benchmarks.home import own_home
from tests.benchmarks.measurement import Measurement

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds
IMPORT_SECONDS = 20.0  # In this time, a worker that nobody else slows down has TensorFlow imported.


def measure(runs: int) -> list[Measurement]:
    """Measure all of it; needs CIFAR-10."""
    datasets.load_dataset("cifar10")
    with own_home("data"):
        return [_first_point(runs), _page_rerun(runs), *_epoch(runs)]


def _spec(name: str, **changes: Any) -> TrainingSpec:
    preset = get_preset("notebook")
    return TrainingSpec(name, preset.model, preset.train.replace(**changes), preset.name)


def _wait(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the worker took too long")
        time.sleep(0.005)


def _first_point(runs: int) -> Measurement:
    """Seconds from `start` to the first point of the curve that `view` shows, the spare worker being ready."""
    trainings, seconds = TrainingService(), []
    try:
        for number in range(runs):
            trainings.prepare()
            time.sleep(IMPORT_SECONDS)
            begin = time.perf_counter()
            run_id, key = trainings.start(_spec(f"first-point-{number}"))
            _wait(lambda: trainings.view(run_id).curve)  # noqa: B023, called at once
            seconds.append(time.perf_counter() - begin)
            trainings.discard(run_id, key)
            _wait(lambda: not trainings.active_runs())
            time.sleep(1)  # The service notices in this time that the worker has ended, and may start another.
    finally:
        trainings.close()
    return Measurement("start to first point, spare worker ready", "s", seconds, at_most=1.5)


def _page_rerun(runs: int) -> Measurement:
    """Milliseconds of a rerun of the Train page, in process, while the run on it is learning."""
    run_id, key = training_service().start(_spec("page", epochs=config.MAX_EPOCHS))
    milliseconds = []
    try:
        _wait(lambda: training_service().view(run_id).curve)
        app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
        app.run()
        app.switch_page("colorizer/app/pages/train.py")
        app.query_params.update(run=run_id, key=key)
        app.run()
        for _ in range(runs):
            time.sleep(0.5)  # as the page does
            begin = time.perf_counter()
            app.run()
            milliseconds.append(1000 * (time.perf_counter() - begin))
        if app.exception or not training_service().view(run_id).active:
            raise RuntimeError("the page did not show a run that is learning")
    finally:
        training_service().close()
    return Measurement("rerun of the Train page while training", "ms", milliseconds, at_most=100)


def _epoch(runs: int) -> list[Measurement]:
    """Time and memory of an epoch, each in its own process, in turns."""
    done: dict[str, list[dict[str, Any]]] = {"package": [], "fit": []}
    for _ in range(runs):
        for way, results in done.items():
            command = [sys.executable, "-m", "tests.benchmarks.notebook_epoch", way]
            process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if process.returncode:
                raise RuntimeError(f"{' '.join(command)} failed: {process.stderr[-2000:]}")
            results.append(json.loads(process.stdout.splitlines()[-1]))
    seconds = {way: [statistics.median(result["seconds"]) for result in results] for way, results in done.items()}
    gigabytes = {way: [result["peak_bytes"] / 1e9 for result in results] for way, results in done.items()}
    return [
        Measurement("epoch of notebook, 45,000 images", "s", seconds["package"]),
        Measurement("the same by Keras fit on float32 arrays", "s", seconds["fit"]),
        Measurement("times quicker", "x", _ratios(seconds["fit"], seconds["package"]), at_least=1.6),
        Measurement("peak memory", "GB", gigabytes["package"]),
        Measurement("peak memory of Keras fit", "GB", gigabytes["fit"]),
        Measurement("share of its memory", "", _ratios(gigabytes["package"], gigabytes["fit"]), at_most=0.4),
        Measurement(
            "share of the arithmetic limit given by a matrix product",
            "%",
            [
                100 * result["operations"] / result["operations_a_second"] / time_of_epoch
                for result, time_of_epoch in zip(done["package"], seconds["package"], strict=True)
            ],
            at_least=75,
        ),
    ]


def _ratios(numerators: list[float], denominators: list[float]) -> list[float]:
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators, strict=True)]
