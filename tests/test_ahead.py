"""Kernels that a second process compiles, while this one goes forward."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import ahead, code_cache, models, nn, sources, tape
from numbanet import functional as F
from numbanet.code_cache import Store
from numbanet.deferred import Deferred
from tests.processes import run_python

Recorded = list[tuple[Callable[..., Any], np.ndarray]]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """The backward functions of a test, each with the result of its operation."""
    found: Recorded = []
    tape.follow(lambda backward, result: found.append((backward, result)))
    yield found
    tape.follow(None)


def leaf(*shape: int) -> nnet.Tensor:
    return nnet.tensor(np.ones(shape, np.float32), requires_grad=True)


def rebuilt(backward: Callable[..., Any], grad: np.ndarray) -> tuple[str, Callable[..., Any], np.ndarray]:
    message = ahead.describe(backward, grad)
    assert message is not None
    return pickle.loads(message)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "googlenet", "vgg11_bn"])
def test_every_backward_of_a_network_can_be_told(name: str, recorded: Recorded) -> None:
    """And what is made of that gives gradients of the same shapes, dtypes and layouts."""
    options = {} if name == "resnet20" else {"num_classes": 10}
    size = 32 if name in ("resnet20", "mobilenet_v2") else 64
    model = getattr(models, name)(**options)
    found = model(leaf(2, 3, size, size))
    F.cross_entropy(found[0] if isinstance(found, tuple) else found, nnet.tensor(np.array([1, 2]))).backward()
    assert len(recorded) > 20
    kinds = {backward.__code__: (backward, result) for backward, result in recorded}
    for backward, result in kinds.values():
        _, again, grad = rebuilt(backward, result)
        assert (grad.shape, grad.dtype) == (result.shape, result.dtype)
        assert again.__code__ == backward.__code__
        for a, b in zip(again(grad), backward(np.zeros_like(result)), strict=True):
            assert (a is None) == (b is None)
            assert a is None or (a.shape, a.dtype) == (b.shape, b.dtype)


def test_layouts_arrive_and_large_values_stay(recorded: Recorded) -> None:
    x = np.arange(4.0 * 6 * 8 * 5, dtype=np.float32).reshape(4, 6, 8, 5)
    views = [x, x.transpose(0, 3, 1, 2), x[::-1, :, ::2], np.broadcast_to(x[:1], x.shape), x[:, :0]]
    for view in views:
        _, _, found = rebuilt(len, view)
        assert (found.shape, found.strides, found.dtype) == (view.shape, view.strides, view.dtype) or not view.size
        assert not found.any()
        found[...] = 1  # within its memory
    small = np.arange(5)
    assert rebuilt(len, small)[2].tolist() == small.tolist(), "Python may look at these"
    large = leaf(1 << 24)
    (large * 2.0).sum()
    for backward, result in recorded:
        assert len(ahead.describe(backward, result) or b"") < 4000


def test_a_tape_is_not_told(recorded: Recorded) -> None:
    x = leaf(2, 3)
    for _ in range(50):
        x = x + x
    sizes = [len(ahead.describe(*pair) or b"") for pair in recorded]
    assert len(sizes) == 50 and max(sizes) < 2 * min(sizes)


def test_values_that_wait_stay_so(recorded: Recorded) -> None:
    waiting = nn.fuse(nn.Sequential(nn.Conv2d(3, 4, 1)))[0](nnet.tensor(np.ones((1, 3, 4, 4), np.float32)))
    assert isinstance(waiting, Deferred) and waiting.pending

    def backward(grad: np.ndarray) -> Any:
        return waiting

    backward.__module__ = "numbanet.functional.elementwise"
    _, again, grad = rebuilt(backward, np.zeros(2, np.float32))
    assert waiting.pending and again(grad).shape == (1, 4, 4, 4)


def test_nothing_of_other_packages_is_imported(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBANET_VERBOSE", "1")

    class Mine:
        def __reduce__(self) -> Any:
            raise AssertionError("no code of a user runs")

    mine, stream = Mine(), sys.stderr

    def foreign(grad: np.ndarray) -> Any:
        return grad

    def closed(grad: np.ndarray) -> Any:
        return mine

    def opened(grad: np.ndarray) -> Any:
        return stream

    closed.__module__ = opened.__module__ = "numbanet.functional.elementwise"
    for backward in (foreign, closed, opened):
        assert ahead.describe(backward, np.zeros(2)) is None
    said = capsys.readouterr().err
    assert said.count("not compiled ahead") == 3 and "Mine" in said


def variables(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NUMBANET_CACHE_DIR": str(tmp_path), "NUMBANET_VERBOSE": "1", "NUMBANET_AHEAD": "1",
            "NUMBA_NUM_THREADS": "1", **more}  # fmt: skip


def test_launches_compile_and_run_nothing(tmp_path: Path, recorded: Recorded) -> None:
    F.relu(leaf(1000, 1000))
    ((backward, result),) = recorded
    message = ahead.describe(backward, result)
    assert message is not None
    stream = (5).to_bytes(8, "little") + b"wrong" + len(message).to_bytes(8, "little") + message
    program = (
        "import sys; from numbanet import ahead; ahead._IDLE = 0.5; ahead.serve(sys.stdin.buffer)"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program], env={**os.environ, **variables(tmp_path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(stream)
    process.stdin.flush()
    said = process.stdout.read().decode()  # until it has waited in vain
    process.stdin.close()
    process.stdout.close()
    assert process.wait() == 0
    assert "not compiled ahead: UnpicklingError" in said, "a message that makes no sense ends nothing"
    assert "compiled activation.relu_backward[float32]" in said and said.count("compiled ") == 2
    assert [path.name.partition("-")[0] for path in tmp_path.rglob("*.bin")] == ["relu_backward"]


STEP = """
import os, sys, time
sys.stderr = sys.stdout
import numpy as np
import numbanet as nnet
from numbanet import functional as F, tape
from numbanet import ahead
ahead.default_threads = lambda: {threads}
x = nnet.tensor(np.ones((4, 3, 8, 8), np.float32), requires_grad=True)
y = F.relu(F.avg_pool2d(F.leaky_relu(F.softplus(x)), 2))
y = F.max_pool2d(y, 2).mean()
{between}
y.backward()
print("gradient", float(x.grad.data.sum()))
"""
WAIT = """
other = ahead._Ahead.other
last, began = -1, time.monotonic()
from numbanet.cpu.cache import cache_dir
while time.monotonic() < began + 60:
    names = " ".join(path.name for path in cache_dir().glob("*.bin"))
    if all(name in names for name in ("backward-", "average_backward-", "relu_backward-", "max_")):
        break
    time.sleep(0.1)
