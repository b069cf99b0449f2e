"""Pictures: untrusted bytes to an image and back, resizing, and tiles enlarged for the screen."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from colorizer.config import MAX_EXIF_BYTES, MAX_PIXELS, MAX_SCANNED_PIXELS, MAX_UPLOAD_BYTES
from colorizer.errors import ImageError

Image.MAX_IMAGE_PIXELS = None  # Pillow's limit is higher than ours, which decode_image checks before it decodes
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
FORMAT_NAMES = "PNG, JPEG, WebP, HEIC, BMP, TIFF or GIF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".bmp", ".tif", ".tiff", ".gif")
_START_OF_SCAN = b"\xff\xda"
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_OTHER_FILES = (  # what else people try, by what stands in its first bytes in lower case
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

    The first frame or page is taken, EXIF orientation applied, 16-bit gray scaled to 8 bits, and colours converted
    to sRGB by the embedded ICC profile; a broken profile is ignored.

    Args:
        data: the bytes of a file.

    Returns:
        image, uint8 of shape (H, W, 3), or (H, W, 4) with alpha if the picture has transparency.

    Raises:
        ImageError: the bytes are no such picture, are damaged, or exceed `MAX_UPLOAD_BYTES` or `MAX_PIXELS`.
    """
    if not data:
        raise ImageError("The file is empty. Choose a picture with some content.")
    if len(data) > MAX_UPLOAD_BYTES:
        raise ImageError(
            f"The file has {len(data) / 2**20:.1f} MB; the limit is {MAX_UPLOAD_BYTES / 2**20:.0f} MB. "
            "Save it smaller and try again."
        )
    # Not by catch_warnings, which two threads would undo for each other. Pillow warns of damage that it can live with.
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    try:
        with Image.open(io.BytesIO(data), formats=_allowed_formats(data)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"The picture has {width} x {height} pixels; the limit is {MAX_PIXELS / 1e6:.0f} megapixels. "
                    "Scale it down and try again."
                )
            if picture.format in ("JPEG", "MPO") and data.count(_START_OF_SCAN) * width * height > MAX_SCANNED_PIXELS:
                raise ImageError("The JPEG picture has more scans than any camera writes. Save it again and retry.")
            if len(picture.info.get("exif") or b"") > MAX_EXIF_BYTES:
                del picture.info["exif"]
            ImageOps.exif_transpose(picture, in_place=True)
            return np.asarray(_to_srgb(picture))
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        head = data[:1024].lower()
        kind = next((f", but {kind}" for start, kind in _OTHER_FILES if start in head), "")
        if not kind and head.isascii() and b"\0" not in head:
            kind = ", but a text file"
        raise ImageError(f"The file is not a picture this app can read{kind}. Use {FORMAT_NAMES}.") from None
    except Exception as error:  # decoders raise many kinds on damaged input: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"The picture is damaged and cannot be read ({reason}). Save it again and retry.") from error


def decode_file(path: Path) -> np.ndarray:
    """Decode a picture's file as `decode_image` does; one that cannot be read raises `OSError`."""
    with path.open("rb") as file:
        return decode_image(file.read(MAX_UPLOAD_BYTES + 1))  # enough to see that it is too much


def _allowed_formats(data: bytes) -> tuple[str, ...]:
    if data[4:8] != b"ftyp":  # of HEIC, and of videos
        return FORMATS
    import pillow_heif  # a decoder of 20 MB, which few need

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return ("HEIF",)


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB, or to RGBA if it has transparency."""
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit gray in one of Pillow's integer modes
        picture = _to_8_bits(picture)
    if profile:
        source = picture if picture.mode in ("L", "CMYK") and mode == "RGB" else picture.convert(mode)
        with contextlib.suppress(ImageCms.PyCMSError):
            return ImageCms.profileToProfile(source, io.BytesIO(profile), _SRGB, outputMode=mode)
    return picture.convert(mode)


def _to_8_bits(picture: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(picture, np.float32))
    peak = values.max(initial=0)
    full_scale = 65535 if picture.mode.startswith("I;16") or peak > 255 else 255
    if picture.mode == "F" and peak <= 1:
        full_scale = 1
    values *= np.float32(255 / full_scale)
    return Image.fromarray(np.rint(values, out=values).clip(0, 255, out=values).astype(np.uint8))


def lay_on_white(image: np.ndarray) -> np.ndarray:
    """Return an image, uint8 (H, W, 3) or with alpha (H, W, 4), as (H, W, 3): what is transparent becomes white."""
    if image.shape[-1] == 3:
        return image
    picture = Image.fromarray(image)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image, uint8 of shape (H, W), (H, W, 3) or, with alpha, (H, W, 4), as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def resize_planes(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize planes, float32 (H, W, C), to (height, width, C): averaged when they shrink, bicubic when they grow."""
    resized = np.empty((height, width, planes.shape[-1]), np.float32)
    for channel in range(planes.shape[-1]):
        plane = Image.fromarray(np.ascontiguousarray(planes[..., channel], np.float32))
        if height < plane.height:
            plane = plane.resize((plane.width, height), Image.Resampling.BOX)
        if width < plane.width:
            plane = plane.resize((width, plane.height), Image.Resampling.BOX)
        resized[..., channel] = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    return resized


def cut_small(image: np.ndarray, size: int = 32) -> np.ndarray:
    """Cut the largest square out of the middle of an image, uint8 (H, W, 3), and shrink it to (size, size, 3)."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    small = resize_planes(image[top : top + side, left : left + side], size, size)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def tile_rows(rows: list[list[np.ndarray]], scale: int, gap: int = 6) -> np.ndarray:
    """Lay images in rows and columns, `gap` pixels apart, each enlarged `scale` times without smoothing.

    Args:
        rows: for each row its images, uint8 (H, W, 3), all of one size.

    Returns:
        uint8 array (total height, total width, 4), transparent between the images.
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
"""Photos that scikit-image ships, by the name of its function, with a caption."""


def load_photo(name: str) -> np.ndarray:
    """Return one of `PHOTOS`, uint8 (H, W, 3); they are part of scikit-image, so no network is needed."""
    import skimage.data

    if name not in PHOTOS:
        raise ImageError(f"There is no sample photo {name!r}. Choose one of {', '.join(PHOTOS)}.")
    return np.asarray(getattr(skimage.data, name)())
