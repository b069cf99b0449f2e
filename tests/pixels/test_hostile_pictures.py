"""Hostile and damaged bytes become a picture or a sentence, at little cost, and leave the host's settings alone."""

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from PIL import ExifTags, Image

from colorizer import config
from colorizer.errors import ImageError
from colorizer.pixels import images
from tests.pixels.pictures import (
    DAMAGED,
    FILES,
    ORIENTATIONS,
    PICTURE,
    SAVED_MODES,
    TOO_LARGE,
    WHOLE,
    chunk,
    encode,
    png_header,
)


def test_exif_of_many_megabytes_is_left_out():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.MakerNote] = bytes(2**20)
    np.testing.assert_array_equal(images.decode_image(encode(PICTURE, exif=exif)), PICTURE)


def test_exif_with_a_damaged_tag_does_not_matter():
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIIHHIII", 8, 2, 0x10E, 2, 9999, 8, 0x112, 3, 1, 6, 0)
    image = images.decode_image(encode(PICTURE, "PNG", exif=exif))
    np.testing.assert_array_equal(image, ORIENTATIONS[6](PICTURE))


def jpeg_of_many_scans(width, height, num_scans):
    """A progressive JPEG whose last, empty scan is repeated."""
    content = encode(Image.new("RGB", (width, height), (10, 200, 30)), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_scan * num_scans + content[-2:]


def exif_of_many_numbers():
    """EXIF with an orientation and two million fractions."""
    tags = struct.pack("<HHHIIHHIIi", 2, 0x112, 3, 1, 6, 0x9999, 5, 2_000_000, 8, 0)
    return b"II*\0" + struct.pack("<I", 8) + tags + bytes(16_000_000)


NO_PICTURE = r"The file is not a picture this app can read{}\. Use PNG, JPEG, WebP, HEIC, BMP, TIFF or GIF\."
UNKNOWN = NO_PICTURE.format("")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param(b"", r"The file is empty\. Choose a picture with some content\.", id="empty"),
        pytest.param(bytes(1000), UNKNOWN, id="zeros"),
        pytest.param(b"Dear Sir or Madam,\n" * 20, NO_PICTURE.format(", but a text file"), id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE.format(", but an SVG drawing"), id="svg"),
        pytest.param(b"%PDF-1.7\n\xe2\xe3", NO_PICTURE.format(", but a PDF document"), id="pdf"),
        pytest.param(b"\0\0\0\x20ftypisom\0\0\2\0mp41", NO_PICTURE.format(", but a video"), id="mp4"),
        pytest.param(b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7", NO_PICTURE.format(", but a video"), id="webm"),
        pytest.param(b"RIFF\x24\1\0\0AVI LIST", NO_PICTURE.format(", but a video"), id="avi"),
        pytest.param(b"\0\0\0\x20ftypavif\0\0\0\0", NO_PICTURE.format(", but an AVIF picture"), id="avif"),
        pytest.param(
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", NO_PICTURE.format(", but a damaged HEIC picture"), id="heic"
        ),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", NO_PICTURE.format(", but a text file"), id="eps"),
        pytest.param(encode(PICTURE, "PPM"), UNKNOWN, id="format not allowed"),
        pytest.param(WHOLE[:60] + bytes(100) + WHOLE[160:], DAMAGED, id="zeros inside"),
        pytest.param(png_header(8, 8), DAMAGED, id="no pixels"),
        pytest.param(png_header(10_000, 10_000), TOO_LARGE, id="100 megapixels"),
        pytest.param(encode(Image.new("1", (8000, 8000))), TOO_LARGE, id="64 megapixels"),
    ],
)
def test_bytes_that_are_no_acceptable_picture_give_a_sentence(content, match):
    with pytest.raises(ImageError) as caught:
        images.decode_image(content)
    assert re.fullmatch(match, str(caught.value))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param(png_header(100_000, 100_000), TOO_LARGE, id="10 gigapixels"),
        pytest.param(jpeg_of_many_scans(4000, 3000, 20_000), "more scans than any camera writes", id="scans"),
        pytest.param(
            WHOLE[:33] + chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**8))) + WHOLE[33:], DAMAGED, id="text"
        ),
        pytest.param(WHOLE[:33] + chunk(b"eXIf", exif_of_many_numbers()) + WHOLE[33:], "", id="exif"),
        pytest.param(jpeg_of_many_scans(8160, 6120, 20), "", id="50 megapixels and some more scans"),
        pytest.param(encode(Image.new("I;16", (8160, 6120))), "", id="50 megapixels of 16 bits"),
        pytest.param(encode(Image.new("LA", (8160, 6120))), "", id="50 megapixels with alpha"),
    ],
)
@pytest.mark.slow
def test_bombs_cost_little_time_and_memory(content, match, tmp_path):
    (tmp_path / "bomb").write_bytes(content)
    code = """if True:
        import resource, sys, time
        from colorizer.pixels import images
        begin, message = time.perf_counter(), ""
        try:
            images.decode_image(open("bomb", "rb").read())
        except images.ImageError as error:
            message = error
        # Not ru_maxrss, which a process inherits from the one that starts it.
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(time.perf_counter() - begin, int(peak.split()[1]) / 2**20, message)"""
    python = [sys.executable, "-W", "ignore", "-c", code]
    root = str(Path(images.__file__).parents[2])
    done = subprocess.run(python, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True)
    seconds, gibibytes, message = done.stdout.strip("\n").split(" ", 2)
    assert re.search(match, message) if match else not message
    assert float(seconds) < 100
    assert float(gibibytes) < 2


