"""Whole networks: a training step, an inference, the memory that they take at their peak."""

from __future__ import annotations

from benchmarks import memory, nets, steps
from benchmarks.common import BACKENDS, Suite, require, warm


class TrainingStep(Suite):
    """Seconds of a step of SGD with momentum, at the network's own batch size."""

    params = (BACKENDS, tuple(nets.NETS))
    param_names = ("backend", "net")

    def setup(self, backend: str, net: str) -> None:
        require(backend)
        self.call = warm(steps.training_call, net, nets.NETS[net].batch, backend)

    def time_step(self, backend: str, net: str) -> None:
        self.call()


class Inference(Suite):
    """Seconds of the scores of a batch."""

    params = (BACKENDS, tuple(nets.NETS), (1, 16))
    param_names = ("backend", "net", "batch")

    def setup(self, backend: str, net: str, batch: int) -> None:
        require(backend)
        self.call = warm(steps.inference_call, net, batch, backend)

    def time_inference(self, backend: str, net: str, batch: int) -> None:
        self.call()


class Memory:
    """Peak memory of the process; `peakmem_reference` is what interpreter, library, kernels and parameters take."""

    timeout = 300
    params = (BACKENDS, tuple(nets.NETS))
    param_names = ("backend", "net")

    def setup(self, backend: str, net: str) -> None:
        require(backend)
        steps.training_call(net, 1, backend)()
        self.call = steps.training_call(net, nets.NETS[net].batch, backend)

    def peakmem_reference(self, backend: str, net: str) -> None:
        """What setup took."""

    def peakmem_training_step(self, backend: str, net: str) -> None:
        self.call()
        self.call()

    def track_training_step(self, backend: str, net: str) -> float:
        """PyTorch's peak over this one's, of three steps in a process of each library's own."""
        require("torch")
        mine, theirs = (memory.measure(name, net, nets.NETS[net].batch, 1) for name in (backend, memory.BACKENDS[-1]))
        return theirs.peak / mine.peak

    track_training_step.unit = "torch peak / peak"  # type: ignore[attr-defined]


class SpeedAgainstTorch:
    """PyTorch's time over ours, PyTorch in its better memory format."""

    timeout = 300
    params = (tuple(nets.NETS),)
    param_names = ("net",)

    def setup(self, net: str) -> None:
        require("torch")

    def track_training_step(self, net: str) -> float:
        return _ratio(*steps.training_cases((net,)))

    def track_inference_batch_1(self, net: str) -> float:
        return _ratio(*steps.inference_cases((net,), (1,)))

    track_training_step.unit = track_inference_batch_1.unit = "torch time / numbanet time"


def _ratio(case: steps.Case) -> float:
    from benchmarks.compare import measure

    timed = measure(case, seconds=0.5, rounds=3)
    return timed["torch_seconds"] / timed["seconds"]
