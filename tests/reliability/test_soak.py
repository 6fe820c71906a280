"""A short run of what `tests.reliability.soak` does for long."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.reliability import soak
from tests.tiny import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def phase(rss: np.ndarray) -> soak.Phase:
    done, ones = np.arange(1.0, len(rss) + 1), np.ones(len(rss))
    return soak.Phase("steps", done, done / 10, rss, ones, ones)


def test_a_leak_would_be_seen() -> None:
    noise = np.random.default_rng(0).normal(0, 30, 400)
    flat, leaking = phase(100_000 + noise), phase(100_000 + noise + np.arange(400.0))
    assert flat.slope().flat and not leaking.slope().flat
    assert leaking.slope().value == pytest.approx(1024, rel=0.1), "1 KiB a step"
    assert flat.rates() == pytest.approx((10, 10))


def test_neither_memory_nor_threads_nor_files_grow(tmp_path: Path) -> None:
    make().fit(tmp_path)  # kernels, pools and modules are there
    for run in (lambda: soak.training(200, 50), lambda: soak.predictions(400, 50)):
        run()
        found = run()
        assert np.ptp(found.threads) <= 1 and np.ptp(found.files) <= 1  # the sample may lie within a save
        # Python's and the C library's own blocks of 256 KiB and more may come and go; a leaked batch a step would not.
        assert found.rss[-1] - found.rss[0] < 2048, f"{found}"


def test_no_object_is_left_of_a_step() -> None:
    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    for _ in range(2):
        make().fit(None)
    before = objects()
    for _ in range(5):
        make().fit(None)
    assert objects() - before < 20


def test_threads_that_end_leave_nothing() -> None:
    def work() -> None:
        make().fit(None, epochs=1)

    counts = []
    for _ in range(4):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts.append((soak._entries("task"), soak._entries("fd")))
    (threads_before, files_before), (threads_after, files_after) = counts[0], counts[-1]
    assert threads_after < threads_before + 4, counts  # workers of the threading layer come and go; twelve would stay
    assert files_after <= files_before, counts
