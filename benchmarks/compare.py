"""Time numbanet and PyTorch side by side, in one process, in turn, and print the table.

::

    python -m benchmarks.compare                                   # every layer table, 1 thread and all threads
    python -m benchmarks.compare --table resnet50,cifar --passes forward --threads 1,2
    python -m benchmarks.compare --sections layers,operations,training,inference --json all.json --plot all.png
    python -m benchmarks.compare --sections training,inference,memory --nets vgg16,resnet50,mobilenet_v2
    python -m benchmarks.compare --sections overhead --threads 1   # the Python of a layer's call
    python -m benchmarks.compare --quick                           # under a minute

Ratios are PyTorch's time over ours, PyTorch in its better memory format, float32 on both sides, best of several
samples; inference runs through torch.compile and ONNX Runtime too, and the best of all counts. GFLOP/s count the flops
of the direct method whatever the algorithm. PyTorch is also timed against itself: where that control is not 1.00 +-
0.03 the row is marked with a tilde and is noise; ``--again`` times it once more, when that may have passed. The better
of both times counts, and so it does for numbanet, which is timed twice as well.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import (
    backends,
    cases,
    engines,
    layers,
    memory,
    nets,
    operations,
    overhead,
    peak,
    products,
    report,
    steps,
    timing,
)
from benchmarks.cases import Case
from benchmarks.report import Row

_TIMED = ("layers", "matmul", "operations", "training", "inference")
SECTIONS = (*_TIMED, "memory", "overhead")
CONTROL, AGAIN = "control", "again"  # of PyTorch and of numbanet: each is timed twice in every round
_FORMATS = {"torch": "nchw", "torch:channels_last": "nhwc", "torch:compiled": "compil", "onnxruntime": "onnx"}
QUICK_NETS = ("lenet5", "convnetjs", "resnet20")


class WrongResult(Exception):
    """The two libraries disagree: there is nothing to time."""


def difference(ours: Any, theirs: Any) -> float:
    """Return max|ours - theirs| / max|theirs|."""
    a, b = np.float64(backends.to_numpy(ours)), np.float64(backends.to_numpy(theirs))
    if a.shape != b.shape:
        return math.inf
    gap = float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30))
    return math.inf if math.isnan(gap) else gap


def _available(name: str) -> bool:
    return engines.missing(name) is None if name in engines.ENGINES else backends.available(name)


def _steady(first: str, formats: Sequence[str], samples: Mapping[str, list[float]]) -> bool:
    """Return whether PyTorch takes the same time twice, and either library has come to its best time twice."""
    if len(samples[first]) < 2:
        return False
    better = min(formats, key=lambda name: min(samples[name]))
    best, again = zip(*(sorted(samples[name])[:2] for name in ("numbanet", better)))
    reached = all(second / least - 1 <= report.NOISE for least, second in zip(best, again))
    return reached and abs(min(samples[CONTROL]) / min(samples[first]) - 1) <= report.NOISE


@dataclass(frozen=True)
class Best:
    """The best times of a case.

    Attributes
    ----------
    times : dict of str to float
        Seconds a call, of each backend and of `AGAIN`; and of `CONTROL` where PyTorch is installed.
    first : str
        The backend that `CONTROL` is once more; empty without PyTorch.
    error : float
        Of our result, relative; NaN without PyTorch.
    """

    times: dict[str, float]
    first: str
    error: float

    @property
    def seconds(self) -> float:
        """Of numbanet: the better of two."""
        return min(self.times["numbanet"], self.times[AGAIN])

    def fields(self) -> dict[str, Any]:
        """Return ``seconds``, ``torch_seconds``, ``torch_format``, ``control`` and ``error`` of a `Row`."""
        theirs = {name: time for name, time in self.times.items() if name not in ("numbanet", AGAIN, CONTROL)}
        if theirs:
            theirs[self.first] = min(theirs[self.first], self.times[CONTROL])
        better = min(theirs, key=theirs.__getitem__, default="")
        return {
            "seconds": self.seconds,
            "torch_seconds": theirs.get(better, math.nan),
            "torch_format": _FORMATS[better] if len(theirs) > 1 else "",
            "control": self.times.get(CONTROL, math.nan) / self.times.get(self.first, math.nan),
            "error": self.error,
        }


def measure(case: Case, seconds: float, rounds: int, before: Best | None = None) -> Best:
    """Time one case for every installed backend.

    Parameters
    ----------
    case : Case
    seconds : float
        Time box; up to four times as much while best times do not come again.
    rounds : int
        Samples of each backend, at least.
    before : Best, optional
        What was found at another time: the better time of each backend counts.

    Returns
    -------
    Best

    Raises
    ------
    WrongResult
        If the results differ by more than the case allows.
    """
    formats = [name for name in case.formats if _available(name)]
    calls = {name: case.build(name) for name in ("numbanet", *formats)}
    results = {name: call() for name, call in calls.items()}  # compiles, warms up, and is what gets compared
    calls[AGAIN] = calls["numbanet"]
    if not formats:
        return _better(timing.interleave(calls, seconds, rounds), before, "", math.nan)
    error = difference(results["numbanet"], results[formats[0]])
    if error > case.tolerance:
        raise WrongResult(f"results differ by {error:.1e}, more than {case.tolerance:.0e}")
    del results
    first = before.first if before else min(formats, key=lambda name: timing.sample(calls[name]))
    calls[CONTROL] = calls[first]
    samples = timing.interleave(calls, seconds, rounds, steady=lambda s: _steady(first, formats, s))
    return _better(samples, before, first, error)


def _better(samples: Mapping[str, list[float]], before: Best | None, first: str, error: float) -> Best:
    times = {name: min(values) for name, values in samples.items()}
    if before:
        times = {name: min(time, before.times[name]) for name, time in times.items()}
    return Best(times, first, error)


def row(case: Case, threads: int, ceilings: tuple[float, float], best: Best) -> Row:
    """Return the row of one case; `ceilings` are the machine's GFLOP/s and GB/s."""
    nanoseconds = best.seconds * 1e9
    return Row(
        case.section, case.name, case.which, threads, case.kernel(), **best.fields(),
        gflops=case.flops / nanoseconds if case.flops else math.nan,
        gbytes=case.bytes / nanoseconds if case.bytes else math.nan,
        peak_gflops=ceilings[0], peak_gbytes=ceilings[1], wide3x3=case.wide3x3,
    )  # fmt: skip


