"""Machine code on disk: never stale, never trusted when damaged, never needed; filled by several processes at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest

import numbanet
from numbanet import code_cache
from numbanet.code_cache import Store
from numbanet.cpu.cache import KernelCache
from numbanet.sources import Sources
from tests.processes import run_python

PACKAGE = Path(numbanet.__file__).parent

KERNEL = """
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.probe_helper import amount

@kernel
def probe(task: Index, ints: I64, y: T):
    y[0] = amount(y)
"""
HELPER = """
from numbanet.cpu.compile import device

@device
def amount(y):
    return {value}
"""
RUN_PROBE = """
import sys
sys.stderr = sys.stdout  # where the log goes
import ctypes
import numpy as np
from numbanet.cpu.probe import probe
y = np.zeros(1, np.float32)
probe.build("float32").ctypes(0, None, y.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))  # without a driver
print(y[0])
"""
RUN_RELU = """
import sys
sys.stderr = sys.stdout
import numpy as np
import numbanet
assert numbanet.ops.relu(np.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
print("right")
"""


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, with a kernel whose helper stands in another file."""
    copy = tmp_path / "copy" / "numbanet"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "data", "train", "viz", "models"))
    (copy / "cpu" / "probe.py").write_text(KERNEL)
    (copy / "cpu" / "probe_helper.py").write_text(HELPER.format(value="1.0"))
    return copy


