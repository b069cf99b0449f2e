"""Data sets: the prepared cache and its failures, downloads, splits, samples, synthetic images and statistics."""

import errno
import functools
import gc
import hashlib
import http.server
import io
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from colorizer import config
from colorizer.data import cifar10, datasets, official, pictures
from colorizer.errors import ConfigError, DataError
from tests.conftest import pickle_batch

SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}


@pytest.fixture
def fake_source(fake_folder, monkeypatch):
    """COLORIZER_CIFAR10 names the fake folder."""
    monkeypatch.setenv("COLORIZER_CIFAR10", str(fake_folder))
    return fake_folder


@pytest.fixture(scope="module")
def prepared_home(fake_folder, tmp_path_factory):
    """A home in which the fake archive is prepared; tests only read it."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZER_HOME", str(folder))
        patch.setenv("COLORIZER_CIFAR10", str(fake_folder))
        datasets.load_dataset("cifar10")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def prepared(prepared_home, monkeypatch):
    """The data set of that home; no source is named any more."""
    monkeypatch.setenv("COLORIZER_HOME", str(prepared_home))
    return datasets.load_dataset("cifar10")


def _gray_values(split):
    """Red of the fake images: batch index * 10 + label."""
    return np.array(split.images[:, 5, 0, 0])


# The prepared cache


def test_preparation_gives_three_memory_mapped_splits(prepared, prepared_home):
    for name, size in SIZES.items():
        split = prepared.split(name)
        assert isinstance(split.images, np.memmap)
        assert not split.images.flags.writeable
        assert (split.images.shape, split.images.dtype) == ((size, 32, 32, 3), np.uint8)
        assert (split.labels.shape, split.labels.dtype) == ((size,), np.uint8)
        np.testing.assert_array_equal(_gray_values(split) % 10, split.labels)  # images kept their labels
    assert {path.name for path in (prepared_home / "data").iterdir()} == {"cifar10", ".lock"}


def test_the_splits_part_the_training_images_by_a_fixed_seed(prepared):
    train, validation = _gray_values(prepared.train), _gray_values(prepared.validation)
    np.testing.assert_array_equal(np.bincount(np.concatenate([train, validation])), np.full(50, 1000))
    np.testing.assert_array_equal(_gray_values(prepared.test), 50 + np.arange(10_000) % 10)
    assert np.bincount(validation, minlength=50).min() > 50  # drawn from everywhere
    # Published results hold for this split, which was recorded: images 25,461, 5,892, … and 20,473, 5,459, …
    assert train[:6].tolist() == [21, 2, 17, 24, 8, 45]
    assert validation[:6].tolist() == [23, 9, 7, 16, 27, 13]


def test_a_later_opening_needs_no_source(prepared):
    np.testing.assert_array_equal(datasets.load_dataset("cifar10").train.labels, prepared.train.labels)


def test_status_tells_where_cifar10_would_come_from(home, fake_archives, monkeypatch):
    assert datasets.cifar10_status() == {"state": "missing", "path": str(home / "data" / "cifar10"), "bytes": 0}
    path = fake_archives["gz"]
    monkeypatch.setenv("COLORIZER_CIFAR10", str(path))
    assert datasets.cifar10_status() == {"state": "found", "path": str(path), "bytes": path.stat().st_size}
    monkeypatch.setenv("COLORIZER_CIFAR10", str(path.parent))
    assert datasets.cifar10_status()["bytes"] > 6 * 30_720_000


def test_status_of_a_prepared_data_set(prepared, prepared_home):
    status = datasets.cifar10_status()
    assert (status["state"], status["path"]) == ("prepared", str(prepared_home / "data" / "cifar10"))
    assert status["bytes"] > 60_000 * 3073


def test_without_any_source_the_sentence_says_what_to_do():
    with pytest.raises(DataError, match=r"not on this machine\. Run .* data --download', or set COLORIZER_CIFAR10"):
        datasets.load_dataset("cifar10")


def test_a_full_disk_leaves_no_cache(fake_source, home, monkeypatch):
    save = np.save

    def fill_up(path, array):
        if Path(path).name.startswith("validation"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, array)

    monkeypatch.setattr(np, "save", fill_up)
    with pytest.raises(DataError, match=r"could not be prepared in .*\(No space left on device\)\. Free about 200 MB"):
        datasets.load_dataset("cifar10")
    assert [path.name for path in (home / "data").iterdir()] == [".lock"]


def test_a_home_that_cannot_be_made_gives_a_sentence(fake_source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COLORIZER_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DataError, match=r"could not be prepared in .*or set COLORIZER_HOME to another folder"):
        datasets.load_dataset("cifar10")


def test_a_truncated_cache_is_not_opened_but_prepared_anew(prepared_home, fake_source, home):
    shutil.copytree(prepared_home, home)
    for path in (home / "data" / "cifar10").iterdir():
        whole = path.read_bytes()
        assert datasets.cifar10_status()["state"] == "prepared"
        path.write_bytes(whole[: len(whole) // 2])
        assert datasets.cifar10_status()["state"] == "found", path.name
        path.write_bytes(whole)
    path.write_bytes(b"")
    assert len(datasets.load_dataset("cifar10").train.images) == 45_000
    assert path.read_bytes() == whole


def test_two_threads_prepare_once(fake_source, home, monkeypatch):
    calls, read = [], cifar10.read_batches
    monkeypatch.setattr(cifar10, "read_batches", lambda source: calls.append(source) or read(source))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(datasets.load_dataset, ["cifar10"] * 2)
    assert calls == [fake_source]
    np.testing.assert_array_equal(first.test.labels, second.test.labels)


_SLOW_WRITER = """
import time
import numpy as np
from colorizer.data import datasets

