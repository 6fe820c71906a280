"""Rows of a comparison, their means, and how they are printed."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import geometric_mean

NOISE = 0.03  # PyTorch against itself may read 1.00 +- this


@dataclass(frozen=True)
class Row:
    """The result of one case at one number of threads.

    Attributes
    ----------
    section, name, which, threads
        What was timed.
    kernel : str
        The kernel that numbanet chose, or an empty string.
    seconds : float
        Our best time.
    torch_seconds : float
        PyTorch's best time in its better memory format; NaN without PyTorch, like the next three.
    torch_format : str
        That format.
    control : float
        PyTorch's time against a second measurement of the same call: how far to trust a ratio.
    error : float
        max|ours - theirs| / max|theirs|.
    gflops : float
        Flops of the direct method a nanosecond; NaN where they mean nothing.
    gbytes : float
        Least memory traffic a nanosecond, likewise.
    peak_gflops, peak_gbytes : float
        The measured ceilings of the machine with as many threads.
    wide3x3 : bool
        Whether it is a dense 3x3 convolution with stride 1 and at least 32 channels.
    """

    section: str
    name: str
    which: str
    threads: int
    kernel: str
    seconds: float
    torch_seconds: float
    torch_format: str
    control: float
    error: float
    gflops: float
    gbytes: float
    peak_gflops: float
    peak_gbytes: float
    wide3x3: bool

    @property
    def ratio(self) -> float:
        """PyTorch's time over ours: above 1 we are faster."""
        return self.torch_seconds / self.seconds

    @property
    def noisy(self) -> bool:
        """Whether PyTorch differs from itself by more than `NOISE`."""
        return abs(self.control - 1) > NOISE


@dataclass(frozen=True)
class Mean:
    """Geometric means over the rows of one section, pass and number of threads.

    Attributes
    ----------
    ratio, wide3x3, others : float
        Mean ratio of all rows, of the wide 3x3 convolutions, and of the other rows.
    lowest : float
        The lowest ratio.
    control : float
        Mean of PyTorch against itself.
    """

    section: str
    which: str
    threads: int
    ratio: float
    wide3x3: float
    others: float
    lowest: float
    control: float

    @property
    def noisy(self) -> bool:
        """Whether the control is off by more than `NOISE`: the ratios are noise then."""
        return abs(self.control - 1) > NOISE


def means(rows: Iterable[Row]) -> list[Mean]:
    """Return the geometric means of rows that have a ratio, in their order."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if not math.isnan(row.ratio):
            groups.setdefault((row.section, row.which, row.threads), []).append(row)
    return [
        Mean(
            *key,
            ratio=geometric_mean(row.ratio for row in group),
            wide3x3=geometric_mean(row.ratio for row in group if row.wide3x3),
            others=geometric_mean(row.ratio for row in group if not row.wide3x3),
            lowest=min(row.ratio for row in group),
            control=geometric_mean(row.control for row in group),
        )
        for key, group in groups.items()
    ]


ROW_TITLES = (
    ("layer", 28), ("pass", 15), ("thr", 3), ("kernel", 16), ("ours ms", 9), ("torch ms", 9), ("format", 6),
    ("ratio", 6), ("control", 8), ("rate", 12), ("of peak", 7), ("error", 7),
)  # fmt: skip
MEAN_TITLES = (
    ("section", 14), ("pass", 15), ("thr", 3), ("ratio", 6), ("3x3 wide", 8), ("others", 6), ("lowest", 6),
    ("control", 8),
)  # fmt: skip


def _number(value: float, spec: str) -> str:
    return "" if math.isnan(value) else format(value, spec)


def table_line(titles: tuple[tuple[str, int], ...], cells: Iterable[str]) -> str:
    """Return a line of a Markdown table whose columns have titles and widths."""
    widths = [-width if j < 2 else width for j, (_, width) in enumerate(titles)]  # names to the left, numbers right
    padded = (cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in zip(cells, widths))
    return "| " + " | ".join(padded) + " |"


def header(titles: tuple[tuple[str, int], ...]) -> str:
    """Return the two lines of a Markdown table's head."""
    names = table_line(titles, (title for title, _ in titles))
    rules = "|".join("-" * (width + 1) + ("-" if j < 2 else ":") for j, (_, width) in enumerate(titles))
    return f"{names}\n|{rules}|"


def row_line(row: Row) -> str:
    """Return a row as a line of a Markdown table."""
    if not math.isnan(row.gflops):
        rate, share = f"{row.gflops:.1f} GFLOP/s", row.gflops / row.peak_gflops
    elif not math.isnan(row.gbytes):
        rate, share = f"{row.gbytes:.1f} GB/s", row.gbytes / row.peak_gbytes
    else:
        rate, share = "", math.nan
    cells = (
        row.name, row.which, str(row.threads), row.kernel, f"{row.seconds * 1e3:.3f}",
        _number(row.torch_seconds * 1e3, ".3f"), row.torch_format, _number(row.ratio, ".2f"),
        _number(row.control, ".2f") + ("~" if row.noisy else " "), rate, _number(share, ".0%"),
        _number(row.error, ".0e"),
    )  # fmt: skip
    return table_line(ROW_TITLES, cells)


def mean_line(mean: Mean) -> str:
    """Return means as a line of a Markdown table."""
    cells = (
        mean.section, mean.which, str(mean.threads), f"{mean.ratio:.2f}", _number(mean.wide3x3, ".2f"),
        _number(mean.others, ".2f"), f"{mean.lowest:.2f}", f"{mean.control:.2f}" + ("~" if mean.noisy else " "),
    )  # fmt: skip
    return table_line(MEAN_TITLES, cells)


def verdict(rows: list[Row]) -> str:
    """Return what the control says about a run."""
    ratios = [row for row in rows if not math.isnan(row.ratio)]
    if not ratios:
        return "PyTorch is not installed: no ratios, and no results were checked."
    noisy, bad = sum(row.noisy for row in ratios), [mean for mean in means(ratios) if mean.noisy]
    control = geometric_mean(row.control for row in ratios)
    text = f"PyTorch against itself: {control:.3f}; {noisy} of {len(ratios)} rows are off by more than {NOISE:.0%} (~)."
    if bad or abs(control - 1) > NOISE:
        return f"NOISE: {text} Ratios marked ~ say nothing; run again on a quieter machine."
    return text


def machine() -> Iterator[str]:
    """Yield lines that name the machine and the versions."""
    import numba
    import numpy as np

    from numbanet import __version__
    from numbanet.cpu.isa import host_isa
    from numbanet.cpu.parallel import default_threads

    yield f"{_cpu_name()}, {default_threads()} CPUs, {host_isa().name}, {platform.system()} {platform.machine()}"
    versions = f"numbanet {__version__}, Python {platform.python_version()}, numba {numba.__version__}"
    yield f"{versions}, NumPy {np.__version__}, {_torch_version()}"
    if hasattr(os, "getloadavg"):
        yield f"load average before the run: {os.getloadavg()[0]:.1f} (what else runs on this machine disturbs)"


def commit() -> str:
    """Return the short name of the commit, with a plus where package or benchmarks differ from it; or ``"unknown"``."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["git", *words]
        return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)

    try:
        name, changes = git("rev-parse", "--short", "HEAD"), git("diff", "--quiet", "HEAD", "--", "src", "benchmarks")
    except OSError:  # no git
        return "unknown"
    return name.stdout.strip() + "+" * changes.returncode if name.returncode == 0 else "unknown"


def _torch_version() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return "no PyTorch"
    return f"torch {torch.__version__}"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.partition(":")[2].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
