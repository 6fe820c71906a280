"""The grid: every function against PyTorch, over every pair of option values; and the page that shows its table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from tests.parity.grid import known, table
from tests.parity.grid.cases import MOST
from tests.parity.grid.compare import deliberate
from tests.parity.grid.known import KNOWN
from tests.parity.grid.table import ENTRIES, examine, row
from tests.parity.grid.values import Bad, T, plain

PAGE = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
ROWS = {line.split(" | ")[0].removeprefix("| "): line for line in PAGE.splitlines() if line.startswith("| ")}


@pytest.mark.parametrize("name", ENTRIES)
def test_agrees_with_torch(name: str) -> None:
    result = examine(ENTRIES[name])
    assert not result.wrong, f"{len(result.wrong)} things in {result.cases} cases:\n" + "\n".join(result.wrong[:5])
    assert result.cases <= MOST
    mine, page = (line.split(" | ") for line in (row(name, result), ROWS[name]))
    compared = 2 if any(known.varies for known in result.known) else len(page)
    assert mine[:compared] == page[:compared]


def test_the_page_has_every_function_and_is_large_enough() -> None:
    numbers = {name: re.findall(r"\| (\d+) (?=\|)", line) for name, line in ROWS.items() if name != "function"}
    total = [int(n) for n in numbers.pop("total")]
    assert set(numbers) - {"---"} == set(ENTRIES)
    rows = [[int(n) for n in line] for name, line in numbers.items() if name != "---"]
    assert total == [sum(column) for column in zip(*rows)]
    assert total[0] >= 10_000


def test_differences_are_about_functions_of_the_grid() -> None:
    assert {name for known in KNOWN for name in known.functions} <= set(ENTRIES)


def wrong(name: str, **changes: Any) -> str:
    """Return what is found wrong with an entry that is changed."""
    return "\n".join(examine(replace(ENTRIES[name], **changes)).wrong)


def test_a_difference_that_is_none_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = known.Known(("Tensor.neg",), lambda choice: True, "answers", (ValueError,), "no reason")
    monkeypatch.setattr(table, "KNOWN", (stale,))
    assert wrong("Tensor.neg") == "Tensor.neg: no longer differs: no reason"


def scaled(function: Callable, factor: float, when: Callable[[Any], bool]) -> Callable:
    """Return a function whose first result is wrong for some inputs."""

    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        found = function(x, *arguments, **options)
        if not isinstance(x, nnet.Tensor) or not when(x):
            return found
        return [found[0] * factor, *found[1:]] if isinstance(found, list) else found * factor

    return call


def stumbling(function: Callable, error: Exception, when: Callable[[Any], bool]) -> Callable:
    """Return a function that raises an error of another kind for some inputs."""

    def call(x: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(x, nnet.Tensor) and when(x):
            raise error
        return function(x, *arguments, **options)

    return call


def not_finite(x: Any) -> bool:
    return x.dtype.kind == "f" and not np.isfinite(x.detach().numpy()).all()


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("hardsigmoid", lambda ours: scaled(ours, 1000.0, lambda x: x.dtype == np.float64)),
        ("gelu", lambda ours: scaled(ours, 42.0, not_finite)),
        ("gelu", lambda ours: stumbling(ours, ZeroDivisionError("nothing"), not_finite)),
        ("gelu", lambda ours: stumbling(ours, ValueError("no numbers"), not_finite)),
        ("pixel_unshuffle", lambda ours: stumbling(ours, ValueError("no pixels"), lambda x: 0 in x.shape)),
        ("l1_loss", lambda ours: scaled(ours, 2.0, not_finite)),
        ("kl_div", lambda ours: scaled(ours, 1.001, lambda x: True)),
    ],
)
def test_a_known_difference_excuses_its_own_outcome_only(name: str, broken: Callable) -> None:
    assert any(name in known.functions for known in KNOWN)
    assert wrong(name, ours=broken(ENTRIES[name].ours))


def test_a_pair_that_is_never_answered_is_wrong_unless_a_rule_says_so() -> None:
    found = wrong("pixel_shuffle", refuses={})
    assert "never answered, and no rule says so: input=float64[2, 12, 4, 6] and upscale_factor=3" in found


def test_a_rule_that_is_not_true_is_wrong() -> None:
    rules = {"no integers": lambda input, upscale_factor: input.dtype == "int64" and upscale_factor == 2}
    assert "is answered, against the rule: no integers" in wrong(
        "pixel_shuffle", refuses={**ENTRIES["pixel_shuffle"].refuses, **rules}
    )
    assert "a rule about nothing: none" in wrong("Tensor.neg", refuses={"none": lambda input: False})


def test_a_value_is_not_bad_if_it_is_answered() -> None:
    inputs = [Bad(T((3, 4))), *(plain(value) for value in ENTRIES["Tensor.neg"].options["input"])]
    assert "marked as bad" in wrong("Tensor.neg", options={"input": inputs})
    assert "never answered" in wrong("Tensor.neg", options={"input": inputs[1:]})


def test_a_refusal_is_that_of_a_check() -> None:
    def raised(call: Callable) -> Exception:
        with pytest.raises(Exception) as found:  # noqa: PT011
            call()
        return found.value

    x = nnet.tensor([1.0])
    assert deliberate(raised(lambda: F.relu(x, 1, 2)))
    assert deliberate(raised(lambda: F.relu(x, depth=2)))
    assert deliberate(raised(lambda: x + "1"))
    assert deliberate(raised(lambda: F.softmax(x, dim=3)))
    assert not deliberate(raised(lambda: int([])))  # type: ignore[call-overload]
    assert not deliberate(raised(lambda: np.zeros(2) @ np.zeros(3)))
