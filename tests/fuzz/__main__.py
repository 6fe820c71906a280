"""The long run: ``python -m tests.fuzz --cases 100000 --seed 0``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter

from tests.fuzz.runner import faults, run
from tests.fuzz.table import lines


def main() -> int:
    """Run the cases, print a table, and return 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="in all; each function gets its share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a regular expression that names of functions match")
    parser.add_argument("--first", type=int, default=0, help="number of the first case: to repeat one")
    options = parser.parse_args()
    names = [line.name for line in lines() if re.search(options.only, line.name)]
    share = max(1, -(-options.cases // max(1, len(names))))
    found, total, right, refused, start = [], 0, 0, Counter[str](), time.monotonic()
    print(f"{'function':<44} {'cases':>7} {'right':>7} {'refused':>7}  by kind")
    for name, tally in run(names, share, options.seed, options.first):
        kinds = ", ".join(f"{kind} {count}" for kind, count in tally.refused.most_common())
        print(f"{name:<44} {tally.cases:>7} {tally.right:>7} {tally.refused.total():>7}  {kinds}", flush=True)
        for fault in faults(name, tally):
            print(f"    FINDING {fault}", flush=True)
        found += faults(name, tally)
        total, right, refused = total + tally.cases, right + tally.right, refused + tally.refused
    kinds = ", ".join(f"{kind} {count}" for kind, count in refused.most_common())
    print(f"{len(names)} functions, {total} cases: {right} right, {refused.total()} refused ({kinds}), ", end="")
    print(f"{len(found)} findings; seed {options.seed}, {time.monotonic() - start:.0f} s")
    return 1 if found or not names else 0


if __name__ == "__main__":
    sys.exit(main())
