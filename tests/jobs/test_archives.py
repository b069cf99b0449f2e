"""Real Ray with several nodes colorizes archives, although pictures, workers, nodes and drivers fail."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from colorizer.app import cli
from colorizer.errors import ClusterError, ConfigError
from colorizer.jobs import archives, batch
from colorizer.models import library
from colorizer.models.colorizer import load
from colorizer.pixels.images import decode_image, encode_png
from tests.conftest import RAY_MISSING


@pytest.fixture
def folder(tmp_path, samples):
    """Return a folder with 16 pictures, the third of which is broken."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index, image in enumerate(samples.images[:16]):
        (folder / f"{index:02}.png").write_bytes(encode_png(image) if index != 2 else b"broken")
    return folder


def _lines(output):
    """Return all lines of a manifest in the order of writing."""
    shards = sorted((output / "manifest").glob("*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines() if line.endswith("}")]


def _command(model, folder, output, address):
    words = ["colorize", model, folder, "--output", output, "--ray", address, "--json"]
    return [sys.executable, "-m", "colorizer", *words]


@contextlib.contextmanager
def _start(*words):
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def _wait_for_lines(output, number, driver):
    deadline = time.monotonic() + 600
    while len(_lines(output)) < number:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, f"{len(_lines(output))} lines after ten minutes"
        time.sleep(0.02)


def test_without_ray_the_command_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["colorize", "linear", str(folder), "--output", str(tmp_path / "out"), "--ray", "local"]) == 1
    captured = capsys.readouterr()
    assert captured.err.endswith("error: Ray is not installed. Run pip install -r requirements-cluster.txt.\n")
    assert not captured.out


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", ""])
def test_an_address_without_ray_is_refused_in_a_sentence(address, folder, tmp_path):
    pytest.importorskip("ray", reason=RAY_MISSING)
    files = batch.plan_files([folder], tmp_path / "out")
    with pytest.raises(ClusterError, match=f"There is no Ray at '{address}' .*Give local, or the HOST:PORT"):
        list(archives.colorize_files(library.find_model("linear"), files, tmp_path / "out", address))


