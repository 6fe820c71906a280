"""Print the README's tables of speed from the files that docs/performance.md is made of.

::

    python -m benchmarks.readme build/measured          # the folder of publish's --parts
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import nets, parts, report, steps
from benchmarks.layers import PASSES
from benchmarks.report import Mean, Row

_LAYERS = {"resnet50": "ResNet-50", "cifar": "CIFAR networks"}
_NETS = {
    "resnet20": "ResNet-20", "wide256": "64-256-256 net", "resnet50": "ResNet-50", "mobilenet_v2": "MobileNet v2",
    "vgg16": "VGG-16",
}  # fmt: skip

Cells = dict[tuple[str, str, int], str]


def _cell(row: Mean | Row) -> str:
    return f"{row.ratio:.2f} ({row.control:.2f})"


def _line(*cells: str) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def _table(titles: tuple[str, str], cells: Cells) -> Iterator[str]:
    """Yield a Markdown table: a line for each two names, a column for each number of threads."""
    if not cells:
        return
    numbers = sorted({threads for _, _, threads in cells})
    yield _line(*titles, *(f"{threads} thread{'s' if threads > 1 else ''}" for threads in numbers))
    yield "|" + "---|" * (2 + len(numbers))
    above = ""
    for first, second in dict.fromkeys((first, second) for first, second, _ in cells):
        found = (cells.get((first, second, threads), "") for threads in numbers)
        yield _line(first if first != above else "", second, *found)
        above = first


def layers_table(means: Iterable[Mean]) -> Iterator[str]:
    """Yield the lines of the table of geometric means over the layers of networks."""
    found = {(mean.section, mean.which, mean.threads): _cell(mean) for mean in means}
    order = [(table, which) for table in _LAYERS for which in PASSES]
    yield from _table(("layers", "pass"), _chosen(found, {key: (_LAYERS[key[0]], key[1]) for key in order}))


def networks_table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of the table of training steps, captured, and inferences."""
    found = {(row.section, row.name, row.threads): _cell(row) for row in rows}
    named: dict[tuple[str, str], tuple[str, str]] = {}
    for net, title in _NETS.items():
        named["training", steps.training_name(net, nets.NETS[net].batch, True)] = title, "training step, captured"
        for batch in (1, 16):
            named["inference", steps.inference_name(net, batch)] = title, f"inference, batch {batch}"
    yield from _table(("network", ""), _chosen(found, named))


def _chosen(found: Cells, named: dict[tuple[str, str], tuple[str, str]]) -> Cells:
    """Return the cells of the rows that have a name in the README, in the order of these names."""
    numbers = sorted({threads for _, _, threads in found})
    keys = [(key, threads) for key in named for threads in numbers if (*key, threads) in found]
    return {(*named[key], threads): found[(*key, threads)] for key, threads in keys}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", type=Path, help="folder of the parts' files")
    found = [row for part in parts.found(parser.parse_args(arguments).parts) for row in part.rows]
    print("\n".join((*layers_table(report.means(found)), "", *networks_table(found))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
