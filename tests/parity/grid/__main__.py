"""``python -m tests.parity.grid [--table] [NAME ...]``: what came out of the grid, or the cases that went wrong."""

from __future__ import annotations

import argparse
import sys

from tests.parity.grid.table import ENTRIES, examine, row, total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity.grid", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only the functions with these names")
    parser.add_argument("--table", action="store_true", help="print the table of docs/parity.md")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in ENTRIES]
    if unknown:
        parser.error(f"no such function in the grid: {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    results = {name: examine(ENTRIES[name]) for name in options.names or ENTRIES}
    for name, result in results.items():
        if options.table:
            print(row(name, result))
        print(*result.wrong, sep="\n", end="\n" if result.wrong else "", file=sys.stderr)
    wrong = sum(len(result.wrong) for result in results.values())
    if options.table:
        print(total(results.values()))
    else:
        print(f"{len(results)} entries, {sum(r.cases for r in results.values())} cases, {wrong} wrong")
    return 1 if wrong else 0


sys.exit(main())
