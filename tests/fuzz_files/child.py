"""Reads mutated files in a process of its own: ``python -m tests.fuzz_files.child READER,... SEED FIRST LAST``.

Before each case its reader and number go to the file ``case`` in the working folder, so that a crash names it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

MEMORY_BASE, MEMORY_FACTOR = 64 << 20, 64  # a file may cost so many bytes, and so many times its size
SECONDS = 20  # of processor time, for a file
_PAGE = resource.getpagesize()


def case(reader: str, seed: int, number: int) -> bytes:
    """Return the content of one mutated file."""
    from tests.fuzz_files.readers import READERS

    if reader not in _SEEDS:
        _SEEDS[reader] = READERS[reader].seeds()
    rng = Random(f"{reader} {seed} {number}")
    return READERS[reader].mutate(rng, rng.choice(_SEEDS[reader]))


_SEEDS: dict[str, list[bytes]] = {}


def outcome(reader: str, content: bytes, path: Path) -> str:
    """Read a file; return ``"read"``, ``"refused"``, or what is wrong."""
    from tests.fuzz_files.readers import READERS

    target = READERS[reader]
    path.write_bytes(content)
    with open("/proc/self/statm", encoding="ascii") as stream:
        size = int(stream.read().split()[0]) * _PAGE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = size + MEMORY_BASE + MEMORY_FACTOR * len(content)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whose signal ends the process
    try:
        found = target.read(path)
    except target.refusals as error:
        named = str(path) in str(error) or path.name in str(error)
        return "refused" if named else f"the error does not name the file: {error!r}"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        target.check(found, content)
    except Exception:
        return f"not what the file holds: {traceback.format_exc()}"
    return "read"


def run(reader: str, seed: int, first: int, last: int) -> dict[str, Any]:
    """Read files `first` to `last`; return what came of them, the first faults, and how many bytes the process grew."""
    from numbanet import measured
    from tests.fuzz_files.readers import READERS

    path = Path(READERS[reader].name).absolute()
    if reader == "tuned":
        os.environ["NUMBANET_CACHE_DIR"] = str(path.parent)
        path = measured.path()
    case(reader, seed, first)
    outcome(reader, _SEEDS[reader][0], path)  # imports what reading needs
    counts: Counter[str] = Counter()
    faults: list[tuple[str, int, str]] = []
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mark = os.open("case", os.O_WRONLY | os.O_CREAT)
    for number in range(first, last):
        os.pwrite(mark, f"{reader:20} {number:20}".encode(), 0)
        content = case(reader, seed, number)
        result = outcome(reader, content, path)
        if result not in ("read", "refused"):
            faults.append((reader, number, result))
            result = "fault"
        counts[result] += 1
    os.close(mark)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) << 10
    return {"counts": counts, "faults": faults[:20], "grown": grown}


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        print(json.dumps(run(name, *map(int, sys.argv[2:5]))), flush=True)
