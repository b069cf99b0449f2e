"""Pictures of every format and mode are decoded to sRGB with their orientation, profile and alpha, and encoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from colorizer.pixels import images
from tests.pixels.pictures import ALPHA, FILES, ORIENTATIONS, PICTURE, SAVED_MODES, SRGB, chunk, encode, in_mode

WITHOUT_ALPHA = {"BMP"}  # as Pillow writes it


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
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
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


@pytest.mark.parametrize("mode", ["P", "RGBA", "F", "I;16", "CMYK", "LA"])
def test_a_large_picture_is_converted_in_tiles_without_seams(mode, monkeypatch):
    content = encode(in_mode(mode), "TIFF" if mode != "P" else "PNG")
    whole = images.decode_image(content)
    monkeypatch.setattr(images, "_TILE_PIXELS", 20)
    np.testing.assert_array_equal(images.decode_image(content), whole)
    np.testing.assert_array_equal(images.lay_on_white(whole), images.lay_on_white(whole.copy()))


@pytest.mark.parametrize("image", [PICTURE, PICTURE[..., 0], PICTURE[:1, :1]], ids=["colour", "gray", "1x1"])
def test_encoding_as_png_loses_nothing(image):
    data = images.encode_png(image)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
