"""Decodes untrusted picture files, encodes PNG files, resizes images, and enlarges small images for the screen."""

import contextlib
import io
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from colorizer.config import MAX_EXIF_BYTES, MAX_PIXELS, MAX_SCANNED_PIXELS, MAX_UPLOAD_BYTES
from colorizer.errors import ImageError
from colorizer.pixels.budget import pixels_in_work
from colorizer.pixels.color import to_uint8

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
FORMAT_NAMES = "PNG, JPEG, WebP, HEIC, BMP, TIFF or GIF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".bmp", ".tif", ".tiff", ".gif")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x112
_START_OF_SCAN = b"\xff\xda"
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_TILE_PIXELS = 2**18  # A large picture is converted in tiles of this many pixels to bound the memory.
_SHRUNK_PIXELS = 2**22  # A large plane is shrunk in tiles of about this many pixels; smaller ones would be slower.
# This maps each EXIF orientation to a function. Given an upright array, the function returns a view of it in which
# rows and columns are ordered as in the file.
_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
# People also upload these kinds of files. Each kind is recognised by bytes near the beginning, made lower case.
_OTHER_FILES = (
    (b"<svg", "an SVG drawing"),
    (b"%pdf", "a PDF document"),
    (b"ftyphei", "a damaged HEIC picture"),
    (b"ftypavif", "an AVIF picture"),
    (b"ftyp", "a video"),
    (b"\x1ae\xdf\xa3", "a video"),
    (b"avi list", "a video"),
)


def decode_image(data: bytes) -> np.ndarray:
    """Decode a picture of any allowed format, recognised by its content.

    Only the first frame or page is decoded. The EXIF orientation is applied, 16-bit gray is scaled to 8 bits, and
    colours are converted to sRGB by the embedded ICC profile. A broken profile is ignored. Pillow may warn of small
    damage. Its warnings are not silenced here, because changing the filter of warnings is not safe between threads.

    Args:
        data: the bytes of a file.

    Returns:
        image, uint8 of shape (H, W, 3), or (H, W, 4) with alpha if the picture has transparency.

    Raises:
        ImageError: the bytes are not a picture of an allowed format, are damaged, or exceed `MAX_UPLOAD_BYTES` or
            `MAX_PIXELS`; or the picture waited too long for other large pictures (see `pixels_in_work`).
    """
    with _open(data) as picture, pixels_in_work(picture.width * picture.height):
        orientation = _orientation(picture)
        picture.load()
        _check_size(picture)  # A HEIC picture can be larger than its header says.
        channels, convert = _converter(picture)
        image = np.empty((*_upright_size(picture, orientation), channels), np.uint8)
        stored = _AS_STORED.get(orientation, lambda upright: upright)(image)
        for rows, columns in tiles(picture.height, picture.width):
            stored[rows, columns] = np.asarray(convert(_crop(picture, rows, columns)))
    return image


def decode_file(path: Path) -> np.ndarray:
    """Decode a picture's file as `decode_image` does; a file that cannot be read raises `OSError`."""
    with path.open("rb") as file:
        return decode_image(file.read(MAX_UPLOAD_BYTES + 1))  # One byte more shows that the file is too large.


def read_size(data: bytes) -> tuple[int, int]:
    """Return the height and width that `decode_image` would give, without decoding.

    It raises the same errors, except for damage that only decoding finds.
    """
    with _open(data) as picture:
        return _upright_size(picture, _orientation(picture))


