"""The tiny training as fixtures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny import Tiny, make


@pytest.fixture
def tiny() -> Tiny:
    """A training at its start."""
    return make()


@pytest.fixture
def remake() -> Any:
    """What makes the training anew."""
    return make
