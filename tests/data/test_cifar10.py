"""archive: the official layout in each container, and every way in which an untrusted one can be wrong."""

import os
import pickle
import re
import struct
import tarfile
import time

import numpy as np
import pytest

from colorizer.data import datasets
from colorizer.data.cifar10 import CLASS_NAMES, TRAIN_BATCHES, read_batches
from colorizer.errors import DataError


@pytest.fixture(params=["gz", "xz", "folder", "parent"])
def source(request, fake_folder, fake_archives):
    return {"folder": fake_folder, "parent": fake_folder.parent, **fake_archives}[request.param]


def test_batches_are_read_from_every_container(source):
    batches = read_batches(source)
    assert set(batches) == {*TRAIN_BATCHES, "test_batch"}
    for index, name in enumerate((*TRAIN_BATCHES, "test_batch")):
        images, labels = batches[name]
        assert (images.shape, images.dtype, labels.dtype) == ((10_000, 32, 32, 3), np.uint8, np.uint8)
        np.testing.assert_array_equal(labels, np.arange(10_000) % 10)
        np.testing.assert_array_equal(images[:, 5, 0], (index * 10 + labels)[:, None] + np.array([0, 60, 120]))
        assert (images[:, 0, 1] == 255).all()  # second pixel of the first row
        assert (images[:, 1, 0] < 255).all()


def test_arrays_in_fortran_order_are_read(forge, fake_folder):
    flat = pickle.loads((fake_folder / "data_batch_2").read_bytes(), encoding="bytes")[b"data"]
    images = read_batches(forge({"data_batch_2": {b"data": np.asfortranarray(flat)}}))["data_batch_2"][0]
    np.testing.assert_array_equal(images, read_batches(fake_folder)["data_batch_2"][0])


class _Attack:
    """Asks the unpickler to run a command."""

    def __reduce__(self):
        return os.system, ("touch attacked",)


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value, value]
    return value


