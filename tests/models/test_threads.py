"""Threads: what several visitors ask of one model at once is what each would get alone, for every shipped model."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from colorizer.models import library
from colorizer.models.colorizer import load
from colorizer.pixels.color import to_luminance

pytestmark = pytest.mark.slow  # These tests train or load whole networks.

THREADS = 4


@pytest.mark.parametrize("entry", [e for e in library.list_models() if e.shipped], ids=lambda entry: entry.name)
def test_predictions_from_several_threads_at_once_are_right(entry, samples):
    colorizer = load(entry.path)
    luminance = to_luminance(samples.images)
    parts = [luminance[start : start + 5] for start in range(0, 20, 5)] * 3
    levels = [None] if colorizer.levels is None else [0.0, 1.0]
    asked = [(part, level) for part in parts for level in levels]
    alone = [colorizer.predict(*question) for question in asked]
    begin = threading.Barrier(THREADS)

    def work(thread: int) -> list[np.ndarray]:
        """Answers to all questions, each thread beginning with another one."""
        begin.wait()
        turned = np.roll(np.arange(len(asked)), -thread)
        answers = {index: colorizer.predict(*asked[index]) for index in turned}
        return [answers[index] for index in range(len(asked))]

    with ThreadPoolExecutor(THREADS) as pool:
        for answers in pool.map(work, range(THREADS)):
            for answer, expected in zip(answers, alone, strict=True):
                np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_one_model_is_loaded_by_several_threads_at_once(samples):
    path, luminance = library.SHIPPED / "linear", to_luminance(samples.images)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: load(path).predict(luminance), range(THREADS)))
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)
