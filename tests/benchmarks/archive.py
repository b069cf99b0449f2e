"""Measures how many pictures a second Ray colorizes with one and two workers, and the plain command on two cores."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from colorizer.jobs import archives, batch
from colorizer.models import library
from colorizer.models.colorizer import load
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.photo import ROOT, make_jpeg

NUM_PICTURES = 600
NUM_MISSING = 20_000  # These files do not exist, so that they cost only the driver.
MODEL = "unet"
WAYS = ("plain", "1", "2", "missing")


def measure(runs: int) -> list[Measurement]:
    """Measure the ways in turns, each in a process of its own; raise `ClusterError` where Ray is missing."""
    archives.require("ray")
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="colorizer-benchmark-") as folder:
        pictures = Path(folder, "in")
        pictures.mkdir()
        content = [make_jpeg(320, 240, seed) for seed in range(20)]
        for number in range(NUM_PICTURES):
            (pictures / f"{number:05}.jpg").write_bytes(content[number % 20])
        for run in range(runs):
            for way, values in measured.items():
                command = [sys.executable, "-m", "tests.benchmarks.archive", way, pictures, Path(folder, f"{way}{run}")]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
                values.append(json.loads(done.stdout))
    rates = {way: [value["rate"] for value in values] for way, values in measured.items()}
    shares = [plain / two for two, plain in zip(rates["2"], rates["plain"], strict=True)]
    memory = [value["memory"] / 1e6 for way in "12" for value in measured[way]]
    return [
        Measurement(f"pictures of 320 x 240 by {MODEL}, plain command on two cores", "pictures/s", rates["plain"]),
        Measurement("one Ray worker on one core", "pictures/s", rates["1"]),
        Measurement("two Ray workers on two cores", "pictures/s", rates["2"]),
        Measurement("the plain command, times two Ray workers", "x", shares, at_least=1.0),
        Measurement("peak memory of a worker", "MB", memory),
        Measurement(
            "processor time of the driver for a file", "us", [value["driver"] for value in measured["missing"]]
        ),
    ]


def _measure_way(way: str, pictures: Path, output: Path) -> dict[str, float]:
    """Return the pictures a second over the second half, when every worker is busy; this process's microseconds of
    processor time for each picture; and a worker's peak memory in bytes.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: 1 if way == "1" else 2])
    files, memory = batch.plan_files([pictures], output), [0]
    if way == "missing":
        files = [batch.PictureFile(pictures / f"{number}.no", output / f"{number}") for number in range(NUM_MISSING)]
    if way == "plain":
        done = batch.colorize_files(load(MODEL), files)
    else:
        done = archives.colorize_files(library.find_model(MODEL), files, output)
        threading.Thread(target=_watch, args=(memory,), daemon=True).start()
    times, processor = zip(*((time.perf_counter(), time.process_time()) for _ in done), strict=True)
    half = len(times) // 2
    rate, driver = ((len(times) - half) / (clock[-1] - clock[half - 1]) for clock in (times, processor))
    return {"rate": rate, "driver": 1e6 / driver, "memory": memory[0]}


def _watch(memory: list[int]) -> None:
    """Watch all workers and store the largest peak of memory."""
    while True:
        for path in Path("/proc").glob("[0-9]*/status"):
            try:
                status = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
            except OSError:  # The process has just ended.
                continue
            if status["Name"].startswith("ray::_Worker") and "VmHWM" in status:
                memory[0] = max(memory[0], int(status["VmHWM"].split()[0]) * 1024)
        time.sleep(1)


if __name__ == "__main__":
    print(json.dumps(_measure_way(sys.argv[1], *map(Path, sys.argv[2:]))))
