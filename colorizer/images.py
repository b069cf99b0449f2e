"""Pictures: untrusted bytes to an image and back, resizing, and tiles enlarged for the screen."""

import io

import numpy as np
from PIL import Image, ImageOps

from colorizer.config import MAX_PIXELS, MAX_UPLOAD_BYTES
from colorizer.errors import ImageError

Image.MAX_IMAGE_PIXELS = None  # Pillow's limit is higher than ours, which decode_image checks before it decodes
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
FORMAT_NAMES = "PNG, JPEG, WebP, BMP, TIFF or GIF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def decode_image(data: bytes) -> np.ndarray:
    """Decode a picture of any allowed format, recognised by its content.

    The first frame is taken, EXIF orientation applied, 16-bit gray scaled to 8 bits, and transparency
    laid on white.

    Args:
        data: the bytes of a file.

    Returns:
        image, uint8 of shape (H, W, 3).

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
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"The picture has {width} x {height} pixels; the limit is {MAX_PIXELS / 1e6:.0f} megapixels. "
                    "Scale it down and try again."
                )
            return np.asarray(_to_rgb(ImageOps.exif_transpose(picture)))
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"The file is not a picture this app can read. Use {FORMAT_NAMES}.") from None
    except Exception as error:  # decoders raise many kinds on damaged input: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"The picture is damaged and cannot be read ({error}). Save it again and retry.") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit gray in one of Pillow's integer modes
        values = np.nan_to_num(np.asarray(picture, np.float64))
        peak = values.max(initial=0)
        full_scale = 65535 if picture.mode.startswith("I;16") or peak > 255 else 255
        if picture.mode == "F" and peak <= 1:
            full_scale = 1
        return Image.fromarray(np.clip(np.rint(values * 255 / full_scale), 0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image, uint8 of shape (H, W, 3) or (H, W), as PNG."""
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
    """Lay images in rows and columns on a transparent ground, each enlarged `scale` times without smoothing.

    Args:
        rows: for each row its images, uint8 (H, W, 3), all of one size.
        scale: whole factor.
        gap: pixels between two images.

    Returns:
        uint8 array (total height, total width, 4).
    """
    height, width = (side * scale for side in rows[0][0].shape[:2])
    canvas = np.zeros((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 4), np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + gap), column * (width + gap)
            cell = canvas[top : top + height, left : left + width]
            cell[..., :3] = image.repeat(scale, axis=0).repeat(scale, axis=1)
            cell[..., 3] = 255
    return canvas


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
