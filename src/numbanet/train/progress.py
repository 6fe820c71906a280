"""What a training shows while it runs: a bar on a terminal, else one plain line an epoch, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Literal

from numbanet.problem.base import choice
from numbanet.train.evaluate import Meter
from numbanet.train.history import EpochRecord

Style = Literal["auto", "bar", "lines", "off"]


class Silent:
    """Shows nothing; the base of the others."""

    def __init__(self, epochs: int, images: int | None, done: int):
        self.epochs = epochs
        self.images = images  # of one epoch; None if nobody knows
        self.done = done  # images of all epochs that were trained on before

    def batch(self, epoch: int, meter: Meter, count: int) -> None:
        """A batch of `count` images was trained on."""

    def testing(self, epoch: int, meter: Meter) -> None:
        """A batch of test images was seen."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is over."""

    def note(self, text: str) -> None:
        """Print a line that the user waits for, whatever else is shown."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """The training is over, or interrupted."""


class Lines(Silent):
    """Prints one line an epoch."""

    _ended: float | None = None  # when the epoch before did, in this process

    def epoch(self, record: EpochRecord) -> None:
        print(self._line(record), flush=True)

    def _line(self, record: EpochRecord) -> str:
        width = len(str(self.epochs))
        parts = [
            f"epoch {record.epoch:{width}}/{self.epochs}",
            f"loss {record.train_loss:.4f}  accuracy {record.train_accuracy:7.2%}",
        ]
        if record.test_loss is not None:
            parts.append(f"test loss {record.test_loss:.4f}  accuracy {record.test_accuracy:7.2%}")
        parts.append(f"{record.images_per_second:,.0f} images/s")
        # With its test and all. The first epoch of a process compiles kernels, and tells nothing of the others.
        ended, former = time.perf_counter(), self._ended
        self._ended = ended
        left = 0 if former is None else (self.epochs - record.epoch) * (ended - former)
        parts.append(f"{clock(record.seconds)}" + (f", {clock(left)} left" if left else ""))
        return "  ".join(parts)


class Bar(Lines):
    """A bar over the whole training, and the lines above it."""

    _compiled = False

    def __init__(self, epochs: int, images: int | None, done: int):
        super().__init__(epochs, images, done)
        from tqdm import tqdm

        class QuietBar(tqdm):  # tqdm with no monitor thread and no lock between processes
            monitor_interval = 0

        QuietBar.set_lock(threading.RLock())
        self._bar: Any = QuietBar(
            total=None if images is None else epochs * images, initial=done, unit=" images", unit_scale=True,
            dynamic_ncols=True, leave=False, smoothing=0.05,
        )  # fmt: skip

    def batch(self, epoch: int, meter: Meter, count: int) -> None:
        self._bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
        self._bar.set_postfix_str(f"loss {meter.loss:.4f}, accuracy {meter.accuracy:.2%}", refresh=False)
        if self._compiled:
            self._bar.update(count)
        else:  # the time of the first batch, which compiles kernels, tells nothing of the others
            self._bar.n, self._bar.initial = self._bar.n + count, self._bar.initial + count
            self._bar.last_print_n, self._bar.last_print_t = self._bar.n, time.time()
            self._bar.refresh()
            self._compiled = True

    def testing(self, epoch: int, meter: Meter) -> None:
        self._bar.set_description(f"epoch {epoch}/{self.epochs}: testing", refresh=False)
        self._bar.update(0)

    def epoch(self, record: EpochRecord) -> None:
        self._bar.write(self._line(record))

    def note(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def make_progress(style: Style, epochs: int, images: int | None, done: int) -> Silent:
    """Return what shows a training of `epochs` epochs of `images` images each (None: unknown), `done` of them over.

    Raises
    ------
    ValueError
        If `style` is not "auto" (a bar on a terminal, else lines), "bar", "lines" or "off".
    """
    kinds = {"bar": Bar, "lines": Lines, "off": Silent}
    if style == "auto":
        style = "bar" if sys.stderr.isatty() else "lines"
    return kinds[choice("progress", style, ("auto", *kinds))](epochs, images, done)


def clock(seconds: float) -> str:
    """Return a duration for reading: ``4.2 s``, ``1:05`` or ``2:03:04``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
