"""The series of the page of speed: its parts are run as the page runs them, and asv keeps their ratios.

A class runs its parts once, before its first benchmark, with each number of threads that the machine has CPUs for; its
benchmarks read the files. Ratios are the other library's time over ours, so that more is better.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import layers, memory, operations, overhead, parts, products, report, steps, targets
from benchmarks.common import THREADS
from benchmarks.nets import NETS
from benchmarks.parts import Measured
from benchmarks.report import Row

_HOUR = 3600
_RATIO = "other time / numbanet time"


def _measured(*names: str) -> list[Measured]:
    """Run parts as `benchmarks.publish` does, and return what they found."""
    from numbanet.cpu.parallel import default_threads

    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for threads in THREADS:
                if threads <= default_threads():
                    parts.measure(name, threads, Path(folder))
        return list(parts.found(Path(folder)))


class _Series:
    """Series of what `setup_cache` has measured; the last parameter is the number of threads."""

    timeout = 300

    def setup(self, measured: list[Measured], *chosen: object) -> None:
        if all(part.threads != chosen[-1] for part in measured):
            raise NotImplementedError(f"this machine has fewer than {chosen[-1]} CPUs")


def _rows(measured: Iterable[Measured], threads: int, chosen: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    return [row for part in measured for row in part.rows if row.threads == threads and chosen(row)]


def _ratio(rows: list[Row]) -> float:
    """Return the ratio of the only row; NaN of none."""
    return rows[0].ratio if rows else math.nan


class _Means(_Series):
    """Geometric means and lowest ratios of some rows: subclasses say of which."""

    def chosen(self, *parameters: str) -> Callable[[Row], bool]:
        raise NotImplementedError

    def _mean(self, measured: list[Measured], *chosen: object) -> report.Mean | None:
        *words, threads = chosen
        return next(iter(report.means(_rows(measured, threads, self.chosen(*words)))), None)

    def track_mean(self, measured: list[Measured], *chosen: object) -> float:
        mean = self._mean(measured, *chosen)
        return mean.ratio if mean else math.nan

    def track_lowest(self, measured: list[Measured], *chosen: object) -> float:
        mean = self._mean(measured, *chosen)
        return mean.lowest if mean else math.nan

    track_mean.unit = track_lowest.unit = _RATIO


class _Targets(_Series):
    """How far each target of `targets.TARGETS` is reached; `targets.table` says what is wanted."""

    param_names = ("target", "threads")

    def track_reached(self, measured: list[Measured], target: str, threads: int) -> float:
        peaks = [ratio for part in measured if part.threads == threads for ratio in memory.ratios(part.memory)]
        found = targets.reached([*_rows(measured, threads), *peaks])
        return next((ratio for t, _, ratio, *_ in found if t.name == target), math.nan)

    track_reached.unit = _RATIO


def _of(section: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(target.name for target in targets.TARGETS if target.section == section), THREADS


class Layers(_Means):
    """Convolutions of a table, each pass: those of 3x3 with at least 32 channels, and the others."""

    params = (tuple(parts.LAYERS), layers.PASSES, ("3x3 wide", "others"), THREADS)
    param_names = ("table", "which", "kind", "threads")

    def setup_cache(self) -> list[Measured]:
        return _measured(*parts.LAYERS)

    setup_cache.timeout = _HOUR

    def chosen(self, table: str, which: str, kind: str) -> Callable[[Row], bool]:
        return lambda row: (row.section, row.which, row.wide3x3) == (table, which, kind == "3x3 wide")


class LayerRates(_Series):
    """Speed over all convolutions of a table, each as often as the network has it, whatever the algorithm."""

    params = (tuple(parts.LAYERS), layers.PASSES, THREADS)
    param_names = ("table", "which", "threads")
    setup_cache = Layers.setup_cache

    def track_gflops(self, measured: list[Measured], table: str, which: str, threads: int) -> float:
        return _gflops(measured, table, which, threads)[0]

    def track_fraction_of_peak(self, measured: list[Measured], table: str, which: str, threads: int) -> float:
        """The same over the multiply-adds that this machine reached in that run."""
        gflops, peak = _gflops(measured, table, which, threads)
        return gflops / peak

    track_gflops.unit = "GFLOP/s"
    track_fraction_of_peak.unit = "of peak"


def _gflops(measured: list[Measured], table: str, which: str, threads: int) -> tuple[float, float]:
    rows = _rows(measured, threads, lambda row: (row.section, row.which) == (table, which))
    counts = {layer.name: layer.count for layer in layers.TABLES[table]}
    seconds = sum(counts[row.name] * row.seconds for row in rows)
    flops = sum(counts[row.name] * row.seconds * row.gflops for row in rows)
    return flops / seconds, rows[0].peak_gflops


class LayerTargets(_Targets):
    params, setup_cache = _of("layers"), Layers.setup_cache


class Training(_Series):
    """Training steps, eager and captured, beside PyTorch's."""

    params = (parts.TRAINED, (False, True), THREADS)
    param_names = ("net", "captured", "threads")

    def setup_cache(self) -> list[Measured]:
        return _measured("training")

    setup_cache.timeout = _HOUR

    def track_ratio(self, measured: list[Measured], net: str, captured: bool, threads: int) -> float:
        name = steps.training_name(net, NETS[net].batch, captured)
        return _ratio(_rows(measured, threads, lambda row: row.name == name))

    track_ratio.unit = _RATIO


