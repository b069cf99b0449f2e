"""Pictures, and their files, that the tests of this folder share."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

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
    """Return the bytes of a Pillow image, or of an array, in a file format."""
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, format, **options)
    return buffer.getvalue()


def in_mode(mode):
    """Return `PICTURE` as a Pillow image, with some transparency where the mode has alpha."""
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


def chunk(kind, content):
    """Return a chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width, height):
    """Return a PNG file that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WHOLE = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
DAMAGED = r"The picture is damaged and cannot be read \([^\n]+\)\. Save it again and retry\."
TOO_LARGE = r"The picture has \d+ x \d+ pixels; the limit is 50 megapixels\. Scale it down and try again\."
FILES = {format: encode(in_mode("RGB"), format) for format in SAVED_MODES} | {
    "progressive JPEG": encode(PICTURE, "JPEG", progressive=True, icc_profile=SRGB),
    "PNG with a palette": encode(in_mode("P")),
    "TIFF of packed bits": encode(PICTURE, "TIFF", compression="packbits"),
    "WebP with alpha": encode(in_mode("RGBA"), "WEBP", lossless=True),
}
