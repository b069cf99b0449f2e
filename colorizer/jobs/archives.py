"""Colorizes an archive of pictures on Ray, with a manifest that says what became of each file.

Each worker holds one model, and reads and writes the pictures itself. So every node needs this project and the archive
at the same paths; the model is sent by Ray. Only the workers import TensorFlow.
"""

import contextlib
import importlib
import json
import os
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from colorizer.errors import ClusterError, ColorizerError
from colorizer.jobs.batch import PictureFile, colorize_file
from colorizer.models.colorizer import load
from colorizer.models.library import ModelEntry
from colorizer.models.network import ensure_exported, use_one_thread
from colorizer.storage import delete_folder

_CHUNK = 8  # Each call has this many files, because a call costs the driver as much as a small picture costs a worker.
_CALLS = 2  # Each worker has this many calls in flight, so that it never waits for the driver.
_MAX_TRIES = 3  # A file at which this many workers died counts as failed.
_MAX_DEATHS = 10  # The job ends after this many deaths per worker in a row, without one file done in between.
WORKER_BYTES = 2**30  # A worker needs this much memory for TensorFlow and a large photo.
_SHARD_LINES = 10_000
_STORE_BYTES = 100 * 2**20  # Ray's object store on this machine has this size, and more for large arrays.


def colorize_files(
    entry: ModelEntry,
    files: Sequence[PictureFile],
    output: Path,
    address: str = "local",
    overwrite: bool = False,
    **settings: Any,
) -> Iterator[PictureFile]:
    """Colorize the files of a plan with Ray; yield each when it is done, in any order.

    Each file gets a line in the folder `output`/manifest: `input`, `output` or `error`, `seconds`. A job that was
    killed goes on when it is started again: it keeps the results that exist, and does not retry files whose line has an
    error, unless the folder `manifest` is deleted.

    Args:
        entry: the model.
        files: the plan, made by `batch.plan_files`.
        output: the folder for which the plan was made.
        address: `local` to start Ray on this machine, or HOST:PORT of a cluster's head.
        overwrite: begin a new manifest.
        settings: settings of `Colorizer.colorize`.

    Raises:
        ClusterError: Ray is missing, the cluster cannot be reached or has no room, or workers keep dying.
        ColorizerError: the model cannot be loaded, or does not have these settings.
    """
    ray = require("ray")
    folder = output / "manifest"
    if overwrite:
        delete_folder(folder)
    with contextlib.closing(_Manifest(folder)) as manifest:
        to_do = []
        for file in files:
            listed = str(file.source.absolute()) in manifest.errors
            if listed and not file.error:
                file = replace(file, error=manifest.errors[str(file.source.absolute())])
            if not file.error and not file.skipped:
                to_do.append(file)
            else:
                yield file if listed else manifest.add(file, 0.0)
        if to_do:
            with connect(ray, address) as scratch:
                for file, seconds in _spread(ray, entry, to_do, settings, scratch):
                    yield manifest.add(file, seconds)


class _Manifest:
    """JSON lines in numbered files, the shards. Each job begins another, so only a shard's last line can be cut off."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.shard = folder, 0, None
        self.errors: dict[str, str | None] = {}  # The error of each input, or None where it succeeded.
        for path in sorted(folder.glob("*.jsonl")):
            with path.open(encoding="utf-8", errors="replace") as shard:
                for line in shard:
                    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                        content = json.loads(line)
                        error = content.get("error")
                        self.errors[content["input"]] = error if error is None else str(error)

    def add(self, file: PictureFile, seconds: float) -> PictureFile:
        """Append the line of a file that is done, and return the file."""
        if self.lines % _SHARD_LINES == 0:
            self.close()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.shard = (self.folder / f"{time.time_ns()}.jsonl").open("x", encoding="utf-8", buffering=1)
        outcome = {"error": file.error} if file.error else {"output": str(file.target.absolute())}
        line = {"input": str(file.source.absolute()), **outcome, "seconds": round(seconds, 4)}
        self.shard.write(json.dumps(line) + "\n")
        self.lines += 1
        return file

    def close(self) -> None:
        """Close the current shard, if there is one."""
        if self.shard:
            self.shard.close()


def require(package: str) -> Any:
    """Import and return a package of requirements-cluster.txt; raise `ClusterError` where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        message = f"{package.capitalize()} is not installed. Run pip install -r requirements-cluster.txt."
        raise ClusterError(message) from None


