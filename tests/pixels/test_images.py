"""images: every format and mode, orientation, depth, transparency, profiles, and hostile bytes."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings, strategies
from PIL import ExifTags, Image, ImageCms

from colorizer import config
from colorizer.errors import ImageError
from colorizer.pixels import images

ROWS, COLUMNS = np.mgrid[0:24, 0:32]
ALPHA = np.where(ROWS < 6, 0, 255).astype(np.uint8)
PICTURE = np.stack([8 * ROWS + COLUMNS, 5 * ROWS + 3 * COLUMNS, 2 * ROWS + 6 * COLUMNS], axis=-1).astype(np.uint8)
SAVED_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"),
    "HEIF": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16", "I;16B"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
}
WITHOUT_ALPHA = {"BMP"}  # as Pillow writes it
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
pillow_heif.register_heif_opener()


def encode(picture, format="PNG", **options):
    """The bytes of a Pillow image, or of an array, in a file format."""
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, format, **options)
    return buffer.getvalue()


def in_mode(mode):
    """`PICTURE` as a Pillow image, with some transparency where the mode has alpha."""
    picture = Image.fromarray(PICTURE)
    if mode.startswith("I"):
        gray = np.asarray(picture.convert("L"), np.int32) * 257
        return Image.fromarray(gray.astype({"I": np.int32, "I;16": "<u2", "I;16B": ">u2"}[mode]))
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(ALPHA))
    through = {"PA": "P", "F": "L"}.get(mode, picture.mode)
    return picture.convert(through).convert(mode)


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format in SAVED_MODES for mode in SAVED_MODES[format]])
def test_every_format_and_mode_is_decoded(format, mode):
    picture = in_mode(mode)
    options = {"quality": 95} if format in ("JPEG", "WEBP", "HEIF") else {}
    image = images.decode_image(encode(picture, format, **options))
    has_alpha = mode.endswith("A") and format not in WITHOUT_ALPHA
    assert (image.shape, image.dtype) == ((24, 32, 4 if has_alpha else 3), np.uint8)
    expected = np.asarray((in_mode("L") if mode.startswith("I") else picture).convert("RGB"))
    # Transparent pixels may lose their colour.
    seen = image[..., 3] == 255 if has_alpha else np.full((24, 32), True)
    difference = np.abs(image[..., :3].astype(int) - expected)[seen].mean()
    lossless = format in ("PNG", "BMP", "TIFF") and mode not in ("CMYK", "YCbCr", "LAB")
    assert difference <= (0 if lossless else 16 if mode in ("1", "P") or format == "GIF" else 4)
    if has_alpha and format in ("PNG", "TIFF", "WEBP"):
        np.testing.assert_array_equal(image[..., 3], ALPHA)


def test_gray_is_repeated_in_three_channels():
    image = images.decode_image(encode(PICTURE[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(PICTURE[..., :1], 3, axis=-1))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied_once(format, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = images.decode_image(encode(PICTURE, format, exif=exif.tobytes()))
    expected = ORIENTATIONS[orientation](PICTURE)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 8


def test_exif_of_many_megabytes_is_left_out():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.MakerNote] = bytes(2**20)
    np.testing.assert_array_equal(images.decode_image(encode(PICTURE, exif=exif)), PICTURE)


def test_exif_with_a_damaged_tag_does_not_matter():
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIIHHIII", 8, 2, 0x10E, 2, 9999, 8, 0x112, 3, 1, 6, 0)
    image = images.decode_image(encode(PICTURE, "PNG", exif=exif))
    np.testing.assert_array_equal(image, ORIENTATIONS[6](PICTURE))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED_AND_GREEN_SWAPPED = SRGB.replace(b"rXYZ", b"swap").replace(b"gXYZ", b"rXYZ").replace(b"swap", b"gXYZ")


def cmyk_profile():
    """A profile under which CMY are kept as L*a*b* bytes and K does nothing (ICC.1:2001-04, section 6.5.7)."""
    identity = bytes(range(256))
    corners = b"".join(bytes(255 * (node >> (3 - axis) & 1) for axis in range(3)) for node in range(16))
    matrix = struct.pack(">9I", *(65536 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    header = struct.pack(">4x4sI4s4s4s12x4s28x", b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    body = header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table
    return struct.pack(">I", len(body)) + body[4:]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_an_icc_profile_is_converted_to_srgb(format, mode):
    flat = Image.new("RGB", (16, 16), (200, 60, 60))
    flat.putalpha(Image.fromarray(np.tile(np.uint8([0, 255]), (16, 8))))
    image = images.decode_image(encode(flat.convert(mode), format, icc_profile=RED_AND_GREEN_SWAPPED))
    red, green = image[..., :2][image[..., -1] == 255 if mode == "RGBA" else np.full((16, 16), True)].mean(axis=0)
    assert green > red + 60 if mode != "L" else green == red  # it cannot be that of a gray picture, and is ignored
    if mode == "RGBA" and format != "HEIF":
        np.testing.assert_array_equal(image[..., 3], np.asarray(flat)[..., 3])


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(format):
    picture = Image.new("CMYK", (16, 16), (128, 255, 128, 255))
    assert images.decode_image(encode(picture, format)).max() < 8
    red, green, blue = images.decode_image(encode(picture, format, icc_profile=cmyk_profile()))[8, 8].astype(int)
    assert red > green + 100 and blue > green + 100  # L* 50, a* 127, b* 0


@pytest.mark.parametrize("profile", [b"nonsense", SRGB[:200], SRGB[:128] + bytes(len(SRGB) - 128), cmyk_profile()])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "HEIF"])
def test_a_broken_or_wrong_profile_is_ignored(format, profile):
    with_profile, without = encode(PICTURE, format, icc_profile=profile), encode(PICTURE, format)
    np.testing.assert_array_equal(images.decode_image(with_profile), images.decode_image(without))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled(format):
    gray = PICTURE[..., 0].astype(np.uint16) * 257
    image = images.decode_image(encode(gray, format))
    np.testing.assert_array_equal(image, np.repeat(PICTURE[..., :1], 3, axis=-1))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_colour_of_16_bits_is_scaled(colour_type, channels):
    values = np.arange(24 * 32 * channels, dtype=np.uint16).reshape(24, 32, channels) * 20
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 32, 24, 16, colour_type, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")
    image = images.decode_image(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    if channels == 2:
        values = values[..., [0, 0, 0, 1]]
    assert image.shape == values.shape
    assert np.abs(image - values / 257).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_dark_picture_of_16_bits_stays_dark(format):
    assert images.decode_image(encode(np.full((4, 4), 200, np.uint16), format)).max() <= 1


def test_alpha_is_kept_and_can_be_laid_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 1] = rgba[1, 0] = (255, 0, 0, 255)
    rgba[1, 0, 3] = 128
    image = images.decode_image(encode(rgba))
    np.testing.assert_array_equal(image, rgba)
    white = images.lay_on_white(image)
    np.testing.assert_array_equal(white[0], [[255, 255, 255], [255, 0, 0]])
    np.testing.assert_allclose(white[1, 0], [255, 127, 127], atol=1)


def test_a_transparent_palette_colour_becomes_alpha():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    image = images.decode_image(encode(palette, transparency=0))
    np.testing.assert_array_equal(image, [[[10, 20, 30, 0], [40, 50, 60, 255]]])


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    image = images.decode_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(image, np.broadcast_to(np.uint8([255, 0, 0]), (4, 5, 3)))


def test_the_first_of_several_pictures_in_a_jpeg_is_taken():
    content = encode(PICTURE, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 24))], quality=95)
    assert np.abs(images.decode_image(content).astype(int) - PICTURE).mean() < 4


def test_the_first_page_of_a_tiff_is_taken():
    content = encode(PICTURE, "TIFF", save_all=True, append_images=[Image.new("RGB", (5, 4))])
    np.testing.assert_array_equal(images.decode_image(content), PICTURE)


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_header(width, height):
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


def jpeg_of_many_scans(width, height, num_scans):
    """A progressive JPEG whose last, empty scan is repeated."""
    content = encode(Image.new("RGB", (width, height), (10, 200, 30)), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_scan * num_scans + content[-2:]


def exif_of_many_numbers():
    """EXIF with an orientation and two million fractions."""
    tags = struct.pack("<HHHIIHHIIi", 2, 0x112, 3, 1, 6, 0x9999, 5, 2_000_000, 8, 0)
    return b"II*\0" + struct.pack("<I", 8) + tags + bytes(16_000_000)


WHOLE = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
NO_PICTURE = r"The file is not a picture this app can read{}\. Use PNG, JPEG, WebP, HEIC, BMP, TIFF or GIF\."
UNKNOWN = NO_PICTURE.format("")
DAMAGED = r"The picture is damaged and cannot be read \([^\n]+\)\. Save it again and retry\."
TOO_LARGE = r"The picture has \d+ x \d+ pixels; the limit is 50 megapixels\. Scale it down and try again\."


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
        pytest.param(_png_header(8, 8), DAMAGED, id="no pixels"),
        pytest.param(_png_header(10_000, 10_000), TOO_LARGE, id="100 megapixels"),
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
        pytest.param(_png_header(100_000, 100_000), TOO_LARGE, id="10 gigapixels"),
        pytest.param(jpeg_of_many_scans(4000, 3000, 20_000), "more scans than any camera writes", id="scans"),
        pytest.param(
            WHOLE[:33] + _chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**8))) + WHOLE[33:], DAMAGED, id="text"
        ),
        pytest.param(WHOLE[:33] + _chunk(b"eXIf", exif_of_many_numbers()) + WHOLE[33:], "", id="exif"),
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


FILES = {format: encode(in_mode("RGB"), format) for format in SAVED_MODES} | {
    "progressive JPEG": encode(PICTURE, "JPEG", progressive=True, icc_profile=SRGB),
    "PNG with a palette": encode(in_mode("P")),
    "TIFF of packed bits": encode(PICTURE, "TIFF", compression="packbits"),
    "WebP with alpha": encode(in_mode("RGBA"), "WEBP", lossless=True),
}


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


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("orientation", [1, 5, 8])
def test_the_size_is_read_without_decoding(format, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    known = format in ("PNG", "JPEG", "WEBP", "TIFF", "HEIF")
    content = encode(PICTURE, format, exif=exif.tobytes()) if known else FILES[format]
    assert images.read_size(content) == images.decode_image(content).shape[:2]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF"])
def test_the_size_of_a_picture_that_is_cut_off_can_still_be_read(format):
    content = encode(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8), format)
    assert images.read_size(content[: len(content) // 2]) == (64, 48)


@pytest.mark.parametrize("content", [b"", b"text", _png_header(10_000, 10_000)])
def test_reading_the_size_refuses_what_decoding_refuses(content):
    with pytest.raises(ImageError) as read:
        images.read_size(content)
    with pytest.raises(ImageError, match=re.escape(str(read.value))):
        images.decode_image(content)


@pytest.mark.parametrize("mode", ["P", "RGBA", "F", "I;16", "CMYK", "LA"])
def test_a_large_picture_is_converted_in_tiles_without_seams(mode, monkeypatch):
    content = encode(in_mode(mode), "TIFF" if mode != "P" else "PNG")
    whole = images.decode_image(content)
    monkeypatch.setattr(images, "_TILE_PIXELS", 20)
    np.testing.assert_array_equal(images.decode_image(content), whole)
    np.testing.assert_array_equal(images.lay_on_white(whole), images.lay_on_white(whole.copy()))


def test_decoding_leaves_the_settings_of_its_host_alone(tmp_path):
    flipped = [bytes([*content[:60], content[60] ^ 1, *content[61:]]) for content in FILES.values()]
    for number, content in enumerate([*FILES.values(), *flipped, _png_header(100_000, 100_000)]):
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


@pytest.mark.parametrize("image", [PICTURE, PICTURE[..., 0], PICTURE[:1, :1]], ids=["colour", "gray", "1x1"])
def test_encoding_as_png_loses_nothing(image):
    data = images.encode_png(image)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
