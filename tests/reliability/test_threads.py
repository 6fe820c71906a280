"""Python threads, signal handlers and forks: right results, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import blocks, memory, nn, random
from numbanet import functional as F
from numbanet.cpu import compile as cpu_compile
from numbanet.cpu import parallel
from numbanet.deferred import Deferred
from numbanet.locks import FreshLock, new_lock
from tests.processes import run_python

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PRELUDE = """
import faulthandler, os, signal, sys, threading, warnings
faulthandler.dump_traceback_later(280, exit=True)
import numpy as np
import numbanet as nnet
from numbanet import functional as F, nn, optim
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks with threads
nnet.set_num_threads(2)

def trained(seed, steps=3):
    # The weights after some steps: of Winograd's kernels, whose work buffers tasks share, and of all else.
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10),
    )
    for p in model.parameters():
        p.data[...] = rng.standard_normal(p.shape) * 0.1
        p.bump_version()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        x = nnet.tensor(rng.standard_normal((8, 3, 12, 12)).astype(np.float32))
        loss = F.cross_entropy(model(x), nnet.tensor(rng.integers(10, size=8)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return b"".join(p.data.tobytes() for p in model.parameters())

def together(count, work):
    failures, results, start = [], [None] * count, threading.Barrier(count)
    def run(number):
        try:
            start.wait()
            results[number] = work(number)
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not failures, failures
    return results
"""

SHARED = PRELUDE + """
layer, alone = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
x = nnet.tensor(np.ones((2, 2, 6, 6), np.float32))
alone(x).sum().backward()

def work(number):
    for _ in range(50):
        layer(x).sum().backward()

sys.setswitchinterval(1e-6)
together(4, work)
for found, one in zip(layer.parameters(), alone.parameters()):
    assert (found.grad.numpy() == 200 * one.grad.numpy()).all(), found.grad  # whole numbers
print("done")
"""

SIXTEEN = PRELUDE + """
expected = [trained(seed) for seed in range(16)]
def work(number):
    nnet.set_num_threads(1 + number % 2)
    return trained(number)
for _ in range(2):
    assert together(16, work) == expected
# Nested: a worker starts threads that compute, and waits for them while others do the same.
from concurrent.futures import ThreadPoolExecutor
def nested(number):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(trained, [number, number + 4]))
assert together(4, nested) == [[expected[n], expected[n + 4]] for n in range(4)]
print("done")
"""

CAPTURED = PRELUDE + """
# One recording, whose memory all calls share, called by 16 threads.
rng = np.random.default_rng(0)
model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
captured = nnet.capture(model)
xs = [nnet.tensor(rng.standard_normal((1, 3, 16, 16)).astype(np.float32)) for _ in range(16)]
with nnet.no_grad():
    expected = [model(x).numpy().tobytes() for x in xs]
    for x in xs[:3]: captured(x)
def work(number):
    with nnet.no_grad():
        return all(captured(xs[number]).numpy().tobytes() == expected[number] for _ in range(10))
assert all(together(16, work))
print("done")
"""

FORK_UNDER_LOAD = PRELUDE + """
# Forks while others train: a child computes what its parent would, whatever the others were doing.
expected = [trained(seed, 1) for seed in range(4)]
busy = threading.Event()
def keep_training(seed):
    while not busy.is_set():
        trained(seed, 1)
others = [threading.Thread(target=keep_training, args=(seed,)) for seed in range(4)]
for other in others: other.start()
for number in range(4):
    child = os.fork()
    if child == 0:
        signal.alarm(250)
        os._exit(0 if trained(number % 4, 1) == expected[number % 4] else 9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
busy.set()
for other in others: other.join()
print("done")
"""

FORK_WHILE_COMPILING = PRELUDE + """
from numbanet.cpu import compile as cpu_compile
began = threading.Event()
real = cpu_compile.CFunc.compile
def slow(self):
    began.set()
    return real(self)
cpu_compile.CFunc.compile = slow
other = threading.Thread(target=lambda: nnet.ops.gelu(np.ones(9, np.float32)))
other.start()
began.wait()
child = os.fork()
if child == 0:
    signal.alarm(250)
    nnet.ops.gelu(np.ones(9, np.float64))  # compiles
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
other.join()
print("done")
"""


def test_sixteen_python_threads_train_at_once() -> None:
    assert run_python(SIXTEEN, NUMBA_NUM_THREADS="2") == "done"


def test_sixteen_python_threads_replay_one_recording() -> None:
    assert run_python(CAPTURED, NUMBA_NUM_THREADS="2") == "done"


def test_threads_add_to_the_same_gradients() -> None:
    assert run_python(SHARED) == "done"


@forks
def test_forks_while_others_train() -> None:
    assert run_python(FORK_UNDER_LOAD, NUMBA_NUM_THREADS="2") == "done"


@forks
def test_a_fork_while_another_thread_compiles() -> None:
    assert run_python(FORK_WHILE_COMPILING, NUMBA_NUM_THREADS="2", NUMBANET_CACHE="0") == "done"


@forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_locks_are_free_in_a_child_unless_its_own() -> None:
    lock, mine, fresh, own = new_lock(), new_lock(), FreshLock(), FreshLock()
    holder, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock, fresh, blocks.lock, random.default_generator._lock, parallel._state.lock:
            holder.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holder.wait()
    try:
        with mine, own:
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                with lock, fresh, own, blocks.lock, parallel._state.lock:
                    nnet.manual_seed(0)
                os._exit(0 if mine._is_owned() and own._lock._is_owned() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        release.set()
        thread.join()


@forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_result_that_another_thread_was_computing_is_computed_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.fuse(nn.Sequential(nn.Conv2d(3, 8, 3)))[0]
    x = nnet.tensor(np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32))
    with nnet.no_grad():
        expected = layer(x).numpy().tobytes()
        waiting = layer(x)
    assert isinstance(waiting, Deferred) and waiting.pending
    holder, release = threading.Event(), threading.Event()
    settled, parent = Deferred._settle, os.getpid()

    def slow(self: Any, family: Any) -> None:
        if os.getpid() == parent:
            holder.set()
            release.wait()
        settled(self, family)

    monkeypatch.setattr(Deferred, "_settle", slow)
    thread = threading.Thread(target=waiting.numpy)
    thread.start()
    holder.wait()  # it holds the result's lock
    try:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if waiting.numpy().tobytes() == expected else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        release.set()
        thread.join()
    assert waiting.numpy().tobytes() == expected


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs timers")
def test_a_signal_handler_may_compute_in_the_middle_of_anything() -> None:
    """As one does that saves, or predicts: it runs while the main thread holds locks, and within captured calls."""
    rng = np.random.default_rng(0)
    weight = nnet.tensor(rng.standard_normal((8, 4, 3, 3)).astype(np.float32))
    xs = [nnet.tensor(rng.standard_normal((4, 4, 48, 48)).astype(np.float32)) for _ in range(2)]  # of recycled memory

    def layer(x: Any) -> Any:
        return F.relu(F.conv2d(x, weight, padding=1))

    captured = nnet.capture(layer)
    with nnet.no_grad():
        expected = [layer(x).numpy().tobytes() for x in xs]
        for _ in range(3):
            captured(xs[0])
    wrong: list[str] = []
    calls = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal calls
        calls += 1
        with nnet.no_grad():
            for function in (layer, captured):
                if function(xs[1]).numpy().tobytes() != expected[1]:
                    wrong.append("in the handler")
        nnet.manual_seed(calls)
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # a periodic one would leave a busy machine no time between

    former = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        with nnet.no_grad():
            for _ in range(100):
                for function in (layer, captured):
                    if function(xs[0]).numpy().tobytes() != expected[0]:
                        wrong.append("in the middle of which it ran")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert calls > 3 and not wrong
    for lock in (blocks.lock, random.default_generator._lock, cpu_compile._building):
        with lock:  # a handler that comes here takes it again
            nnet.manual_seed(0)
            memory.empty((1 << 18,), "float64")


def test_a_recording_is_not_replayed_within_its_own_call() -> None:
    x = nnet.tensor(np.arange(-8.0, 8.0, dtype=np.float32))
    captured = nnet.capture(F.relu)
    with nnet.no_grad():
        for _ in range(3):
            captured(x)
        plan = next(iter(captured._plans.values()))
        assert plan.recorded
        real = plan._recording.run

        def interrupted() -> None:
            plan._recording.run = real
            assert (captured(x * -1.0).numpy() == np.maximum(-x.numpy(), 0)).all()  # as a signal handler might
            real()

        plan._recording.run = interrupted
        assert (captured(x).numpy() == np.maximum(x.numpy(), 0)).all()
