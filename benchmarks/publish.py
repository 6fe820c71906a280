"""Write the pages of measurements: run every part of the comparison, keep its table, and make Markdown and pictures.

::

    python -m benchmarks.publish docs --parts build/measured              # an hour: performance.md and its pictures
    python -m benchmarks.publish docs --parts build/measured --only odd   # that part anew, all others from their files

A part is one run of `benchmarks.compare` in a process of its own. Those whose files lie in the folder of parts are not
run again, so that an interrupted run goes on where it ended. The page is made of the parts alone; what people found out
about the figures stands beside it, in performance-notes.md.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import memory, plot, report, targets
from benchmarks.report import Row


class Part(NamedTuple):
    """A run of the comparison, and the head of its tables."""

    title: str
    arguments: str


_LAYERS = "--seconds 0.1 --rounds 4 --table"
_NETS = "resnet20,wide256,mobilenet_v2,resnet50,vgg16"
PARTS: dict[str, Part] = {
    "resnet50": Part("Layers of ResNet-50", f"{_LAYERS} resnet50"),
    "cifar": Part("Layers of networks for CIFAR", f"{_LAYERS} cifar"),
    "odd": Part("Layers of odd shapes", f"{_LAYERS} odd"),
    "mobilenet_v2": Part("Layers of MobileNet v2", f"{_LAYERS} mobilenet_v2"),
    "single": Part("Layers of single images", f"{_LAYERS} single"),
    "matmul": Part("Matrix products beside PyTorch's and NumPy's", "--sections matmul --seconds 0.05 --rounds 4"),
    "training": Part("Training steps", f"--sections training --seconds 0.5 --rounds 2 --nets {_NETS}"),
    "inference": Part("Inference", "--sections inference --seconds 0.3 --rounds 3 --nets resnet50,mobilenet_v2,vgg16"),
    "operations": Part("Operations that move memory", "--sections operations --seconds 0.05 --rounds 4"),
    "memory": Part("Memory of training steps", f"--sections memory --nets {_NETS}"),
}
_PICTURED = ("resnet50", "cifar")
_ROOFLINE = "resnet50"

_HEAD = """# Speed

What `python -m benchmarks.publish docs` measured on {machine}: {versions}.

Ratios are PyTorch's time over numbanet's: above 1, numbanet is faster. [benchmarks.md](benchmarks.md) explains the
columns, the control (PyTorch against itself) and the mark ~: a row whose control is off by more than 3 % was
disturbed. GFLOP/s count the operations of the direct method whatever the algorithm, so that Winograd's kernels may
exceed the peak.

![Ratios, a bar for each layer and pass](performance.png)

The layers of ResNet-50 under the two ceilings that were measured in the same run:

![Achieved GFLOP/s against operations per byte](roofline.png)

What limits the rows that miss a target, and what was tried: [performance-notes.md](performance-notes.md).

## Targets

Geometric means, where nothing else is said.

{targets}

## Geometric means

"3x3 wide" are the 3x3 layers with stride 1 and at least 32 channels on both sides.
"""


def _file(folder: Path, name: str, threads: int) -> Path:
    return folder / f"{name}-{threads}.json"


def measure(name: str, threads: int, folder: Path) -> None:
    """Run a part in a process of its own.

    Raises
    ------
    RuntimeError
        If a result was wrong, or the run failed.
    """
    target = _file(folder, name, threads)
    part = target.with_suffix(".part")
    command = [sys.executable, "-m", "benchmarks.compare", *PARTS[name].arguments.split()]
    done = subprocess.run([*command, "--threads", str(threads), "--json", str(part)], check=False)
    if done.returncode:
        raise RuntimeError(f"{name} with {threads} threads failed: {' '.join(command)}")
    part.replace(target)


def _memory(path: Path) -> list[dict[str, Any]]:
    """Return what a part's file says of memory."""
    return json.loads(path.read_text(encoding="utf-8")).get("memory", [])


def _tables(name: str, threads: int, path: Path) -> Iterator[str]:
    """Yield the section of one part."""
    rows, _ = plot.read(path)
    yield f"\n## {PARTS[name].title}, {threads} thread{'s' if threads > 1 else ''}\n"
    if not rows:
        peaks: dict[tuple[str, int], dict[str, memory.Peak]] = {}
        for entry in _memory(path):
            peak = memory.Peak(entry["before"], entry["peak"], entry.get("recording") or math.nan)
            peaks.setdefault((entry["net"], entry["batch"]), {})[entry["backend"]] = peak
        yield memory.HEADER
        yield from (memory.line(net, batch, threads, found) for (net, batch), found in peaks.items())
        return
    yield f"Peak {rows[0].peak_gflops:.0f} GFLOP/s, copy {rows[0].peak_gbytes:.0f} GB/s. {report.verdict(rows)}\n"
    yield report.header(report.ROW_TITLES)
    yield from map(report.row_line, rows)


def write(target: Path, folder: Path, threads: Sequence[int]) -> None:
    """Write ``performance.md``, ``performance.png`` and ``roofline.png`` from the files of the parts.

    Parameters
    ----------
    target : Path
        Folder to write to.
    folder : Path
        Where the parts' files are.
    threads : sequence of int
    """
    found = {(name, t): _file(folder, name, t) for name in PARTS for t in threads if _file(folder, name, t).exists()}
    content = {key: plot.read(path)[0] for key, path in found.items()}
    machine, versions = json.loads(next(iter(found.values())).read_text(encoding="utf-8"))["machine"][:2]
    rated = [*(row for rows in content.values() for row in rows)]
    rated += [ratio for path in found.values() for ratio in memory.ratios(_memory(path))]
    reached = "\n".join(targets.table(rated))
    head = _HEAD.format(machine=machine, versions=versions, targets=reached)
    text = [head, report.header(report.MEAN_TITLES)]
    text += [report.mean_line(mean) for rows in content.values() for mean in report.means(rows)]
    for (name, t), path in found.items():
        text += _tables(name, t, path)
    (target / "performance.md").write_text("\n".join(text) + "\n", encoding="utf-8")

    def rows(names: Sequence[str]) -> list[Row]:
        return [row for (name, _), part in content.items() if name in names for row in part]

    plot.draw(rows(_PICTURED), target / "performance.png", machine)
    plot.draw_roofline(rows([_ROOFLINE]), target / "roofline.png", machine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the pages."""
    from numbanet.cpu.parallel import default_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="folder of performance.md and its pictures")
    parser.add_argument("--parts", type=Path, required=True, metavar="DIR", help="folder of the parts' files")
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", default=(), help="parts to run, anew")
    options = parser.parse_args(arguments)
    options.parts.mkdir(parents=True, exist_ok=True)
    threads = sorted({1, default_threads()})
    for name in options.only or PARTS:
        for t in threads:
            if options.only or not _file(options.parts, name, t).exists():
                measure(name, t, options.parts)
    write(options.target, options.parts, threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
