"""Time of a network's first training step in a new process: without compiled kernels on disk, and with them.

::

    python -m benchmarks.cold
    python -m benchmarks.cold --model mobilenet_v2 --image 3,224,224 --batch 8

The time is that of the whole process, of the processor and on the clock: import, building the model, one step of SGD.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

_PROGRAM = """
import sys
import numpy as np
import numbanet as nnet
from numbanet import functional as F, models, optim
from numbanet.cpu.compile import kernels
name, *sizes = sys.argv[1:]
model, rng = getattr(models, name)(), np.random.default_rng(0)
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
x = nnet.tensor(rng.standard_normal([*map(int, sizes)], np.float32))
F.cross_entropy(model(x), nnet.tensor(rng.integers(10, size=len(x)))).backward()
optimizer.step()
print(sum(len(kernel.compiled) for kernel in kernels()))
"""


def first_step(model: str, shape: tuple[int, ...], cache_dir: str) -> tuple[float, float, int]:
    """Return the seconds of a process that keeps its kernels in `cache_dir`, and how many kernels it ran.

    The seconds are those of the processor, in user and system mode, and those on the clock.

    Raises
    ------
    RuntimeError
        If the process fails.
    """
    command = [sys.executable, "-c", _PROGRAM, model, *map(str, shape)]
    variables = os.environ | {"NUMBANET_CACHE_DIR": cache_dir, "NUMBANET_VERBOSE": "0", "NUMBANET_DEVICE": "cpu"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    began = time.perf_counter()
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the first step of {model} failed: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, seconds, int(printed)


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", help="a function of numbanet.models")
    parser.add_argument("--image", default="3,32,32", help="channels, rows and columns")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5, help="processes with compiled kernels; the fastest counts")
    options = parser.parse_args()
    shape = options.batch, *map(int, options.image.split(","))
    with tempfile.TemporaryDirectory() as folder:
        *cold, count = first_step(options.model, shape, folder)
        *cached, _ = min(first_step(options.model, shape, folder) for _ in range(options.repeat))
    print(f"first training step of {options.model}, batch {options.batch}, {count} kernels")
    for name, (processor, clock) in (("empty", cold), ("full", cached)):
        print(f"{name + ' cache':12} {processor:6.2f} s of the processor, {clock:6.2f} s on the clock")


if __name__ == "__main__":
    main()