def choose_cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line asks for; a quick run takes a part of them, with small batches."""
    chosen: list[Case] = []
    quick, batch = options.quick, options.batch
    if "training" in options.sections:
        chosen += steps.training_cases(options.nets, batch or (16 if quick else None))
    if "inference" in options.sections:
        chosen += steps.inference_cases(
            options.nets, (batch,) if batch else (1,) if quick else (1, 16), () if quick else options.engines
        )
    if "layers" in options.sections:
        for table in options.table:
            small = max(1, layers.TABLES[table][0].n // 8) if quick else None
            chosen += cases.conv_cases(table, options.passes, batch or small)[:: 4 if quick else 1]
    if "matmul" in options.sections:
        chosen += products.product_cases()[:: 12 if quick else 1]
    if "operations" in options.sections:
        chosen += operations.operation_cases()[:: 4 if quick else 1]
    return chosen


class _Rows:
    """The rows of the cases of one number of threads.

    Attributes
    ----------
    found : dict of Case to tuple of Best and Row
    failures : int
        Cases with a wrong result or without a kernel.
    """

    def __init__(self, options: argparse.Namespace, start: float, threads: int, ceilings: tuple[float, float]):
        self._options, self._end, self._threads, self._ceilings = options, start + options.limit, threads, ceilings
        self.found: dict[Case, tuple[Best, Row]] = {}
        self.failures = 0

    def time(self, chosen: Sequence[Case], title: str = "") -> None:
        """Time cases, those that were timed before once more, and print each row as it comes."""
        section = ""
        for done, case in enumerate(chosen):
            if time.perf_counter() > self._end:
                left = f"{len(chosen) - done} rows {'not timed again' if title else 'left out'}"
                print(f"\ntime limit of {self._options.limit:.0f} s: {left}")
                break
            if case.section != section:
                section = case.section
                print(f"\n{section}{title}\n\n{report.header(report.ROW_TITLES)}")
            try:
                self._time(case)
            except WrongResult as error:
                self.failures += 1
                print(f"| {case.name} | {case.which} | {self._threads} | NOT TIMED: {error}", flush=True)

    def _time(self, case: Case) -> None:
        if case.kernel() == "reference":
            raise WrongResult("no kernel, only the reference in NumPy")
        before, _ = self.found.pop(case, (None, None))
        best = measure(case, self._options.seconds, self._options.rounds, before)
        found = row(case, self._threads, self._ceilings, best)
        self.found[case] = best, found
        print(report.row_line(found), flush=True)

    def disturbed(self) -> list[Case]:
        """Return the cases of rows whose control is off."""
        return [case for case, (_, row) in self.found.items() if row.noisy]


def run(options: argparse.Namespace, start: float) -> tuple[list[Row], int]:
    """Time what the command line asks for, again if it does, printing each row as it comes.

    Parameters
    ----------
    options : Namespace
    start : float
        When the run began, for the time limit.

    Returns
    -------
    rows : list of Row
    failures : int
        Cases with a wrong result or without a kernel.
    """
    rows: list[Row] = []
    failures = 0
    chosen = choose_cases(options)
    for threads in options.threads:
        backends.set_num_threads(threads)
        ceilings = peak.flops_per_second() / 1e9, peak.bytes_per_second() / 1e9
        print(f"\n{threads} thread(s): peak {ceilings[0]:.0f} GFLOP/s, copy {ceilings[1]:.0f} GB/s (measured)")
        timed = _Rows(options, start, threads, ceilings)
        timed.time(chosen)
        for turn in range(options.again):
            timed.time(timed.disturbed() if turn else chosen, ", what was disturbed again" if turn else ", again")
        rows += [timed.found[case][1] for case in chosen if case in timed.found]
        failures += timed.failures
    return rows, failures


def run_memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the memory of training steps, print a line for each network, and return what was found."""
    found: list[dict[str, Any]] = []
    names = [name for name in memory.BACKENDS if backends.available(name)]
    print(f"\nmemory\n\n{memory.HEADER}")
    for threads in options.threads:
        for net in options.nets:
            batch = options.batch or nets.NETS[net].batch
            peaks = {name: memory.measure(name, net, batch, threads) for name in names}
            print(memory.line(net, batch, threads, peaks), flush=True)
            found += [{"net": net, "batch": batch, "threads": threads, "backend": name} | asdict(peak)
                      for name, peak in peaks.items()]  # fmt: skip
    return found


