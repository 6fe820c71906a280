"""What the CPU engine shall reach against PyTorch, and how far a run is: the table on top of the page of speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import layers
from benchmarks.memory import Ratio
from benchmarks.report import NOISE, Row
from benchmarks.timing import geometric_mean


@dataclass(frozen=True)
class Target:
    """The least that `of` the ratios of the rows that `rows` takes shall be, with one thread and with more.

    `section` is that of `benchmarks.compare` whose rows these are.
    """

    name: str
    least: tuple[float, float]
    section: str
    rows: Callable[[Any], bool]
    of: Callable[[Iterable[float]], float] = geometric_mean


def _layer(wide: bool, *passes: str) -> tuple[str, Callable[[Row], bool]]:
    return "layers", lambda row: row.section in layers.TABLES and row.wide3x3 == wide and row.which in passes


def _training(*nets: str) -> tuple[str, Callable[[Row], bool]]:
    return "training", lambda row: (
        row.section == "training" and row.name.split()[0] in nets and row.name.endswith("captured")
    )


def _inference(*nets: str) -> tuple[str, Callable[[Row], bool]]:
    return "inference", lambda row: row.section == "inference" and row.name.split()[0] in nets


def _memory(*nets: str) -> tuple[str, Callable[[Any], bool]]:
    return "memory", lambda row: row.section == "memory" and row.name.split()[0] in nets


TARGETS = (
    Target("3x3, stride 1, 32 channels at least: forward and backward_input", (2.0, 1.8),
           *_layer(True, "forward", "backward_input")),
    Target("3x3, stride 1, 32 channels at least: backward_weight", (1.6, 1.5), *_layer(True, "backward_weight")),
    *(Target(f"other layers: {which}", (1.1, 1.1), *_layer(False, which)) for which in layers.PASSES),
    Target("other layers: the lowest", (0.9, 0.9), *_layer(False, *layers.PASSES), min),
    Target("training step: 64-256-256 net, captured", (1.8, 1.8), *_training("wide256")),
    Target("training step: VGG-16, captured", (1.6, 1.6), *_training("vgg16")),
    Target("training step: ResNet-20, captured", (1.6, 1.6), *_training("resnet20")),
    Target("training step: ResNet-50, captured", (1.35, 1.35), *_training("resnet50")),
    Target("inference: VGG-16, ResNet-50, MobileNet v2, batches of 1 and 16", (1.3, 1.3),
           *_inference("vgg16", "resnet50", "mobilenet_v2")),
    Target("inference: VGG-16", (2.0, 2.0), *_inference("vgg16")),
    *(
        Target(f"peak memory of a training step, as it is and captured, the lower: {title}", (1.0, 1.0),
               *_memory(net), min)
        for net, title in (("resnet20", "ResNet-20"), ("wide256", "64-256-256 net"), ("mobilenet_v2", "MobileNet v2"),
                           ("resnet50", "ResNet-50"), ("vgg16", "VGG-16"))
    ),
)  # fmt: skip


def reached(rows: Iterable[Row | Ratio]) -> Iterator[tuple[Target, int, float, int, int]]:
    """Yield (target, threads, reached, number of rows, rows that were disturbed) of each target that has rows."""
    kept = [row for row in rows if not math.isnan(row.ratio)]
    for target in TARGETS:
        for threads in sorted({row.threads for row in kept}):
            found = [row for row in kept if row.threads == threads and target.rows(row)]
            if found:
                ratio = target.of(row.ratio for row in found)
                yield target, threads, ratio, len(found), sum(row.noisy for row in found)


def table(rows: Iterable[Row | Ratio]) -> Iterator[str]:
    """Yield the lines of a Markdown table: what is wanted, what was reached, and how many rows were disturbed."""
    yield f"| ratio to PyTorch | threads | wanted | reached | rows | control off by more than {NOISE:.0%} |"
    yield "|---|---:|---:|---:|---:|---:|"
    for target, threads, ratio, count, noisy in reached(rows):
        least = target.least[threads > 1]
        mark = "" if ratio >= least else f" (missed by {1 - ratio / least:.0%})"
        yield f"| {target.name} | {threads} | {least:.2f} | {ratio:.2f}{mark} | {count} | {noisy} |"