time.sleep(1.0)
pid = other._process.pid
"""
GONE = """
ahead._stop()
try:
    os.kill(pid, 0)
    print("still there")
except ProcessLookupError:
    print("gone")
"""


def test_backwards_are_there_when_they_are_needed(tmp_path: Path) -> None:
    lines = run_python(STEP.format(threads=2, between=WAIT) + GONE, **variables(tmp_path)).splitlines()
    compiled = [line.split()[2] for line in lines if line.startswith("numbanet: compiled")]
    assert len(set(compiled)) == len(compiled), "no kernel twice"
    waited = lines.index(next(line for line in lines if line.startswith("gradient")))
    assert lines[-1] == "gone" and float(lines[waited].split()[1]) != 0
    loaded = [line.split()[2] for line in lines if line.startswith("numbanet: loaded")]
    assert any("backward" in name for name in loaded)
    assert not list(tmp_path.rglob("*.lock")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "threads, more", [(1, {}), (2, {"NUMBANET_AHEAD": "0"}), (2, {"NUMBANET_CACHE": "0"})], ids=["one", "off", "cache"]
)
def test_no_second_process_without_a_use(threads: int, more: dict[str, str], tmp_path: Path) -> None:
    between = "print('other', ahead._Ahead.begun, ahead._Ahead.other)"
    program = STEP.format(threads=threads, between=between)
    assert "other False None" in run_python(program, **variables(tmp_path, **more))


def test_no_second_process_of_a_program_that_holds_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ahead._has_interpreter()
    monkeypatch.setattr(sys, "executable", "/opt/editor/editor")
    assert not ahead._has_interpreter()
    monkeypatch.setattr(sys, "executable", "")
    assert not ahead._has_interpreter()
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not ahead._has_interpreter()


def test_a_process_that_can_not_be_started(tmp_path: Path) -> None:
    between = "print('other', ahead._Ahead.other, tape._follow)"
    for broken in ("sys.executable = '/nowhere/python3'", "ahead.threading.Thread.start = lambda self: 1 / 0"):
        program = STEP.format(threads=2, between=between).replace("x = nnet", f"{broken}\nx = nnet", 1)
        said = run_python(program, **variables(tmp_path / broken[:5]))
        assert said.count("nothing is compiled ahead") == 1 and "other None None" in said and "gradient" in said


def test_a_process_that_ends_early_is_no_loss(tmp_path: Path) -> None:
    """Nor does a signal end the program, as it would where a program leaves pipes that nobody reads to the system."""
    between = """
import signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
ahead._Ahead.other._process.kill()
for _ in range(300): F.relu(x * float(_))
ahead._Ahead.other.send(bytes(1 << 20))
"""
    assert "gradient" in run_python(STEP.format(threads=2, between=between), **variables(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_leaves_it_alone(tmp_path: Path) -> None:
    between = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
other = ahead._Ahead.other
child = os.fork()
if child == 0:
    F.relu(x)
    kept = ahead._Ahead.other is not None or tape._follow is not None or not other._process.stdin.closed
    os._exit(int(kept))
print("child", os.waitpid(child, 0)[1], other._process.poll(), ahead._Ahead.other is other)
"""
    assert "child 0 None True" in run_python(STEP.format(threads=2, between=between), **variables(tmp_path))


# ---------------------------------------------------------------------------------------------------------------------
# One process at a time compiles a kernel