def test_an_edited_helper_changes_the_result(package: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(package.parent), "NUMBANET_CACHE_DIR": str(tmp_path / "cache"),
                   "NUMBANET_VERBOSE": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    helper = package / "cpu" / "probe_helper.py"
    found = []
    for value in ("1.0", "1.0", "2.0", "1.0"):
        helper.write_text(HELPER.format(value=value))
        lines = run_python(RUN_PROBE, **environment).splitlines()
        how = [line.split()[1] for line in lines if "probe.probe[float32]" in line]
        found.append((how, float(lines[-1])))
    assert found == [(["compiled"], 1.0), (["loaded"], 1.0), (["compiled"], 2.0), (["loaded"], 1.0)]


EDIT_BEFORE = """
from pathlib import Path
import numbanet.cpu.probe
Path(sys.argv[1]).write_text(sys.argv[2])
"""
EDIT_BETWEEN = """
from pathlib import Path
from numbanet.cpu.cache import source_hash
source_hash()  # it is known from now on
Path(sys.argv[1]).write_text(sys.argv[2])
"""


@pytest.mark.parametrize("edit, seen", [(EDIT_BEFORE, 1.0), (EDIT_BETWEEN, 2.0)], ids=["imported", "to be imported"])
def test_an_edit_while_a_process_runs_leaves_no_code_of_the_other_text(
    edit: str, seen: float, package: Path, tmp_path: Path
) -> None:
    """Whether the helper was imported before it was edited or after, no hash has the code of another text."""
    environment = {"PYTHONPATH": str(package.parent), "NUMBANET_CACHE_DIR": str(tmp_path / "cache"),
                   "NUMBANET_VERBOSE": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    helper = package / "cpu" / "probe_helper.py"
    program = RUN_PROBE.replace("import numpy", edit + "import numpy", 1)
    lines = run_python(program, str(helper), HELPER.format(value="2.0"), **environment).splitlines()
    assert float(lines[-1]) == seen and any("kernels were edited" in line for line in lines)
    for value in (2.0, 1.0):
        helper.write_text(HELPER.format(value=value))
        assert float(run_python(RUN_PROBE, **environment).splitlines()[-1]) == value


def test_damaged_files_are_compiled_anew(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = {"PYTHONPATH": str(package.parent), "NUMBANET_CACHE_DIR": str(cache), "NUMBANET_VERBOSE": "1"}
    run_python(RUN_RELU, **environment)
    assert len(files(cache)) == 6, "three drivers, what helpers do, what finds operands, and one kernel"
    damages: list[Callable[[bytes], bytes]] = [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: os.urandom(len(content)),
        lambda content: content + b"more",
        lambda content: bytes(len(content)),
        lambda content: content[::-1],
    ]
    for some in (damages[:6], damages[2:]):
        for path, damage in zip(files(cache), some, strict=True):
            path.write_bytes(damage(path.read_bytes()))
        lines = run_python(RUN_RELU, **environment).splitlines()
        assert lines[-1] == "right"
        assert sum("is damaged; compiling anew" in line for line in lines) == 6
    lines = run_python(RUN_RELU, **environment).splitlines()
    assert not any("damaged" in line or "compiled" in line for line in lines), "repaired"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines = run_python(RUN_RELU, NUMBANET_CACHE_DIR=str(tmp_path / "file" / "below"), NUMBANET_VERBOSE="1").splitlines()
    assert lines[-1] == "right" and any("can't be written" in line for line in lines)


def test_no_home(tmp_path: Path) -> None:
    program = """
import pathlib
def nowhere():
    raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = staticmethod(nowhere)
""" + RUN_RELU
    assert run_python(program, HOME=None, XDG_CACHE_HOME=None, NUMBANET_CACHE_DIR=None) == "right"


def test_switched_off(tmp_path: Path) -> None:
    assert run_python(RUN_RELU, NUMBANET_CACHE="0", NUMBANET_CACHE_DIR=str(tmp_path)) == "right"
    assert files(tmp_path) == []


def test_processes_that_fill_an_empty_cache_at_once(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = {"PYTHONPATH": str(package.parent), "NUMBANET_CACHE_DIR": str(cache)}
    variables = {**os.environ, **environment, "NUMBANET_VERBOSE": "0"}
    command = [sys.executable, "-c", RUN_RELU]
    running = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=300)[0].strip() for process in running] == ["right"] * 2
    assert len(files(cache)) == 6 and all(path.suffix == ".bin" for path in files(cache))
    lines = run_python(RUN_RELU, **environment, NUMBANET_VERBOSE="1").splitlines()
    assert any("loaded" in line for line in lines) and not any("compiled" in line for line in lines)


def test_every_kernel_comes_back_from_disk(package: Path, tmp_path: Path) -> None:
    """Nothing that differs from process to process, such as an address, is part of a key or of the machine code."""
    code = """
        import sys
        sys.stderr = sys.stdout
        import numpy as np
        import numbanet as nnet
        from numbanet import functional as F
        x = nnet.tensor(np.ones((1, 2, 5, 5), np.float32), requires_grad=True)
        F.mean(F.max_pool2d(F.relu(x * x), 2)).backward()
        nnet.optim.Adam([x]).step()
        print("done")
    """
    cache = tmp_path / "cache"
    environment = {"PYTHONPATH": str(package.parent), "NUMBANET_CACHE_DIR": str(cache), "NUMBANET_VERBOSE": "1"}
    first = run_python(code, **environment).splitlines()
    before = {path: path.stat().st_mtime_ns for path in files(cache)}
    second = run_python(code, **environment).splitlines()
    compiled = [line.split()[2] for line in first if line.startswith("numbanet: compiled")]
    loaded = [line.split()[2] for line in second if line.startswith("numbanet: loaded")]
    assert len(compiled) > 5 and len(set(compiled)) == len(compiled), "one machine-code version a kernel and dtype"
    assert sorted(loaded) == sorted(compiled) and not any("compiled" in line for line in second)
    assert {path: path.stat().st_mtime_ns for path in files(cache)} == before


def test_loading_takes_nothing_that_only_compilers_need(tmp_path: Path) -> None:
    """All that Numba implements takes longer to load than the kernels, and brings SciPy in where it is installed."""
    source = tmp_path / "mine.py"
    source.write_text(
        "from numbanet.cpu.compile import I64, Index, T, kernel\n\n"
        "@kernel\ndef seven(task: Index, ints: I64, y: T):\n    y[task] = 7.0\n"
    )
    loaded = "\nprint('numba.np.arraymath' in sys.modules)\n"
    foreign = RUN_RELU + "\nfrom mine import seven\nfrom numbanet.cpu.parallel import launch\n" + loaded.join(
        ["", "launch(seven, 1, (np.zeros(1, np.float32),), (), 'float32')", ""]
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)]),
                   "NUMBANET_CACHE_DIR": str(tmp_path / "cache"), "NUMBANET_VERBOSE": "1"}  # fmt: skip
    found = [run_python(foreign, **environment).splitlines() for _ in range(2)]
    words = [[line for line in lines if line in ("True", "False")] for lines in found]
    assert words == [["True", "True"], ["False", "True"]], "other people's kernels may refer to more"
    assert not any("compiled" in line for line in found[1])


# ---------------------------------------------------------------------------------------------------------------------
# Folders of other versions


