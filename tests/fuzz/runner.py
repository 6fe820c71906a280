"""Many cases in a child process: what ends it, or never ends, is a finding, and the run goes on without it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HANG = 900.0  # seconds of processor time in one case: the parts of a huge view took over 300 on a busy machine
STUCK = 1800.0  # seconds without a new case, computing or not: a machine may be busy, or paused
STARTUP = 1800.0  # seconds until a new process runs its first case
_CHUNK = 50  # cases between two answers of the child


@dataclass
class Tally:
    """What became of the cases of one function."""

    cases: int = 0
    right: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def serve() -> None:
    """Run what the parent asks for on standard input; write the number of each case before it runs."""
    from tests.fuzz.check import generator, run_case
    from tests.fuzz.table import lines

    table = {line.name: line for line in lines()}
    if "NUMBANET_FUZZ_PLANT" in os.environ:
        table["planted"] = _planted()
    progress = os.open(sys.argv[1], os.O_WRONLY)
    for text in sys.stdin:
        name, seed, first, count = json.loads(text)
        answers = []
        for index in range(first, first + count):
            os.pwrite(progress, f"{index:>12}".encode(), 0)
            verdict = run_case(table[name], generator(seed, name, index))
            detail = f"{verdict.detail} | {verdict.arguments}" if verdict.outcome == "finding" else verdict.detail
            answers.append((verdict.outcome, detail))
        print(json.dumps(answers), flush=True)


def _planted() -> Any:
    """Return a line for the tests of this module: one case ends the process, and two never end."""
    from tests.fuzz.check import Line

    def function(*_: Any, **__: Any) -> int:  # arguments may be made nonsense
        case = int(Path(sys.argv[1]).read_text())
        if case == 1:
            os.abort()
        while case == 2:
            pass
        while case == 3:
            time.sleep(1)
        return case

    return Line("planted", function, lambda draw: ((), {}), function)


def _processor_time(pid: int) -> float:
    """Return the seconds that a process has computed; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Child:
    """A process that runs cases; it is started again when it has ended."""

    def __init__(self) -> None:
        handle, self._progress = tempfile.mkstemp()
        os.close(handle)
        self._log = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._log.truncate(0)
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.runner", self._progress],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            )  # fmt: skip
        return self._process

    def run(self, name: str, seed: int, first: int, count: int) -> list[tuple[str, str]]:
        """Return outcome and detail of each case."""
        process = self._start()
        assert process.stdin and process.stdout
        Path(self._progress).write_text("")
        process.stdin.write(json.dumps([name, seed, first, count]).encode() + b"\n")
        process.stdin.flush()
        before, since, spent = "", time.monotonic(), 0.0
        while True:
            ready, _, _ = select.select([process.stdout], [], [], 0.5)
            if ready:
                answer = process.stdout.readline()
                if answer:
                    return [tuple(item) for item in json.loads(answer)]
                return self._ended(name, seed, first, count)
            now = Path(self._progress).read_text()
            if now != before:
                before, since, spent = now, time.monotonic(), _processor_time(process.pid)
            elif time.monotonic() - since > (STUCK if now else STARTUP):
                return self._ended(name, seed, first, count, f"no end in {STUCK} s")
            elif now and _processor_time(process.pid) - spent > HANG:
                return self._ended(name, seed, first, count, f"no end in {HANG} s of computing")

    def _ended(self, name: str, seed: int, first: int, count: int, what: str = "") -> list[tuple[str, str]]:
        process, self._process = self._start(), None
        process.kill()
        status = process.wait()
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()
        at = int(Path(self._progress).read_text() or first)
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").splitlines()
        frames = [s for s in text if "numbanet" in s][:4]
        what = what or f"the process ended with status {status}: {' '.join([*frames, *text[-1:]])}"
        done = self.run(name, seed, first, at - first) if at > first else []
        rest = self.run(name, seed, at + 1, first + count - at - 1) if at + 1 < first + count else []
        return [*done, ("finding", what), *rest]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin and self._process.stdout
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        self._log.close()
        os.unlink(self._progress)


def run(names: Sequence[str], cases: int, seed: int, first: int = 0) -> Iterator[tuple[str, Tally]]:
    """Yield the tally of each function, of so many cases each."""
    child = Child()
    try:
        for name in names:
            tally = Tally()
            for start in range(first, first + cases, _CHUNK):
                answers = child.run(name, seed, start, min(_CHUNK, first + cases - start))
                for index, (outcome, detail) in enumerate(answers, start):
                    tally.cases += 1
                    if outcome == "right":
                        tally.right += 1
                    elif outcome == "refused":
                        tally.refused[detail] += 1
                    else:
                        tally.findings.append(f"{name}, seed {seed}, case {index}: {detail}")
            yield name, tally
    finally:
        child.close()


def faults(name: str, tally: Tally) -> list[str]:
    """Return the findings of a function; answering nothing is one."""
    return tally.findings if tally.right else [*tally.findings, f"{name}: not one of {tally.cases} cases was answered"]


def _main(arguments: Any = None) -> None:
    serve()


if __name__ == "__main__":
    _main()
