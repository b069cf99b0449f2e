"""Turn grayscale images into colour with small neural networks.

import colorizer

image = colorizer.decode_image(open("photo.jpg", "rb").read())
result = colorizer.load("colorist").colorize(image, vividness=0.6)
open("photo.png", "wb").write(colorizer.encode_png(result))
"""

from colorizer import errors

TYPE_CHECKING = False  # Type checkers take this for true. The module `typing` would take longer than all else here.
if TYPE_CHECKING:
    from colorizer.models.colorizer import Colorizer, load
    from colorizer.pixels.images import decode_image, encode_png

__all__ = ["Colorizer", "decode_image", "encode_png", "errors", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import colorizer` stays instant."""
    if name in ("decode_image", "encode_png"):
        from colorizer.pixels import images as module
    elif name in ("Colorizer", "load"):
        from colorizer.models import colorizer as module
    else:
        raise AttributeError(f"module 'colorizer' has no attribute {name!r}")
    return getattr(module, name)
