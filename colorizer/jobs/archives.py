"""An archive of pictures, colorized on Ray: workers that each hold one model, and a manifest of what has become of it.

Workers read and write the pictures themselves, so every node needs this project and the archive at the same paths; the
model is sent. TensorFlow is imported by the workers only.
"""

import contextlib
import json
import os
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from colorizer.errors import ClusterError, ColorizerError
from colorizer.jobs.batch import PictureFile, colorize_file
from colorizer.models.colorizer import load
from colorizer.models.library import ModelEntry
from colorizer.storage import delete_folder

_CHUNK = 8  # files a call: a call costs the driver as much as a small picture costs a worker
_CALLS = 2  # in flight for each worker, so that it never waits for the driver
_MAX_TRIES = 3  # of a file at which workers die
_MAX_DEATHS = 10  # of each worker and its successors, without a file done anywhere
WORKER_BYTES = 2**30  # of memory, with TensorFlow and a large photo
_SHARD_LINES = 10_000
_STORE_BYTES = 100 * 2**20  # of Ray's object store on this machine, beside large arrays


def colorize_files(
    entry: ModelEntry,
    files: Sequence[PictureFile],
    output: Path,
    address: str = "local",
    overwrite: bool = False,
    **settings: Any,
) -> Iterator[PictureFile]:
    """Colorize the files of a plan with Ray; yield each when it is done, in any order.

    What becomes of each file is a line in `output`/manifest: `input`, `output` or `error`, `seconds`. A job that was
    killed goes on when it is started again: results that are there are kept, and files listed with an error are not
    tried again unless that folder is deleted.

    Args:
        entry: the model.
        files: of `batch.plan_files`.
        output: the folder given there.
        address: `local` to start Ray on this machine, or HOST:PORT of a cluster's head.
        overwrite: begin a new manifest.
        settings: of `Colorizer.colorize`.

    Raises:
        ClusterError: Ray is missing, the cluster cannot be reached or has no room, or workers keep dying.
        ColorizerError: the workers cannot load the model, or refuse the settings.
    """
    ray = import_ray()
    folder = output / "manifest"
    if overwrite:
        delete_folder(folder)
    with _Manifest(folder) as manifest:
        to_do = []
        for file in files:
            settled = file if file.error else replace(file, error=manifest.listed.get(str(file.source.absolute())))
            if settled.error or settled.skipped:
                yield manifest.add(settled, 0.0) if str(file.source.absolute()) not in manifest.listed else settled
            else:
                to_do.append(file)
        if to_do:
            with connect(ray, address) as scratch:
                for file, seconds in _spread(ray, entry, to_do, settings, scratch):
                    yield manifest.add(file, seconds)


class _Manifest:
    """JSON lines in shards. Each job begins new ones, so that a line cut by a kill is the last of its shard.

    Attributes:
        listed: the error, or None, of each input.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.shard = folder, 0, None
        self.listed: dict[str, str | None] = {}
        for path in sorted(folder.glob("*.jsonl")):
            with path.open(encoding="utf-8", errors="replace") as shard:
                for line in shard:
                    with contextlib.suppress(ValueError, TypeError, KeyError):
                        content = json.loads(line)
                        source = content["input"]
                        self.listed[source] = content.get("error")

    def add(self, file: PictureFile, seconds: float) -> PictureFile:
        """Append the line of a file that was done, and return the file."""
        if self.lines % _SHARD_LINES == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.__exit__()
            self.shard = (self.folder / f"{time.time_ns()}.jsonl").open("x", encoding="utf-8", buffering=1)
        outcome = {"error": file.error} if file.error else {"output": str(file.target.absolute())}
        line = {"input": str(file.source.absolute()), **outcome, "seconds": round(seconds, 4)}
        self.shard.write(json.dumps(line) + "\n")
        self.lines += 1
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.shard:
            self.shard.close()


def import_ray() -> Any:
    """Import Ray; raise `ClusterError` where it is missing."""
    try:
        import ray
    except ImportError:
        raise ClusterError("Ray is not installed. Run pip install -r requirements-cluster.txt.") from None
    return ray


def count_room(ray: Any) -> int:
    """How many workers the nodes have room for; none raises `ClusterError`."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(min(node.get("CPU", 0), node.get("memory", 0) // WORKER_BYTES)) for node in nodes)
    if not room:
        raise ClusterError("No node of the cluster has a core and 1 GB of memory for a worker. Add a node.")
    return room


