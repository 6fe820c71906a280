"""``python -m tests.fuzz_files``: fuzz the readers of files, and print a table; 1 if anything is wrong."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz_files.readers import READERS

ROOT = Path(__file__).parents[2]
BATCH = 2500  # files that one child reads


Fault = tuple[str, int, str]
"""Reader, number of the case, and what is wrong."""


def fuzz(readers: Sequence[str], seed: int, first: int, last: int) -> tuple[Counter[str], list[Fault], int]:
    """Read files `first` to `last` of each reader in a child; return what came of them, the faults, and its growth."""
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.run(
            [sys.executable, "-m", "tests.fuzz_files.child", ",".join(readers), str(seed), str(first), str(last)],
            cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        counts, faults, grown = Counter[str](), list[Fault](), 0
        for line in child.stdout.splitlines():
            found = json.loads(line)
            counts += Counter(found["counts"])
            faults += [(name, number, text) for name, number, text in found["faults"]]
            grown = max(grown, found["grown"])
        if child.returncode:
            mark = Path(folder) / "case"
            name, number = mark.read_text().split() if mark.exists() else (readers[0], first)
            text = f"the process ended with {child.returncode}: {child.stderr[-2000:]}"
            counts["fault"] += 1
            faults.append((name, int(number), text))
    return counts, faults, grown


def main() -> int:
    """Fuzz, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_files", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", choices=tuple(READERS), default=list(READERS))
    parser.add_argument("--show", type=int, metavar="NUMBER", help="write this case of the one reader to stdout")
    options = parser.parse_args()
    if options.show is not None:
        from tests.fuzz_files.child import case

        sys.stdout.buffer.write(case(options.readers[0], options.seed, options.show))
        return 0
    share, faulty = -(-options.cases // len(options.readers)), 0
    titles = ("files", "read", "refused", "faults", "grew by", "seconds")
    print(f"{'reader':12}", *(f"{title:>9}" for title in titles), flush=True)
    for reader in options.readers:
        start, counts, grown = time.perf_counter(), Counter[str](), 0
        for first in range(0, share, BATCH):
            some, faults, more = fuzz([reader], options.seed, first, min(first + BATCH, share))
            counts, grown = counts + some, max(grown, more)
            for name, number, text in faults:
                print(f"{name} case {number} of seed {options.seed}: {text}", file=sys.stderr)
        seconds = time.perf_counter() - start
        numbers = (counts.total(), counts["read"], counts["refused"], counts["fault"])
        print(f"{reader:12}", *(f"{n:9}" for n in numbers), f"{grown / 2**20:6.0f} MB {seconds:9.0f}", flush=True)
        faulty += counts["fault"]
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
