"""Pools of processes, homes that can't be written, and disks that fill up while kernels are compiled."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.processes import run_python
from tests.reliability import serving


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of forks with threads
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_pool_of_processes_serves_predictions(method: str) -> None:
    """Made after this process has computed, which a forked child inherits."""
    expected = [serving.predict(seed) for seed in range(8)], serving.step(0)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        trained = pool.submit(serving.step, 0)
        assert list(pool.map(serving.predict, range(8), timeout=280)) == expected[0]
        assert trained.result(280) == expected[1]


RELU = """
import sys
sys.stderr = sys.stdout
import numpy as np
import numbanet
assert numbanet.ops.relu(np.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
print("right")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's permissions")
def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # whom permissions do not bind, unless he gives that away
        if not shutil.which("setpriv"):
            pytest.skip("root needs setpriv")
        prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o555)
    environment = {"HOME": str(home), "XDG_CACHE_HOME": None, "NUMBANET_CACHE_DIR": None, "NUMBANET_VERBOSE": "1"}
    lines = run_python(RELU, prefix=prefix, **environment).splitlines()
    assert lines[-1] == "right"
    assert any("can't be written" in line and "Permission denied" in line for line in lines)
    assert list(home.iterdir()) == []


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
""" + RELU


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits")
def test_a_disk_that_fills_up_while_a_kernel_is_stored(tmp_path: Path) -> None:
    environment = {"NUMBANET_CACHE_DIR": str(tmp_path), "NUMBANET_VERBOSE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    lines = run_python(LIMITED, **environment).splitlines()
    assert lines[-1] == "right" and any("can't be written" in line for line in lines)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "nothing is left of what did not fit"
    lines = run_python(RELU, **environment).splitlines()
    assert lines[-1] == "right" and not any("can't be written" in line or "damaged" in line for line in lines)