def tiles(height: int, width: int, pixels: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of tiles that cover a picture; each has at most `pixels` pixels, by default 2**18."""
    pixels = pixels or _TILE_PIXELS
    rows, columns = max(1, pixels // width), min(width, pixels)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


@contextlib.contextmanager
def _open(data: bytes) -> Iterator[Image.Image]:
    """Open a picture and check its header; any error inside the block is raised as an `ImageError`."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"A picture must be given as the bytes of its file, received a {type(data).__name__}.")
    data = bytes(data)
    if not data:
        raise ImageError("The file is empty. Choose a picture with some content.")
    if len(data) > MAX_UPLOAD_BYTES:
        raise ImageError(
            f"The file has {len(data) / 2**20:.1f} MB; the limit is {MAX_UPLOAD_BYTES / 2**20:.0f} MB. "
            "Save it at a smaller size and try again."
        )
    try:
        with _identify(data) as picture:
            _check_size(picture)
            scans = data.count(_START_OF_SCAN) if picture.format in ("JPEG", "MPO") else 0
            if scans * picture.width * picture.height > MAX_SCANNED_PIXELS:
                raise ImageError("The JPEG picture has more scans than any camera writes. Save it again and retry.")
            if len(picture.info.get("exif") or b"") > MAX_EXIF_BYTES:
                del picture.info["exif"]
            yield picture
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow itself checks the number of pixels in some formats.
        raise ImageError(_too_large("too many pixels")) from None
    except Image.UnidentifiedImageError:
        head = data[:1024].lower()
        kind = next((f", but {kind}" for start, kind in _OTHER_FILES if start in head), "")
        if not kind and head.isascii() and b"\0" not in head:
            kind = ", but a text file"
        raise ImageError(f"The file is not a picture this app can read{kind}. Use {FORMAT_NAMES}.") from None
    except Exception as error:  # Decoders raise many kinds of errors on damaged input.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"The picture is damaged and cannot be read ({reason}). Save it again and retry.") from error


def _identify(data: bytes) -> Image.Image:
    """Open a picture as `Image.open` does, without its warning or error for sizes above Pillow's own limit.

    That limit and the filter of warnings belong to the whole process, so they are not changed here.
    """
    if data[4:8] != b"ftyp":  # HEIC files and videos have these bytes here.
        Image.init()
        for name in FORMATS:
            read, accepts = Image.OPEN[name]
            if accepts is None or accepts(data[:16]) is True:
                with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
                    return read(io.BytesIO(data), "")
    elif data[8:12] in _HEIC_BRANDS:
        import pillow_heif  # This decoder takes 20 MB, so it is loaded only when it is needed.

        # The class is used directly, since registering it would change Pillow for the whole process.
        with contextlib.suppress(SyntaxError):
            return pillow_heif.HeifImageFile(io.BytesIO(data))
    raise Image.UnidentifiedImageError


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, from 1 (upright) to 8, of a picture that is open and not yet loaded."""
    if picture.format == "TIFF":  # Pillow itself applies the orientation of this format.
        return 1
    if not picture.info.get("exif"):
        # This method also reads the orientation from XMP data. The method of Pillow's class for PNG pictures is not
        # used, because it decodes the whole picture to look for EXIF data at the end.
        return Image.Image.getexif(picture).get(_ORIENTATION_TAG, 1)
    # The tag is read here, because Pillow would read all tags and warn of each damaged one.
    exif = picture.info["exif"].removeprefix(b"Exif\0\0")
    with contextlib.suppress(struct.error):
        order = "<" if exif[:2] == b"II" else ">"
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (num_tags,) = struct.unpack_from(f"{order}H", exif, start)
        for offset in range(start + 2, start + 2 + 12 * num_tags, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, offset)
            if tag == _ORIENTATION_TAG:
                return value
    return 1


def _upright_size(picture: Image.Image, orientation: int) -> tuple[int, int]:
    return picture.size if orientation in (5, 6, 7, 8) else picture.size[::-1]


def _check_size(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(_too_large(f"{picture.width} x {picture.height} pixels"))


def _too_large(size: str) -> str:
    return f"The picture has {size}; the limit is {MAX_PIXELS / 1e6:.0f} megapixels. Scale it down and try again."


def _crop(picture: Image.Image, rows: slice, columns: slice) -> Image.Image:
    return picture.crop((columns.start, rows.start, columns.stop, rows.stop))


def _converter(picture: Image.Image) -> tuple[int, Callable[[Image.Image], Image.Image]]:
    """Return the number of channels (4 with alpha, else 3) and a function that converts a tile of any mode to sRGB."""
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    prepare: Callable[[Image.Image], Image.Image] = lambda tile: tile  # noqa: E731
    source = picture.mode
    if source.startswith("I") or source == "F":  # Pillow opens 16-bit gray in one of its integer modes.
        source, prepare = "L", _scale_to_8_bits(picture)
    if profile := picture.info.get("icc_profile"):
        source = source if source in ("L", "CMYK") and mode == "RGB" else mode
        with contextlib.suppress(ImageCms.PyCMSError):  # Converting one pixel shows whether the profile is valid.
            transform = ImageCms.buildTransform(io.BytesIO(profile), _SRGB, source, mode)
            ImageCms.applyTransform(Image.new(source, (1, 1)), transform)
            return len(mode), lambda tile: ImageCms.applyTransform(prepare(tile).convert(source), transform)
    return len(mode), lambda tile: prepare(tile).convert(mode)


def _scale_to_8_bits(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return a function that converts a tile of a picture with 16-bit, 32-bit or float values to 8 bits."""
    full_scale = 65535
    if not picture.mode.startswith("I;16"):  # The other modes do not say which value is white.
        shape = picture.height, picture.width
        peak = max(np.nan_to_num(np.asarray(_crop(picture, *tile))).max() for tile in tiles(*shape))
        full_scale = 65535 if peak > 255 else 1 if picture.mode == "F" and peak <= 1 else 255

    def scale(tile: Image.Image) -> Image.Image:
        values = np.nan_to_num(np.asarray(tile, np.float32)) / np.float32(full_scale)
        return Image.fromarray(to_uint8(values))

    return scale


def lay_on_white(image: np.ndarray) -> np.ndarray:
    """Lay an image, uint8 (H, W, 3) or with alpha (H, W, 4), on white; return uint8 (H, W, 3)."""
    if image.shape[-1] == 3:
        return image
    result = np.empty((*image.shape[:2], 3), np.uint8)
    for rows, columns in tiles(*image.shape[:2]):
        tile = Image.fromarray(np.ascontiguousarray(image[rows, columns]))
        white = Image.new("RGBA", tile.size, "white")
        result[rows, columns] = np.asarray(Image.alpha_composite(white, tile).convert("RGB"))
    return result


def encode_png(image: np.ndarray, description: str = "") -> bytes:
    """Encode an image, uint8 of shape (H, W), (H, W, 3) or, with alpha, (H, W, 4), as PNG.

    A `description` is kept in the file under the PNG keyword of this name.
    """
    about = PngImagePlugin.PngInfo()
    if description:
        about.add_text("Description", description)
        about.add_text("Software", "colorizer")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3, pnginfo=about)
    return buffer.getvalue()