def limit_tensorflow() -> None:
    """Give TensorFlow one core, in a worker that has not used it yet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@contextlib.contextmanager
def connect(ray: Any, address: str, array_bytes: int = 0) -> Iterator[str | None]:
    """Start Ray in a temporary folder, which is returned, with room for arrays of that size; or join a cluster.

    Raises:
        ClusterError: there is no Ray at that address.
    """
    quiet = {"logging_level": "error", "log_to_driver": False}
    with contextlib.ExitStack() as stack:
        scratch = None
        if address == "local":
            # The path of a socket has at most 107 bytes, of which Ray's own part takes 70.
            short = "/tmp" if os.name == "posix" and len(tempfile.gettempdir()) > 30 else None
            folder = tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True)
            scratch = stack.enter_context(folder)
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            quiet |= {"num_cpus": cores, "object_store_memory": _STORE_BYTES + array_bytes}
            quiet |= {"include_dashboard": False, "_temp_dir": scratch}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports home
        try:
            if address != "local":  # ray.init waits many minutes for a cluster that is not there
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            message = f"There is no Ray at {address!r} ({reason}). Give local, or the HOST:PORT of a cluster's head."
            raise ClusterError(message) from error
        stack.callback(ray.shutdown)
        yield scratch


def _spread(
    ray: Any, entry: ModelEntry, files: Sequence[PictureFile], settings: dict[str, Any], scratch: str | None
) -> Iterator[tuple[PictureFile, float]]:
    """Yield each file and its seconds, done by as many workers as there are cores with memory enough.

    Those that are still loading when there is no more to do are killed: what they have in `scratch` goes with it.
    """
    model = ray.put({name: (entry.path / name).read_bytes() for name in ("card.json", "model.keras")})
    worker_class = ray.remote(num_cpus=1, memory=WORKER_BYTES)(_Worker)
    chunks = deque(files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK))
    suspects: deque[PictureFile] = deque()  # in flight when a worker died: each is tried again with no other beside it
    calls: dict[Any, tuple[Any, Sequence[PictureFile], int]] = {}  # worker, files, share of the worker's queue
    queues: Counter[Any] = Counter()  # how full it is, up to _CALLS, of each worker that has its model
    tries, deaths, left = Counter(), 0, len(files)

    def hire() -> None:
        worker = worker_class.remote()
        calls[worker.load.remote(entry.name, model, settings, scratch)] = worker, [], 0

    def send(worker: Any, chunk: Sequence[PictureFile], share: int) -> None:
        absolute = [PictureFile(file.source.absolute(), file.target.absolute()) for file in chunk]
        calls[worker.colorize.remote(absolute)] = worker, chunk, share
        queues[worker] += share

    def cannot_start(reason: str) -> ClusterError:
        return ClusterError(f"A worker cannot start ({reason}). Install the project and its packages on every node.")

    workers = min(count_room(ray), len(chunks))
    for _ in range(workers):
        hire()
    while left:
        (call,), _ = ray.wait(list(calls))
        worker, chunk, share = calls[call]
        try:
            results = ray.get(call)
        except ray.exceptions.RayActorError as error:  # the worker died, or its node
            if error.actor_init_failed:
                raise cannot_start(str(error).strip().splitlines()[-1]) from error
            ray.kill(worker)
            lost = [file for other in list(calls) if calls[other][0] == worker for file in calls.pop(other)[1]]
            del queues[worker]
            deaths += 1
            if share == _CALLS:  # it was alone
                tries[chunk[0]] += 1
                if tries[chunk[0]] == _MAX_TRIES:
                    left, deaths, lost = left - 1, 0, []
                    yield replace(chunk[0], error=f"{_MAX_TRIES} workers died at this file."), 0.0
            if deaths == _MAX_DEATHS * workers:
                reason = str(error).splitlines()[0]
                raise ClusterError(f"{deaths} workers died in a row ({reason}). Look at their nodes.") from error
            suspects.extend(lost)
            hire()
        except ray.exceptions.RayTaskError as error:  # it cannot begin
            if isinstance(error.cause, ColorizerError):
                raise error.cause from None
            raise cannot_start(repr(error.cause)) from error
        else:
            del calls[call]
            queues[worker] -= share
            for file, (error, seconds) in zip(chunk, results, strict=True):
                left, deaths = left - 1, 0
                yield replace(file, error=error), seconds
        for worker in queues:
            while chunks and queues[worker] < _CALLS:
                send(worker, chunks.popleft(), 1)
            if suspects and not queues[worker]:
                send(worker, [suspects.popleft()], _CALLS)


class _Worker:
    """A model in a process of its own, on some node."""

    def load(self, name: str, content: dict[str, bytes], settings: dict[str, Any], scratch: str | None) -> list[Any]:
        limit_tensorflow()
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            folder = Path(home, name)
            folder.mkdir()
            for file_name, part in content.items():
                (folder / file_name).write_bytes(part)
            self._colorizer = load(folder)
        self._colorizer.check_settings(**settings)
        self._settings = settings
        return []

    def colorize(self, files: Sequence[PictureFile]) -> list[tuple[str | None, float]]:
        results = []
        for file in files:
            start = time.perf_counter()
            try:
                error = colorize_file(self._colorizer, file, **self._settings).error
            except Exception as unexpected:  # such as MemoryError: it must not cost the other files
                error = repr(unexpected)
            results.append((error, time.perf_counter() - start))
        return results
