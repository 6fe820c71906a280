"""Write the pages of measurements: run every part of the comparison, keep its table, and make Markdown and pictures.

::

    python -m benchmarks.publish docs --parts build/measured              # an hour: performance.md and its pictures
    python -m benchmarks.publish docs --parts build/measured --only odd --threads 2    # that part anew, then the page
    python -m benchmarks.publish docs --parts build/measured --only       # nothing is run: the page from the files
    python -m benchmarks.readme build/measured                            # the README's tables from the same files

A part is one run of `benchmarks.compare` in a process of its own. Those whose files lie in the folder of parts are not
run again, so that an interrupted run goes on where it ended. At the end each part's commit, date and duration are
printed, and how to repeat those that were disturbed. The page is made of the parts alone; what people found out about
the figures stands beside it, in performance-notes.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import memory, overhead, parts, plot, report, targets
from benchmarks.parts import PARTS, Measured

_BARS = ("resnet50", "cifar")
_ROOFLINES = ("resnet50", "cifar", "odd")
_DISTURBED = 0.25  # of the rows of a part

_HEAD = """# Speed

What `python -m benchmarks.publish docs` measured on {machine}: {versions}. [At the end](#runs) stand
the commit and the date of each run.

Ratios are PyTorch's time over numbanet's: above 1, numbanet is faster. [benchmarks.md](benchmarks.md) explains the
columns, the control (PyTorch against itself) and the mark ~: a row whose control is off by more than 3 % was
disturbed. GFLOP/s count the operations of the direct method whatever the algorithm, so that Winograd's kernels may
exceed the peak.

![Ratios, a bar for each layer and pass](performance.png)

The layers of ResNet-50, of networks for CIFAR and of odd shapes, under the two ceilings that were measured in the same
runs:

![Achieved GFLOP/s against operations per byte](roofline.png)

What limits the rows that miss a target, and what was tried: [performance-notes.md](performance-notes.md).

## Targets

Geometric means, where nothing else is said.

{targets}

## Geometric means

"3x3 wide" are the 3x3 layers with stride 1 and at least 32 channels on both sides.
"""
_RUNS = """
## Runs

A plus behind a commit says that the sources differed from it.

| part | threads | commit | date (UTC) | took | disturbed rows |
|---|---:|---|---|---:|---:|"""


def _tables(part: Measured) -> Iterator[str]:
    """Yield the section of one part."""
    yield f"\n## {PARTS[part.name].title}, {part.threads} thread{'s' if part.threads > 1 else ''}\n"
    if part.memory:
        peaks: dict[tuple[str, int], dict[str, memory.Peak]] = {}
        for entry in part.memory:
            peak = memory.Peak(entry["before"], entry["peak"], entry.get("recording") or math.nan)
            peaks.setdefault((entry["net"], entry["batch"]), {})[entry["backend"]] = peak
        yield memory.HEADER
        yield from (memory.line(net, batch, part.threads, found) for (net, batch), found in peaks.items())
    if part.overhead:
        yield f'Microseconds; "!" marks more than {overhead.TARGET:.0f} of Python before the last kernel.\n'
        yield report.header(overhead.TITLES)
        yield from map(overhead.line, part.overhead)
    if part.rows:
        rows = part.rows
        yield f"Peak {rows[0].peak_gflops:.0f} GFLOP/s, copy {rows[0].peak_gbytes:.0f} GB/s. {report.verdict(rows)}\n"
        yield report.header(report.ROW_TITLES)
        yield from map(report.row_line, rows)


def _noisy(part: Measured) -> int:
    return sum(row.noisy for row in part.rows)


def _run_line(part: Measured) -> str:
    took = "" if math.isnan(part.seconds) else f"{part.seconds:.0f} s"
    noisy = f"{_noisy(part)} of {len(part.rows)}" if part.rows else ""
    return f"| {part.name} | {part.threads} | {part.commit} | {part.date} | {took} | {noisy} |"


def _machine(found: Sequence[Measured]) -> str:
    """Return the machine of all parts.

    Raises
    ------
    ValueError
        If there is no part, or parts are of several machines: no mean of theirs would say anything.
    """
    if not found:
        raise ValueError("no part was measured")
    machines: dict[str, list[str]] = {}
    for part in found:
        machines.setdefault(part.machine, []).append(part.name)
    if len(machines) > 1:
        listed = "; ".join(f"{machine} ({', '.join(dict.fromkeys(names))})" for machine, names in machines.items())
        raise ValueError(f"the parts are of several machines: {listed}")
    return found[0].machine


def write(target: Path, found: Sequence[Measured]) -> None:
    """Write ``performance.md``, ``performance.png`` and ``roofline.png``.

    Parameters
    ----------
    target : Path
        Folder to write to.
    found : sequence of Measured
        What was measured: all of it on one machine, else a ValueError is raised.
    """
    machine, versions = _machine(found), "; ".join(dict.fromkeys(part.versions for part in found))
    rated = [rated for part in found for rated in (*part.rows, *memory.ratios(part.memory))]
    reached = "\n".join(targets.table(rated))
    text = [_HEAD.format(machine=machine, versions=versions, targets=reached), report.header(report.MEAN_TITLES)]
    text += [report.mean_line(mean) for part in found for mean in report.means(part.rows)]
    text += [line for part in found for line in _tables(part)]
    text += [_RUNS, *map(_run_line, found)]
    (target / "performance.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    for draw, names, file in ((plot.draw, _BARS, "performance"), (plot.draw_roofline, _ROOFLINES, "roofline")):
        rows = [row for part in found if part.name in names for row in part.rows]
        if rows:
            draw(rows, target / f"{file}.png", machine)


def _summary(found: Sequence[Measured], command: str) -> Iterator[str]:
    """Yield what each part took, and the commands that repeat those that were disturbed, or run what is missing."""
    yield _RUNS
    yield from map(_run_line, found)
    yield f"\n{sum(part.seconds for part in found if not math.isnan(part.seconds)) / 60:.0f} minutes in all"
    for part in found:
        if _noisy(part) > _DISTURBED * len(part.rows):
            yield f"disturbed; again: {command} --only {part.name} --threads {part.threads}"
    for name in PARTS:
        if all(part.name != name for part in found):
            yield f"missing: {command} --only {name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the pages."""
    from numbanet.cpu.parallel import default_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="folder of performance.md and its pictures")
    parser.add_argument("--parts", type=Path, required=True, metavar="DIR", help="folder of the parts' files")
    parser.add_argument("--only", choices=tuple(PARTS), nargs="*", metavar="PART",
                        help=f"run these parts anew, or none at all: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--threads", type=int, nargs="+", help="numbers of threads (default: 1 and all)")
    options = parser.parse_args(arguments)
    options.parts.mkdir(parents=True, exist_ok=True)
    for name in PARTS if options.only is None else options.only:
        for threads in options.threads or sorted({1, default_threads()}):
            if options.only or not parts.file(options.parts, name, threads).exists():
                parts.measure(name, threads, options.parts)
    found = list(parts.found(options.parts))
    write(options.target, found)
    command = f"python -m benchmarks.publish {options.target} --parts {options.parts}"
    print("\n".join(_summary(found, command)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
