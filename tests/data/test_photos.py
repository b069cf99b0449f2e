"""Photos come one at a time or from a cache, out of a folder or a zip; hostile zips give one sentence and no file."""

import json
import logging
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from colorizer import config
from colorizer.data.photos import MAX_ENTRIES, cut_small_crops, load_photos, open_photos, split_photos
from colorizer.errors import DataError
from colorizer.pixels.images import encode_png

GENERATOR = np.random.default_rng(0)


def noise(height=12, width=20):
    return GENERATOR.integers(0, 256, (height, width, 3), np.uint8)


def write_zip(path, entries, **options):
    """Write a zip; `entries` are pairs of a name and the bytes of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of names that are written twice.
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, data in entries:
                archive.writestr(name, data)
    return path


def patch_headers(path, changes):
    """Change fields of a zip's only entry, in its local header and in the list; offsets are those in the list."""
    data = bytearray(path.read_bytes())
    listed, local = data.index(b"PK\1\2"), data.index(b"PK\3\4")
    for offset, kind, value in changes:
        struct.pack_into(kind, data, listed + offset, value)
        struct.pack_into(kind, data, local + offset - 2, value)
    path.write_bytes(data)
    return path


def read_all(path, caplog):
    """Return all photos of a source and the text of the warnings."""
    with caplog.at_level(logging.WARNING):
        photos = list(load_photos(path))
    return photos, caplog.text


@pytest.fixture
def photo():
    return noise()


@pytest.fixture
def folder(tmp_path, photo):
    """A folder with two photos, one of them in a subfolder and with alpha, and with files that are not pictures."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.PNG").write_bytes(encode_png(photo))
    clear = np.concatenate([noise(9, 9), np.zeros((9, 9, 1), np.uint8)], axis=-1)
    (folder / "deep" / "b.png").write_bytes(encode_png(clear))
    (folder / "notes.txt").write_text("no picture")
    (folder / "folder.jpg").mkdir()
    return folder


@pytest.fixture
def packed(tmp_path, folder):
    """The same as a zip."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]
    return write_zip(tmp_path / "photos.zip", [*entries, ("folder.jpg/", b"")])


def test_a_folder_and_a_zip_give_the_same_photos_at_their_own_resolution(folder, packed, photo, caplog):
    for path in (folder, packed):
        photos, told = read_all(path, caplog)
        assert told == ""
        assert [found.shape for found in photos] == [(12, 20, 3), (9, 9, 3)]
        np.testing.assert_array_equal(photos[0], photo)
        assert (photos[1] == 255).all()  # The transparent picture is laid on white.


def test_progress_is_told_for_each_file(packed):
    calls = []
    list(load_photos(packed, lambda done, total: calls.append((done, total))))
    assert calls == [(0, 2), (1, 2), (2, 2)]


def test_bad_pictures_are_left_out_counted_and_named(folder, tmp_path, photo, caplog):
    (folder / "bad.jpg").write_text("no picture")
    assert len(read_all(folder, caplog)[0]) == 2
    entries = [("good.png", encode_png(photo)), *((f"bad-{index}.jpg", b"no picture") for index in range(5))]
    photos, told = read_all(write_zip(tmp_path / "x.zip", entries), caplog)
    assert len(photos) == 1
    assert "1 of 3 files left out, such as 'bad.jpg' (The file is not a picture" in told
    assert "5 of 6 files left out, such as 'bad-0.jpg' (The file" in told
    assert "bad-3" not in told


