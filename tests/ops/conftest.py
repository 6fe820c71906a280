"""Fixtures for tests of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from numbanet import dispatch, memory
from numbanet.cpu.parallel import get_num_threads, set_num_threads


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results and workspaces start as NaN, so that an element that no kernel writes is seen."""
    original = memory.empty

    def empty(shape: tuple[int, ...], dtype: Any, like: Any = None) -> np.ndarray:
        out = original(shape, dtype, like)
        out.view(np.uint8)[...] = 255
        return out

    monkeypatch.setattr(memory, "empty", empty)


@pytest.fixture
def on_one_thread() -> Callable[[Callable[[], Any]], Any]:
    """A function that calls another with the threads set to one, and sets them back."""

    def call(function: Callable[[], Any]) -> Any:
        before = get_num_threads()
        set_num_threads(1)
        try:
            return function()
        finally:
            set_num_threads(before)

    return call


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The problems for which the dispatcher is asked."""
    seen, run = [], dispatch.run

    def counted(problem: Any, *operands: Any) -> None:
        seen.append(problem)
        run(problem, *operands)

    monkeypatch.setattr(dispatch, "run", counted)
    return seen
