"""The benchmarks are measured by hand; here each module at least imports and has its function."""

import importlib
import inspect

import pytest

from tests.benchmarks.__main__ import BENCHMARKS


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_started(name):
    module = importlib.import_module(f"tests.benchmarks.{name}")
    assert list(inspect.signature(module.measure).parameters) == ["runs"]
    assert module.__doc__