def decode_or_refuse(content):
    """Decode, and let nothing out but a picture or an `ImageError` with its sentence."""
    try:
        image = images.decode_image(content)
    except ImageError as error:
        assert re.fullmatch(f"{NO_PICTURE.format('[^.]*')}|{DAMAGED}|{TOO_LARGE}|The file is empty.*", str(error))
        return None
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (3, 4) and image.size
    return image


@pytest.mark.parametrize("format", FILES)
def test_truncated_anywhere_it_is_a_whole_picture_or_refused(format):
    content = FILES[format]
    for tenth in range(10):
        image = decode_or_refuse(content[: len(content) * tenth // 10])
        assert image is None or (image.shape[:2] == PICTURE.shape[:2] and tenth > 1)
    assert images.decode_image(content).shape[:2] == PICTURE.shape[:2]


@pytest.mark.parametrize("format", FILES)
def test_with_any_bit_flipped_it_is_a_picture_or_refused(format):
    content = FILES[format]
    for position in {*range(min(len(content), 100)), *range(0, len(content), max(1, len(content) // 100))}:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        decode_or_refuse(bytes(flipped))


@pytest.mark.parametrize("format", [format for format in SAVED_MODES if format != "HEIF"])  # which has a least size
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_are_decoded(format, width, height):
    image = images.decode_image(encode(Image.new("RGB", (width, height), (9, 200, 90)), format))
    assert image.shape == (height, width, 3)


def mutate(content, edits, length):
    content = bytearray(content)
    for position, value in edits:
        content[position % len(content)] = value
    return bytes(content[: length % (len(content) + 1)] if length else content)


MUTATED = strategies.builds(
    mutate,
    strategies.sampled_from(list(FILES.values())),
    strategies.lists(strategies.tuples(strategies.integers(0, 2**14), strategies.integers(0, 255)), max_size=8),
    strategies.just(0) | strategies.integers(0, 2**14),
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(strategies.binary(max_size=200) | MUTATED)
def test_no_bytes_do_anything_else(content):
    decode_or_refuse(content)


@pytest.mark.parametrize("content", [b"", b"text", png_header(10_000, 10_000)])
def test_reading_the_size_refuses_what_decoding_refuses(content):
    with pytest.raises(ImageError) as read:
        images.read_size(content)
    with pytest.raises(ImageError, match=re.escape(str(read.value))):
        images.decode_image(content)


def test_decoding_leaves_the_settings_of_its_host_alone(tmp_path):
    flipped = [bytes([*content[:60], content[60] ^ 1, *content[61:]]) for content in FILES.values()]
    for number, content in enumerate([*FILES.values(), *flipped, png_header(100_000, 100_000)]):
        (tmp_path / f"{number}.bin").write_bytes(content)
    code = """if True:
        import pathlib, socket, warnings
        import numpy, pydantic  # They add filters of their own.
        from PIL import Image
        Image.init()
        def settings():
            return list(warnings.filters), Image.MAX_IMAGE_PIXELS, sorted(Image.OPEN), socket.getdefaulttimeout()
        before = settings()
        import colorizer
        from colorizer.errors import ImageError
        from colorizer.pixels import guided
        for path in pathlib.Path().glob("*.bin"):
            try:
                image = colorizer.decode_image(path.read_bytes())
                colorizer.encode_png(guided.apply_chroma(image, image[:8, :8, :2] / 255 - 0.5))
            except ImageError:
                pass
        print(settings() == before)"""
    root = str(Path(images.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_other_buffers_are_decoded_and_what_is_no_bytes_is_refused():
    for content in (bytearray(WHOLE), memoryview(WHOLE)):
        np.testing.assert_array_equal(images.decode_image(content), images.decode_image(WHOLE))
    with pytest.raises(ImageError, match="must be given as the bytes of its file, received a str"):
        images.decode_image("photo.jpg")


def test_files_above_the_limit_are_refused():
    with pytest.raises(ImageError, match=r"The file has 20\.0 MB; the limit is 20 MB\. Save it at a smaller size"):
        images.decode_image(bytes(config.MAX_UPLOAD_BYTES + 1))
