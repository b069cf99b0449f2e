"""cli: `colorize`: what it writes, skips and refuses, and what Ctrl-C leaves."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from colorizer.models.colorizer import load
from colorizer.pixels.images import decode_image, encode_png


@pytest.fixture
def pictures(tmp_path, samples):
    """Files: a colour PNG, a gray JPEG, a text file called PNG, and one that is missing."""
    paths = [tmp_path / name for name in ("colour.png", "gray.jpg", "bad.png", "missing.png")]
    Image.fromarray(samples.images[0].repeat(2, axis=0)).save(paths[0])
    Image.fromarray(samples.images[1, :20, :, 0]).save(paths[1])
    paths[2].write_text("no picture")
    return paths


def test_colorize_writes_a_png_of_the_same_size_for_each_picture(run, run_json, pictures, tmp_path):
    code, result = run_json("colorize", "linear", *pictures[:2], "--output", tmp_path / "new" / "out")
    written = [tmp_path / "new" / "out" / name for name in ("colour.png", "gray.png")]
    assert (code, result) == (0, {"model": "linear", "written": list(map(str, written)), "skipped": [], "failed": []})
    for source, target in zip(pictures, written, strict=False):
        image = decode_image(source.read_bytes())
        assert target.read_bytes().startswith(b"\x89PNG")
        np.testing.assert_array_equal(decode_image(target.read_bytes()), load("linear").colorize(image))


def test_colorize_goes_on_after_a_bad_file_and_returns_1(run, run_json, pictures, tmp_path):
    code, out, err = run("colorize", "linear", *pictures[::-1], "--output", tmp_path / "out")
    assert code == 1
    assert out.split() == [str(tmp_path / "out" / name) for name in ("gray.png", "colour.png")]
    assert f"{pictures[2]}: The file is not a picture" in err
    assert f"{pictures[3]}: There is no such file." in err
    assert "Traceback" not in err
    code, result = run_json("colorize", "linear", *pictures[::-1], "--output", tmp_path / "out")
    assert code == 1
    assert [failure["file"] for failure in result["failed"]] == [str(pictures[3]), str(pictures[2])]


def test_colorize_never_overwrites_its_input(run, pictures, tmp_path):
    before = pictures[0].read_bytes()
    code, _, err = run("colorize", "linear", pictures[0], "--output", tmp_path)
    assert code == 1
    assert f"The result would overwrite {pictures[0]}, one of the files. Choose another output folder." in err
    assert pictures[0].read_bytes() == before


def test_pictures_of_one_name_do_not_overwrite_each_other(run_json, tmp_path, samples):
    paths = [tmp_path / name / "photo.png" for name in ("a", "b")]
    for path, image in zip(paths, samples.images, strict=False):
        path.parent.mkdir()
        path.write_bytes(encode_png(image))
    code, result = run_json("colorize", "linear", *paths, "--output", tmp_path / "out")
    assert (code, result["written"], len(result["failed"])) == (1, [], 2)
    code, result = run_json("colorize", "linear", tmp_path, "--output", tmp_path / "out")
    assert (code, result["failed"]) == (0, [])
    assert result["written"] == [str(tmp_path / "out" / name / "photo.png") for name in ("a", "b")]


def test_colorize_skips_what_is_there_unless_told_otherwise(run, run_json, pictures, tmp_path):
    command = ["colorize", "linear", *pictures[:2], "--output", tmp_path / "out"]
    targets = [str(tmp_path / "out" / name) for name in ("colour.png", "gray.png")]
    assert run_json(*command)[1]["written"] == targets
    code, result = run_json(*command)
    assert (code, result["written"], result["skipped"]) == (0, [], targets)
    (tmp_path / "out" / "gray.png").unlink()
    code, out, err = run(*command)
    assert (code, out) == (0, f"{targets[1]}\n1 skipped, since the result is there; --overwrite makes it again.\n")
    assert "2/2" in err
    code, result = run_json(*command, "--overwrite")
    assert (code, result["written"], result["skipped"]) == (0, targets, [])


def test_colorize_returns_1_where_no_picture_is_found(run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = run("colorize", "linear", tmp_path / "empty", "--output", tmp_path / "out")
    assert (code, out) == (1, "Nothing was written.\n")
    assert err == f"{tmp_path / 'empty'}: There are no pictures in this folder.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_size_is_that_at_which_a_u_net_sees_the_picture(run_json, pictures, tmp_path):
    results = []
    for words in ([], ["--size", "64"], ["--size", "64", "--strength", "0.5"]):
        run_json("colorize", "unet", pictures[0], "--output", tmp_path / "out", "--overwrite", *words)
        results.append(decode_image((tmp_path / "out" / "colour.png").read_bytes()))
    image, unet = decode_image(pictures[0].read_bytes()), load("unet")
    np.testing.assert_array_equal(results[1], unet.colorize(image, size=64))
    np.testing.assert_array_equal(results[2], unet.colorize(image, size=64, strength=0.5))
    assert (results[0] != results[1]).any()


@pytest.mark.slow
def test_a_file_name_that_is_no_text_is_printed_as_it_is(tmp_path, pictures):
    name = os.fsdecode(b"\xff.png")
    pictures[0].rename(tmp_path / name)
    command = [sys.executable, "-m", "colorizer", "colorize", "linear", tmp_path / name, "--output", tmp_path / "out"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, timeout=60, env=strict)
    assert (done.returncode, done.stdout) == (0, os.fsencode(tmp_path / "out" / name) + b"\n"), done.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_whole_pictures_only(tmp_path, samples):
    (tmp_path / "in").mkdir()
    for index in range(2000):
        (tmp_path / "in" / f"{index}.png").write_bytes(encode_png(samples.images[index % 20].repeat(4, axis=0)))
    # A job in the background of a shell, as tests may be, has SIGINT ignored, and so have its children.
    heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from colorizer.app import cli"
    words = ["colorize", "linear", tmp_path / "in", "--output", tmp_path / "out"]
    command = [sys.executable, "-c", f"{heed}; sys.exit(cli.main())", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not list(tmp_path.glob("out/*.png")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    made = list((tmp_path / "out").iterdir())
    assert 1 <= len(made) < 2000
    assert all(decode_image(path.read_bytes()).shape == (128, 32, 3) for path in made)
