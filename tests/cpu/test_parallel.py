"""The launcher: threads, forks, denormals, and the checks at its door."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest

import numbanet as nnet
from numbanet.cpu import parallel
from numbanet.cpu.compile import F64, I32, I64, Index, T, kernel
from numbanet.cpu.limits import cgroup_quota, default_threads
from numbanet.cpu.parallel import get_num_threads, launch, set_num_threads
from numbanet.cpu.simd import integers, lanes, load_tail, splat, store_tail
from tests.processes import run_python


@kernel
def chunk_sums(task: Index, ints: I64, x: T, partial: T):
    """The sum of each chunk of x, element after element."""
    size, chunk = integers(ints, 2)
    total = x[0] - x[0]
    for i in range(task * chunk, min(size, (task + 1) * chunk)):
        total += x[i]
    partial[task] = total


@kernel
def half(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, load_tail(x, i, size - i) * splat(x, 0.5), size - i)


@kernel
def ten(task: Index, ints: I64, a: T, b: F64, c: I32, d: I64, e: T, f: T, g: T, h: T, i: T, out: T):
    one, two = integers(ints, 2)
    out[0] = a[0] + b[0] + c[0] + d[0] + e[0] + f[0] + g[0] + h[0] + i[0] + one + two


@kernel
def nothing(task: Index, ints: I64):
    pass


@pytest.fixture
def threads() -> Iterator[int]:
    """The number of threads, put back afterwards."""
    before = get_num_threads()
    yield before
    set_num_threads(before)


# ---------------------------------------------------------------------------------------------------------------------
# Launching


def test_every_task_runs_once(threads: int) -> None:
    x = np.arange(10_007.0)
    for count in range(1, threads + 1):
        set_num_threads(count)
        for chunk in (1, 3, 100, 20_000):
            tasks = -(-x.size // chunk)
            partial = np.full(tasks, np.nan)
            launch(chunk_sums, tasks, (x, partial), (x.size, chunk), "float64")
            np.testing.assert_array_equal(partial, [x[i : i + chunk].sum() for i in range(0, x.size, chunk)])


def test_no_task_and_no_pointer() -> None:
    y = np.full(3, 7.0)
    launch(half, 0, (y, y), (3,), "float64")
    assert (y == 7.0).all()
    launch(nothing, 5, (), (), "float32")


def test_ten_pointers_of_all_kinds() -> None:
    floats = [np.array([2.0**k], np.float32) for k in range(8)]
    arrays = [floats[0], np.array([256.0]), np.array([512], np.int32), np.array([1024]), *floats[1:7]]
    launch(ten, 1, arrays, (2048, -4096), "float32")
    assert floats[6][0] == 1 + 256 + 512 + 1024 + 2 + 4 + 8 + 16 + 32 + 2048 - 4096


def test_threads_give_equal_bits(threads: int) -> None:
    x = np.random.default_rng(0).standard_normal(100_003).astype(np.float32)
    results = []
    for count in (1, threads):
        set_num_threads(count)
        partial = np.empty(-(-x.size // 1000), np.float32)
        launch(chunk_sums, partial.size, (x, partial), (x.size, 1000), "float32")
        results.append(partial)
    np.testing.assert_array_equal(*results)


def test_refuses_buffers_that_do_not_fit() -> None:
    x = np.zeros(4, np.float32)
    with pytest.raises(TypeError, match="kernel test_parallel.half takes 2 buffers, got 3"):
        launch(half, 1, (x, x, x), (4,), "float32")
    for wrong in (np.zeros(4), np.zeros(4, np.int32), np.zeros((4, 2), np.float32)[:, 0], x.astype(">f4")):
        with pytest.raises(TypeError, match="kernel test_parallel.half: a buffer must be C-contiguous float32, got"):
            launch(half, 1, (x, wrong), (4,), "float32")
    for wrong in ([0.0] * 4, nnet.tensor([1.0]), None, memoryview(x)):
        with pytest.raises(TypeError, match="kernel test_parallel.half takes arrays, got"):
            launch(half, 1, (x, wrong), (4,), "float32")
    with pytest.raises(KeyError):
        launch(half, 1, (x, x), (4,), "float16")


def test_takes_equal_dtypes_and_subclasses() -> None:
    odd = np.zeros(3, np.dtype("f4").newbyteorder("=").newbyteorder("S").newbyteorder("S"))
    named = np.ones(3, np.dtype(np.float32, metadata={"a": 1}))
    sub = np.full(3, 4.0, np.float32).view(np.recarray)
    out = np.zeros(3, np.float32)
    for x, expected in ((odd, 0), (named, 0.5), (sub, 2)):
        launch(half, 1, (x, out), (3,), "float32")
        assert (out == expected).all()


def test_wrong_kernels() -> None:
    with pytest.raises(TypeError, match=r"the first parameters must be \(task: Index, ints: I64\)"):

        @kernel
        def first(x: T):
            pass

    with pytest.raises(TypeError, match="unknown pointer annotation"):

        @kernel
        def second(task: Index, ints: I64, x: float):
            pass


def test_one_machine_code_version_a_dtype(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NUMBANET_VERBOSE", "1")
    base = np.random.default_rng(0).standard_normal((3, 5, 7, 9))
    frozen = base.copy()
    frozen.flags.writeable = False
    for x in (base, base[::-1], base.transpose(0, 3, 1, 2), frozen, base[0], base[0, 0, 0, 0], base[:0], base.T):
        for dtype in (np.float32, np.float64):
            nnet.ops.gelu(x.astype(dtype, order="K", copy=False))
    lines = [line for line in capsys.readouterr().err.splitlines() if "activation.gelu[" in line]
    assert len(lines) <= 2, lines
    assert all(len(driver.signatures) == 1 for driver in parallel._drivers)
    assert set(half.compiled) <= {"float32", "float64"}


# ---------------------------------------------------------------------------------------------------------------------
# The number of threads


def test_set_num_threads(threads: int) -> None:
    most = numba.config.NUMBA_NUM_THREADS
    for wrong in (0, -1, most + 1, 10**9):
        with pytest.raises(ValueError, match=f"count must be between 1 and {most}, got {wrong}"):
            set_num_threads(wrong)
    for kind in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="count must be an integer"):
            set_num_threads(kind)  # type: ignore[arg-type]
    assert get_num_threads() == threads
    set_num_threads(np.int64(1))  # type: ignore[arg-type]
    assert get_num_threads() == 1
    set_num_threads(most)
    assert get_num_threads() == most


def test_quota_binds_every_python_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(parallel, "default_threads", lambda: 1)
    found: list[int] = []

    def work() -> None:
        found.append(get_num_threads())
        set_num_threads(numba.config.NUMBA_NUM_THREADS)
        found.append(get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1, numba.config.NUMBA_NUM_THREADS], "the default first, then what the user says"


def test_environment_counts_more_than_the_quota() -> None:
    code = """
        from numbanet.cpu import parallel
        parallel.default_threads = lambda: 1
        print(parallel.get_num_threads())
    """
    assert run_python(code, NUMBA_NUM_THREADS="2") == "2"


@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset")
def test_default_respects_the_affinity_mask() -> None:
    code = """
        from numbanet.cpu.limits import default_threads
        from numbanet.cpu.parallel import get_num_threads
        print(default_threads(), get_num_threads())
    """
    cpu = min(os.sched_getaffinity(0))
    assert run_python(code, prefix=("taskset", "-c", str(cpu)), NUMBA_NUM_THREADS=None) == "1 1"


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "100000 100000\n"}, 1),
        ("0::/on/the/host\n", {"cpu.max": "400000 100000\n"}, 4),  # a container that shows its own root
        ("4:cpu,cpuacct:/x\n0::/\n", {"cpu/x/cpu.cfs_quota_us": "600000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 6),
        ("4:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "500000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 5),
        ("", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": ""}, None),
        ("0::/\n", {"cpu.max": "many 100000\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("nonsense\n0::/\n", {}, None),
    ],
)
def test_cgroup_quota(groups: str, files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    tree(tmp_path, {"groups": groups})
    tree(tmp_path / "root", files)
    assert cgroup_quota(tmp_path / "root", tmp_path / "groups") == expected


def test_cgroup_quota_without_cgroups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "none", tmp_path / "nothing") is None
    assert 1 <= default_threads() <= (os.cpu_count() or 1)


# ---------------------------------------------------------------------------------------------------------------------
# Denormals


def test_denormals_are_zero_inside_and_alive_outside(threads: int) -> None:
    tiny = {"float32": 1e-40, "float64": 1e-310}
    for count in {1, threads}:
        set_num_threads(count)
        for dtype, value in tiny.items():
            x = np.array([value, 1.0, -value] * 40, dtype)
            y = np.full_like(x, np.nan)
            launch(half, 4, (x, y), (x.size,), dtype)
            np.testing.assert_array_equal(y, [0.0, 0.5, 0.0] * 40)
            smallest = np.array([np.finfo(dtype).tiny], dtype)
            launch(half, 1, (smallest, y[:1]), (1,), dtype)
            assert y[0] == 0.0, "a result that would be denormal"
            assert (x[:1] * np.ones(1, dtype))[0] != 0.0 and (smallest / 2)[0] != 0.0, "NumPy keeps them"


# ---------------------------------------------------------------------------------------------------------------------
# Python threads and forks, in processes of their own

PRELUDE = """
import os, sys, threading
import numpy as np
import numbanet as nnet
x = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
expected = np.maximum(x, 0)
nnet.set_num_threads(2)
def check():
    assert np.array_equal(nnet.ops.relu(x), expected)