@pytest.mark.slow
def test_the_command_gives_what_the_plain_one_gives_and_leaves_nothing_else(folder, tmp_path, short_folder):
    pytest.importorskip("ray", reason=RAY_MISSING)
    done = subprocess.run(_command("linear", folder, tmp_path / "out", "local"), capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert (done.returncode, result["model"], result["skipped"]) == (1, "linear", [])
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    ((broken, error),) = [failure.values() for failure in result["failed"]]
    assert (broken, error[:25]) == (str(folder / "02.png"), "The file is not a picture")
    linear = load("linear")
    for index in set(range(16)) - {2}:
        image = decode_image((folder / f"{index:02}.png").read_bytes())
        made = decode_image((tmp_path / "out" / f"{index:02}.png").read_bytes())
        assert np.abs(made.astype(int) - linear.colorize(image)).max() <= 1  # One thread adds numbers in another order.
    assert len(result["written"]) == len(list((tmp_path / "out").glob("*.png"))) == 15
    assert not list(short_folder.iterdir())


@pytest.mark.slow
def test_settings_that_the_model_refuses_end_the_job(folder, tmp_path, address):
    files = batch.plan_files([folder / "00.png"], tmp_path / "out")
    with pytest.raises(ConfigError, match="linear has no vividness to set"):
        list(archives.colorize_files(library.find_model("linear"), files, tmp_path / "out", address, vividness=0.5))


@pytest.fixture
def replace_worker(monkeypatch):
    """Return a function that puts another class in the place of the worker's; Ray sends its code to the workers."""
    cloudpickle = pytest.importorskip("ray", reason=RAY_MISSING).cloudpickle
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield lambda worker: monkeypatch.setattr(archives, "_Worker", worker)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Deadly(archives._Worker):
    """A worker that dies at one picture, as a decoder might, and does nothing for the others."""

    def load(self, *_):
        return []

    def colorize(self, files):
        if any(file.source.name == "07.png" for file in files):
            os.kill(os.getpid(), signal.SIGKILL)
        return [(None, 0.0) for _ in files]


class NeverReady(archives._Worker):
    """A worker that dies while it loads the model."""

    def load(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_picture_that_kills_its_worker_costs_one_line(folder, tmp_path, replace_worker, address):
    replace_worker(Deadly)
    files = batch.plan_files([folder], tmp_path / "out")
    done = list(archives.colorize_files(library.find_model("linear"), files, tmp_path / "out", address))
    assert sorted(file.source for file in done) == [file.source for file in files]
    assert [(file.source.name, file.error) for file in done if file.error] == [
        ("07.png", "3 workers died at this file.")
    ]


@pytest.mark.slow
def test_workers_that_never_begin_end_the_job(folder, tmp_path, replace_worker, monkeypatch, address):
    monkeypatch.setattr(archives, "_MAX_DEATHS", 3)
    replace_worker(NeverReady)
    files = batch.plan_files([folder / "00.png"], tmp_path / "out")
    with pytest.raises(ClusterError, match=r"3 workers died in a row \(The actor died unexpectedly"):
        list(archives.colorize_files(library.find_model("linear"), files, tmp_path / "out", address))


@pytest.mark.slow
def test_a_node_without_the_project_ends_the_job(folder, tmp_path, monkeypatch, address):
    monkeypatch.setattr(archives, "_Worker", NeverReady)  # The workers cannot import this module of tests.
    files = batch.plan_files([folder], tmp_path / "out")
    with pytest.raises(ClusterError, match=r"A worker cannot start \(.*No module named"):
        list(archives.colorize_files(library.find_model("linear"), files, tmp_path / "out", address))


def test_a_manifest_is_read_whatever_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_SHARD_LINES", 2)
    files = [batch.PictureFile(Path(f"/in/{name}"), Path(f"/out/{name}.png")) for name in ("a", "b\udcff", "c")]
    with contextlib.closing(archives._Manifest(tmp_path)) as manifest:
        for file in files:
            manifest.add(file, 0.5)
    shards = sorted(tmp_path.iterdir())
    assert [len(shard.read_text().splitlines()) for shard in shards] == [2, 1]
    assert json.loads(shards[1].read_text()) == {"input": "/in/c", "output": "/out/c.png", "seconds": 0.5}
    text = (
        '{"input": "/in/d", "error": "No."}\n[]\n{}\n{"input": []}\n'
        + "[" * 100_000
        + '\n\xff\n{"input": "/in/e", "outp'
    )
    (tmp_path / "9.jsonl").write_bytes(text.encode("latin-1"))
    known = dict.fromkeys((str(file.source) for file in files), None) | {"/in/d": "No."}
    assert archives._Manifest(tmp_path).errors == known


def test_what_is_settled_needs_no_ray_and_is_listed_once(folder, tmp_path):
    pytest.importorskip("ray", reason=RAY_MISSING)
    output = tmp_path / "out"
    (output / "manifest").mkdir(parents=True)
    for name in folder.iterdir():
        (output / name.name).write_bytes(b"there")
    (output / "02.png").unlink()
    failed = {"input": str(folder / "02.png"), "error": "The picture is damaged.", "seconds": 0.1}
    (output / "manifest" / "1.jsonl").write_text(json.dumps(failed) + "\n")
    for _ in range(2):
        files = batch.plan_files([folder], output)
        done = list(archives.colorize_files(library.find_model("linear"), files, output, "nonsense"))
        assert [file.error for file in done if not file.skipped] == ["The picture is damaged."]
        assert len(done) == len(_lines(output)) == 16
    files = batch.plan_files([folder], output, overwrite=True)
    with pytest.raises(ClusterError, match="There is no Ray"):
        list(archives.colorize_files(library.find_model("linear"), files, output, "nonsense", overwrite=True))
    assert not (output / "manifest").exists()


class Stuck(archives._Worker):
    """A worker whose second call does not end the first time."""

    def load(self, *_):
        return []

    def colorize(self, files):
        marker = files[0].target.with_name("stuck")
        if files[0].source.name == "08.png" and not marker.exists():
            marker.parent.mkdir(exist_ok=True)
            marker.write_text(os.environ["TMPDIR"])
            time.sleep(600)
        return [(None, 0.0) for _ in files]


@pytest.mark.slow
def test_what_a_node_had_in_flight_goes_to_a_worker_that_has_no_more_to_do(nodes, folder, tmp_path, replace_worker):
    replace_worker(Stuck)
    files = batch.plan_files([folder], tmp_path / "out")
    done = archives.colorize_files(library.find_model("linear"), files, tmp_path / "out", nodes.address)
    with contextlib.closing(done):
        assert [next(done).source.name for _ in range(8)] == [f"{index:02}.png" for index in range(8)]
        marker = tmp_path / "out" / "stuck"
        while not marker.exists() or not (home := marker.read_text()):
            time.sleep(0.1)
        (node,) = [node for node in nodes.worker_nodes if node._ray_params.env_vars["TMPDIR"] == home]
        nodes.remove_node(node, allow_graceful=False)
        assert sorted(file.source.name for file in done) == [f"{index:02}.png" for index in range(8, 16)]
    assert len(_lines(tmp_path / "out")) == 16


@pytest.mark.slow
def test_an_archive_outlives_a_node_and_its_driver(nodes, home, save_tiny, samples, tmp_path):
    save_tiny("mine")  # It is saved in this home, which the nodes do not see.
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    broken = {f"{number:03}.png" for number in range(15, 300, 50)}
    content = [encode_png(image.repeat(10, 0).repeat(10, 1)) for image in samples.images]
    for number in range(300):
        name = f"{number:03}.png"
        (folder / name).write_bytes(b"broken" if name in broken else content[number % 20])
    command = _command("mine", folder, output, nodes.address)
    with _start(*command) as driver:
        _wait_for_lines(output, 100, driver)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        _wait_for_lines(output, 200, driver)
    assert len(_lines(output)) < 300
    with _start(*command) as driver:
        out, err = driver.communicate(timeout=600)
    assert driver.returncode == 1, err
    result = json.loads(out)
    assert (len(result["written"]) + len(result["skipped"]), len(result["failed"])) == (294, 6)
    assert len(result["skipped"]) >= 190
    lines = _lines(output)
    assert set(Counter(line["input"] for line in lines).values()) == {1}
    assert {Path(line["input"]).name for line in lines if "error" in line} == broken
    wanted = {str(output / path.name) for path in folder.iterdir() if path.name not in broken}
    assert {line["output"] for line in lines if "output" in line} == wanted
    assert {str(path) for path in output.rglob("*") if path.is_file() and path.suffix != ".jsonl"} == wanted
    mine = load("mine")
    for number in (0, 299):
        made = decode_image((output / f"{number:03}.png").read_bytes()).astype(int)
        assert np.abs(made - mine.colorize(decode_image(content[number % 20]))).max() <= 1
