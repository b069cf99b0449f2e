"""Fixtures shared by all tests: a home of their own, CIFAR-10 real and fake, a tiny data set and saved model, the
command line, and a training service with a fake worker.
"""

import contextlib
import io
import json
import logging
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest

from colorizer.app import cli
from colorizer.config import ModelConfig, TrainConfig, TrainingSpec
from colorizer.data import datasets
from colorizer.data.cifar10 import CLASS_NAMES, TRAIN_BATCHES
from colorizer.jobs import sweeps
from colorizer.jobs.service import TrainingService
from colorizer.models import library
from tests.trainings import FAKE_WORKER

CIFAR10_SOURCE = os.environ.get("COLORIZER_CIFAR10")  # as it was before any test hid it
RAY_MISSING = "needs Ray: pip install -r requirements-cluster.txt"
BATCHES = (*TRAIN_BATCHES, "test_batch")
TINY_MODEL = ModelConfig(latent_dim=4, encoder_widths=(8,), decoder_widths=(8,))
TINY_TRAIN = TrainConfig(dataset="synthetic", train_images=64, epochs=2, batch_size=16)


def pytest_configure(config):
    """Let pass two warnings of others: when Keras saves, NumPy says that TensorFlow's variables are behind the times,
    and Streamlit's caches say that no server is running.
    """
    caches = logging.getLogger("streamlit.runtime.caching.cache_data_api")
    caches.addFilter(lambda record: "No runtime found" not in record.getMessage())
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    )


def pytest_collection_modifyitems(items):
    """Mark as slow every test that needs Chromium, a Ray cluster, CIFAR-10, real or fake, or the built wheel."""
    for item in items:
        if {"browser", "address", "nodes", "cifar10", "fake_folder", "wheel"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty COLORIZER_HOME, and no CIFAR-10 in the environment; deleted afterwards, for it can hold 200 MB."""
    folder = tmp_path / "home"
    monkeypatch.setenv("COLORIZER_HOME", str(folder))
    monkeypatch.delenv("COLORIZER_CIFAR10", raising=False)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def few_synthetic_images(monkeypatch):
    """The first tenth of the synthetic data set, for drawing all of it takes seconds; returns the number of all."""
    number = datasets._SYNTHETIC_IMAGES
    monkeypatch.setattr(datasets, "_SYNTHETIC_IMAGES", number // 10)
    return number


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory):
    """The real CIFAR-10, prepared once for the session."""
    if not CIFAR10_SOURCE or not Path(CIFAR10_SOURCE).exists():
        pytest.skip("needs the real CIFAR-10: set COLORIZER_CIFAR10 to the archive or its folder")
    folder = tmp_path_factory.mktemp("cifar10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZER_HOME", str(folder))
        patch.setenv("COLORIZER_CIFAR10", CIFAR10_SOURCE)
        dataset = datasets.load_dataset("cifar10")
    yield dataset
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def samples():
    """The 20 built-in images."""
    return datasets.load_samples()


@pytest.fixture(scope="session")
def tiny(samples):
    """64 synthetic training images, validated on the samples."""
    train = datasets.Split(datasets.draw_synthetic(64, seed=0), np.zeros(64, np.uint8))
    return datasets.Dataset("synthetic", train, samples, samples)


@pytest.fixture(scope="session")
def tiny_model():
    """Configuration of a model that builds and trains in no time."""
    return TINY_MODEL


@pytest.fixture(scope="session")
def tiny_train():
    """Configuration of two epochs of four steps."""
    return TINY_TRAIN


@pytest.fixture
def save_tiny(home, samples):
    """A function that saves an untrained tiny model under a name, as training does, and returns its entry."""
    from colorizer.models import evaluation
    from colorizer.models.colorizer import Colorizer
    from colorizer.models.network import Network
    from colorizer.training.export import export_network
    from colorizer.training.networks import build_model

    def save(name="tiny", **options):
        model = build_model(TINY_MODEL)
        graph = export_network(model)
        colorizer = Colorizer(Network(graph), None)
        predictions = evaluation.predict_split(colorizer, samples)
        card = {
            "name": name,
            "preset": "notebook",
            "parameters": model.count_params(),
            "epochs_done": 2,
            "seconds": 1.0,
            "best_val_loss": 0.3,
            "model": TINY_MODEL.to_dict(),
            "train": TINY_TRAIN.to_dict(),
            "metrics": {"samples": evaluation.measure(colorizer, datasets.load_dataset("samples"), "test")},
        }
        history = {"epoch": [1], "loss": [0.2], "val_loss": [0.3], "batch_epochs": [0.5, 1.0], "batch_loss": [0.3, 0.1]}
        arrays = {
            "snapshots.npz": {"epochs": np.array([0.0, 1.0]), "images": np.zeros((2, 8, 32, 32, 3), np.uint8)},
            "predictions.npz": {"samples": predictions.images, "samples_mse": predictions.mse},
        }
        return library.save_model(name, model, graph, card, history, arrays, **options)

    return save


@pytest.fixture
def tiny_sweep():
    """A plan over four settings of a tiny model."""
    return sweeps.plan_sweep("tiny", "notebook", TINY_MODEL, TINY_TRAIN, ("encoder_widths", "decoder_widths", "shift"))


def sweep_trial(**changes) -> dict:
    """A line of trials.jsonl of `tiny_sweep`."""
    settings = {"learning_rate": 0.00123, "batch_size": 64, "weight_decay": 0.1, "activation": "gelu"}
    return {"settings": settings, "val_loss": [0.03, 0.02], "seconds": 1.5, "error": None} | changes


def write_sweep(plan: sweeps.Sweep, *trials: dict) -> None:
    """Write the folder of a sweep with these trials."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / "sweep.json").write_text(json.dumps(plan.to_dict()))
    (plan.folder / "trials.jsonl").write_text("\n".join(map(json.dumps, trials)))


@contextlib.contextmanager
def _start_nodes():
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason=RAY_MISSING)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        store = {"object_store_memory": 100 * 2**20}
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", scratch)
        head = {"num_cpus": 0, "include_dashboard": False, **store}
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        for name in "ab":
            home = Path(scratch, name)
            home.mkdir()
            nodes.add_node(num_cpus=1, env_vars={"TMPDIR": str(home), "COLORIZER_HOME": str(home)}, **store)
        yield nodes
        nodes.shutdown()
        assert not [path for name in "ab" for path in Path(scratch, name).iterdir() if path.is_dir()]