class TrainingTargets(_Targets):
    params, setup_cache = _of("training"), Training.setup_cache


class Inference(_Series):
    """Inference beside the fastest of PyTorch in both formats, torch.compile and ONNX Runtime."""

    params = (parts.INFERRED, (1, 16), THREADS)
    param_names = ("net", "batch", "threads")

    def setup_cache(self) -> list[Measured]:
        return _measured("inference")

    setup_cache.timeout = _HOUR

    def track_ratio(self, measured: list[Measured], net: str, batch: int, threads: int) -> float:
        return _ratio(_rows(measured, threads, lambda row: row.name == steps.inference_name(net, batch)))

    track_ratio.unit = _RATIO


class InferenceTargets(_Targets):
    params, setup_cache = _of("inference"), Inference.setup_cache


class MemoryTargets(_Targets):
    """PyTorch's peak over ours."""

    params = _of("memory")

    def setup_cache(self) -> list[Measured]:
        return _measured("memory")

    setup_cache.timeout = _HOUR


class Products(_Means):
    """Matrix products of all shapes, beside PyTorch's tensors and NumPy's arrays."""

    params = (tuple(products.BESIDE), products.ORDERS, THREADS)
    param_names = ("beside", "order", "threads")

    def setup_cache(self) -> list[Measured]:
        return _measured("matmul")

    setup_cache.timeout = _HOUR

    def chosen(self, beside: str, order: str) -> Callable[[Row], bool]:
        return lambda row: (row.section, row.which) == (products.section(beside), order)


_OPERATIONS = operations.operation_cases()


class Operations(_Means):
    """Every operation but convolution: the sections of the comparison, pass by pass."""

    params = (tuple(dict.fromkeys(case.section for case in _OPERATIONS)),
              tuple(dict.fromkeys(case.which for case in _OPERATIONS)), THREADS)  # fmt: skip
    param_names = ("section", "which", "threads")

    def setup_cache(self) -> list[Measured]:
        return _measured("operations")

    setup_cache.timeout = _HOUR

    def chosen(self, section: str, which: str) -> Callable[[Row], bool]:
        return lambda row: (row.section, row.which) == (section, which)


def _named(row: Row) -> str:
    return f"{row.section} {row.name} {row.which}"


class Bandwidth(_Series):
    """Least memory traffic of a pass over that of a plain copy in the same time: 1 is all that the memory gives."""

    params = (tuple(_named(case) for case in _OPERATIONS if case.bytes), THREADS)
    param_names = ("operation", "threads")
    setup_cache = Operations.setup_cache

    def track_fraction_of_copy(self, measured: list[Measured], operation: str, threads: int) -> float:
        (row,) = _rows(measured, threads, lambda row: _named(row) == operation)
        return row.gbytes / row.peak_gbytes

    track_fraction_of_copy.unit = "of copy bandwidth"


class Calls(_Series):
    """Microseconds of a layer's call on a tiny input: all of it, and Python before its last kernel and behind it."""

    params = (tuple(overhead.LAYERS), overhead.MODES, THREADS)
    param_names = ("layer", "mode", "threads")

    def setup_cache(self) -> list[Measured]:
        return _measured("overhead")

    setup_cache.timeout = _HOUR

    def track_call(self, measured: list[Measured], layer: str, mode: str, threads: int) -> float:
        return _call(measured, layer, mode, threads).call

    def track_entry(self, measured: list[Measured], layer: str, mode: str, threads: int) -> float:
        return _call(measured, layer, mode, threads).entry

    def track_after(self, measured: list[Measured], layer: str, mode: str, threads: int) -> float:
        return _call(measured, layer, mode, threads).after

    def track_ratio(self, measured: list[Measured], layer: str, mode: str, threads: int) -> float:
        found = _call(measured, layer, mode, threads)
        return found.torch / found.call if found.torch else math.nan

    track_call.unit = track_entry.unit = track_after.unit = "us"
    track_ratio.unit = _RATIO


def _call(measured: list[Measured], layer: str, mode: str, threads: int) -> overhead.Overhead:
    calls = (call for part in measured if part.threads == threads for call in part.overhead)
    return next(call for call in calls if (call.layer, call.mode) == (layer, mode))