def run_overhead(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what Python takes of a layer's call, print a line for each, and return what was found."""
    found: list[dict[str, Any]] = []
    for threads in options.threads:
        backends.set_num_threads(threads)
        print(f"\noverhead, {threads} thread(s)\n\n{report.header(overhead.TITLES)}")
        for mode in overhead.MODES:
            for layer in overhead.LAYERS:
                row = overhead.measure(layer, mode, options.rounds)
                print(overhead.line(row), flush=True)
                found.append(asdict(row) | {"threads": threads})
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _words(name: str, allowed: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        unknown = [word for word in words if word not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {name} {unknown[0]!r}; known: {', '.join(allowed)}")
        return words

    return parse


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    from numbanet.cpu.parallel import default_threads

    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--table", type=_words("table", tuple(layers.TABLES)), help=f"layer tables: {','.join(layers.TABLES)}")
    add("--sections", type=_words("section", SECTIONS), help=f"of {','.join(SECTIONS)} (default: layers)")
    add("--passes", type=_words("pass", layers.PASSES), default=layers.PASSES, help=",".join(layers.PASSES))
    add("--nets", type=_words("net", tuple(nets.NETS)), help=f"networks to train and run: {','.join(nets.NETS)}")
    add("--engines", type=_words("engine", engines.ENGINES), default=engines.ENGINES,
        help=f"that inference is compared with too, where they are installed: {','.join(engines.ENGINES)}")  # fmt: skip
    add("--threads", type=_numbers, help="numbers of threads, such as 1,2 (default: 1 and all)")
    add("--batch", type=int, help="batch size, in place of the tables' own")
    add("--seconds", type=float, help="time box of a row (default 0.3)")
    add("--rounds", type=int, help="samples of each library in a row, at least (default 5)")
    add("--again", type=int, default=0, help="how often rows are timed again at the end, where the best times count: "
        "first all, then those whose control is off (default 0)")  # fmt: skip
    add("--limit", type=float, help="seconds after which the remaining rows are left out (default: none; quick: 45)")
    add("--quick", action="store_true", help="a sample of everything in under a minute: small batches, few rounds")
    add("--json", type=Path, metavar="FILE", help="write rows, means and ceilings")
    add("--plot", type=Path, metavar="FILE", help="draw a bar a layer (needs matplotlib)")
    add("--roofline", type=Path, metavar="FILE", help="draw GFLOP/s of the layers against flops per byte (likewise)")
    options = parser.parse_args(arguments)
    if options.plot and not backends.available("torch"):
        parser.error("--plot draws ratios: it needs PyTorch")
    if (options.plot or options.roofline) and not backends.available("matplotlib"):
        parser.error("--plot and --roofline need matplotlib")
    everything, quick = default_threads(), options.quick
    defaults = {
        "table": ("resnet50", "cifar") if quick else tuple(layers.TABLES),
        "sections": _TIMED if quick else ("layers",),
        "nets": QUICK_NETS if quick else tuple(nets.NETS),
        "threads": (1,) if quick else tuple(sorted({1, everything})),
        "seconds": 0.02 if quick else 0.3,
        "rounds": 3 if quick else 5,
        "limit": 45.0 if quick else math.inf,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with null for NaN, which JSON does not have."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return 1 if a result was wrong or had no kernel, else 0."""
    options, start = parse(arguments), time.perf_counter()
    today, commit = datetime.now(timezone.utc), report.commit()
    machine = list(report.machine())
    print("\n".join(machine))
    rows, failures = run(options, start)
    found = report.means(rows)
    if found:
        print(f"\ngeometric means of PyTorch's time over ours\n\n{report.header(report.MEAN_TITLES)}")
        print("\n".join(map(report.mean_line, found)))
    peaks = run_memory(options) if "memory" in options.sections else []
    calls = run_overhead(options) if "overhead" in options.sections else []
    if rows:
        print(f"\n{report.verdict(rows)}")
    seconds = time.perf_counter() - start
    print(f"\n{len(rows)} rows, {failures} failures, {seconds:.0f} s")
    if options.json:
        table = [_plain(asdict(row) | {"ratio": row.ratio}) for row in rows]
        made = {"commit": commit, "date": f"{today:%Y-%m-%d %H:%M}", "seconds": round(seconds, 1)}
        content = {"machine": machine, "run": made, "rows": table, "means": [_plain(asdict(mean)) for mean in found]}
        content |= {name: list(map(_plain, found)) for name, found in (("memory", peaks), ("overhead", calls)) if found}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    if options.plot:
        from benchmarks.plot import draw

        draw(rows, options.plot, machine[0])
    if options.roofline:
        from benchmarks.plot import draw_roofline

        draw_roofline(rows, options.roofline, machine[0])
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
