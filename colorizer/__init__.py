"""Turn grayscale images into colour with small neural networks.

import colorizer

image = colorizer.decode_image(open("photo.jpg", "rb").read())
result = colorizer.load("dense-chroma").colorize(image)
"""

from typing import TYPE_CHECKING, Any

from colorizer import errors

if TYPE_CHECKING:
    from colorizer.images import decode_image
    from colorizer.inference import Colorizer, load

__all__ = ["Colorizer", "decode_image", "errors", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import colorizer` stays instant."""
    if name == "decode_image":
        from colorizer.images import decode_image

        return decode_image
    if name in ("Colorizer", "load"):
        from colorizer import inference

        return getattr(inference, name)
    raise AttributeError(f"module 'colorizer' has no attribute {name!r}")