def save(path, array):
    open(path, "wb").write(b"half")
    print("writing", flush=True)
    time.sleep(600)

np.save = save
datasets.load_dataset("cifar10")
"""


def test_what_a_killed_preparation_left_is_deleted_by_the_next(fake_source, home):
    with subprocess.Popen([sys.executable, "-c", _SLOW_WRITER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert list((home / "data").glob(".staging-*"))
    datasets.load_dataset("cifar10")
    assert not list((home / "data").glob(".staging-*"))


# The downloads


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; some paths fail in ways of their own."""

    def do_GET(self):
        if self.path == "/broken":
            self.send_response(503, "Service Unavailable")
            self.end_headers()
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"too few bytes")
        elif self.path == "/silent":
            self.server.released.wait(60)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(fake_archives, monkeypatch):
    """A server on this machine that has the fake archive, in place of the official one."""
    archive = fake_archives["gz"]
    handler = functools.partial(_Handler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.released = threading.Event()
        server.address = f"http://127.0.0.1:{server.server_port}"
        server.archive = archive
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(cifar10, "CIFAR10_URL", f"{server.address}/{archive.name}")
        monkeypatch.setattr(cifar10, "CIFAR10_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def test_the_download_reports_progress_and_prepares(server, home):
    progress = []
    datasets.download_cifar10(lambda received, total: progress.append((received, total)))
    assert datasets.cifar10_status()["state"] == "prepared"
    assert len(datasets.load_dataset("cifar10").test.images) == 10_000
    size = server.archive.stat().st_size
    received = [received for received, _ in progress]
    assert received == sorted(received)
    assert received[-1] == size  # A progress bar refuses more than all.
    assert {total for _, total in progress} == {size}
    assert len(progress) > 100
    assert not (home / "downloads").exists()  # The archive is not kept beside the cache.


def test_two_threads_download_at_once(server):
    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(datasets.download_cifar10) for _ in range(2)]:
            task.result()
    assert datasets.cifar10_status()["state"] == "prepared"


def _refused_download(home):
    """The sentence of a download that fails; it leaves no file but the lock."""
    with pytest.raises(DataError) as caught:
        datasets.download_cifar10()
    gc.collect()  # Requests leaves sockets to the garbage collector; its warnings are ignored in these tests only.
    assert not [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"]
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("path", "reason", "advice"),
    [
        ("nowhere.tar.gz", "the server answered 404 File not found", "Try again later, or set COLORIZER_CIFAR10"),
        ("broken", "the server answered 503 Service Unavailable", "Try again later, or set COLORIZER_CIFAR10"),
        ("cut", "the connection broke before the end", "Try again, or set COLORIZER_CIFAR10"),
        ("silent", "the server sent nothing for 0.3 seconds", "Try again later, or set COLORIZER_CIFAR10"),
    ],
)
def test_what_the_server_does_wrong_is_told(server, home, monkeypatch, path, reason, advice):
    monkeypatch.setattr(official, "_TIMEOUT", 0.3)
    monkeypatch.setattr(cifar10, "CIFAR10_URL", f"{server.address}/{path}")
    told = _refused_download(home)
    assert told.startswith(f"CIFAR-10 could not be downloaded from {server.address}/{path} ({reason}). {advice}")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_download_with_another_checksum_is_refused(server, home, monkeypatch):
    monkeypatch.setattr(cifar10, "CIFAR10_SHA256", "0" * 64)
    assert "(the checksum of the file received is not the official one). Try again" in _refused_download(home)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_download_that_finds_no_room_says_so(server, home):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        told = _refused_download(home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"(the disk is full). Free about 400 MB in {home / 'downloads'}." in told


def test_a_download_into_a_folder_that_cannot_be_written_says_so(server, home):
    home.mkdir()
    (home / "downloads").write_text("a file is in the way")
    with pytest.raises(DataError, match=r"cannot be written: File exists\)\. Set COLORIZER_HOME to a folder"):
        datasets.download_cifar10()


def test_without_a_network_the_download_says_so(home, monkeypatch):
    def no_network(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    told = _refused_download(home)
    assert told.startswith("CIFAR-10 could not be downloaded from https://www.cs.toronto.edu")
    assert told.endswith("(no connection). Check the network, or set COLORIZER_CIFAR10 to an archive you have.")
    with pytest.raises(DataError, match=r"CIFAR-100 could not be .*\(no connection\).* or name a file: cifar100:PATH"):
        datasets.load_dataset("cifar100")


@pytest.fixture
def fake_cifar100(server, monkeypatch):
    """The server has a fake CIFAR-100 in the official layout; red and green of each image tell its number."""
    rows = {}
    for name, number in (("train", 50_000), ("test", 10_000)):
        planes = np.zeros((number, 3, 1024), np.uint8)
        planes[:, :2, 0] = np.stack(np.divmod(np.arange(number), 256), axis=1)
        labels = [image % 100 for image in range(number)]
        rows[name] = pickle_batch({b"data": planes.reshape(number, 3072), b"fine_labels": labels, b"coarse_labels": []})
    path = server.archive.with_name("cifar-100-python.tar.gz")
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, raw in rows.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    monkeypatch.setattr(pictures, "CIFAR100_URL", f"{server.address}/{path.name}")
    monkeypatch.setattr(pictures, "CIFAR100_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    yield
    path.unlink()


def test_cifar100_is_downloaded_once_and_split_as_cifar10(fake_cifar100, server, capsys):
    dataset = datasets.load_dataset("cifar100")
    assert [len(dataset.split(name).images) for name in ("train", "validation", "test")] == [45_000, 5_000, 10_000]
    found = np.concatenate([dataset.train.images, dataset.validation.images])[:, 0, 0, :2].astype(int) @ [256, 1]
    assert sorted(found) == list(range(50_000))
    assert found[:3].tolist() == [25461, 5892, 10377]
    assert found[45_000:45_003].tolist() == [20473, 5459, 6207]
    assert capsys.readouterr().out == ""  # A command may print JSON there.
    assert socket.getdefaulttimeout() is None
    server.shutdown()  # Its archive is here now.
    np.testing.assert_array_equal(datasets.load_dataset("cifar100").test.images, dataset.test.images)
    assert datasets.num_train_images("cifar100") == 45_000


# What is built in


def test_samples_are_the_first_test_images(samples, cifar10):
    np.testing.assert_array_equal(samples.images, cifar10.test.images[:20])
    np.testing.assert_array_equal(samples.labels, cifar10.test.labels[:20])


def test_samples_serve_as_validation_and_test(samples):
    dataset = datasets.load_dataset("samples")
    assert len(dataset.train.images) == 0
    for split in (dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.images, samples.images)
    assert (samples.images.shape, samples.images.dtype) == ((20, 32, 32, 3), np.uint8)
    assert [datasets.CLASS_NAMES[label] for label in samples.labels[:4]] == ["cat", "ship", "ship", "airplane"]


def test_the_snapshot_images_show_eight_classes(samples):
    shown = [datasets.CLASS_NAMES[samples.labels[index]] for index in datasets.SNAPSHOT_SAMPLES]
    assert shown == ["cat", "ship", "frog", "automobile", "airplane", "truck", "dog", "horse"]


def test_synthetic_images_are_those_of_their_seed():
    first, again, other = (
        datasets.draw_synthetic(2100, 3),
        datasets.draw_synthetic(2100, 3),
        datasets.draw_synthetic(2100, 4),
    )
    np.testing.assert_array_equal(first, again)
    assert (first.shape, first.dtype) == ((2100, 32, 32, 3), np.uint8)
    assert (first != other).mean() > 0.9


def test_synthetic_images_have_the_statistics_they_are_drawn_from():
    statistics = datasets.load_statistics()
    flat = datasets.draw_synthetic(4000, 0).reshape(4000, -1) / 255
    assert np.abs(flat.mean(axis=0) - statistics.mean).max() < 0.03
    spread = np.sqrt(np.square(statistics.factors).sum(axis=0))
    assert np.abs(flat.std(axis=0) / spread - 1).mean() < 0.06  # clipping takes a few percent


@pytest.mark.slow
def test_the_synthetic_data_set_is_validated_on_real_images(samples, few_synthetic_images, monkeypatch):
    monkeypatch.setattr(datasets, "_SYNTHETIC_IMAGES", few_synthetic_images)
    dataset = datasets.load_dataset("synthetic")
    assert dataset.train.images.shape == (20_000, 32, 32, 3)
    assert datasets.num_train_images("synthetic") == 20_000
    np.testing.assert_array_equal(dataset.validation.images, samples.images)


def test_statistics_survive_saving(tmp_path, samples, monkeypatch):
    images = samples.images[:, ::4, ::4]
    statistics = datasets.compute_statistics(images)
    flat = images.reshape(20, -1) / 255
    np.testing.assert_allclose(statistics.mean, flat.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(statistics.factors.T @ statistics.factors, np.cov(flat.T, bias=True), atol=1e-4)
    datasets.save_statistics(statistics, tmp_path / "statistics.npz")
    monkeypatch.setattr(datasets, "STATISTICS_PATH", tmp_path / "statistics.npz")
    loaded = datasets.load_statistics.__wrapped__()
    np.testing.assert_allclose(loaded.factors, statistics.factors, atol=2e-3)
    assert loaded.mean.dtype == np.float32


@pytest.mark.parametrize("content", [None, b"", b"no zip"], ids=["missing", "empty", "text"])
def test_damaged_statistics_give_a_sentence(tmp_path, monkeypatch, content):
    path = tmp_path / "statistics.npz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(datasets, "STATISTICS_PATH", path)
    with pytest.raises(DataError, match=r"statistics\.npz is missing or damaged .*Restore the assets folder"):
        datasets.load_statistics.__wrapped__()


def test_shipped_statistics_are_those_of_the_training_images(cifar10):
    mean = cifar10.train.images.reshape(45_000, -1).mean(axis=0, dtype=np.float64) / 255
    np.testing.assert_allclose(datasets.load_statistics().mean, mean, atol=1e-3)


def test_missing_samples_give_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "ASSETS", tmp_path)
    with pytest.raises(DataError, match="The built-in samples are missing from"):
        datasets.load_samples()


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=f"dataset must be one of {', '.join(config.DATASETS)}, .*received 'mnist'"):
        datasets.load_dataset("mnist")
    with pytest.raises(ConfigError, match=r"no split 'images'\. Choose train, validation or test"):
        datasets.load_dataset("samples").split("images")


def test_the_number_of_training_images_is_known_without_opening_a_data_set(prepared):
    for name in ("cifar10", "samples", "synthetic"):
        assert datasets.num_train_images(name) == len(datasets.load_dataset(name).train.images)
    assert datasets.num_train_images("folder:photos") is None