@pytest.fixture
def nodes():
    """A cluster of two nodes, each with one core, a scratch folder and a home of its own; the head computes nothing."""
    with _start_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def address():
    """Of a cluster as `nodes`, for tests that leave its nodes alone."""
    with _start_nodes() as nodes:
        yield nodes.address


@pytest.fixture
def short_folder(monkeypatch):
    """An empty folder for temporary files, of a path as short as Ray's sockets need."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


class _Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, which is what the official archive holds."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def pickle_batch(content) -> bytes:
    """Pickle an object in the official archive's dialect."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray", 1)


def fake_content(name: str) -> dict:
    """What a file of the fake archive holds.

    A batch has 10,000 images; labels go round. Red is batch index * 10 + label, green 60 more, blue 120 more,
    except the second pixel of the first row, which is 255.
    """
    if name == "batches.meta":
        return {b"label_names": [name.encode() for name in CLASS_NAMES], b"num_vis": 3072}
    labels = [image % 10 for image in range(10_000)]
    red = np.array([BATCHES.index(name) * 10 + label for label in labels], np.uint8)
    planes = np.repeat(np.stack([red, red + 60, red + 120], axis=1)[..., None], 1024, axis=2)
    planes[:, :, 1] = 255
    return {b"batch_label": b"fake", b"labels": labels, b"data": planes.reshape(10_000, 3072)}


@pytest.fixture(scope="session")
def fake_folder(tmp_path_factory):
    """A full-size unpacked archive of fake images, in the official layout."""
    folder = tmp_path_factory.mktemp("fake") / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*BATCHES, "batches.meta"):
        (folder / name).write_bytes(pickle_batch(fake_content(name)))
    (folder / "readme.html").write_text("not a batch")
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture
def forge(fake_folder, tmp_path):
    """A function that copies the fake folder with some files changed, and returns the copy.

    A file is left out for None, takes bytes as they are, and a dict replaces values of its content.
    """

    def forge(changes: dict[str, bytes | dict | None]) -> Path:
        folder = tmp_path / "forged"
        folder.mkdir()
        for path in fake_folder.iterdir():
            change = changes.get(path.name, path)
            if isinstance(change, Path):
                (folder / path.name).symlink_to(path)
            elif change is not None:
                raw = change if isinstance(change, bytes) else pickle_batch(fake_content(path.name) | change)
                (folder / path.name).write_bytes(raw)
        return folder

    return forge


@pytest.fixture(scope="session")
def fake_archives(fake_folder):
    """The same as .tar.gz and .tar.xz, by suffix."""
    paths = {}
    for suffix, options in {"gz": {"compresslevel": 1}, "xz": {"preset": 0}}.items():
        paths[suffix] = fake_folder.parent / f"cifar-10-python.tar.{suffix}"
        with tarfile.open(paths[suffix], f"w:{suffix}", **options) as tar:
            tar.add(fake_folder, fake_folder.name)
    return paths


@pytest.fixture
def run(capsys):
    """A function that runs a `colorizer` command in this process and returns its exit code, stdout and stderr."""

    def run(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def run_json(run):
    """The same with --json; stdout must be one JSON object and nothing else."""

    def run_json(*words):
        code, out, _ = run(*words, "--json")
        result = json.loads(out)
        assert isinstance(result, dict)
        return code, result

    return run_json


@pytest.fixture
def open_server(home):
    """A function that opens a service with the fake worker; all are closed afterwards."""
    opened = []

    def open_server(command=FAKE_WORKER):
        opened.append(TrainingService(command))
        return opened[-1]

    yield open_server
    for trainings in opened:
        trainings.close()


@pytest.fixture
def trainings(open_server):
    """A service with the fake worker."""
    return open_server()


@pytest.fixture
def spec(tiny_model):
    """A function that makes a specification under a name, which tells the fake worker how to behave."""
    return lambda name: TrainingSpec(name, tiny_model, TrainConfig(dataset="synthetic"))


@pytest.fixture(scope="session")
def browser():
    """Chromium; without it the tests fail in CI and are skipped elsewhere."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import CHROMIUM_ARGUMENTS, find_chromium

    executable = find_chromium()
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing; install it, for example with apt-get install chromium")
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()
