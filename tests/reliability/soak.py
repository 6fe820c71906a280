"""A long run: many training steps, then many predictions; memory, threads and files must not grow, nor speed fall.

::

    python -m tests.reliability.soak --steps 40000 --predictions 200000 --plot docs/soak.png
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import numbanet as nnet
from tests.tiny import EPOCHS, images, make

_EPOCH = 4  # steps
_WARM = 0.5  # of a phase, before its slopes count: pools fill, and the allocator meets the most garbage at once


@dataclass(frozen=True)
class Slope:
    """Growth of a quantity over a phase, by least squares, and the standard error."""

    value: float
    error: float

    @property
    def flat(self) -> bool:
        """Whether it is within three standard errors of none."""
        return abs(self.value) <= 3 * self.error


@dataclass(frozen=True)
class Phase:
    """Samples of a phase, one row each.

    Attributes
    ----------
    name : str
    done : ndarray of int
        Steps or predictions at each sample.
    seconds : ndarray
        Since the phase began.
    rss : ndarray
        Resident memory in KiB.
    threads, files : ndarray of int
        How many the process had.
    """

    name: str
    done: NDArray[np.float64]
    seconds: NDArray[np.float64]
    rss: NDArray[np.float64]
    threads: NDArray[np.float64]
    files: NDArray[np.float64]

    def slope(self) -> Slope:
        """Return the growth of the resident memory, in bytes a step, after the warm part.

        Consecutive samples depend on one another, so the error is that of the slopes of ten parts' means: the samples
        are averaged in ten blocks, and a line is laid through the means.
        """
        warm = self.done > _WARM * self.done[-1]
        x = np.array([part.mean() for part in np.array_split(self.done[warm], 10)])
        y = np.array([part.mean() for part in np.array_split(self.rss[warm] * 1024, 10)])
        x = x - x.mean()
        value = float((x * y).sum() / (x * x).sum())
        rest = y - y.mean() - value * x
        return Slope(value, float(np.sqrt((rest * rest).sum() / (len(x) - 2) / (x * x).sum())))

    def rates(self) -> tuple[float, float]:
        """Return steps a second in the first and in the last tenth of the samples."""
        tenth = max(1, len(self.done) // 10)
        first, last = slice(0, tenth + 1), slice(-tenth - 1, None)
        return tuple(float(np.ptp(self.done[s]) / np.ptp(self.seconds[s])) for s in (first, last))  # type: ignore[return-value]

    def __str__(self) -> str:
        slope, (first, last) = self.slope(), self.rates()
        mib = self.rss / 1024
        return (
            f"{self.name}: {self.done[-1]:,.0f} in {self.seconds[-1]:.0f} s; resident memory from {mib[0]:.1f} MiB to "
            f"{mib[-1]:.1f}, slope of the last half {slope.value:+.3f} +- {slope.error:.3f} bytes each; "
            f"threads {self.threads[0]:.0f} to {self.threads[-1]:.0f} (most {self.threads.max():.0f}), "
            f"files {self.files[0]:.0f} to {self.files[-1]:.0f} (most {self.files.max():.0f}); "
            f"{first:.0f} a second in the first tenth, {last:.0f} in the last"
        )


class Sampler:
    """Looks at the process every now and then.

    Parameters
    ----------
    name : str
    every : int
        Steps between samples.
    capacity : int
        At least as many as there will be.
    """

    def __init__(self, name: str, every: int, capacity: int):
        self.name, self.every = name, every
        self._done, self._count = 0, 0
        self._rows = np.full((capacity, 5), np.nan)  # whole at once: a list of rows would be growth itself

    def step(self, count: int = 1) -> None:
        """Count steps."""
        self._done += count
        if self._done % self.every < count:
            gc.collect()  # what Python would give back sooner or later is no growth
            row = (self._done, time.perf_counter(), _resident(), _entries("task"), _entries("fd"))
            self._rows[self._count] = row
            self._count += 1

    def phase(self) -> Phase:
        """Return what was seen."""
        done, seconds, rss, threads, files = self._rows[: self._count].T
        return Phase(self.name, done, seconds - seconds[0], rss, threads, files)


def _resident() -> int:
    """Return the resident memory of this process in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _entries(name: str) -> int:
    return len(os.listdir(f"/proc/self/{name}"))


def settle_names() -> None:
    """Let Python's table of interned strings take the size that it keeps.

    Names of files that come and go fill its slots; when all are used it is made anew, larger, once or twice in a
    process. That is a MiB or two in the middle of any long run, and not the run's.
    """
    for number in range(400_000):
        sys.intern(f"a name that nobody keeps {number}")


def training(steps: int, samples: int = 400, epochs: int = 50) -> Phase:
    """Train anew and anew, `epochs` at a time, with checkpoints, until there were `steps` steps."""
    rounds = -(-steps // (_EPOCH * epochs))
    every = max(_EPOCH, steps // samples // _EPOCH * _EPOCH)
    sampler = Sampler("training steps", every, rounds * epochs * _EPOCH // every)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            make(epochs).fit(Path(folder), epochs=epochs, callbacks=[lambda record, model: sampler.step(_EPOCH)])
    return sampler.phase()


def predictions(count: int, samples: int = 400, captured: bool = False) -> Phase:
    """Predict single images, one after another; with `captured`, by replays of a recording."""
    trained = make()
    trained.fit(None, epochs=EPOCHS)
    model = trained.model.eval()
    predict: Callable[..., Any] = nnet.capture(model) if captured else model
    pictures = images(64, 7).images / np.float32(255)
    every = max(1, count // samples)
    sampler = Sampler("captured predictions" if captured else "predictions", every, count // every)
    with nnet.no_grad():
        for number in range(count):
            predict(nnet.tensor(pictures[number % 64][None])).numpy().argmax()
            sampler.step()
    return sampler.phase()


def plot(phases: list[Phase], path: str) -> None:
    """Draw memory and speed over each phase."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(phases), figsize=(4 * len(phases), 5), sharex="col", squeeze=False)
    for column, phase in enumerate(phases):
        memory, speed = axes[:, column]
        memory.plot(phase.done, phase.rss / 1024, linewidth=1)
        memory.set_ylim(0, 1.15 * phase.rss.max() / 1024)
        memory.set_title(phase.name)
        speed.plot(phase.done[1:], np.diff(phase.done) / np.diff(phase.seconds), linewidth=1)
        speed.set_ylim(bottom=0)
        speed.set_xlabel(phase.name)
    axes[0, 0].set_ylabel("resident memory, MiB")
    axes[1, 0].set_ylabel("a second")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Print a line for each phase, and draw them."""
    parser = argparse.ArgumentParser(description="A long run: is memory flat, and speed steady?")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--predictions", type=int, default=200_000)
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args()
    settle_names()
    phases = [training(args.steps), predictions(args.predictions), predictions(args.predictions, captured=True)]
    for phase in phases:
        print(phase)
    if args.plot:
        plot(phases, args.plot)


if __name__ == "__main__":
    main()
