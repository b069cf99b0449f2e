"""Runs the network of a saved model with ONNX Runtime."""

import functools
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colorizer.errors import ModelError
from colorizer.models import library

ARCHITECTURE, BINS = "architecture", "bins"  # The metadata of a graph have these keys.
_MAX_THREADS = 4
_MAX_BYTES = 4 * 2**30  # All networks of a process together may hold this much memory for intermediate results.
EXPORT_REFUSED = 3  # The process that exports ends with this exit code after it printed a sentence.
_PATH = re.compile(r"(?:[A-Za-z]:)?[/\\][^\s\"',;()]+")
_log = logging.getLogger(__name__)
_LARGE = 2**15  # An image of more pixels than this is large.
_NOWHERE = str(Path(os.devnull) / "nowhere")
_threads = min(os.cpu_count() or 1, _MAX_THREADS)


def use_one_thread() -> None:
    """Let each network that is loaded from now on run in the thread that calls it, in a process beside others."""
    global _threads
    _threads = 1


@functools.cache
def _runtime() -> Any:
    """Import ONNX Runtime and bound the memory of all networks: a graph that asks for more raises an error."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # From version 1.29 on it would report its use to its makers.
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # The second setting makes the arena grow by what is asked for instead of by powers of two.
    arena = onnxruntime.OrtArenaCfg({"max_mem": _MAX_BYTES, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(memory, arena)
    return onnxruntime


def open_session(graph: bytes) -> Any:
    """Open the content of an ONNX file for inference on the processor."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.log_severity_level = 4  # Errors are raised, so they need not be printed too.
    # Threads that wait must leave the cores to other visitors and to a training.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A graph of ours has its weights inside. One that names other files finds none in a folder that is not there.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@functools.cache
def _run_options(large: bool) -> Any:
    """Return the options of a run; a large one gives its memory back, since the next has another size."""
    options = _runtime().RunOptions()
    if large:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


class Network:
    """A network in ONNX Runtime; safe to call from several threads.

    Args:
        graph: content of an ONNX file that `training.export` wrote.

    Attributes:
        architecture: the architecture of the network, as in `ModelConfig`.
        vivid: whether the network chooses among chroma bins.
        hints: whether the network takes hints.
        any_size: whether the network takes images of more than one size.
        bins: the chroma bins among which the network chooses, float32 (bins, 2), or None.
    """

    def __init__(self, graph: bytes) -> None:
        self._session = open_session(graph)
        about = self._session.get_modelmeta().custom_metadata_map
        self.architecture = about.get(ARCHITECTURE, "")
        self.bins = np.array(json.loads(about[BINS]), np.float32).reshape(-1, 2) if BINS in about else None
        inputs = {value.name: value for value in self._session.get_inputs()}
        defaults = {value.name for value in self._session.get_overridable_initializers()}
        self.vivid, self._boosted = ("temperature" in defaults), ("boost" in defaults)
        self.hints, self.any_size = "hints" in inputs, inputs["luminance"].shape[1:3] != [32, 32]

    def __call__(
        self, luminance: np.ndarray, decodings: Sequence[tuple[float, float]], hints: np.ndarray | None = None
    ) -> np.ndarray:
        """Return one batch of images, float32 (levels, N, H, W, C), for each decoding; the network runs once.

        Args:
            luminance: float32 of shape (N, H, W, 1) in [0, 1].
            decodings: temperature and boost, see `Scale.decoding`; a network without chroma bins gives the same for
                each.
            hints: float32 of shape (N, H, W, 3), Cb, Cr and a mask that is 1 where they are given; None for no hints.
        """
        (images,) = self._run(["image"], luminance, decodings, hints, None)
        return images

    def look(
        self,
        luminance: np.ndarray,
        decodings: Sequence[tuple[float, float]],
        hints: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what a call returns, and the logits of the chroma bins, float32 (N, H / s, W / s, bins).

        Args:
            luminance, decodings, hints: as in a call.
            prior: float32 (bins,), added to the logits at each place; None for zeros.
        """
        return self._run(["image", "logits"], luminance, decodings, hints, prior)

    def _run(
        self,
        outputs: list[str],
        luminance: np.ndarray,
        decodings: Sequence[tuple[float, float]],
        hints: np.ndarray | None,
        prior: np.ndarray | None,
    ) -> list[np.ndarray]:
        inputs = {"luminance": luminance}
        if self.hints:
            inputs["hints"] = np.zeros((*luminance.shape[:3], 3), np.float32) if hints is None else hints
        if self.vivid:
            temperatures, boosts = np.array(decodings, np.float32).T
            inputs |= {"temperature": temperatures} | ({"boost": boosts} if self._boosted else {})
        if prior is not None:
            inputs["prior"] = prior
        try:
            images, *others = self._session.run(outputs, inputs, _run_options(luminance[:1].size > _LARGE))
            images = images if self.vivid else np.broadcast_to(images, (len(decodings), *images.shape))
        except Exception as error:  # ONNX Runtime raises many kinds.
            raise ModelError(
                f"A network could not run ({_first_line(error)}). If others are at work, try again when they are done."
            ) from error
        expected = (len(decodings), *luminance.shape[:3])
        if images.shape[:-1] != expected or images.shape[-1] not in (1, 3) or images.dtype != np.float32:
            raise ModelError(f"A network made {images.dtype} {images.shape} of {len(luminance)} images.")
        return [images, *others]


def load_network(entry: library.ModelEntry) -> Network:
    """Load the network of a model; one that was saved by an earlier version is exported first, in another process.

    Raises:
        ModelError: the file is not the one that was saved, ONNX Runtime refuses it, or it does not match its card.
    """
    entry = ensure_exported(entry)
    graph = library.read_network(entry, "model.onnx")
    try:
        network = Network(graph)
    except Exception as error:  # ONNX Runtime raises many kinds on files that are not of its format.
        reason = f"model.onnx: {_first_line(error)}"
        raise ModelError(f"The model {entry.name} cannot be loaded ({reason}). {library.what_to_do(entry)}") from error
    config = entry.model_config
    found = network.architecture, network.vivid, network.hints, network.any_size
    described = config.architecture, entry.vivid, config.hints, entry.any_size
    if found != described or network.vivid != (network.bins is not None):
        raise ModelError(f"model.onnx of {entry.name} is not what its card describes. {library.what_to_do(entry)}")
    return network


def ensure_exported(entry: library.ModelEntry) -> library.ModelEntry:
    """Return the entry of a model after exporting it, if an earlier version saved it; this takes some seconds.

    Raises:
        ModelError: `model.keras` cannot be read, or the folder cannot be written.
    """
    if entry.exported:
        return entry
    _log.warning("%s was saved by an earlier version. It is prepared once, which takes some seconds.", entry.name)
    command = [sys.executable, "-m", "colorizer.training.export", str(entry.path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["its process was ended"])[-1]
        raise ModelError(reason if done.returncode == EXPORT_REFUSED else f"{entry.name} was not exported: {reason}.")
    return library.find_model(entry.path)


def _first_line(error: Exception) -> str:
    """Return what went wrong in a few printable words, without the paths of this machine."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return library.describe_error(ValueError(_PATH.sub("…", line.rpartition(" : ")[2]).rstrip(".")))