check()
"""
EIGHT_THREADS = PRELUDE + """
failures = []
start = threading.Barrier(8)
def work():
    try:
        start.wait()
        for _ in range(50):
            check()
    except BaseException as error:
        failures.append(error)
workers = [threading.Thread(target=work) for _ in range(8)]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert not failures, failures
print("done")
"""
FORK = PRELUDE + """
import signal, warnings
warnings.simplefilter("ignore")  # Python warns of forks with threads
def fork_twice():
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        check()
        grandchild = os.fork()
        if grandchild == 0:
            check()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check()
fork_twice()
print("alone", flush=True)
busy = threading.Event()
def keep_launching():
    while not busy.is_set():
        check()
other = threading.Thread(target=keep_launching)
other.start()
for _ in range(5):
    fork_twice()
busy.set()
other.join()
print("done")
"""


def test_eight_python_threads_at_once() -> None:
    assert run_python(EIGHT_THREADS, NUMBA_NUM_THREADS="2") == "done"


BESIDE = PRELUDE + """
import numba
@numba.njit(parallel=True)
def doubled(x):
    y = np.empty_like(x)
    for i in numba.prange(x.size):
        y[i] = 2 * x[i]
    return y
for count in (1, 2):
    numba.set_num_threads(count)
    nnet.set_num_threads(3 - count)
    for _ in range(20):
        assert np.array_equal(doubled(x), 2 * x)
        check()
    assert (numba.get_num_threads(), nnet.get_num_threads()) == (count, 3 - count)
