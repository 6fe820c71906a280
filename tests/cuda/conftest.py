"""What several files of GPU tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from numbanet.cuda import launch
from numbanet.cuda.compile import Kernel
from numbanet.cuda.gpu import Gpu
from tests.cuda.fake import FakeDriver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """A driver that interprets the kernels; its GPU is that of the thread."""
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    found = FakeDriver()
    with launch.executor(Gpu(0, found.core, found)):
        yield found
