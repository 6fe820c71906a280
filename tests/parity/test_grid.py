"""The grid: every function against PyTorch, over every pair of option values; and the page that shows its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.parity.grid.cases import MOST
from tests.parity.grid.known import KNOWN
from tests.parity.grid.table import ENTRIES, examine

PAGE = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
ROWS = {name: int(cases) for name, cases in re.findall(r"^\| ([^|]+) \| (\d+) \| \d+ \|", PAGE, re.MULTILINE)}


@pytest.mark.parametrize("name", ENTRIES)
def test_agrees_with_torch(name: str) -> None:
    result = examine(ENTRIES[name])
    assert not result.wrong, f"{len(result.wrong)} of {result.cases} differ:\n" + "\n".join(result.wrong[:5])
    assert ROWS[name] == result.cases <= MOST


def test_the_page_has_every_function_and_is_large_enough() -> None:
    total = ROWS.pop("all")
    assert set(ROWS) == set(ENTRIES)
    assert total == sum(ROWS.values()) >= 5000


def test_differences_are_about_functions_of_the_grid() -> None:
    assert {name for known in KNOWN for name in known.functions} <= set(ENTRIES)


def test_a_difference_that_is_none_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.parity.grid import known, table

    stale = known.Known(("Tensor.neg",), lambda choice: True, "no reason")
    monkeypatch.setattr(table, "KNOWN", (stale,))
    assert examine(ENTRIES["Tensor.neg"]).wrong == ["Tensor.neg: no longer differs: no reason"]
