"""`python -m tests.benchmarks NAME [--runs N] [--json]`: measure, and compare with the goals.

Each benchmark is a module here with a function `measure(runs)` that returns its measurements.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata

from colorizer.errors import ColorizerError

BENCHMARKS = ("startup", "inference", "memory", "load", "training", "photo", "archive")
PACKAGES = ("tensorflow", "keras", "onnxruntime", "streamlit", "numpy")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=(*BENCHMARKS, "all"))
    parser.add_argument("--runs", type=int, default=5, help="times that each thing is measured (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    runs, results = max(1, options.runs), {}
    for name in BENCHMARKS if options.name == "all" else (options.name,):
        try:
            measured = importlib.import_module(f"tests.benchmarks.{name}").measure(runs)
        except ColorizerError as error:  # such as data or Ray that are not here
            print(f"{name}: {error}", file=sys.stderr)
            continue
        results[name] = [measurement.to_dict() for measurement in measured]
        for measurement in measured:
            print(measurement, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        machine = {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "runs": runs, "versions": versions}
        print(json.dumps(about | {"machine": machine, "benchmarks": results}))
    return int(not results)


if __name__ == "__main__":
    sys.exit(main())
