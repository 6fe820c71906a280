"""Captured functions, threads and forks."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet.cpu import parallel
from tests.capturing.common import images, network


def test_same_bits_for_any_number_of_threads() -> None:
    model = network()
    captured, x = nnet.capture(model), images()
    with nnet.no_grad():
        for _ in range(2):
            captured(x)
        before = parallel.get_num_threads()
        results = []
        try:
            for threads in {1, before}:
                parallel.set_num_threads(threads)
                results.append(captured(x).numpy().tobytes())
        finally:
            parallel.set_num_threads(before)
    assert len(set(results)) == 1


def test_another_number_of_threads_is_recorded_anew() -> None:
    before = nnet.get_num_threads()
    if before < 2:
        pytest.skip("one core")
    captured, x = nnet.capture(network()), images()
    try:
        with nnet.no_grad():
            for count in (1, 2, 1):
                nnet.set_num_threads(count)
                results = [captured(x).numpy().tobytes() for _ in range(3)]
                assert len(set(results)) == 1
    finally:
        nnet.set_num_threads(before)
    assert len(captured._plans) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lock_is_renewed_after_a_fork() -> None:
    captured = nnet.capture(F.relu)
    holder, release = threading.Event(), threading.Event()

    def hold() -> None:
        with captured._lock:
            holder.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holder.wait()
    try:
        child = os.fork()
        if child == 0:
            os._exit(0 if captured._lock.acquire(blocking=False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        release.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_records_anew() -> None:
    captured, x = nnet.capture(network()), images()
    with nnet.no_grad():
        expected = [captured(x).numpy() for _ in range(3)][-1]
        child = os.fork()
        if child == 0:
            fresh = not captured._plans
            os._exit(0 if fresh and np.array_equal(captured(x).numpy(), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
