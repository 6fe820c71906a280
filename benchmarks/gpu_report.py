"""What a run of `benchmarks.gpu` found, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gpu_check import Verdict
from benchmarks.gpu_time import Note, Timing
from benchmarks.timing import geometric_mean


@dataclass
class Result:
    """All that a run found.

    Attributes
    ----------
    machine : str
    seed : int
        Of the operands of the checks.
    verdicts : list of Verdict
    missing : list of str
        Kernels that no call reached.
    rows : list of Timing
    notes : dict of str to list of Note
        By section.
    seconds : dict of str to float
        What each section took.
    """

    machine: str
    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    rows: list[Timing] = field(default_factory=list)
    notes: dict[str, list[Note]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What is wrong, a line each; that a time misses its target is not."""
        wrong = [
            f"{v.operation} {v.which} {v.kernel} {v.precision}: {v.fault} ({v.error:.3g} of the allowed), {v.problem}"
            for v in self.verdicts
            if v.fault
        ]
        return wrong + [f"{name}: {note.text}" for name, notes in self.notes.items() for note in notes if note.failed]


@dataclass(frozen=True)
class Target:
    """A number that shall be reached: the mean (or the lowest) of `value` over the rows that `rows` takes."""

    name: str
    least: float
    rows: Callable[[Timing], bool]
    value: Callable[[Timing], float] = lambda row: row.ratio
    of: Callable[[Iterable[float]], float] = geometric_mean


def _layers(precision: str) -> Callable[[Timing], bool]:
    return lambda row: row.precision == precision and row.section not in ("memory", "training")


TARGETS = (
    Target("layers, float32", 1.0, _layers("float32")),
    Target("layers, strict", 0.9, _layers("strict")),
    Target("layers, TF32 with mma.sync", 0.6, _layers("tf32 mma")),
    Target("layers, TF32 with wgmma", 0.85, _layers("tf32 wgmma")),
    Target("layers, bf16 with mma.sync", 0.6, _layers("bf16 mma")),
    Target("layers, bf16 with wgmma", 0.85, _layers("bf16 wgmma")),
    Target("memory, lowest part of the copy", 0.85, lambda row: row.section == "memory",
           lambda row: row.rate / row.ceiling, min),
    Target("captured training step, TF32", 0.9, lambda row: (row.which, row.precision) == ("captured", "tf32")),
)  # fmt: skip


def reached(rows: list[Timing]) -> dict[str, tuple[float, float, int]]:
    """Return (reached, wanted, number of rows) of each target that has rows."""
    found = {target: [target.value(row) for row in rows if target.rows(row)] for target in TARGETS}
    return {target.name: (target.of(values), target.least, len(values)) for target, values in found.items() if values}


def to_json(result: Result) -> str:
    """Return everything, with every row and every check."""
    kept: dict[str, Any] = asdict(result)
    kept["rows"] = [asdict(row) | {"ratio": row.ratio} for row in result.rows]
    kept["verdicts"] = [asdict(v) | {"error": min(v.error, 1e300)} for v in result.verdicts]  # JSON has no infinity
    kept["targets"] = {name: dict(zip(("reached", "wanted", "rows"), t)) for name, t in reached(result.rows).items()}
    kept["faults"] = result.faults
    return json.dumps(kept, indent=1, allow_nan=False) + "\n"


def _table(titles: tuple[str, ...], lines: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for line in lines:
        yield "| " + " | ".join(map(str, line)) + " |"
    yield ""


def _checks(verdicts: list[Verdict]) -> Iterator[tuple[Any, ...]]:
    groups: dict[tuple[str, ...], list[Verdict]] = {}
    for v in verdicts:
        groups.setdefault((v.operation, v.which, v.kernel, v.precision), []).append(v)
    for key, group in sorted(groups.items()):
        yield *key, len(group), f"{max(v.error for v in group):.2g}", sum(bool(v.fault) for v in group)


def _timings(rows: list[Timing]) -> Iterator[tuple[Any, ...]]:
    for row in sorted(rows, key=lambda row: (row.section, row.which, row.name, row.precision)):
        unit = "TB/s" if row.section == "memory" else "TFLOP/s"
        rate = (f"{row.rate / 1e12:.2f} {unit}", f"{row.rate / row.ceiling:.0%}") if row.ceiling else ("", "")
        times = f"{row.seconds * 1e3:.4f}", f"{row.torch_seconds * 1e3:.4f}", f"{row.ratio:.2f}"
        yield row.section, row.name, row.which, row.precision, row.kernel, *times, *rate


def to_markdown(result: Result) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"# numbanet on a GPU\n\n{result.machine}; seed of the checks: {result.seed}\n"
    for name, seconds in result.seconds.items():
        notes = [("failed: " if note.failed else "") + note.text for note in result.notes.get(name, [])]
        yield f"- {name}: {seconds:.0f} s" + "".join(f"; {note}" for note in notes)
    yield ""
    if result.rows:
        yield "## Targets\n\nPyTorch's time over ours, the geometric mean over the rows, where nothing else is said.\n"
        lines = [(n, f"{got:.2f}", least, count) for n, (got, least, count) in reached(result.rows).items()]
        yield from _table(("target", "reached", "wanted", "rows"), lines)
    if result.verdicts:
        yield f"## Checks\n\n{len(result.verdicts)} problems, each solved twice; errors are parts of the allowed one.\n"
        yield from _table(
            ("operation", "pass", "kernel", "precision", "problems", "largest error", "wrong"), _checks(result.verdicts)
        )
        yield f"Kernels that no call reached: {', '.join(result.missing) or 'none'}.\n"
    yield from (f"- WRONG: {fault}" for fault in result.faults)
    if result.rows:
        titles = "section", "name", "pass", "precision", "kernel", "ours ms", "torch ms", "ratio", "rate", "of ceiling"
        yield "## Times\n"
        yield from _table(titles, _timings(result.rows))
