"""CIFAR-10 is prepared once into a cache, and each name of a data set gives its splits."""

import errno
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from colorizer import config
from colorizer.data import cifar10, datasets
from colorizer.errors import ConfigError, DataError

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
