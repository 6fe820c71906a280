"""Convolution: every pass of every layer of the tables, and the errors of Winograd's algorithms."""

from __future__ import annotations

from benchmarks import cases, layers
from benchmarks.common import THREADS, Suite, use_threads, warm

_LAYERS = {table: {layer.name: layer for layer in chosen} for table, chosen in layers.TABLES.items()}


class _Conv(Suite):
    """Seconds of one pass of one layer of a table."""

    table: str
    param_names = ("which", "layer", "threads")

    def setup(self, which: str, layer: str, threads: int) -> None:
        use_threads(threads)
        self.call = warm(cases.conv_call, _LAYERS[self.table][layer], which, "numbanet")

    def time_pass(self, which: str, layer: str, threads: int) -> None:
        self.call()


def _parameters(table: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    return layers.PASSES, tuple(_LAYERS[table]), THREADS


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
