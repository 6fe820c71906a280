"""Peak memory of a training step, each library in a process of its own.

::

    python -m benchmarks.compare --sections memory --nets resnet50,vgg16
    python -m benchmarks.memory numbanet resnet50 4        # one process: prints MiB before the steps, and at the peak
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import backends, nets, steps

_STEPS = 3  # the second and third use what the first left behind
BACKENDS = ("numbanet", "torch:channels_last")


@dataclass(frozen=True)
class Peak:
    """Resident memory of a process in MiB.

    Attributes
    ----------
    before : float
        With libraries, parameters and compiled kernels loaded, before the first step at the full batch size.
    peak : float
        The most that it ever had.
    """

    before: float
    peak: float


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
    before, peak = map(float, done.stdout.split())
    return Peak(before, peak)


def line(net: str, batch: int, threads: int, peaks: dict[str, Peak]) -> str:
    """Return a line of the table: each library's memory and growth, and PyTorch's peak over ours."""
    ours, theirs = peaks[BACKENDS[0]], peaks.get(BACKENDS[1])
    cells = [f"{net} batch {batch}", str(threads), f"{ours.peak:.0f}", f"{ours.peak - ours.before:.0f}"]
    if theirs is not None:
        growth = (theirs.peak - theirs.before) / max(ours.peak - ours.before, 1)
        cells += [f"{theirs.peak:.0f}", f"{theirs.peak - theirs.before:.0f}", f"{theirs.peak / ours.peak:.2f}"]
        cells.append(f"{growth:.2f}")
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| training step | thr | ours: peak MiB | of it in steps | torch: peak MiB | of it in steps | ratio | in steps |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def _now(key: str) -> float:
    """Return VmHWM (the peak) or VmRSS in MiB; where the system tells neither, the peak by the older interface."""
    try:
        with open("/proc/self/status", encoding="utf-8") as stream:
            return next(int(text.split()[1]) for text in stream if text.startswith(key)) / 1024
    except OSError:
        import resource

        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(arguments: list[str]) -> None:
    """Make training steps, and print resident MiB before them and at the peak."""
    backend, net, batch = arguments[:3]
    if len(arguments) > 3:
        backends.set_num_threads(int(arguments[3]))
    if backend == "numbanet":
        steps.training_call(net, 1, backend)()  # compiles, or reads from disk, what the library keeps
    step = steps.training_call(net, int(batch or nets.NETS[net].batch), backend)
    before = _now("VmRSS")
    for _ in range(_STEPS):
        step()
    print(before, _now("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1:])
