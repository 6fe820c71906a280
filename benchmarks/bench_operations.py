"""Every operation but convolution: forward, forward with backward, and backward alone; steps of optimizers."""

from __future__ import annotations

from benchmarks import denormals, operations
from benchmarks.common import BACKENDS, Suite, require, warm

_CASES = {f"{case.section} {case.name} {case.which}": case for case in operations.operation_cases()}


class Operation(Suite):
    """Seconds of one call."""

    params = (BACKENDS, tuple(_CASES))
    param_names = ("backend", "operation")

    def setup(self, backend: str, operation: str) -> None:
        require(backend)
        self.call = warm(_CASES[operation].build, backend)

    def time_call(self, backend: str, operation: str) -> None:
        self.call()


class Bandwidth:
    """Least memory traffic of a pass over that of a plain copy in the same time: 1 is all that the memory gives."""

    timeout = 300
    params = tuple(name for name, case in _CASES.items() if case.bytes)
    param_names = ("operation",)

    def track_fraction_of_copy(self, operation: str) -> float:
        from benchmarks import peak, timing

        case = _CASES[operation]
        call = warm(case.build, "numbanet")
        seconds = min(timing.interleave({"numbanet": call}, seconds=0.2)["numbanet"])
        return case.bytes / seconds / peak.bytes_per_second()

    track_fraction_of_copy.unit = "of copy bandwidth"


class Denormals:
    """Time of a layer on 1e-39 over that on ordinary numbers, which should be 1."""

    timeout = 300
    params = (tuple(denormals.LAYERS),)
    param_names = ("layer",)
    unit = "of the time on ordinary numbers"

    def track_slowdown(self, layer: str) -> float:
        return denormals.slowdown(layer, "numbanet")
