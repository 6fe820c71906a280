"""Whole networks: a training step, an inference, the memory that they take at their peak."""

from __future__ import annotations

from benchmarks import memory, nets, steps
from benchmarks.common import BACKENDS, THREADS, Suite, require, use_threads, warm


class TrainingStep(Suite):
    """Seconds of a step of SGD with momentum, at the network's own batch size, eager and captured."""

    params = (tuple(nets.NETS), (False, True), THREADS)
    param_names = ("net", "captured", "threads")

    def setup(self, net: str, captured: bool, threads: int) -> None:
        use_threads(threads)
        self.call = warm(steps.training_call, net, nets.NETS[net].batch, "numbanet", captured)

    def time_step(self, net: str, captured: bool, threads: int) -> None:
        self.call()


class Inference(Suite):
    """Seconds of the scores of a batch."""

    params = (tuple(nets.NETS), (1, 16), THREADS)
    param_names = ("net", "batch", "threads")

    def setup(self, net: str, batch: int, threads: int) -> None:
        use_threads(threads)
        self.call = warm(steps.inference_call, net, batch, "numbanet")

    def time_inference(self, net: str, batch: int, threads: int) -> None:
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
        batch, others = nets.NETS[net].batch, memory.BACKENDS[-1]
        mine, theirs = (memory.measure(name, net, batch, 1) for name in (backend, others))
        return theirs.peak / mine.peak

    track_training_step.unit = "torch peak / peak"  # type: ignore[attr-defined]
