"""The threads that help with launches: they come, rest, come back, and end."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest

from numbanet.cpu import crew as crew_module
from numbanet.cpu import parallel
from numbanet.cpu.atomic import add, read
from numbanet.cpu.compile import I64, Index, kernel
from numbanet.cpu.crew import Crew
from numbanet.cpu.parallel import Launches, get_num_threads, launch, recording, set_num_threads
from numbanet.cpu.replay import Recording
from numbanet.cpu.simd import integers
from numbanet.cpu.tile import address, stack_buffer
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


@kernel
def deep(task: Index, ints: I64, met: I64):
    """The same, with half a megabyte on the stack."""
    tasks, patience = integers(ints, 2)
    words, buffer = address(met, 0), stack_buffer(met, 1 << 16)
    for i in range(0, 1 << 16, 256):
        buffer[i] = task
    add(words, 0, 1)
    turns = 0
    while read(words, 0) < tasks and turns < patience:
        relax(turns)
        turns += 1
    if turns < patience and buffer[0] == task and buffer[(1 << 16) - 256] == task:
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
    parallel.prepare()
    new = Crew(parallel._state.crew._serve, 3)
    monkeypatch.setattr(parallel._state, "crew", new)
    yield new
    new.stop()
    assert new.awake == 0


def test_a_helper_comes(crew: Crew) -> None:
    assert met() == 2
    assert len(crew._helpers) == 1


def test_a_recording_is_done_by_several(crew: Crew) -> None:
    words, launches = np.zeros(2, np.int64), Launches()
    with recording(launches):
        launch(meet, 2, (words,), (2, 10_000_000), "float32")
    again = Recording(launches)
    for _ in range(3):
        words[:] = 0
        again.run()
        assert words.tolist() == [2, 2]


def test_helpers_are_called_as_far_as_they_lack(crew: Crew) -> None:
    crew.call(1)
    crew.call(1)
    assert len(crew._helpers) == 2
    crew.call(9)
    assert len(crew._helpers) == 3, "there may be no more"


@pytest.mark.parametrize("started", [False, True], ids=["before", "after"])
def test_an_interrupt_while_a_helper_is_started_leaves_none(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    start, size, ended = _thread.start_new_thread, _thread.stack_size(), threading.Event()

    def interrupted(function: Any, arguments: Any) -> None:
        if started:
            start(lambda *given: (function(*given), ended.set()), arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            crew.call(1)
    assert not crew._helpers and _thread.stack_size() == size
    assert not started or ended.wait(10), "a thread that nobody knows would run while Python ends"
    assert met() == 2


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signals of threads")
def test_helpers_leave_signals_to_the_program() -> None:
    code = """
    import os, signal
    import numpy as np
    from numbanet import ops
    from numbanet.cpu import parallel
    parallel.prepare()
    parallel.set_num_threads(2)
    while not parallel._state.crew._helpers or parallel._state.crew.awake == 0:
        ops.relu(np.ones((4, 64, 64, 64), np.float32))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    print(signal.sigwait({signal.SIGUSR1}) is signal.SIGUSR1)
    """
    assert run_python(code, OPENBLAS_NUM_THREADS="1") == "True"  # NumPy's own helper takes them


def test_no_helper_where_one_thread_is_wanted(crew: Crew) -> None:
    set_num_threads(1)
    assert met(patience=1000) == 1  # the second task alone
    assert not crew._helpers


def test_helpers_of_a_helper_thread_are_none(crew: Crew) -> None:
    """Who prepares work for others leaves them the cores."""
    first, found = parallel.helper(), []

    def work() -> None:
        first()
        found.append((get_num_threads(), met(patience=5000)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(1, 1)] and get_num_threads() == 2


def rested(crew: Crew) -> bool:
    end = time.monotonic() + 60
    while crew.awake and time.monotonic() < end:
        time.sleep(0.01)
    return crew.awake == 0


def test_helpers_let_go_of_their_cores_and_come_back(crew: Crew) -> None:
    for _ in range(3):
        assert met() == 2
        assert rested(crew)
        before = time.thread_time(), time.process_time()
        time.sleep(0.3)
        others = time.process_time() - before[1] - (time.thread_time() - before[0])
        assert others < 0.05, "who rests takes no time"
    assert len(crew._helpers) == 1


def test_a_signal_handler_may_launch_while_helpers_are_called(crew: Crew) -> None:
    assert met() == 2 and rested(crew)
    helper = crew._helpers[0]
    real = helper.rest

    class Handled:
        """The lock, in the middle of whose release a handler comes that calls the same helper."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def release(self) -> None:
            real.release()
            real.release()  # RuntimeError, unless the helper took it already

    helper.rest = Handled()
    for _ in range(3):
        assert met() == 2 and rested(crew)


def test_a_busy_helper_is_no_help_to_others(crew: Crew) -> None:
    """It is another that comes."""
    busy = np.zeros(2, np.int64)

    def work() -> None:
        set_num_threads(2)
        launch(meet, 2, (busy,), (3, 10_000_000), "float32")  # for a third task, which comes at the end

    thread = threading.Thread(target=work)
    thread.start()
    while busy[0] < 2:
        time.sleep(0.001)
    for _ in range(3):
        assert met() == 2
    busy[0] = 3
    thread.join()
    assert busy[1] == 2 and len(crew._helpers) == 2


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


def test_a_process_that_may_have_no_more_threads_asks_again(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, real = 0, crew_module._thread.start_new_thread

    def refuse(*args: Any) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(crew_module._thread, "start_new_thread", refuse)
    for _ in range(3):
        assert met(patience=1000) == 1
    assert tries == 1 and not crew._helpers
    monkeypatch.setattr(crew_module._thread, "start_new_thread", real)
    crew._refused -= 2  # seconds
    assert met() == 2


def test_a_helper_has_a_stack_of_its_own_size(crew: Crew) -> None:
    """Buffers of kernels lie on it."""
    before = threading.stack_size(1 << 17)
    try:
        words = np.zeros(2, np.int64)
        launch(deep, 2, (words,), (2, 10_000_000), "float32")
        assert words[1] == 2
        assert threading.stack_size() == 1 << 17
    finally:
        threading.stack_size(before)


def test_helpers_are_not_among_the_threads_that_a_program_waits_for(crew: Crew) -> None:
    before = threading.enumerate()
    assert met() == 2
    assert threading.enumerate() == before


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
