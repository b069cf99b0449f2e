"""images: every format and mode, orientation, depth, transparency, hostile bytes, resizing, tiles, photos."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from colorizer import config, images
from colorizer.errors import ImageError

ROWS, COLUMNS = np.mgrid[0:24, 0:32]
PICTURE = np.stack([8 * ROWS + COLUMNS, 5 * ROWS + 3 * COLUMNS, 2 * ROWS + 6 * COLUMNS], axis=-1).astype(np.uint8)
SAVED_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("L", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
}


def encode(picture, format="PNG", **options):
    """The bytes of a Pillow image, or of an array, in a file format."""
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format in SAVED_MODES for mode in SAVED_MODES[format]])
def test_every_format_and_mode_is_decoded(format, mode):
    picture = Image.fromarray(PICTURE).convert(mode)
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    image = images.decode_image(encode(picture, format, **options))
    assert (image.shape, image.dtype) == (
        (24, 32, 4 if mode.endswith("A") and format in ("PNG", "TIFF") else 3),
        np.uint8,
    )
    difference = np.abs(image[..., :3].astype(int) - np.asarray(picture.convert("RGB")))
    lossless = format in ("PNG", "BMP", "TIFF") and mode not in ("CMYK", "YCbCr")
    assert difference.mean() <= (0 if lossless else 12 if mode == "1" or format == "GIF" else 4)


def test_gray_is_repeated_in_three_channels():
    image = images.decode_image(encode(PICTURE[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(PICTURE[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(orientation, turned):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    np.testing.assert_array_equal(images.decode_image(encode(PICTURE, exif=exif)), turned(PICTURE))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled(format):
    gray = PICTURE[..., 0].astype(np.uint16) * 257
    image = images.decode_image(encode(gray, format))
    np.testing.assert_array_equal(image, np.repeat(PICTURE[..., :1], 3, axis=-1))


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


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_header(width, height):
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


WHOLE = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
NO_PICTURE = r"The file is not a picture this app can read{}\. Use PNG, JPEG, WebP, HEIC, BMP, TIFF or GIF\."
UNKNOWN = NO_PICTURE.format("")
DAMAGED = "The picture is damaged and cannot be read .*Save it again and retry"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param(b"", "The file is empty", id="empty"),
        pytest.param(b"Dear Sir or Madam,\n" * 20, NO_PICTURE.format(", but a text"), id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE.format(", but an SVG drawing"), id="svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_PICTURE.format(", but a text"), id="eps"),
        pytest.param(encode(PICTURE, "PPM"), UNKNOWN, id="format not allowed"),
        pytest.param(WHOLE[:20], f"{UNKNOWN}|{DAMAGED}", id="truncated in its header"),
        pytest.param(WHOLE[: len(WHOLE) // 2], DAMAGED, id="truncated png"),
        pytest.param(encode(PICTURE, "JPEG")[:-200], DAMAGED, id="truncated jpeg"),
        pytest.param(encode(PICTURE, "TIFF")[:-200], f"{UNKNOWN}|{DAMAGED}", id="truncated tiff"),
        pytest.param(WHOLE[:60] + bytes(100) + WHOLE[160:], DAMAGED, id="zeros inside"),
        pytest.param(_png_header(8, 8), DAMAGED, id="no pixels"),
        pytest.param(_png_header(100_000, 100_000), "more than 50 megapixels|100000 x 100000", id="10 gigapixels"),
        pytest.param(_png_header(10_000, 10_000), "more than 50 megapixels|10000 x 10000", id="100 megapixels"),
        pytest.param(
            encode(Image.new("1", (8000, 8000))),
            "The picture has 8000 x 8000 pixels; the limit is 50 megapixels. Scale it down",
            id="64 megapixels",
        ),
    ],
)
def test_bytes_that_are_no_acceptable_picture_give_a_sentence(content, match):
    with pytest.raises(ImageError, match=match) as caught:
        images.decode_image(content)
    assert "\n" not in str(caught.value)


def test_files_above_the_limit_are_refused():
    with pytest.raises(ImageError, match=r"The file has 20\.0 MB; the limit is 20 MB\. Save it smaller"):
        images.decode_image(bytes(config.MAX_UPLOAD_BYTES + 1))


@pytest.mark.parametrize("image", [PICTURE, PICTURE[..., 0], PICTURE[:1, :1]], ids=["colour", "gray", "1x1"])
def test_encoding_as_png_loses_nothing(image):
    data = images.encode_png(image)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (100, 7), (7, 100), (64, 48), (33, 31)])
def test_resizing_keeps_a_constant(size):
    planes = np.broadcast_to(np.float32([0.25, -0.5]), (48, 64, 2))
    resized = images.resize_planes(planes, *size)
    assert (resized.shape, resized.dtype) == ((*size, 2), np.float32)
    np.testing.assert_allclose(resized, np.broadcast_to(np.float32([0.25, -0.5]), (*size, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "tolerance"), [((32, 32), 1e-6), ((16, 48), 1e-6), ((96, 96), 1e-3), ((31, 29), 0.01)]
)
def test_resizing_keeps_the_mean(size, tolerance):
    planes = np.random.default_rng(0).random((96, 96, 3), np.float32)
    resized = images.resize_planes(planes, *size)
    np.testing.assert_allclose(resized.mean(axis=(0, 1)), planes.mean(axis=(0, 1)), atol=tolerance)


def test_shrinking_averages_and_enlarging_is_smooth():
    planes = np.random.default_rng(0).random((64, 64, 1), np.float32)
    blocks = planes.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(images.resize_planes(planes, 32, 32)[..., 0], blocks, atol=1e-6)
    ramp = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32)[None, :, None], (32, 32, 1))
    steps = np.diff(images.resize_planes(ramp, 32, 320)[0, 30:-30, 0])
    assert steps.min() > 0
    assert steps.max() < 2 / 320


def test_tiles_are_enlarged_side_by_side_on_a_transparent_ground():
    first, second, third, fourth = (np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30, 40))
    second = second.copy()
    second[0, 1] = (1, 2, 3)
    canvas = images.tile_rows([[first, second], [third, fourth]], scale=4, gap=5)
    assert (canvas.shape, canvas.dtype) == ((2 * 8 + 5, 2 * 12 + 5, 4), np.uint8)
    np.testing.assert_array_equal(canvas[:8, :12], np.broadcast_to(np.uint8([10, 10, 10, 255]), (8, 12, 4)))
    np.testing.assert_array_equal(canvas[:4, 17 + 4 : 17 + 8], np.broadcast_to(np.uint8([1, 2, 3, 255]), (4, 4, 4)))
    np.testing.assert_array_equal(canvas[-1, -1], [40, 40, 40, 255])
    assert (canvas[8:13] == 0).all()
    assert (canvas[:, 12:17] == 0).all()


@pytest.mark.parametrize("name", images.PHOTOS)
def test_every_sample_photo_loads_without_a_network(name, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", None)
    photo = images.load_photo(name)
    assert photo.dtype == np.uint8
    assert photo.shape[2:] == (3,)
    assert min(photo.shape[:2]) >= 200
    assert images.PHOTOS[name]


def test_an_unknown_sample_photo_is_refused():
    with pytest.raises(ImageError, match=r"no sample photo 'lena'\. Choose one of astronaut"):
        images.load_photo("lena")