CLAIM = """
import os, sys, time
from numbanet.code_cache import Store
from numbanet import sources
store = Store("kernels-", sources.CPU, tuple)
store.version = "a" * 16
with store.claim("a.bin"):
    print("mine", flush=True)
    sys.stdin.readline()
    store.write("a.bin", b"code")
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    found = Store("kernels-", sources.CPU, tuple)
    found.version = "a" * 16  # type: ignore[misc]
    return found


def holder() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "mine\n"
    return process


@pytest.mark.skipif(code_cache.fcntl is None, reason="no locks of files here")
def test_who_comes_second_waits(store: Store) -> None:
    with holder() as process:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(code_cache, "_WAITING_SECONDS", 0.2)
            began = time.monotonic()
            with store.claim("b.bin"):
                assert time.monotonic() - began < 0.1, "another file"
            with store.claim("a.bin"):  # not for ever
                assert time.monotonic() - began > 0.2 and store.read("a.bin") is None
                other = store.folder() / "a.bin.lock"
                assert other.exists() and other not in code_cache._claimed
        assert other.exists(), "it is the other one's still"
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        with store.claim("a.bin"):  # at once, or after it has
            pass
        process.wait()
    assert store.read("a.bin") == b"code" and not list(store.folder().glob("*.lock"))


@pytest.mark.skipif(code_cache.fcntl is None, reason="no locks of files here")
def test_a_claim_ends_with_its_process(store: Store) -> None:
    with holder() as process:
        process.kill()
        process.wait()
        began = time.monotonic()
        with store.claim("a.bin"):
            assert time.monotonic() - began < 1.0 and store.read("a.bin") is None


def test_a_folder_without_locks(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "file"))
    with store.claim("a.bin"):
        pass
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(code_cache, "fcntl", None)
    with store.claim("a.bin"):
        assert not list(tmp_path.rglob("*.lock"))


def test_a_compilation_that_fails_gives_its_claim_back(store: Store) -> None:
    program = """
from numbanet.cpu import cache
from numbanet.cpu.compile import I64, Index, T, kernel
@kernel
def wrong(task: Index, ints: I64, y: T):
    y[0] = nobody_knows
try:
    wrong.build("float32")
except Exception as error:
    print(type(error).__name__, list(cache.cache_dir().glob("*.lock")))
"""
    assert run_python(program).splitlines()[-1] == "TypingError []"


def test_a_process_does_not_wait_for_itself(store: Store) -> None:
    """A signal handler may need the kernel that is being compiled."""
    began = time.monotonic()
    with store.claim("a.bin"), store.claim("a.bin"):
        assert time.monotonic() - began < 1.0
    assert not list(store.folder().glob("*.lock")) and not code_cache._claimed


def test_a_driver_that_fails_gives_its_claim_back(store: Store) -> None:
    program = """
from numbanet.cpu import cache, parallel
try:
    parallel.driver(lambda task: nobody_knows, 1)
except Exception as error:
    print(type(error).__name__, list(cache.cache_dir().glob("*.lock")))
"""
    assert run_python(program).splitlines()[-1] == "TypingError []"


@pytest.mark.skipif(code_cache.fcntl is None, reason="no locks of files here")
def test_what_was_made_before_the_claim_is_not_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the disk and the claim, another process may store it and let go."""
    program = """
import sys
sys.stderr = sys.stdout
import shutil
from pathlib import Path
from numbanet.code_cache import Store
from numbanet.cpu import cache
from numbanet.cpu.activation import relu
relu.build("float32")
(file,) = cache.cache_dir().glob("relu-*.bin")
away = file.rename(file.with_suffix(".away"))
claim = Store.claim
def late(store, name):
    away.rename(file)
    return claim(store, name)
Store.claim = late
from numbanet.cpu.compile import Kernel
Kernel(relu.function).build("float32")
"""
    lines = run_python(program, NUMBANET_VERBOSE="1").splitlines()
    assert [line.split()[1] for line in lines if "activation.relu[" in line] == ["compiled", "loaded"]


def test_locks_that_killed_processes_left_are_removed(store: Store) -> None:
    store.begin()
    old, new = store.folder() / "a.bin.lock", store.folder() / "b.bin.lock"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    code_cache._note_use.cache_clear()
    store.write("c.bin", b"code")
    assert store.read("c.bin") == b"code" and not old.exists() and new.exists()


def test_the_other_process_looks_for_modules_where_this_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    given = run_python("from numbanet import ahead; print(*ahead._flags())", prefix=())
    assert given == ""
    path = os.pathsep.join(sys.path)
    there = f"import sys; sys.path[:] = {path!r}.split({os.pathsep!r})"
    command = f"{there}; from numbanet import ahead; print(*ahead._flags())"
    done = subprocess.run([sys.executable, "-I", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-I", "-E", "-s"]


def test_a_module_of_a_user_that_bears_a_standard_name(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("class Held:\n    pass\n")
    program = """
import sys
sys.modules.pop("code", None)
import code
import numpy as np
from numbanet import ahead
held = code.Held()
def backward(grad):
    return held
backward.__module__ = "numbanet.functional.elementwise"
print(ahead.describe(backward, np.zeros(2)))
"""
    found = run_python(program, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert found == "None"
