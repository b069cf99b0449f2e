"""Pictures from elsewhere: hostile .npz files, and folders with all kinds of pictures."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from colorizer.data import datasets, pictures
from colorizer.errors import DataError


def _images(num_images, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_images, 32, 32, 3), np.uint8)


def _npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


# An .npz file


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_training_and_validation_images(tmp_path, save):
    train, validation = _images(5), np.asfortranarray(_images(3, seed=1))
    save(tmp_path / "few.npz", x_train=train, x_val=validation, y_train=np.arange(5), label_names=np.array(["a"]))
    dataset = datasets.load_dataset(f"cifar100:{tmp_path / 'few.npz'}")
    np.testing.assert_array_equal(dataset.train.images, train)
    for split in (dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.images, validation)
        np.testing.assert_array_equal(split.labels, np.zeros(3))
    assert dataset.class_names == ()


class _Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


_HUGE = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (50000, 32, 32, 3)}".ljust(
    0x76
)
HOSTILE = {
    "missing": (None, "it has no x_val"),
    "floats": (_npy(np.zeros((2, 32, 32, 3))), r"its x_val is float64 of shape \(2, 32, 32, 3\)"),
    "objects": (_npy(np.array([_Evil()])), r"its x_val is object of shape \(1,\)"),
    "pickle": (pickle.dumps(_Evil()), "magic string is not correct"),
    "small": (_npy(_images(2)[:, :28, :28]), r"its x_val is uint8 of shape \(2, 28, 28, 3\)"),
    "number": (_npy(np.uint8(1)), r"its x_val is uint8 of shape \(\)"),
    "empty": (_npy(_images(0)), r"its x_val is uint8 of shape \(0, 32, 32, 3\)"),
    "cut": (_npy(_images(2))[:-1], "its x_val is cut off"),
    "huge": (_HUGE, "its x_val is cut off"),
    "too many": (_HUGE.replace(b"50000", b"50001"), r"its x_val is uint8 of shape \(50001, 32, 32, 3\)"),
}


@pytest.mark.parametrize(("content", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_npz_gives_one_sentence(tmp_path, content, told):
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("x_train.npy", _npy(_images(2)))
        if content is not None:
            archive.writestr("x_val.npy", content)
    with pytest.raises(DataError, match=rf"bad\.npz cannot be used \(.*{told}.*\)\. Give an \.npz file with x_train"):
        datasets.load_dataset(f"cifar100:{tmp_path / 'bad.npz'}")


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_npz_gives_one_sentence(tmp_path, keep):
    path = tmp_path / "cut.npz"
    np.savez_compressed(path, x_train=_images(3), x_val=_images(3))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(DataError, match=r"cut\.npz cannot be used \(File is not a zip file\)"):
        datasets.load_dataset(f"cifar100:{path}")


def test_a_file_that_is_not_there_gives_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"nope\.npz cannot be used \(.*No such file"):
        datasets.load_dataset(f"cifar100:{tmp_path / 'nope.npz'}")
    with pytest.raises(DataError, match=r"cannot be used \(.*[Ii]s a directory"):
        datasets.load_dataset(f"cifar100:{tmp_path}")


# A folder


@pytest.fixture
def photos(tmp_path, samples):
    """Twenty pictures in colour, in two folders, and what is left out."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index, image in enumerate(samples.images):
        picture = Image.fromarray(image).resize((60 + index, 40))
        picture.save(folder / ("more" if index % 2 else "") / f"{index:02}.{'jpg' if index % 3 else 'PNG'}")
    Image.fromarray(samples.images[0]).convert("L").save(folder / "gray.png")
    Image.fromarray(samples.images[1]).convert("L").convert("RGB").save(folder / "gray in colour.jpg", quality=60)
    (folder / "broken.png").write_bytes((folder / "gray.png").read_bytes()[:50])
    (folder / "empty.gif").touch()
    (folder / "notes.txt").write_text("no picture")
    (folder / "folder.png").mkdir()
    (folder / "00.PNG").rename(folder / os.fsdecode(b"00\xff.PNG"))  # a name that is not UTF-8
    return folder


def test_pictures_are_cut_and_shrunk_in_sorted_order(photos, caplog):
    images, names = pictures.load_pictures(photos, 32)
    assert (images.shape, images.dtype) == ((20, 32, 32, 3), np.uint8)
    assert names == sorted(names)
    assert names[:2] == [os.fsdecode(b"00\xff.PNG"), "02.jpg"]
    assert "more/01.jpg" in names
    assert "4 of 24 pictures left out: 2 cannot be read, 2 are gray by nature" in caplog.text
    with Image.open(photos / names[0]) as picture:
        expected = picture.crop((10, 0, 50, 40)).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.abs(images[0].astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 7)])
def test_tiny_and_narrow_pictures_are_enlarged(tmp_path, size):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "tiny.png")
    images, names = pictures.load_pictures(tmp_path, 16)
    assert names == ["tiny.png"]
    np.testing.assert_array_equal(images, np.broadcast_to(np.array([200, 100, 50], np.uint8), (1, 16, 16, 3)))


def test_a_folder_is_split_by_file_always_alike(photos, samples):
    first, again = (datasets.load_dataset(f"folder:{photos}") for _ in range(2))
    splits = [first.split(name).images for name in ("train", "validation", "test")]
    assert [len(images) for images in splits] == [16, 2, 2]
    for name, images in zip(("train", "validation", "test"), splits, strict=True):
        np.testing.assert_array_equal(images, again.split(name).images)
    distinct = {image.tobytes() for images in splits for image in images}
    assert distinct == {image.tobytes() for image in pictures.load_pictures(photos, 32)[0]}
    assert len(distinct) == 20
    assert first.class_names == ()
    moved = photos.rename(photos.with_name("elsewhere"))  # names within the folder decide
    np.testing.assert_array_equal(datasets.load_dataset(f"folder:{moved}").test.images, first.test.images)


def test_three_pictures_are_the_least(tmp_path, samples):
    for index in range(3):
        if index:
            with pytest.raises(DataError, match=rf"has {index} usable pictures, 3 are the least"):
                datasets.load_dataset(f"folder:{tmp_path}")
        Image.fromarray(samples.images[index]).save(tmp_path / f"{index}.png")
    dataset = datasets.load_dataset(f"folder:{tmp_path}")
    assert [len(dataset.split(name).images) for name in ("train", "validation", "test")] == [1, 1, 1]


def test_a_folder_without_a_usable_picture_gives_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"has no colour picture that can be used: of 0 files"):
        datasets.load_dataset(f"folder:{tmp_path}")
    Image.new("L", (40, 40)).save(tmp_path / "gray.png")
    (tmp_path / "bad.png").touch()
    with pytest.raises(DataError, match=r"of 2 files 1 cannot be read, 1 are gray by nature"):
        datasets.load_dataset(f"folder:{tmp_path}")
    with pytest.raises(DataError, match=r"There is no folder .*nope"):
        datasets.load_dataset(f"folder:{tmp_path / 'nope'}")