@pytest.mark.parametrize("kind", ["states", "hides", "bzip2", "encrypted", "damaged"])
def test_an_entry_that_cannot_be_unpacked_is_left_out(kind, tmp_path, photo, caplog):
    """A bomb may state its size, or state a small one; one of bzip2 would grow in memory before Python stops it."""
    bomb, limit = bytes(config.MAX_UPLOAD_BYTES + 1), config.MAX_UPLOAD_BYTES
    path = tmp_path / "x.zip"
    if kind == "damaged":
        write_zip(path, [("b.png", noise().tobytes())], compression=zipfile.ZIP_DEFLATED)
        data = path.read_bytes()
        path.write_bytes(data[:35] + b"\xff" * 30 + data[65:])  # The headers before have 35 bytes.
    elif kind == "encrypted":
        patch_headers(write_zip(path, [("b.png", encode_png(photo))]), [(8, "<H", 1)])
    else:
        method = zipfile.ZIP_BZIP2 if kind == "bzip2" else zipfile.ZIP_DEFLATED
        write_zip(path, [("b.png", bomb if kind != "bzip2" else b"small")], compression=method)
        if kind == "hides":
            small = zlib.crc32(bytes(1000))
            patch_headers(path, [(24, "<L", 1000), (16, "<L", small)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.png", encode_png(photo))
    photos, told = read_all(path, caplog)
    np.testing.assert_array_equal(photos, photo[None])
    reason = {
        "states": f"it unpacks to {limit / 1e6:.0f} MB",
        "hides": "The file is not a picture",  # Only as much is unpacked as is stated.
        "bzip2": "it is compressed by another method than deflate",
        "encrypted": "it is encrypted",
        "damaged": "Error -3 while decompressing",
    }[kind]
    assert f"1 of 2 files left out, such as 'b.png' ({reason}" in told


@pytest.mark.parametrize("name", ["../../climbs.png", "/tmp/climbs.png", "..\\climbs.png", "C:/climbs.png"])
def test_a_name_that_climbs_out_is_read_like_any_other_and_nothing_is_unpacked(name, tmp_path, photo, home):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = write_zip(inner / "x.zip", [(name, encode_png(photo))])
    before = {*tmp_path.rglob("*")}
    np.testing.assert_array_equal(list(load_photos(path)), photo[None])
    assert {*tmp_path.rglob("*")} == before
    assert not (home / "data").exists()


def test_names_with_control_characters_are_escaped(tmp_path, photo, caplog):
    entries = [("ok.png", encode_png(photo)), ("\x1b[31m\n\u202e.png", b"no picture")]
    _, told = read_all(write_zip(tmp_path / "x.zip", entries), caplog)
    assert r"'\x1b[31m\n\u202e.png'" in told
    assert "\x1b" not in told


def test_of_two_entries_with_one_name_the_last_counts(tmp_path, photo):
    path = write_zip(tmp_path / "x.zip", [("a.png", encode_png(noise())), ("a.png", encode_png(photo))])
    np.testing.assert_array_equal(list(load_photos(path)), photo[None])


def test_an_entry_without_a_name_is_no_picture(tmp_path, photo):
    path = write_zip(tmp_path / "x.zip", [("a.png", encode_png(photo)), ("nul.png", encode_png(photo))])
    path.write_bytes(path.read_bytes().replace(b"nul.png", b"\0ul.png"))  # Python cuts a name off here.
    assert len(list(load_photos(path))) == 1


def many_entries(number):
    """Return the bytes of a zip that lists so many files, all at the same place."""
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 5, 0) + b"x.jpg"
    header = struct.pack("<4s4B4H3L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0)
    names = (b"%x.jpg" % index for index in range(number))
    listed = b"".join(header + struct.pack("<5H2L", len(name), 0, 0, 0, 0, 0, 0) + name for name in names)
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, len(listed), len(local))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(listed), 1)
    return (
        local + listed + end + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


@pytest.mark.slow
def test_200000_entries_are_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(many_entries(200_000))
    with pytest.raises(DataError, match=rf"lists 200,000 files, {MAX_ENTRIES:,} are the most\. Split it\."):
        load_photos(tmp_path / "x.zip")


def test_a_list_of_files_that_would_fill_the_memory_is_not_read(tmp_path):
    data = bytearray(many_entries(10))
    with (tmp_path / "x.zip").open("wb") as file:
        file.truncate(2**32)  # The file is sparse.
        file.seek(2**32)
        end = data[data.index(b"PK\6\6") :]
        struct.pack_into("<2Q", end, 40, 2**32, 0)
        struct.pack_into("<Q", end, end.index(b"PK\6\7") + 8, 2**32)
        file.write(end)
    with pytest.raises(DataError, match=r"cannot be read as a zip \(it asks for 4295 MB at once\)"):
        load_photos(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["empty", "text", "no bytes", "truncated", "missing", "other files", "only bad"])
@pytest.mark.parametrize("read", [lambda path: list(load_photos(path)), open_photos], ids=["load", "open"])
def test_a_source_without_photos_is_one_sentence_and_leaves_no_cache(kind, read, tmp_path, photo, home):
    path = write_zip(tmp_path / "x.zip", [("a.png", encode_png(photo))] if kind == "truncated" else [])
    sentence = "cannot be read as a zip (File is not a zip file). Give a folder or a zip with photos."
    if kind == "text":
        path.write_text("no zip")
    elif kind == "no bytes":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "missing":
        path.unlink()
        sentence = f"There is no folder or zip {path}."
    elif kind == "only bad":
        write_zip(path, [("a.png", b"no picture")])
        sentence = "has no photo that can be used, of 1 files, such as 'a.png' (The file is not a picture"
    else:
        write_zip(path, [("a.txt", b"no picture")] if kind == "other files" else [])
        sentence = f"There are no pictures in {path}. Name a folder or a zip with some."
    with pytest.raises(DataError) as caught:
        read(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(home.rglob("*.bin"))
    assert not list(home.glob("data/photos/*"))


def test_a_folder_may_be_called_zip(folder):
    assert len(list(load_photos(folder.rename(folder.with_name("x.zip"))))) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs file descriptors that can be counted")
def test_a_zip_is_closed_even_if_no_photo_is_taken(packed):
    before = len(list(Path("/dev/fd").iterdir()))
    load_photos(packed)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_cache_keeps_photos_small_in_colour_and_cut(tmp_path, home, caplog):
    gray = np.repeat(noise(20, 20)[..., :1], 3, axis=-1)
    entries = [("a.png", noise(400, 1000)), ("b.png", noise()), ("gray.png", gray)]
    path = write_zip(tmp_path / "x.zip", [(name, encode_png(image)) for name, image in entries])
    photos = open_photos(path)
    assert photos.names == ["a.png", "b.png"]
    assert [photos[index].shape for index in range(len(photos))] == [(192, 384, 3), (12, 20, 3)]
    np.testing.assert_array_equal(photos[1], entries[1][1])
    assert "1 of 3 files left out, such as 'gray.png' (it is gray)" in caplog.text
    calls = []
    again = open_photos(path, lambda *numbers: calls.append(numbers))
    assert not calls  # Nothing is decoded the second time.
    np.testing.assert_array_equal(again.pixels, photos.pixels)


@pytest.mark.parametrize(
    "damage",
    [
        {"index.json": b"\xff garbage"},
        {"index.json": b"[]"},
        {"index.json": b"[" * 100_000},
        {"index.json": json.dumps({"sizes": [[-1, -1], [9, 9]], "names": ["a", "b"]}).encode()},
        {"index.json": json.dumps({"sizes": [[2**40, 9], [9, 9]], "names": ["a", "b"]}).encode()},
        {"index.json": json.dumps({"sizes": [], "names": []}).encode()},
        {"index.json": json.dumps({"sizes": [[12, 20], [9]], "names": ["a", "b"]}).encode()},
        {"pixels.bin": b"short"},
        {"pixels.bin": b""},
        {"pixels.bin": None},
    ],
    ids=str,
)
def test_a_damaged_cache_is_made_again(damage, tmp_path, photo, home):
    path = write_zip(tmp_path / "x.zip", [("a.png", encode_png(photo)), ("b.png", encode_png(noise(9, 9)))])
    whole = open_photos(path).pixels.copy()
    (cache,) = (home / "data" / "photos").iterdir()
    for name, content in damage.items():
        (cache / name).unlink()
        if content is not None:
            (cache / name).write_bytes(content)
    np.testing.assert_array_equal(open_photos(path).pixels, whole)


def test_a_full_disk_is_one_sentence_and_leaves_no_cache(packed, home, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(DataError, match=r"could not be prepared in .* \(No space left on device\)\. Free some space"):
        open_photos(packed)
    assert not list((home / "data" / "photos").iterdir())


def test_the_split_depends_on_the_names_alone():
    names = [f"{index}.jpg" for index in range(4000)]
    train, held_out = split_photos(names)
    assert sorted([*train, *held_out]) == list(range(4000))
    assert 60 < len(held_out) < 140
    assert {names[index] for index in held_out} == {names[::-1][index] for index in split_photos(names[::-1])[1]}


def test_small_crops_are_squares_of_the_photos_and_repeatable(tmp_path):
    """Each photo is a ramp of its own colour, so that a crop tells which photo and how much of it was taken."""
    ramp = np.linspace(100, 200, 120).astype(np.uint8)
    for number in range(2):
        picture = np.zeros((90, 120, 3), np.uint8)
        picture[..., number] = ramp
        (tmp_path / f"{number}.png").write_bytes(encode_png(picture))
    found = open_photos(tmp_path)
    crops = cut_small_crops(found, 6, 1)
    assert (crops.shape, crops.dtype) == ((12, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(crops, cut_small_crops(found, 6, 1))
    assert (crops != cut_small_crops(found, 6, 2)).any()
    for row, crop in enumerate(crops):
        seen = crop[..., row % 2]
        assert not np.delete(crop, row % 2, axis=-1).any()
        assert 0.5 * 90 / 120 * 100 - 4 <= int(seen.max()) - int(seen.min()) <= 90 / 120 * 100
        assert (np.ptp(seen, axis=0) == 0).all()