def count_room(ray: Any) -> int:
    """Return how many workers the nodes have room for; raise `ClusterError` where there is no room for one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(min(node.get("CPU", 0), node.get("memory", 0) // WORKER_BYTES)) for node in nodes)
    if not room:
        raise ClusterError("No node of the cluster has a core and 1 GB of memory for a worker. Add a node.")
    return room


def cannot_start(reason: str) -> ClusterError:
    """Return the error that says why a worker cannot start."""
    return ClusterError(f"A worker cannot start ({reason}). Install the project and its packages on every node.")


@contextlib.contextmanager
def connect(ray: Any, address: str, array_bytes: int = 0) -> Iterator[str | None]:
    """Start Ray on this machine or join a cluster, and leave it at the end of the block.

    Args:
        ray: the module.
        address: `local` to start Ray on this machine, or HOST:PORT of a cluster's head.
        array_bytes: size of the arrays that Ray's object store on this machine must have room for.

    Yields:
        the temporary folder of a Ray that was started here, which is deleted at the end; None for a cluster.

    Raises:
        ClusterError: there is no Ray at that address.
    """
    options = {"logging_level": "error", "log_to_driver": False}
    with contextlib.ExitStack() as stack:
        scratch = None
        if address == "local":
            # A socket's path has at most 107 bytes, of which Ray's own part takes 70, so a long folder does not do.
            short = "/tmp" if os.name == "posix" and len(tempfile.gettempdir()) > 30 else None
            folder = tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True)
            scratch = stack.enter_context(folder)
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            options |= {"num_cpus": cores, "object_store_memory": _STORE_BYTES + array_bytes}
            options |= {"include_dashboard": False, "_temp_dir": scratch}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Without this, Ray reports its use to its makers.
        try:
            if address != "local":  # This fails at once, where ray.init would wait for many minutes.
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, **options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            message = f"There is no Ray at {address!r} ({reason}). Give local, or the HOST:PORT of a cluster's head."
            raise ClusterError(message) from error
        stack.callback(ray.shutdown)
        yield scratch


def _spread(
    ray: Any, entry: ModelEntry, files: Sequence[PictureFile], settings: dict[str, Any], scratch: str | None
) -> Iterator[tuple[PictureFile, float]]:
    """Yield each file with its seconds, colorized by as many workers as there are cores with enough memory."""
    entry = ensure_exported(entry)
    model = ray.put({name: (entry.path / name).read_bytes() for name in ("card.json", "model.onnx")})
    worker_class = ray.remote(num_cpus=1, memory=WORKER_BYTES)(_Worker)
    chunks = deque(files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK))
    # The files that a worker had in flight when it died are suspects. Each suspect is retried alone in a worker, so
    # that only a file that kills its workers itself is reported as failed.
    suspects: deque[PictureFile] = deque()
    calls: dict[Any, tuple[Any, Sequence[PictureFile], int]] = {}  # It holds a call's worker, files and weight.
    in_flight: Counter[Any] = Counter()  # It holds the sum of weights, at most _CALLS, of each worker that is ready.
    tries, deaths, left = Counter(), 0, len(files)

    def start_worker() -> None:
        worker = worker_class.remote()
        calls[worker.load.remote(entry.name, model, settings, scratch)] = worker, [], 0

    def send(worker: Any, chunk: Sequence[PictureFile], weight: int) -> None:
        absolute = [PictureFile(file.source.absolute(), file.target.absolute()) for file in chunk]
        calls[worker.colorize.remote(absolute)] = worker, chunk, weight
        in_flight[worker] += weight

    workers = min(count_room(ray), len(chunks))
    for _ in range(workers):
        start_worker()
    while left:
        (call,), _ = ray.wait(list(calls))
        worker, chunk, weight = calls[call]
        try:
            results = ray.get(call)
        except ray.exceptions.RayActorError as error:  # The worker died, or its node.
            if error.actor_init_failed:
                raise cannot_start(str(error).strip().splitlines()[-1]) from error
            ray.kill(worker)
            lost = [file for other in list(calls) if calls[other][0] == worker for file in calls.pop(other)[1]]
            del in_flight[worker]
            deaths += 1
            if weight == _CALLS:  # The file was alone in its worker.
                tries[chunk[0]] += 1
                if tries[chunk[0]] == _MAX_TRIES:
                    left, deaths, lost = left - 1, 0, []
                    yield replace(chunk[0], error=f"{_MAX_TRIES} workers died at this file."), 0.0
            if deaths == _MAX_DEATHS * workers:
                reason = str(error).splitlines()[0]
                raise ClusterError(f"{deaths} workers died in a row ({reason}). Look at their nodes.") from error
            suspects.extend(lost)
            start_worker()
        except ray.exceptions.RayTaskError as error:  # The worker cannot load the model, or refuses the settings.
            if isinstance(error.cause, ColorizerError):
                raise error.cause from None
            raise cannot_start(repr(error.cause)) from error
        else:
            del calls[call]
            in_flight[worker] -= weight
            for file, (error, seconds) in zip(chunk, results or (), strict=True):
                left, deaths = left - 1, 0
                yield replace(file, error=error), seconds
        for worker in in_flight:
            while chunks and in_flight[worker] < _CALLS:
                send(worker, chunks.popleft(), 1)
            if suspects and not in_flight[worker]:
                send(worker, [suspects.popleft()], _CALLS)


class _Worker:
    """A process on some node that holds a model."""

    def load(self, name: str, content: dict[str, bytes], settings: dict[str, Any], scratch: str | None) -> None:
        """Load the model from the content of its files, and check that it takes the settings."""
        use_one_thread()
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            folder = Path(home, name)
            folder.mkdir()
            for file_name, part in content.items():
                (folder / file_name).write_bytes(part)
            self._colorizer = load(folder)
            # This loads the network while its files exist, and raises an error where the model refuses the settings.
            self._colorizer.colorize(np.zeros((32, 32, 3), np.uint8), **settings)
        self._settings = settings

    def colorize(self, files: Sequence[PictureFile]) -> list[tuple[str | None, float]]:
        """Colorize files of a plan; return the error, or None, and the seconds of each."""
        results = []
        for file in files:
            start = time.perf_counter()
            error = colorize_file(self._colorizer, file, **self._settings).error
            results.append((error, time.perf_counter() - start))
        return results
