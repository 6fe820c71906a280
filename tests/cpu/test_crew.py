"""The threads that help with launches: they come, rest, come back, and end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest

from numbanet.cpu import parallel
from numbanet.cpu.atomic import add, read
from numbanet.cpu.compile import I64, Index, kernel
from numbanet.cpu.crew import Crew
from numbanet.cpu.parallel import get_num_threads, launch, set_num_threads
from numbanet.cpu.simd import integers
from numbanet.cpu.tile import address
from numbanet.cpu.wait import relax
from tests.processes import run_python

pytestmark = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread")


@kernel
def meet(task: Index, ints: I64, met: I64):
    """Count those who see all others: each task waits until as many have begun, which takes as many threads."""
    tasks, patience = integers(ints, 2)
    words = address(met, 0)
    add(words, 0, 1)
    turns = 0
    while read(words, 0) < tasks and turns < patience:
        relax(turns)
        turns += 1
    if turns < patience:
        add(words, 1, 1)


def met(patience: int = 10_000_000) -> int:
    """Return how many of two tasks met; that takes several seconds where there is one thread for both."""
    words = np.zeros(2, np.int64)
    launch(meet, 2, (words,), (2, patience), "float32")
    assert words[0] == 2
    return int(words[1])


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(2)
    yield
    set_num_threads(before)


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """A crew of its own."""
    new = Crew(parallel._state.serve)
    monkeypatch.setattr(parallel._state, "crew", new)
    yield new
    new.stop()
    assert not any(thread.is_alive() for thread, _ in new._helpers)


def test_a_helper_comes(crew: Crew) -> None:
    assert met() == 2
    assert len(crew._helpers) == 1


def test_no_more_helpers_than_tasks_want(crew: Crew) -> None:
    crew._words[0] = 7  # as if there were eight threads
    crew.call(3)
    assert len(crew._helpers) == 3
    crew.call(2)
    assert len(crew._helpers) == 3
    crew.call(9)
    assert len(crew._helpers) == 7


def test_no_helper_where_one_thread_is_wanted(crew: Crew) -> None:
    set_num_threads(1)
    assert met(patience=1000) == 1  # the second task alone
    assert not crew._helpers


def test_helpers_let_go_of_their_cores_and_come_back(crew: Crew) -> None:
    for _ in range(3):
        assert met() == 2
        end = time.monotonic() + 60
        while crew._words[8] and time.monotonic() < end:  # those awake
            time.sleep(0.01)
        assert crew._words[8] == 0
        before = time.thread_time(), time.process_time()
        time.sleep(0.2)
        others = time.process_time() - before[1] - (time.thread_time() - before[0])
        assert others < 0.1, "who rests takes no time"
    assert len(crew._helpers) == 1


def test_python_threads_have_jobs_at_once_and_none_waits_for_another(crew: Crew) -> None:
    """More than the board has room for: a launch that finds none free is done by who made it."""
    failures: list[BaseException] = []
    start = threading.Barrier(12)

    def work() -> None:
        try:
            set_num_threads(2)
            start.wait()
            for _ in range(200):
                words = np.zeros(2, np.int64)
                launch(meet, 40, (words,), (1, 10), "float32")
                assert words.tolist() == [40, 40]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert met() == 2


def test_a_process_that_may_have_no_more_threads_computes_alone(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def refuse(self: Any) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(3):
        assert met(patience=1000) == 1
    assert tries == 1


MEET = """
import os, sys, threading, time, warnings
import numpy as np
from tests.cpu.test_crew import met
from numbanet.cpu.parallel import set_num_threads
set_num_threads(2)
assert met() == 2
"""


def test_python_ends_whatever_helpers_do() -> None:
    launching = "threading.Thread(target=lambda: [met(10) for _ in iter(int, 1)], daemon=True).start(); time.sleep(0.1)"
    for end in ("", "time.sleep(0.2)", "raise SystemExit(0)", launching):
        assert run_python(MEET + end, NUMBA_NUM_THREADS="2", timeout=60) == ""


def test_launches_while_python_ends() -> None:
    """The function that was registered first runs last, when the helpers have ended."""
    code = "import atexit\natexit.register(lambda: print(met(1000)))\n" + MEET
    assert run_python(code, NUMBA_NUM_THREADS="2", timeout=60) == "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_helpers_of_its_own() -> None:
    code = MEET + """
warnings.simplefilter("ignore")  # Python warns of forks with threads
child = os.fork()
if child == 0:
    sys.exit(met())  # what the parent left for the end of Python runs in the child, too
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), met())
"""
    assert run_python(code, NUMBA_NUM_THREADS="2", timeout=60) == "2 2"
