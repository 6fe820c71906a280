"""Every operation but convolution: forward, forward with backward, and backward alone; steps of optimizers."""

from __future__ import annotations

from benchmarks import denormals, operations
from benchmarks.common import THREADS, Suite, use_threads, warm

_CASES = {f"{case.section} {case.name} {case.which}": case for case in operations.operation_cases()}


class Operation(Suite):
    """Seconds of one call."""

    params = (tuple(_CASES), THREADS)
    param_names = ("operation", "threads")

    def setup(self, operation: str, threads: int) -> None:
        use_threads(threads)
        self.call = warm(_CASES[operation].build, "numbanet")

    def time_call(self, operation: str, threads: int) -> None:
        self.call()


class Denormals:
    """Time of a layer on 1e-39 over that on ordinary numbers, which should be 1."""

    timeout = 300
    params = (tuple(denormals.LAYERS),)
    param_names = ("layer",)
    unit = "of the time on ordinary numbers"

    def track_slowdown(self, layer: str) -> float:
        return denormals.slowdown(layer, "numbanet")