def test_folders_out_of_use_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, day = time.time(), 24 * 3600
    old, older, recent, new, mine, following = (f"kernels-{letter * 16}" for letter in "abcdef")
    # The last ones are somebody else's, as this folder may be.
    others = {"unrelated", "kernels-12.4", f"kernels-{'a' * 17}"}
    for name, days in {old: 31, older: 300, recent: 29, new: 0, **dict.fromkeys(others, 300)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.bin").write_bytes(b"code")
        os.utime(tmp_path / name, (now - days * day,) * 2)
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    stores = {name: Store("kernels-", Sources(), tuple) for name in (mine, following)}
    for name, store in stores.items():
        store.version = name.removeprefix("kernels-")  # type: ignore[misc]
    stores[mine].begin()
    assert {path.name for path in tmp_path.iterdir()} == {recent, new, mine, *others}
    monkeypatch.setattr(code_cache, "_FOLDERS", 3)
    stores[mine].begin()
    assert (tmp_path / recent).is_dir(), "a folder that is there begins nothing"
    stores[following].begin()
    assert {path.name for path in tmp_path.iterdir()} == {following, mine, new, *others}


def test_loading_notes_the_use_and_a_lost_folder_is_filled_again(tmp_path: Path) -> None:
    environment = {"NUMBANET_CACHE_DIR": str(tmp_path), "NUMBANET_VERBOSE": "1"}
    run_python(RUN_RELU, **environment)
    (folder,) = tmp_path.iterdir()
    os.utime(folder, (0, 0))
    run_python(RUN_RELU, **environment)
    assert folder.stat().st_mtime > time.time() - 3600
    lost = """
import shutil
import numpy as np
import numbanet
from numbanet.cpu.cache import cache_dir
numbanet.ops.relu(np.ones(3, np.float32))
shutil.rmtree(cache_dir())
print(numbanet.ops.sigmoid(np.zeros(1, np.float32))[0])
print(len(list(cache_dir().iterdir())))
"""
    assert run_python(lost, **environment).splitlines()[-2:] == ["0.5", "1"]


# ---------------------------------------------------------------------------------------------------------------------
# Keys


class Target:
    """What a key asks of Numba's target."""

    def __init__(self, features: str = ""):
        self.features = features

    def codegen(self) -> Target:
        return self

    def magic_tuple(self) -> tuple[str, str, str]:
        return "x86_64-unknown-linux-gnu", "cpu", self.features


def key(function: Callable, signature: str = "void(int64)", features: str = "") -> str:
    return KernelCache(function)._file(signature, Target(features))


def factory(captured: Any) -> Callable:
    def inner(x: float) -> Any:
        return captured, x

    return inner


def test_keys_tell_apart_what_a_function_closes_over() -> None:
    def one(x: float) -> float:
        return x + 1

    def two(x: float) -> float:
        return x + 2

    assert key(factory(1)) != key(factory(2)) and key(factory(1)) == key(factory(1))
    assert key(factory(one)) != key(factory(two)) and key(factory(one)) == key(factory(one))
    assert key(factory(factory(one))) != key(factory(factory(two)))


def test_keys_tell_apart_values_that_print_alike() -> None:
    large = np.zeros(2000, np.float32)
    changed = large.copy()
    changed[1000] = 1
    close = np.nextafter(large[:3] + 1, np.float32(2))
    values = [
        large, changed, large.astype(np.float64), large.reshape(2, 1000), np.asfortranarray(large.reshape(2, 1000)),
        close, np.ones(3, np.float32), (large, 1), (changed, 1), 1, 1.0, True, "1", np.float32(1), np.float64(1),
        np.int64(1), 0.0, -0.0, None, (1, 2), (1, (2,)), {"a": 1}, {"a": 2},
    ]  # fmt: skip
    assert len({key(factory(value)) for value in values}) == len(values)
    assert key(factory(large)) == key(factory(large.copy()))


def test_defaults_are_part_of_the_key() -> None:
    def function(first: Any, second: Any) -> Callable:
        def inner(x: float, y: Any = first, *, z: Any = second) -> Any:
            return x, y, z

        return inner

    a, b = np.zeros(2000), np.zeros(2000)
    b[1000] = 1
    pairs = [(1, 2), (1, 3), (2, 2), (a, 2), (b, 2), (2, a), (2, b)]
    assert len({key(function(*pair)) for pair in pairs}) == len(pairs)
    assert len({key(factory(function(*pair))) for pair in pairs}) == len(pairs)


def at_a_prompt(text: str, **names: Any) -> Callable:
    space: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(text, "<prompt>", "exec"), space)
    return space["f"]


