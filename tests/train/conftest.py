"""The tiny training as fixtures: on each device."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny import Tiny, make


@pytest.fixture
def tiny(device: str) -> Tiny:
    """A training at its start."""
    return make()


@pytest.fixture
def remake(device: str) -> Any:
    """What makes the training anew."""
    return make
