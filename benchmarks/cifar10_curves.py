"""Draw the accuracy of examples/cifar10_fast.py against the seconds of training, from its logs.

    python -m benchmarks.cifar10_curves runs/seed*/log.json --plot docs/cifar10-fast.png

A log's seconds are those of the clock. For runs on a machine that did other things at the same time, `--step-seconds`
takes the seconds of a step that were measured apart (`python -m benchmarks.cifar10_torch`), and the axis says so.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

_COLOURS = {"accuracy": "#8a97a6", "tta_accuracy": "#d1495b"}
_NAMES = {"accuracy": "test accuracy", "tta_accuracy": "with test-time augmentation"}


def seconds(rows: list[dict[str, float]], step_seconds: float | None) -> list[float]:
    """Return the seconds of training before each row."""
    return [row["seconds"] if step_seconds is None else row["step"] * step_seconds for row in rows]


def summary(logs: list[list[dict[str, float]]], step_seconds: float | None) -> str:
    """Return the last rows' accuracies, and their mean and deviation over the runs, as text."""
    lines = [f"{len(logs)} runs, last epoch"]
    for name, label in _NAMES.items():
        last = np.array([100 * rows[-1][name] for rows in logs])
        spread = f" +- {last.std(ddof=1):.2f}" if len(last) > 1 else ""
        each = ", ".join(f"{value:.2f}" for value in last)
        lines.append(f"{label}: {last.mean():.2f}{spread} % ({each})")
    lines.append(f"seconds of training: {np.mean([seconds(rows, step_seconds)[-1] for rows in logs]):.0f}")
    return "\n".join(lines)


def draw(logs: list[list[dict[str, float]]], path: Path, step_seconds: float | None) -> None:
    """Draw a thin line a run and a thick one through the means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, colour in _COLOURS.items():
        for rows in logs:
            accuracy = [100 * row[name] for row in rows]
            axes.plot(seconds(rows, step_seconds), accuracy, color=colour, linewidth=0.6, alpha=0.7)
        means = [100 * np.mean([rows[i][name] for rows in logs]) for i in range(min(map(len, logs)))]
        times = np.mean([seconds(rows, step_seconds)[: len(means)] for rows in logs], axis=0)
        axes.plot(times, means, color=colour, marker=".", label=f"{_NAMES[name]}: {means[-1]:.2f} %")
    axes.set_xlabel("seconds of training" + ("" if step_seconds is None else f" ({step_seconds:.2f} a step)"))
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"CIFAR-10, mean of {len(logs)} runs", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw accuracy against seconds from logs of examples/cifar10_fast.py.")
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, default=Path("cifar10-fast.png"), help="figure to write")
    parser.add_argument("--step-seconds", type=float, help="in place of the clock's")
    args = parser.parse_args()
    logs = [rows for rows in (json.loads(path.read_text())["rows"] for path in args.logs) if rows]
    if not logs:
        parser.error("no log has an epoch yet")
    draw(logs, args.plot, args.step_seconds)
    print(summary(logs, args.step_seconds))


if __name__ == "__main__":
    main()
