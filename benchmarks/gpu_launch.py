"""What Python takes for one launch on a GPU: ``python -m benchmarks.gpu_launch``.

The driver is one that does nothing, so no GPU is needed, and what the real one takes is not in the figure.
"""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from numbanet.cuda import launch
from numbanet.cuda.gpu import Gpu

TARGET = 10.0  # microseconds
_addresses = itertools.count(1 << 32, 1 << 20)


def _succeed(*arguments: Any) -> tuple[int]:
    return (0,)


class _Kernel(SimpleNamespace):
    __hash__ = object.__hash__  # as a kernel's


def _gpu() -> Gpu:
    driver = SimpleNamespace(cuLaunchKernel=_succeed)
    stream = SimpleNamespace(handle=1, sync=lambda: None)
    core = SimpleNamespace(
        Device=lambda ordinal: SimpleNamespace(
            compute_capability=(8, 0), create_stream=lambda: stream, set_current=lambda: None
        ),
        DeviceMemoryResource=lambda ordinal: SimpleNamespace(
            allocate=lambda size, stream: SimpleNamespace(handle=next(_addresses)), handle=0
        ),
        ObjectCode=SimpleNamespace(
            from_cubin=lambda code: SimpleNamespace(get_kernel=lambda entry: SimpleNamespace(handle=0))
        ),
    )  # fmt: skip
    return Gpu(0, core, driver)


def _kernel(pointers: int, numbers: int) -> Any:
    kinds = ["float32*"] * pointers + ["int32"] * numbers
    return _Kernel(
        name="idle", entry="idle", threads=256, shared_bytes=0, parameters=("",) * len(kinds),
        cubin=lambda dtype, capability: b"", kinds=lambda dtype: kinds,
    )  # fmt: skip


def microseconds(pointers: int, numbers: int, repeats: int = 200, launches: int = 200) -> float:
    """Return the CPU time of a launch with so many arguments: the least of some averages."""
    best = float("inf")
    with launch.executor(_gpu()):
        kernel = _kernel(pointers, numbers)
        arguments = [*[launch.empty((8,), "float32") for _ in range(pointers)], *range(numbers)]
        for _ in range(repeats):
            start = time.process_time()
            for _ in range(launches):
                launch.launch(kernel, (4, 2), arguments)
            best = min(best, (time.process_time() - start) / launches)
    return float(np.round(best * 1e6, 2))


def main() -> None:
    """Print the time for kernels of few and of many arguments."""
    for pointers, numbers in ((1, 0), (3, 4), (6, 16)):
        found = microseconds(pointers, numbers)
        print(f"{pointers} arrays, {numbers:2} numbers: {found:6.2f} us a launch (target: below {TARGET:.0f})")


if __name__ == "__main__":
    main()
