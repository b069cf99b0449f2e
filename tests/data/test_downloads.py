"""Archives are downloaded, checked and prepared, and each way in which that fails has a sentence of its own."""

import functools
import gc
import hashlib
import http.server
import io
import resource
import socket
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from colorizer.data import cifar10, datasets, official, pictures
from colorizer.errors import DataError
from tests.conftest import pickle_batch

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
