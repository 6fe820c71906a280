"""Convolution: every pass of every layer of the tables."""

from __future__ import annotations

from benchmarks import backends, cases, layers, timing
from benchmarks.common import BACKENDS, Suite, require, warm

_LAYERS = {table: {layer.name: layer for layer in chosen} for table, chosen in layers.TABLES.items()}


class _Conv(Suite):
    """Seconds of one pass of one layer of a table."""

    table: str
    param_names = ("backend", "which", "layer")

    def setup(self, backend: str, which: str, layer: str) -> None:
        require(backend)
        self.call = warm(cases.conv_call, _LAYERS[self.table][layer], which, backend)

    def time_pass(self, backend: str, which: str, layer: str) -> None:
        self.call()


def _parameters(table: str) -> tuple[tuple[str, ...], ...]:
    return BACKENDS, layers.PASSES, tuple(_LAYERS[table])


class ResNet50(_Conv):
    table, params = "resnet50", _parameters("resnet50")


class Vgg16(_Conv):
    table, params = "vgg16", _parameters("vgg16")


class MobileNetV2(_Conv):
    table, params = "mobilenet_v2", _parameters("mobilenet_v2")


class Cifar(_Conv):
    table, params = "cifar", _parameters("cifar")


class Odd(_Conv):
    table, params = "odd", _parameters("odd")


class Single(_Conv):
    table, params = "single", _parameters("single")


class Table:
    """Speed over all convolutions of a network, each as often as the network has it."""

    timeout = 300
    params = (tuple(layers.TABLES), layers.PASSES)
    param_names = ("table", "which")

    def track_gflops(self, table: str, which: str) -> float:
        """GFLOP/s of the direct method, whatever the algorithm."""
        return _gflops(table, which)

    def track_fraction_of_peak(self, table: str, which: str) -> float:
        """The same over the multiply-adds that this machine reaches now."""
        from benchmarks import peak

        return _gflops(table, which) * 1e9 / peak.flops_per_second()

    track_gflops.unit = "GFLOP/s"
    track_fraction_of_peak.unit = "of peak"


class TableAgainstTorch:
    """PyTorch's time over ours, PyTorch in its better memory format: geometric mean over a table."""

    timeout = 300
    params = Table.params
    param_names = Table.param_names

    def setup(self, table: str, which: str) -> None:
        require("torch")

    def track_ratio(self, table: str, which: str) -> float:
        return timing.geometric_mean(_ratio(layer, which) for layer in layers.TABLES[table])

    track_ratio.unit = "torch time / numbanet time"


def _gflops(table: str, which: str) -> float:
    flops = seconds = 0.0
    for layer in layers.TABLES[table]:
        flops += layer.count * layer.flops(which)
        seconds += layer.count * _best(layer, which, ("numbanet",))["numbanet"]
    return flops / seconds / 1e9


def _ratio(layer: layers.ConvLayer, which: str) -> float:
    best = _best(layer, which, backends.BACKENDS)
    return min(best[name] for name in backends.TORCH_FORMATS) / best["numbanet"]


def _best(layer: layers.ConvLayer, which: str, names: tuple[str, ...]) -> dict[str, float]:
    calls = {name: cases.conv_call(layer, which, name) for name in names}
    for call in calls.values():
        call()
    samples = timing.interleave(calls, seconds=0.05, rounds=3)
    return {name: min(values) for name, values in samples.items()}


class WinogradError:
    """The largest error of Winograd's kernels over activations as they occur in networks; 3e-5 is the bound."""

    timeout = 300
    params = (layers.PASSES,)
    param_names = ("which",)
    unit = "max|error| / max|result|"

    def track_error(self, which: str) -> float:
        from benchmarks import winograd_error as w

        found = [w.errors(layer, which) for layer in w.LAYERS]
        return max(error for kernels in found for name, error in kernels.items() if w.is_winograd(name))
