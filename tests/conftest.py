"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest

os.environ.setdefault("NUMBANET_VERBOSE", "0")  # no notice of slow compilation among what commands print
os.environ.setdefault("NUMBANET_AHEAD", "0")  # the tests run in as many processes as there are CPUs
# A shell that starts the tests in the background lets them, and the processes that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(1234)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device in turn, where all that the test makes lives; no GPU is a reason to skip, which `info` tells too."""
    import numbanet as nnet
    from numbanet.cuda import unavailable_reason

    reason = unavailable_reason() if request.param == "cuda" else None
    if reason is not None:
        pytest.skip(f"no GPU can be used: {reason}")
    nnet.set_device(request.param)
    yield request.param
    nnet.set_device(None)


@pytest.fixture(autouse=True)
def _all_threads():
    """Let the next test begin with all threads: what this one runs, such as a command line, may set another number."""
    yield
    if "numbanet.cpu.parallel" in sys.modules:
        import numba

        from numbanet.cpu import limits, parallel

        parallel.set_num_threads(min(limits.default_threads(), numba.config.NUMBA_NUM_THREADS))


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_set_aside():
    """Let the garbage collector pass over what is there before a file's tests: all tests, and compiled kernels.

    With these a full collection takes long, and every recording of a training step asks for one. What a test leaves is
    looked at as ever.
    """
    gc.collect()
    gc.freeze()


# What takes longest begins first: a process that got it last would work alone.
_LONG = ("tests/reliability/", "tests/cpu/test_neon.py", "tests/cpu/test_cache.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))
