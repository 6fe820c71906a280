"""What the user waits for once: import, and the first call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile


class Import:
    """Seconds of an import in a fresh process."""

    timeout = 300

    def timeraw_numbanet(self) -> str:
        return "import numbanet"

    def timeraw_numpy(self) -> str:
        """The floor: numbanet imports it."""
        return "import numpy"


_FIRST_CALLS = {
    "relu": "F.relu(nnet.tensor(np.ones((1, 8, 8, 8), np.float32)))",
    "conv2d": "F.conv2d(*(nnet.tensor(np.ones((1, 8, 8, 8), np.float32)) for _ in range(2)))",
    "training step of resnet20": "steps.training_call('resnet20', 2, 'numbanet')()",
}
_SCRIPT = """
import time
import numpy as np
import numbanet as nnet
from numbanet import functional as F
from benchmarks import steps
start = time.perf_counter()
{call}
print(time.perf_counter() - start)
"""


class FirstCall:
    """Seconds of the first call in a fresh process, after the import, without and with compiled kernels on disk."""

    timeout = 300
    params = (tuple(_FIRST_CALLS),)
    param_names = ("call",)

    def track_cold(self, call: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return _first_call(call, folder)

    def track_cached(self, call: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            _first_call(call, folder)
            return min(_first_call(call, folder) for _ in range(3))

    track_cold.unit = track_cached.unit = "seconds"


def _first_call(call: str, cache_dir: str) -> float:
    """Return the seconds of a call in a fresh process that keeps its compiled kernels in `cache_dir`."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = f"import sys; sys.path.append({root!r})\n{_SCRIPT.format(call=_FIRST_CALLS[call])}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMBANET_CACHE_DIR": cache_dir}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the fresh process failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])
