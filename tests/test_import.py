"""`import numbanet` is quick and changes nothing; nor does the first operation change anybody's settings."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import numbanet

HEAVY = "numba llvmlite cuda torch matplotlib tqdm safetensors PIL pooch scipy".split()


def in_new_process(code: str) -> Any:
    """Run code in a new interpreter and return what it prints, which is JSON."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_takes_a_few_times_as_long_as_that_of_numpy() -> None:
    """It is included: about 3 times, 0.4 s of processor time. Machines differ too much for a bound in seconds."""
    code = """
        import time
        begin = time.process_time()
        import {}
        print(time.process_time() - begin)
    """
    # The best of several, in turn: the first reads from a cold disk, and other programs may hold the machine.
    pairs = [[in_new_process(textwrap.dedent(code).format(name)) for name in ("numpy", "numbanet")] for _ in range(5)]
    numpy, numbanet = (min(times) for times in zip(*pairs))
    assert numbanet < 4.5 * numpy, f"{numbanet:.3f} s, and NumPy {numpy:.3f} s"


def test_import_brings_nothing_heavy_and_starts_no_thread() -> None:
    found = in_new_process("""
        import json, os, sys, threading
        import numbanet
        tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
        import numpy, subprocess
        alone = "import numpy, os; print(len(os.listdir('/proc/self/task')))"
        numpy_tasks = None
        if tasks is not None:
            numpy_tasks = int(subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True).stdout)
        print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), threading.active_count(),
                          tasks, numpy_tasks]))
    """)
    modules, python_threads, tasks, numpy_tasks = found
    assert not set(HEAVY) & set(modules)
    assert python_threads == 1
    assert tasks == numpy_tasks  # NumPy's BLAS starts threads of its own


def test_settings_of_numba_and_numpy_stay_as_they_were() -> None:
    before, after = in_new_process("""
        import json, os, warnings
        import numba, numpy as np

        def settings():
            config = {name: repr(getattr(numba.config, name)) for name in dir(numba.config) if name.isupper()}
            config.pop("_ENVIRON", None)
            return [config, np.geterr(), np.get_printoptions(), repr(np.random.get_state()), dict(os.environ),
                    list(map(repr, warnings.filters))]

        before = settings()
        import numbanet as nnet
        y = nnet.functional.relu(nnet.tensor(np.ones(100, np.float32), requires_grad=True))
        y.backward(y.detach())
        print(json.dumps([before, settings()], default=repr))
    """)
    for old, new in zip(before, after, strict=True):
        assert old == new


def test_lazy_names() -> None:
    assert {"train", "io", "data", "set_num_threads"} <= set(dir(numbanet))
    assert numbanet.io.load is not None
    assert numbanet.get_num_threads() >= 1
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        numbanet.nonsense  # noqa: B018


def test_python_without_its_lock_is_refused() -> None:
    code = """
        import json, sys
        sys._is_gil_enabled = lambda: {enabled}
        try:
            import numbanet
            found = "imported"
        except ImportError as error:
            found = str(error)
        print(json.dumps([found, "numpy" in sys.modules]))
    """
    message = "numbanet needs Python's global interpreter lock: start python with -X gil=1, or PYTHON_GIL=1"
    assert in_new_process(code.format(enabled=False)) == [message, False]
    assert in_new_process(code.format(enabled=True)) == ["imported", True]
