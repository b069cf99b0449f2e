"""These tests plan and colorize batches: nothing is overwritten, and one broken file does not stop the others."""

import os
from pathlib import Path

import numpy as np
import pytest

from colorizer.errors import ImageError
from colorizer.jobs import batch
from colorizer.jobs.batch import colorize_files, plan_files
from colorizer.models.colorizer import load
from colorizer.pixels.images import decode_image, encode_png


@pytest.fixture(scope="module")
def dense():
    return load("dense")


@pytest.fixture
def make(tmp_path, samples, monkeypatch):
    """Return a function that writes pictures to paths below the current folder, which is empty at first."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for index, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(samples.images[index % 20]))

    return make


def _plan(*words, output="out", **options):
    """Return a plan as text: for each source its target below the output folder, or its error."""
    files = plan_files([Path(word) for word in words], Path(output), **options)
    return {str(f.source): f.error or f.target.relative_to(output).as_posix() for f in files}


def _colorize(colorizer, *words, output="out", overwrite=False, **settings):
    files = plan_files(map(Path, words), Path(output), overwrite)
    return {str(file.source): file for file in colorize_files(colorizer, files, **settings)}


def test_folders_are_searched_for_pictures_and_keep_their_structure(make):
    make("in/b.JPG", "in/a.png", "in/deep/er/c.webp", "in/notes.txt", "in/.hidden.png", "in/.git/d.png", "e.data")
    assert _plan("e.data", "in") == {
        "e.data": "e.png", "in/a.png": "a.png", "in/b.JPG": "b.png", "in/deep/er/c.webp": "deep/er/c.png"
    }  # fmt: skip
    assert next(iter(_plan("in"))) == "in/a.png"
    assert _plan("in/deep") == {"in/deep/er/c.webp": "er/c.png"}


def test_an_empty_path_is_refused_and_the_current_folder_is_not_searched(make):
    make("a.png")
    with pytest.raises(ImageError, match=r"An empty path was given\. Give the path of a picture"):
        plan_files(["a.png", ""], Path("out"))
    assert _plan(".") == {"a.png": "a.png"}  # A dot names the current folder, which is a real one.


def test_links_to_folders_are_not_followed_but_links_to_files_are_files(make, tmp_path):
    make("in/a.png", "other/b.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self.png").symlink_to("self.png")
    (tmp_path / "in" / "c.jpg").symlink_to(tmp_path / "other" / "b.png")
    (tmp_path / "given").symlink_to(tmp_path / "other")
    assert _plan("in", "given") == {
        "in/a.png": "a.png", "in/c.jpg": "c.png", "in/self.png": "self.png", "given/b.png": "b.png"
    }  # fmt: skip


def test_a_file_named_twice_is_taken_once(make, tmp_path):
    make("in/a.png")
    (tmp_path / "link").symlink_to("in")
    assert _plan("in/a.png", "in", "in/../in/a.png", tmp_path / "in" / "a.png", "link/a.png") == {"in/a.png": "a.png"}


def test_files_that_would_become_the_same_keep_their_full_names(make):
    make("in/a.jpg", "in/a.png", "in/A.gif", "in/b.png", "in/a")
    names = {"in/A.gif": "A.gif.png", "in/a.jpg": "a.jpg.png", "in/a.png": "a.png.png", "in/b.png": "b.png"}
    assert _plan("in") == names
    assert _plan("in/b.png", "in/a.png", "in") == names  # The order of the paths does not matter.
    assert _plan("in/a", "in/b.png") == {"in/a": "a.png", "in/b.png": "b.png"}


def test_files_of_one_name_from_two_folders_fail_instead_of_overwriting_each_other(make):
    make("x/a.png", "y/a.png", "y/b.png")
    plan = _plan("x", "y")
    assert plan["y/b.png"] == "b.png"
    assert plan["x/a.png"] == plan["y/a.png"]
    assert "Another file would also become out/a.png.png. Rename one of them" in plan["x/a.png"]
    make("in/a.jpg", "in/a.png", "in/a.jpg.png")
    assert [error[:12] for error in _plan("in").values()] == ["Another file", "Another file", "a.png.png"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_input_is_overwritten_by_another_of_its_names(make, tmp_path, link, dense):
    make("in/a.png", "out/b.png")
    link(tmp_path / "in" / "a.png", tmp_path / "out" / "a.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    for overwrite in (False, True):
        file = _colorize(dense, "in/a.png", overwrite=overwrite)["in/a.png"]
        assert "would overwrite out/a.png, one of the files. Choose another output" in file.error
    assert (tmp_path / "out" / "a.png").read_bytes() == before


def test_no_input_is_overwritten_in_the_output_folder(make, tmp_path, dense):
    make("in/deep/a.jpg", "out/deep/a.png", "out/b.png")
    before = (tmp_path / "out" / "deep" / "a.png").read_bytes()
    files = _colorize(dense, "in", "out/deep/a.png", "out/b.png", overwrite=True)
    assert "would overwrite out/deep/a.png, one of the files" in files["in/deep/a.jpg"].error
    assert "would overwrite out/b.png, one of the files" in files["out/b.png"].error
    assert (tmp_path / "out" / "deep" / "a.png").read_bytes() == before
    assert files["out/deep/a.png"].target == Path("out/a.png")


def test_the_output_folder_is_not_searched(make):
    make("in/a.png", "in/out/a.png", "in/out/deep/b.png")
    assert _plan("in", output="in/out") == {"in/a.png": "a.png"}
    assert "This is the output folder." in _plan("in", output="in/../in")["in"]


def test_what_is_no_picture_file_fails_and_stops_nothing(make, tmp_path, dense):
    make("good.png", "cut.png", "too-large.png", "last.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    os.truncate("too-large.png", 30 * 2**20)
    (tmp_path / "out" / "folder.png").mkdir(parents=True)
    make("folder.jpg")
    sentences = {
        "missing.png": "There is no such file.",
        "good.png/below.png": "There is no such file.",
        "empty": "There are no pictures in this folder.",
        "text.png": "The file is not a picture",
        "cut.png": "The picture is damaged",
        "too-large.png": "the limit is 20 MB",
        "pipe.png": "There is no such file.",
        "loop.png": "There is no such file.",
        "n" * 300 + ".png": "There is no such file.",
        "folder.jpg": "Is a directory",
    }
    files = _colorize(dense, "good.png", *sentences, "last.jpg")
    assert list(files) == ["good.png", *sentences, "last.jpg"]
    assert {name: (sentence in (files[name].error or "")) for name, sentence in sentences.items()} == dict.fromkeys(
        sentences, True
    )
    assert (files["good.png"].error, files["last.jpg"].error) == (None, None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["folder.png", "good.png", "last.png"]


def test_results_are_those_of_colorize_and_nothing_else_is_left(make, tmp_path, dense):
    make(*(f"in/{number}/{number}.png" for number in range(12)))
    files = _colorize(dense, "in", strength=0.5)
    assert len(files) == 12
    for file in files.values():
        wanted = dense.colorize(decode_image(file.source.read_bytes()), strength=0.5)
        np.testing.assert_array_equal(decode_image(file.target.read_bytes()), wanted)
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == {
        tmp_path / file.target for file in files.values()
    }


def test_a_second_run_makes_only_what_is_missing(make, tmp_path, dense):
    make("in/a.png", "in/b.png", "in/a.jpg")
    first = _colorize(dense, "in")
    assert not any(file.skipped for file in first.values())
    (tmp_path / "out" / "b.png").unlink()
    (tmp_path / "out" / "a.jpg.png").write_bytes(b"kept")
    second = _colorize(dense, "in")
    assert {name: file.skipped for name, file in second.items()} == {
        "in/a.jpg": True, "in/a.png": True, "in/b.png": False
    }  # fmt: skip
    assert (tmp_path / "out" / "b.png").exists()
    assert (tmp_path / "out" / "a.jpg.png").read_bytes() == b"kept"
    third = _colorize(dense, "in", overwrite=True)
    assert not any(file.skipped for file in third.values())
    assert (tmp_path / "out" / "a.jpg.png").read_bytes() != b"kept"


def test_an_abandoned_batch_leaves_only_whole_files(make, tmp_path, dense):
    make(*(f"in/{number}.png" for number in range(200)))
    files = colorize_files(dense, plan_files([Path("in")], Path("out")))
    assert next(files).error is None
    files.close()
    made = list((tmp_path / "out").iterdir())
    assert 1 <= len(made) < 200
    assert all(decode_image(path.read_bytes()).shape == (32, 32, 3) for path in made)


def test_a_file_becomes_a_png_with_these_settings(samples, dense, tmp_path):
    file = batch.PictureFile(tmp_path / "in.jpg", tmp_path / "out.png")
    file.source.write_bytes(encode_png(samples.images[0]))
    assert batch.colorize_file(dense, file, strength=0.0) == file
    assert file.target.read_bytes().startswith(b"\x89PNG")
    assert np.ptp(decode_image(file.target.read_bytes()), axis=-1).max() == 0
    assert "dense has no vividness" in batch.colorize_file(dense, file, vividness=0.5).error
    file.source.write_bytes(b"")
    assert batch.colorize_file(dense, file).error.startswith("The file is empty")


def test_an_unexpected_error_costs_one_picture(make, dense, monkeypatch):
    make("in/a.png", "in/b.png", "in/c.png")
    colorize, numbers = dense.colorize, iter(range(3))

    def fail_once(image, **settings):
        if next(numbers) == 1:
            raise MemoryError("no room")
        return colorize(image, **settings)

    monkeypatch.setattr(dense, "colorize", fail_once)
    errors = [file.error for file in _colorize(dense, "in").values() if file.error]
    assert errors == ["This picture cannot be colorized: MemoryError('no room')."]


def test_an_output_that_is_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ImageError, match=r"The output .*taken is a file\. Give a folder"):
        plan_files([tmp_path], tmp_path / "taken")
