"""Uploaded pictures become training images: files and zips, within limits, the gray and the damaged left out."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from colorizer import config
from colorizer.data.datasets import load_dataset, own_dataset
from colorizer.data.uploads import read_uploads
from colorizer.errors import ConfigError, DataError


def png(color, size=(40, 48)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def files(number, start=0):
    return [(f"{index}.png", png((200, index, 255 - index))) for index in range(start, start + number)]


def pack(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_pictures_and_zips_are_cut_and_what_cannot_be_learned_from_is_counted():
    seen = []
    broken = [("gray.png", png((9, 9, 9))), ("broken.jpg", b"no picture")]
    holiday = pack([*files(15, 100), ("folder/../../evil.png", png((0, 200, 0))), ("notes.txt", b"text")])
    own = read_uploads([*files(10), *broken, ("Holiday.ZIP", holiday)], lambda *numbers: seen.append(numbers))
    assert (own.images.shape, own.images.dtype) == ((26, 32, 32, 3), np.uint8)
    assert (own.gray, own.unreadable) == (1, 1)
    assert seen == [(done, 28) for done in range(28)]
    colors = {tuple(color) for color in own.images[:, 0, 0].tolist()}
    assert (200, 3, 252) in colors and (0, 200, 0) in colors and len(colors) == 26


def test_the_split_does_not_depend_on_the_order_and_is_that_of_a_folder():
    own = read_uploads(files(30)).images
    dataset = own_dataset(own)
    sizes = [len(dataset.split(name).images) for name in ("train", "validation", "test")]
    assert sizes == [24, 3, 3]
    np.testing.assert_array_equal(np.concatenate([dataset.validation.images, dataset.test.images]), own[:6])
    with pytest.raises(ConfigError, match="Give folder:PATH"):
        load_dataset(config.OWN_PICTURES)


@pytest.mark.parametrize(
    ("uploaded", "reason"),
    [
        (files(19), "Of 19 pictures, 19 can be used .* and 20 are the least"),
        ([(f"{index}.png", png((7, 7, 7))) for index in range(30)], "0 cannot be read, 30 are gray by nature"),
        (files(201), "These are 201 pictures, and 200 are the most"),
        ([("many.zip", pack([(f"{index}.png", b"") for index in range(500)]))], "These are 500 pictures"),
        ([("broken.zip", b"PK\3\4 nonsense")], r"^broken\.zip cannot be read as a zip"),
        ([("empty.zip", pack([("notes.txt", b"")]))], r"There are no pictures in empty\.zip"),
    ],
)
def test_too_few_too_many_and_damaged_files_get_a_sentence(uploaded, reason):
    with pytest.raises(DataError, match=reason):
        read_uploads(uploaded)
