"""The official archive: its layout in each container, and every way in which an untrusted one can be wrong."""

import lzma
import os
import pickle
import re
import struct
import tarfile

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
        DAMAGED + r"it asks for (posix|nt)\.system, which an official archive never does",
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
    """Opens a source as the data set; it must be refused and leave nothing behind."""

    def refuse(source, match):
        monkeypatch.setenv("COLORIZER_CIFAR10", str(source))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=match) as caught:
            datasets.load_dataset("cifar10")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert not list(home.rglob("*.npy"))
        assert not list(home.rglob(".staging-*"))
        assert datasets.cifar10_status()["state"] in ("found", "invalid")

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


def _members(sizes):
    """An uncompressed tar archive of junk, as an iterator over its parts."""
    for number, size in enumerate(sizes):
        member = tarfile.TarInfo(f"junk-{number}")
        member.size = size
        yield member.tobuf() + bytes(size + -size % 512)


@pytest.mark.slow
def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(refuse, tmp_path):
    with lzma.open(tmp_path / "bomb.tar.xz", "wb", preset=0) as file:
        for part in _members([60 * 2**20] * 20):
            file.write(part)
    assert (tmp_path / "bomb.tar.xz").stat().st_size < 300_000
    refuse(tmp_path / "bomb.tar.xz", r"unpacks to more than 268 MB, which CIFAR-10 never does")


@pytest.mark.slow
def test_an_archive_of_very_many_members_is_refused(refuse, tmp_path):
    (tmp_path / "many.tar.xz").write_bytes(lzma.compress(b"".join(_members([0] * 200_000)), preset=0))
    refuse(tmp_path / "many.tar.xz", "more than 100 members")


def test_headers_inside_headers_are_refused(refuse, tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    (tmp_path / "deep.tar").write_bytes((header.tobuf() + bytes(512)) * 5000)
    refuse(tmp_path / "deep.tar", "cannot be read as a CIFAR-10 archive")


# A source that cannot be used


def test_only_the_folder_itself_is_searched(home, monkeypatch, tmp_path):
    """`/usr` and the like have very many files: nothing below the folder is opened or listed."""
    deep = tmp_path / "source" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "data_batch_1").write_bytes(b"12345")
    (tmp_path / "source" / "data_batch_1").write_bytes(b"123")
    (tmp_path / "source" / "data_batch_2").symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("COLORIZER_CIFAR10", str(tmp_path / "source"))
    assert datasets.cifar10_status() == {"state": "found", "path": str(tmp_path / "source"), "bytes": 3}
    with pytest.raises(DataError, match="data_batch_1 is damaged"):
        datasets.load_dataset("cifar10")


@pytest.mark.parametrize("source", ["~no-such-user/x", "/usr", "/nowhere/at/all", "/dev/null/x", "x" * 5000])
def test_a_source_that_cannot_be_used_gives_a_sentence_and_a_status(home, monkeypatch, source):
    monkeypatch.setenv("COLORIZER_CIFAR10", source)
    status = datasets.cifar10_status()
    assert (status["state"], status["bytes"]) == ("invalid", 0)
    with pytest.raises(DataError):
        datasets.load_dataset("cifar10")


def test_a_source_that_would_never_end_is_refused(refuse, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "it is neither a file nor a folder")


def test_a_home_that_cannot_be_used_leaves_a_status(monkeypatch):
    monkeypatch.setenv("COLORIZER_HOME", "~no-such-user/home")
    assert datasets.cifar10_status()["state"] == "missing"