def test_global_names_are_part_of_the_key() -> None:
    """Numba takes them for constants; a helper typed at a prompt, or from another file, has no hash of a file."""
    use = "def f(x):\n    return [helper(y) + SIZE for y in x]\n"
    helper, other = (f"def helper(x):\n    return inner(x) + {n}\ndef inner(x):\n    return x\n" for n in "12")
    deep = helper.replace("return x\n", "return -x\n")
    keys = [key(at_a_prompt(text + use, SIZE=size)) for text in (helper, other, deep) for size in (1, 2)]
    assert len(set(keys)) == 6 and key(at_a_prompt(helper + use, SIZE=1, unused=3)) == keys[0]
    config = ModuleType("config")
    sizes = []
    for size in (1, 2):
        config.SIZE = size  # type: ignore[attr-defined]
        sizes.append(key(at_a_prompt("def f(x):\n    return x + config.SIZE\n", config=config)))
    assert sizes[0] != sizes[1]


def test_functions_that_call_each_other_have_keys() -> None:
    text = "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != {} and even(n - 1)\nf = even\n"
    first, again, other = (key(at_a_prompt(text.format(end))) for end in (0, 0, 1))
    assert first == again != other


def test_names_of_parameters_are_part_of_the_key() -> None:
    """A caller that names them gets another result."""
    one, two = (f"def h({names}):\n    return {names[0]} - {names[-1]}\n" for names in ("a, b", "b, a"))
    use = "def f(x):\n    return h(a=x, b=1)\n"
    assert key(at_a_prompt(one + use)) != key(at_a_prompt(two + use))


def test_keys_tell_apart_constants_names_signatures_and_targets() -> None:
    functions: list[Callable] = []
    for body in ("abs(x)", "min(x)", "x + 1", "x + 1.0", "x + 2", "(lambda y: y + 1)(x)", "(lambda y: y + 2)(x)"):
        space: dict[str, Any] = {"__name__": "somewhere"}
        exec(compile(f"def f(x):\n    return {body}\n", "<one and the same>", "exec"), space)
        functions.append(space["f"])
    assert len({key(function) for function in functions}) == len(functions)
    assert key(factory(1), "void(float32)") != key(factory(1), "void(float64)")
    assert key(factory(1), features="+avx2") != key(factory(1), features="+avx512f")


def test_keys_hold_no_addresses() -> None:
    space: list[dict[str, Any]] = [{"__name__": "m"}, {"__name__": "m"}]
    for names in space:
        exec(compile("def f(x):\n    return [y for y in (lambda: x)()]\n", "<text>", "exec"), names)
    assert key(space[0]["f"]) == key(space[1]["f"])


def test_a_kernel_of_another_file_follows_that_file(tmp_path: Path) -> None:
    """Kernels outside the package may have beside them what nothing refers to; the file is read when they are made."""
    path = tmp_path / "mine.py"
    hashes = []
    for number, edited_meanwhile in [(0, False), (1, False), (0, True)]:
        path.write_text(
            "from numbanet.cpu.compile import I64, Index, T, kernel\n"
            f"@numba.extending.overload(twice)\ndef of_numbers(x):\n    return lambda x: {number} * x\n\n"
            "@kernel\ndef f(task: Index, ints: I64, y: T):\n    y[task] = twice(y[task])\n"
        )
        space: dict[str, Any] = {"__name__": "mine", "numba": numba, "twice": lambda x: 2 * x}
        exec(compile(path.read_text(), str(path), "exec"), space)
        if edited_meanwhile:
            path.write_text(path.read_text().replace("0 * x", "1 * x"))
        hashes.append(space["f"]._text)
    assert hashes[0] != hashes[1] and hashes[2] == hashes[0]
    kernel = space["f"].function
    assert KernelCache(kernel, hashes[0])._code != KernelCache(kernel, hashes[1])._code


NAMELESS = """
import importlib.util, sys
import numpy as np
from numbanet.cpu.parallel import launch
spec = importlib.util.spec_from_file_location("nameless_kernels", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
y = np.zeros(3, np.float32)
launch(module.seven, 3, (y,), (), "float32")
print(y.tolist())
"""


def test_kernels_of_a_module_without_a_name(tmp_path: Path) -> None:
    """A file that is executed, not imported: its second run finds machine code of a module that does not exist."""
    source = tmp_path / "nameless.py"
    source.write_text(
        "from numbanet.cpu.compile import I64, Index, T, kernel\n\n"
        "@kernel\ndef seven(task: Index, ints: I64, y: T):\n    y[task] = 7.0\n"
    )
    for _ in range(2):
        assert run_python(NAMELESS, str(source), NUMBANET_CACHE_DIR=str(tmp_path / "cache")) == "[7.0, 7.0, 7.0]"
