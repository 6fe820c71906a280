"""The comparison as pictures: a bar for each layer and pass, its height PyTorch's time over ours; and a roofline.

::

    python -m benchmarks.plot table.json --bars bars.png --roofline roofline.png      # of compare's --json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Row

_MARKS = {"forward": "o", "backward_input": "s", "backward_weight": "^"}
_COLOURS = {"forward": "#3b6fb6", "backward_input": "#e08a3c", "backward_weight": "#4f9d69", "training": "#8a5fb0"}


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw rows that have a ratio: a panel for each section and number of threads.

    Parameters
    ----------
    rows : sequence of Row
    path : Path
        File to write; its ending chooses the format.
    title : str
        Names the machine.

    Raises
    ------
    ValueError
        If no row has a ratio.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if not math.isnan(row.ratio):
            panels.setdefault((row.section, row.threads), []).append(row)
    if not panels:
        raise ValueError("no row has a ratio: PyTorch is not installed, so there is nothing to draw")
    layers = max(len({row.name for row in panel}) for panel in panels.values())
    size = (max(8.0, 2 + 0.5 * layers), 3.6 * len(panels))
    figure, axes = pyplot.subplots(len(panels), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, ((section, threads), panel) in zip(axes[:, 0], panels.items()):
        _panel(axis, panel)
        axis.set_title(f"{section}, {threads} thread{'s' if threads > 1 else ''}", loc="left")
    figure.suptitle(f"PyTorch's time / numbanet's time, float32; above 1 numbanet is faster\n{title}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axis: Any, rows: Sequence[Row]) -> None:
    names, passes = list(dict.fromkeys(r.name for r in rows)), list(dict.fromkeys(r.which for r in rows))
    width = 0.8 / len(passes)
    for j, which in enumerate(passes):
        chosen = [row for row in rows if row.which == which]
        places = [names.index(row.name) + (j - (len(passes) - 1) / 2) * width for row in chosen]
        # A pale bar is one whose control was off: noise.
        colours = [(_COLOURS[which], 0.35 if row.noisy else 1.0) for row in chosen]
        axis.bar(places, [row.ratio for row in chosen], width, color=colours)
        axis.bar([0], [0], color=_COLOURS[which], label=which)
    axis.axhline(1.0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set_xlim(-0.7, len(names) - 0.3)
    axis.set_ylabel("ratio")
    axis.legend(fontsize=8, ncols=len(passes))
    axis.grid(axis="y", alpha=0.3)


def draw_roofline(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw achieved GFLOP/s against flops per byte, below both ceilings.

    There is a row of panels for each section, and a column for each number of threads.

    Flops are those of the direct method, so Winograd's kernels may pass the ceiling; bytes are the least traffic, each
    operand once. The ceilings were measured in the same run: multiply-adds in registers, and a copy beyond the caches.

    Parameters
    ----------
    rows : sequence of Row
    path : Path
        File to write; its ending chooses the format.
    title : str
        Names the machine.

    Raises
    ------
    ValueError
        If no row has both flops and bytes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row.gflops > 0 and row.gbytes > 0:  # not where they are NaN
            panels.setdefault((row.section, row.threads), []).append(row)
    if not panels:
        raise ValueError("no row has both flops and bytes: time the section layers")
    sections, numbers = (list(dict.fromkeys(key[j] for key in panels)) for j in (0, 1))
    size = (6.5 * len(numbers), 1 + 4 * len(sections))
    figure, axes = pyplot.subplots(len(sections), len(numbers), figsize=size, squeeze=False, sharex=True, sharey="col",
                                   layout="constrained")  # fmt: skip
    for axis, (section, threads) in zip(axes.flat, itertools.product(sections, numbers)):
        _roofline_panel(axis, panels.get((section, threads), []))
        axis.set_title(f"{section}, {threads} thread{'s' if threads > 1 else ''}", loc="left")
    for axis in axes[-1]:
        axis.set_xlabel("flops per byte")
    axes[0, 0].legend(fontsize=7, loc="lower right")
    figure.suptitle(f"Convolutions, float32; GFLOP/s of the direct method\n{title}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _roofline_panel(axis: Any, rows: Sequence[Row]) -> None:
    if not rows:
        return axis.set_axis_off()
    top, copy = rows[0].peak_gflops, rows[0].peak_gbytes
    intensities = [row.gflops / row.gbytes for row in rows]
    low, high = min(*intensities, top / copy) / 2, max(*intensities, top / copy) * 2
    axis.plot([low, top / copy, high], [low * copy, top, top], color="black", linewidth=1)
    axis.annotate(f"multiply-adds: {top:.0f} GFLOP/s", (top / copy, top), ha="left", va="bottom", fontsize=8)
    axis.annotate(f"copy: {copy:.0f} GB/s", (low, low * copy), ha="left", va="top", fontsize=8)
    for which in dict.fromkeys(row.which for row in rows):
        for wide in (True, False):
            chosen = [row for row in rows if row.which == which and row.wide3x3 is wide]
            x, y = [row.gflops / row.gbytes for row in chosen], [row.gflops for row in chosen]
            label = f"{which}{', 3x3 wide' if wide else ''}"
            face = {"color": _COLOURS[which]} if wide else {"facecolors": "none", "edgecolors": _COLOURS[which]}
            if chosen:
                axis.scatter(x, y, s=18, marker=_MARKS.get(which, "o"), label=label, **face)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    for numbers in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        numbers("{x:g}")
    axis.tick_params(which="both", labelsize=8)
    axis.set_ylabel("GFLOP/s")
    axis.grid(which="both", alpha=0.2)


def read(path: Path) -> tuple[list[Row], str]:
    """Return the rows of a JSON file of the comparison, and its line that names the machine.

    Raises
    ------
    OSError, ValueError
        If the file can't be read, or is none of the comparison's.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        table, machine = content["rows"], content["machine"][0]
        plain = [{key: math.nan if value is None else value for key, value in row.items()} for row in table]
        return [Row(**{key: value for key, value in row.items() if key != "ratio"}) for row in plain], machine
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is no table of benchmarks.compare --json ({error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures of a table that was kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path, help="of python -m benchmarks.compare --json")
    parser.add_argument("--bars", type=Path, metavar="FILE", help="a bar a layer")
    parser.add_argument("--roofline", type=Path, metavar="FILE", help="GFLOP/s against flops per byte")
    options = parser.parse_args(arguments)
    rows, machine = read(options.table)
    if options.bars:
        draw(rows, options.bars, machine)
    if options.roofline:
        draw_roofline(rows, options.roofline, machine)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
