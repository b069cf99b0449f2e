"""Photos: a large one end to end beside Pillow's decoding and encoding alone, its memory, and many small ones."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from colorizer.pixels.images import decode_image, encode_png, load_photo
from tests.benchmarks.measurement import Measurement, resident_megabytes

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("dense", "unet", "colorist")
NUM_SMALL = 200
_RATE_GOALS = {"unet": 60.0}  # pictures a second


def measure(runs: int) -> list[Measurement]:
    """Measure all of it, the models and Pillow in turns."""
    from colorizer.models.colorizer import load

    models = {name: load(name) for name in MODELS}
    large = make_jpeg(4000, 3000)
    small = [make_jpeg(320, 240, seed) for seed in range(NUM_SMALL)]

    def in_colour(name: str, pictures: list[bytes]) -> Callable[[], list[bytes]]:
        return lambda: [encode_png(models[name].colorize(decode_image(picture))) for picture in pictures]

    ways = {"Pillow": lambda: again(large)} | {name: in_colour(name, [large]) for name in MODELS}
    ways |= {f"{name} small": in_colour(name, small) for name in MODELS}
    for way in ways.values():  # what is done once a process
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    results = [Measurement("12-megapixel JPEG to PNG by Pillow alone", "s", seconds["Pillow"])]
    for name in MODELS:
        ratios = [ours / pillow for ours, pillow in zip(seconds[name], seconds["Pillow"], strict=True)]
        rates = [NUM_SMALL / total for total in seconds[f"{name} small"]]
        results += [
            Measurement(f"the same in colour by {name}", "s", seconds[name]),
            Measurement("times as long", "x", ratios, at_most=1.5),
            Measurement("its peak memory above the imported process", "MB", _memory(name, runs), at_most=600),
            Measurement(
                f"{NUM_SMALL} pictures of 320 x 240 by {name}", "pictures/s", rates, at_least=_RATE_GOALS.get(name)
            ),
        ]
    return results


def make_jpeg(width: int, height: int, seed: int = 0) -> bytes:
    """A photo of scikit-image, enlarged, with the noise of a camera."""
    picture = Image.fromarray(load_photo("astronaut")).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0, 2, (height, width, 3)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def again(data: bytes) -> bytes:
    """Decode a picture and encode it as `encode_png` does."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _memory(name: str, runs: int) -> list[float]:
    """Megabytes, each measured in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.photo", name]
    megabytes = []
    for _ in range(runs):
        process = subprocess.run(command, cwd=ROOT, input=make_jpeg(4000, 3000), capture_output=True)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {process.stderr[-2000:].decode()}")
        megabytes.append(json.loads(process.stdout.splitlines()[-1]))
    return megabytes


def main(name: str) -> None:
    """Print how many megabytes above the imported process it takes to colorize the picture on stdin."""
    from colorizer.models.colorizer import load

    data = sys.stdin.buffer.read()
    before = resident_megabytes()
    encode_png(load(name).colorize(decode_image(data)))
    print(json.dumps(resident_megabytes(which="VmHWM") - before))


if __name__ == "__main__":
    main(sys.argv[1])