print("done")
"""


def test_beside_parallel_loops_of_a_program() -> None:
    assert run_python(BESIDE, NUMBA_NUM_THREADS="2") == "done"


def test_numba_starts_no_threading_layer() -> None:
    code = PRELUDE + """
import numba
try:
    print(numba.threading_layer())
except ValueError as error:
    print(error)
"""
    assert run_python(code, NUMBA_THREADING_LAYER="tbb") == "Threading layer is not initialized."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use() -> None:
    assert run_python(FORK, NUMBA_NUM_THREADS="2").splitlines() == ["alone", "done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_before_the_first_launch() -> None:
    code = """
        import os, warnings
        import numpy as np
        import numbanet as nnet
        warnings.simplefilter("ignore")  # NumPy's BLAS has threads, and Python warns of forks with threads
        child = os.fork()
        assert nnet.ops.relu(np.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("done")
    """
    assert run_python(code) == "done"


def test_first_launches_of_several_threads_at_once() -> None:
    code = """
        import threading
        import numpy as np
        import numbanet as nnet
        x, failures, start = np.arange(-50_000.0, 50_000.0), [], threading.Barrier(8)
        def work():
            try:
                start.wait()
                assert (nnet.ops.relu(x) == np.maximum(x, 0)).all()
            except BaseException as error:
                failures.append(error)
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        assert not failures, failures
        print("done")
    """
    assert run_python(code) == "done"


def test_without_compilation_there_are_no_kernels() -> None:
    code = """
        import numpy as np
        import numbanet as nnet
        try:
            nnet.ops.relu(np.ones(3))
        except RuntimeError as error:
            print(error)
    """
    assert "NUMBA_DISABLE_JIT is set" in run_python(code, NUMBA_DISABLE_JIT="1")
