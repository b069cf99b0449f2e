"""cli: `colorize`: what it writes, skips and refuses, and what Ctrl-C leaves."""

import json
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


@pytest.mark.slow
def test_hints_and_references_reach_the_picture_and_its_description(run, run_json, pictures, tmp_path):
    hints, output = [{"x": 12, "y": 9, "color": "#a0522d"}], tmp_path / "out"
    (tmp_path / "hints.json").write_text(json.dumps(hints))
    image, model = decode_image(pictures[0].read_bytes()), load("unet-vivid")
    command = ["colorize", "unet-vivid", pictures[0], "--output", output, "--overwrite"]
    made = {}
    for words, settings in (
        (["--hints", tmp_path / "hints.json"], {"hints": hints}),
        (["--palette", "autumn", "--reference-strength", "0.8"], {"reference": "autumn", "reference_strength": 0.8}),
        (["--reference", pictures[0]], {"reference": image}),
    ):
        code, result = run_json(*command, *words)
        assert (code, result["failed"]) == (0, [])
        with Image.open(output / "colour.png") as picture:
            made[words[0]] = picture.info["Description"]
            np.testing.assert_array_equal(
                np.asarray(picture.convert("RGB")), model.colorize(image, **settings)[..., :3]
            )
    assert made["--hints"] == (
        "The colours were added by a network and are a guess. Model: unet-vivid. Settings: strength 1, 1 hint."
    )
    assert "strength 1, palette autumn, reference strength 0.8." in made["--palette"]
    assert "a reference picture" in made["--reference"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ('{"x": 1}', "must hold a list of hints, received a dict"),
        ("[" * 10000, "is not JSON"),
        ("[" + "1," * 100_000 + "1]", "has more than 100 kB"),
        ('[{"x": 1, "y": 1, "color": "#12345"}]', "color must be like #a0522d"),
        ('[{"x": NaN, "y": 1, "color": "#123456"}]', "x must be a whole number"),
        ('[{"x": 999, "y": 1, "color": "#123456"}]', "x must be a whole number from 0 to"),
        ('[{"x": 1, "y": 1, "colour": "#123456"}]', "must have x, y and color"),
        (str([{"x": 1, "y": 1, "color": "#123456"}] * 201).replace("'", '"'), "at most 200 hints, received 201"),
    ],
)
def test_wrong_hints_are_refused_with_a_sentence(run, pictures, tmp_path, content, reason):
    (tmp_path / "hints.json").write_text(content)
    words = ["colorize", "unet-vivid", pictures[0], "--output", tmp_path / "out", "--hints", tmp_path / "hints.json"]
    code, _, err = run(*words)
    assert code == 1
    assert reason in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("out/*"))


def test_hints_for_several_pictures_and_wrong_references_are_refused(run, pictures, tmp_path):
    (tmp_path / "hints.json").write_text("[]")
    (tmp_path / "gray.png").write_bytes(encode_png(np.full((9, 9), 90, np.uint8)))
    out = ["--output", tmp_path / "out"]
    for words, code, reason in (
        ([*pictures, "--hints", tmp_path / "hints.json"], 2, "names pixels of one picture, received 4 pictures"),
        ([pictures[0], "--hints", tmp_path / "no.json"], 1, "cannot be read (No such file or directory)"),
        ([pictures[0], "--reference", tmp_path / "gray.png"], 1, "The reference is gray"),
        ([pictures[0], "--reference", tmp_path / "hints.json"], 1, "not a picture"),
        ([pictures[0], "--palette", "spring"], 2, "spring"),
        ([pictures[0], "--palette", "warm", "--reference", pictures[0]], 2, "either --reference or --palette"),
        ([pictures[0], "--palette", "warm", "--reference-strength", "2"], 1, "must be a number from 0 to 1"),
    ):
        found, _, err = run("colorize", "unet-vivid", *words, *out)
        assert (found, reason in err, "Traceback" in err) == (code, True, False), err