def resize_planes(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize planes of numbers of any dtype, (H, W, C), to float32 (height, width, C).

    A side that shrinks is averaged; a side that grows is interpolated bicubically.
    """
    resized = np.empty((height, width, planes.shape[-1]), np.float32)
    for channel in range(planes.shape[-1]):
        small = _shrink(planes[..., channel], min(height, planes.shape[0]), min(width, planes.shape[1]))
        resized[..., channel] = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return resized


def _shrink(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average a plane (H, W) down to float32 (height, width), tile by tile, since Pillow copies what it resizes."""
    small = np.empty((height, width), np.float32)
    per_row, per_column = plane.shape[0] / height, plane.shape[1] / width
    for rows, columns in tiles(height, width, max(1, int(_SHRUNK_PIXELS / (per_row * per_column)))):
        top, bottom = rows.start * per_row, rows.stop * per_row
        left, right = columns.start * per_column, columns.stop * per_column
        tile = plane[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
        picture = Image.fromarray(np.ascontiguousarray(tile, np.float32))
        far_edges = min(right - int(left), picture.width), min(bottom - int(top), picture.height)
        box = (left - int(left), top - int(top), *far_edges)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        small[rows, columns] = np.asarray(picture.resize(size, Image.Resampling.BOX, box))
    return small


def fit_inside(image: np.ndarray, longest: int) -> np.ndarray:
    """Scale an image, uint8 (H, W, 3), down until its longer side has at most `longest` pixels; return a copy."""
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image.copy()
    return _resize(image, *(max(1, round(side * longest / max(height, width))) for side in (height, width)))


def cut_small(image: np.ndarray, size: int = 32) -> np.ndarray:
    """Cut the largest square out of the middle of an image, uint8 (H, W, 3), and shrink it to (size, size, 3)."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return _resize(image[top : top + side, left : left + side], size, size)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return to_uint8(resize_planes(image, height, width) / 255)


def tile_rows(rows: list[list[np.ndarray]], scale: int, gap: int = 6) -> np.ndarray:
    """Lay images in rows and columns, `gap` pixels apart, each enlarged `scale` times without smoothing.

    Args:
        rows: the images of each row, uint8 (H, W, 3), all of the same size.

    Returns:
        uint8 array (total height, total width, 4), in which the gaps are transparent.
    """

    def enlarge(image: np.ndarray) -> np.ndarray:
        opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        return np.pad(opaque.repeat(scale, axis=0).repeat(scale, axis=1), ((0, gap), (0, gap), (0, 0)))

    canvas = np.vstack([np.hstack([enlarge(image) for image in row]) for row in rows])
    return canvas[: len(canvas) - gap, : canvas.shape[1] - gap]


PHOTOS = {
    "astronaut": "Eileen Collins, astronaut (NASA)",
    "chelsea": "Chelsea, a cat",
    "coffee": "A cup of coffee",
    "rocket": "A rocket on its launch pad",
    "retina": "The retina of an eye",
}
"""This maps the name of each photo that scikit-image ships to a caption."""


def load_photo(name: str) -> np.ndarray:
    """Return one of `PHOTOS`, uint8 (H, W, 3); scikit-image contains them, so nothing is downloaded."""
    import skimage.data

    if name not in PHOTOS:
        raise ImageError(f"There is no sample photo {name!r}. Choose one of {', '.join(PHOTOS)}.")
    # Pillow opens the file, because the loader of scikit-image would first import SciPy.
    (path,) = Path(skimage.data.__file__).parent.glob(f"{name}.*")
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB"))
