"""The times of a first step are those of a whole process."""

from __future__ import annotations

import pytest

from benchmarks import cold
from numbanet import settings


def test_a_first_step() -> None:
    processor, clock, kernels = cold.first_step("digits", (2, 1, 8, 8), str(settings.cache_root()))
    assert 0.1 < processor < 300 and 0.1 < clock < 600 and kernels > 5
    with pytest.raises(RuntimeError, match="the first step of digits failed: exit status 1"):
        cold.first_step("digits", (2, 5, 8, 8), str(settings.cache_root()))