NO_IMAGES = r"data_batch_1 does not hold \(10000, 3072\) bytes of images\. Get the archive again"
NO_LABELS = r"data_batch_1 does not hold 10,000 labels from 0 to 9\. Get the archive again"
DAMAGED = "data_batch_1 is damaged or not from CIFAR-10: "
OTHER_CLASSES = r"has other classes than CIFAR-10: .*Is it another data set\?"
ROUND = [image % 10 for image in range(10_000)]
BATCH_DEFECTS = {
    "no images": ({b"data": None}, NO_IMAGES),
    "list of images": ({b"data": [1, 2]}, NO_IMAGES),
    "wrong shape": ({b"data": np.zeros((10_000, 3071), np.uint8)}, NO_IMAGES),
    "too few images": ({b"data": np.zeros((9_999, 3072), np.uint8)}, NO_IMAGES),
    "wrong dtype": ({b"data": np.zeros((10_000, 3072), np.int8)}, NO_IMAGES),
    "no labels": ({b"labels": None}, NO_LABELS),
    "too few labels": ({b"labels": ROUND[:-10]}, NO_LABELS),
    "label 10": ({b"labels": [*ROUND[:-1], 10]}, NO_LABELS),
    "label -1": ({b"labels": [-1, *ROUND[1:]]}, NO_LABELS),
    "label True": ({b"labels": [0, True, *ROUND[2:]]}, NO_LABELS),
    "unbalanced labels": (
        {b"labels": [1, *ROUND[1:]]},
        r"mislabelled: its training images per class are \[4999, 5001, .*expected 5000 of each",
    ),
    "empty": (b"", DAMAGED),
    "text": (b"not a pickle", DAMAGED),
    "truncated": (pickle.dumps({b"labels": ROUND}, protocol=2)[:1000], DAMAGED),
    "not a dict": (pickle.dumps([1], protocol=2), "data_batch_1 holds a list, expected a dict"),
    "command": (
        pickle.dumps({"data": _Attack()}, protocol=2),
        DAMAGED + r"it asks for (posix|nt)\.system, which CIFAR-10 never does",
    ),
    "forbidden name": (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", DAMAGED + r"it asks for numpy\.load"),
    "extension registry": (b"\x80\x02\x82\x01.", DAMAGED),
    "huge memo index": (b"\x80\x02}r" + struct.pack("<I", 2**31) + b".", DAMAGED + "its memo is out of range"),
    "huge memo index as text": (b"}p1000000\n.", DAMAGED + "its memo is out of range"),
    "huge length": (b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b".", DAMAGED),
}
META_DEFECTS = {
    "other classes": ({b"label_names": [b"apple"] * 10}, OTHER_CLASSES),
    "other order": ({b"label_names": [name.encode() for name in reversed(CLASS_NAMES)]}, OTHER_CLASSES),
    "no classes": ({b"label_names": None}, OTHER_CLASSES),
    "exploding classes": ({b"label_names": _nested(25)}, OTHER_CLASSES),
    "deep classes": (b"\x80\x02}U\x0blabel_names" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"s.", OTHER_CLASSES),
}


@pytest.fixture
def refuse(home, monkeypatch, tmp_path):
    """Opens a source as the data set; it must be refused within seconds and leave nothing behind."""

    def refuse(source, match):
        monkeypatch.setenv("COLORIZER_CIFAR10", str(source))
        monkeypatch.chdir(tmp_path)
        started = time.monotonic()
        with pytest.raises(DataError, match=match) as caught:
            datasets.load_dataset("cifar10")
        assert time.monotonic() - started < 5
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert not list(home.rglob("*.npy"))
        assert not list(home.rglob(".staging-*"))
        assert datasets.cifar10_status()["state"] == "found"

    return refuse


@pytest.mark.parametrize("defect", BATCH_DEFECTS)
def test_a_defective_batch_is_refused_and_leaves_no_cache(refuse, forge, tmp_path, defect):
    content, match = BATCH_DEFECTS[defect]
    refuse(forge({"data_batch_1": content}), match)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("defect", META_DEFECTS)
def test_other_classes_are_refused_and_leave_no_cache(refuse, forge, defect):
    content, match = META_DEFECTS[defect]
    refuse(forge({"batches.meta": content}), match)


def test_an_array_of_objects_is_refused(refuse, forge, fake_folder):
    raw = (fake_folder / "data_batch_1").read_bytes()
    type_code = b"X\x02\x00\x00\x00u1"
    assert raw.count(type_code) == 1
    refuse(forge({"data_batch_1": raw.replace(type_code, b"X\x02\x00\x00\x00O8")}), NO_IMAGES)


@pytest.mark.parametrize("name", ["data_batch_4", "test_batch", "batches.meta"])
def test_a_missing_batch_is_named(refuse, forge, name):
    refuse(forge({name: None}), rf"lacks {re.escape(name)}\. Give the official python version of CIFAR-10")


def test_an_oversized_file_is_refused_unread(refuse, forge, tmp_path):
    folder = forge({"data_batch_1": b""})
    os.truncate(folder / "data_batch_1", 64 * 2**20 + 1)
    refuse(folder, r"data_batch_1 has 67,108,865 bytes, more than any file of CIFAR-10")
    with tarfile.open(tmp_path / "large.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder / "data_batch_1", "cifar-10-batches-py/data_batch_1")
    refuse(tmp_path / "large.tar.gz", r"data_batch_1 has 67,108,865 bytes")


@pytest.mark.parametrize("suffix", ["gz", "xz"])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_truncated_archive_is_refused(refuse, fake_archives, tmp_path, suffix, share):
    raw = fake_archives[suffix].read_bytes()
    (tmp_path / "cut.tar").write_bytes(raw[: int(len(raw) * share)])
    refuse(tmp_path / "cut.tar", r"cut\.tar cannot be read as a CIFAR-10 archive")


@pytest.mark.parametrize("content", [None, b"", b"This is a text file.\n" * 100], ids=["missing", "empty", "text"])
def test_what_is_no_archive_is_refused(refuse, tmp_path, content):
    path = tmp_path / "cifar.tar.gz"
    if content is not None:
        path.write_bytes(content)
    refuse(path, r"cifar\.tar\.gz cannot be read as a CIFAR-10 archive .*Give the official python version")


def test_members_that_are_links_are_not_followed(refuse, tmp_path):
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        member = tarfile.TarInfo("cifar-10-batches-py/batches.meta")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    refuse(tmp_path / "links.tar", r"lacks batches\.meta")
