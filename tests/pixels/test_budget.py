"""budget: few pixels are in work at a time, whoever comes first goes first, and large pictures cost bounded memory."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorizer.config import MAX_PIXELS_IN_WORK
from colorizer.errors import ImageError
from colorizer.pixels import budget
from colorizer.pixels.budget import PictureCache, pixels_in_work

ROOT = Path(budget.__file__).parents[2]


def test_threads_never_hold_more_pixels_than_the_limit_together():
    held, peaks, lock = [], [], threading.Lock()

    def work(count):
        with pixels_in_work(count):
            with lock:
                held.append(count)
                peaks.append(sum(held))
            time.sleep(0.002)
            with lock:
                held.remove(count)

    shares = [MAX_PIXELS_IN_WORK // share for share in (1, 2, 3, 4, 10) for _ in range(6)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, shares))
    assert len(peaks) == len(shares) and max(peaks) <= MAX_PIXELS_IN_WORK


def test_a_large_picture_is_not_overtaken_for_ever_by_small_ones():
    order, begun = [], threading.Event()

    def work(name, count):
        with pixels_in_work(count):
            order.append(name)

    with ThreadPoolExecutor(3) as pool, pixels_in_work(MAX_PIXELS_IN_WORK // 2):
        pool.submit(lambda: begun.set() or work("large", MAX_PIXELS_IN_WORK))
        begun.wait(10)
        time.sleep(0.2)
        pool.submit(work, "small", 1)
        time.sleep(0.2)
        assert order == []
    assert order == ["large", "small"]


def test_a_picture_that_waits_for_too_long_is_refused_politely(monkeypatch):
    monkeypatch.setattr(budget, "MAX_SECONDS_TO_WAIT", 0.05)

    def wait():
        with pixels_in_work(1):
            pass

    refusal = pytest.raises(ImageError, match=r"Other large pictures are being worked on\. Try again in a minute")
    with ThreadPoolExecutor(1) as pool:
        with pixels_in_work(MAX_PIXELS_IN_WORK), refusal:
            pool.submit(wait).result()
        pool.submit(wait).result()


def test_a_block_inside_another_waits_for_nobody_and_an_error_frees_the_pixels():
    for _ in range(3):
        with pytest.raises(KeyError), pixels_in_work(MAX_PIXELS_IN_WORK), pixels_in_work(MAX_PIXELS_IN_WORK):
            raise KeyError


def test_more_than_the_limit_is_worked_on_alone():
    with pixels_in_work(10 * MAX_PIXELS_IN_WORK):
        pass


def test_the_cache_keeps_the_pictures_used_last_within_its_pixels():
    cache, decoded = PictureCache(250), []

    def open_picture(name):
        return cache.get(name, lambda: decoded.append(name) or np.zeros((10, 10, 3), np.uint8))

    for name in "abacab":
        open_picture(name)
    assert decoded == ["a", "b", "c", "b"]
    assert cache.get("huge", lambda: np.zeros((100, 100, 3), np.uint8)).shape == (100, 100, 3)


PEAK = """
def peak():
    # Not ru_maxrss, which a process inherits from the one that starts it.
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20
"""


def _run(code, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("mode", "size"),
    [
        ("L", (50_000_000, 1)),
        ("L", (1, 50_000_000)),
        ("RGBA", (8160, 6120)),
    ],
)
def test_any_picture_of_50_megapixels_is_colorized_within_900_megabytes(mode, size, tmp_path):
    Image.new(mode, size, 90 if mode == "L" else (90, 120, 100, 80)[: len(mode)]).save(tmp_path / "photo.png")
    code = """if True:
        import colorizer
        from colorizer.models import evaluation, library
        from colorizer.models.colorizer import Colorizer
        entry = library.find_model("unet")
        image = colorizer.decode_image(open("photo.png", "rb").read())
        assert Colorizer(None, entry).colorize(image, chroma=evaluation.stored_chroma(entry, "rocket")).shape == image.shape
        print(peak())"""  # noqa: E501
    assert _run(code, tmp_path) < 0.9


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_six_hostile_pictures_at_once_cost_little_more_than_one(tmp_path):
    Image.new("1", (8160, 6120)).save(tmp_path / "bomb.tif", compression="group4")
    assert (tmp_path / "bomb.tif").stat().st_size < 5000
    code = """if True:
        import sys
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from colorizer.pixels import images
        from colorizer.models import library
        from colorizer.models.colorizer import Colorizer
        data, model = open("bomb.tif", "rb").read(), Colorizer(None, library.find_model("unet"))
        def work(_):
            with images.pixels_in_work(8160 * 6120):
                model.colorize(images.decode_image(data), chroma=np.zeros((64, 88, 2), np.float32))
        number = int(sys.argv[1])
        with ThreadPoolExecutor(number) as pool:
            list(pool.map(work, range(number)))
        print(peak())"""
    assert _run(code, tmp_path, "6") < 2 * _run(code, tmp_path, "1")
