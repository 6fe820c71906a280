"""Peak memory of a training step, each library in a process of its own, where the other one is not loaded.

::

    python -m benchmarks.compare --sections memory --nets resnet50,vgg16
    python -m benchmarks.memory numbanet resnet50 4        # one process: prints MiB before the steps, and at the peaks
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import backends, nets, steps

_STEPS = 3  # the second and third use what the first left behind
_RECORDED = 3  # steps until a captured one is recorded and tried; the third is the first that is replayed
BACKENDS = ("numbanet", "numbanet:captured", "torch:channels_last")


@dataclass(frozen=True)
class Peak:
    """Resident memory of a process in MiB.

    Attributes
    ----------
    before : float
        With libraries, parameters and compiled kernels loaded, before the first step at the full batch size.
    peak : float
        The most that it had in the first steps; of a captured step, in those that are replayed.
    recording : float
        The most that a captured step had until it was recorded and tried; NaN for others.
    """

    before: float
    peak: float
    recording: float = math.nan

    @property
    def highest(self) -> float:
        """The higher of both."""
        return self.peak if math.isnan(self.recording) else max(self.peak, self.recording)


@dataclass(frozen=True)
class Ratio:
    """PyTorch's peak over ours, with what `benchmarks.targets` reads of a row."""

    section: str
    name: str
    threads: int
    ratio: float
    noisy: bool = False


def measure(backend: str, net: str, batch: int, threads: int) -> Peak:
    """Return the memory of training steps in a new process.

    Raises
    ------
    RuntimeError
        If the process fails; the message is its standard error.
    """
    command = [sys.executable, "-m", "benchmarks.memory", backend, net, str(batch), str(threads)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr.strip()}")
    return Peak(*map(float, done.stdout.split()))


def line(net: str, batch: int, threads: int, peaks: Mapping[str, Peak]) -> str:
    """Return a line of the table: each library's memory and growth, and PyTorch's peak over ours."""
    ours, captured, theirs = map(peaks.get, BACKENDS)
    cells = [f"{net} batch {batch}", str(threads)]
    cells += ["", ""] if ours is None else [f"{ours.peak:.0f}", f"{ours.peak - ours.before:.0f}"]
    cells += ["", ""] if captured is None else [f"{captured.peak:.0f}", f"{captured.recording:.0f}"]
    if theirs is not None:
        cells += [f"{theirs.peak:.0f}", f"{theirs.peak - theirs.before:.0f}"]
        cells += ["" if found is None else f"{theirs.peak / found.highest:.2f}" for found in (ours, captured)]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| training step | thr | ours: peak MiB | of it in steps | captured: peak MiB | until recorded "
    "| torch: peak MiB | of it in steps | ratio | captured |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def ratios(entries: Iterable[Mapping[str, Any]]) -> Iterator[Ratio]:
    """Yield PyTorch's peak over each of ours, that until it is recorded too, from what `benchmarks.compare` wrote."""
    found = {
        (e["net"], e["batch"], e["threads"], e["backend"]): Peak(
            e["before"], e["peak"], e.get("recording") or math.nan
        ).highest
        for e in entries
    }
    for (net, batch, threads, backend), peak in found.items():
        theirs = found.get((net, batch, threads, BACKENDS[-1]))
        if backend != BACKENDS[-1] and theirs is not None:
            captured = ", captured" if backend.endswith("captured") else ""
            yield Ratio("memory", f"{net} batch {batch}{captured}", threads, theirs / peak)


def _now(key: str) -> float:
    """Return VmHWM (the peak) or VmRSS in MiB; where the system tells neither, the peak by the older interface."""
    try:
        with open("/proc/self/status", encoding="utf-8") as stream:
            return next(int(text.split()[1]) for text in stream if text.startswith(key)) / 1024
    except OSError:
        import resource

        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _forget_peak() -> None:
    """Let VmHWM begin anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass  # then the peak is that of all steps


def _call(library: str, net: str, batch: int, captured: bool) -> Any:
    """Return a training step; PyTorch's network draws its own first values, so that nothing of ours is loaded."""
    if library == "numbanet":
        return steps.training_call(net, batch, library, captured)
    b = backends.get(library)
    step = steps.training_step(b, b.place(nets.NETS[net].build(b)))
    images, labels = map(b.tensor, steps.images(net, batch))
    return lambda: step(images, labels)


def main(arguments: list[str]) -> None:
    """Make training steps, and print resident MiB before them, at the peak, and of a captured step until recorded."""
    backend, net, batch = arguments[:3]
    library, captured = backend.removesuffix(":captured"), backend.endswith(":captured")
    if len(arguments) > 3:
        backends.set_threads_of(library, int(arguments[3]))
    if library == "numbanet":
        _call(library, net, 1, captured)()  # compiles, or reads from disk, what the library keeps
    step = _call(library, net, int(batch or nets.NETS[net].batch), captured)
    before, recording = _now("VmRSS"), []
    if captured:
        for _ in range(_RECORDED):
            step()
        recording = [_now("VmHWM")]
        _forget_peak()
    for _ in range(_STEPS):
        step()
    print(before, _now("VmHWM"), *recording)


if __name__ == "__main__":
    main(sys.argv[1:])
