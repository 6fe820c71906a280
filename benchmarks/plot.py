"""The comparison as a picture: one bar a layer and pass, its height PyTorch's time over ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Row

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
