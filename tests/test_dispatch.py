"""The choice of a kernel: cost, order, refusals, overrides, the reference as the last resort."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.candidate import Candidate
from numbanet.problem import Problem
from numbanet.problem.activation import ActivationProblem


@dataclass(frozen=True)
class Toy(Problem):
    operation: ClassVar[str] = "toy"
    size: int = 0


def toy(size: int = 0) -> Toy:
    return Toy("forward", "float32", size)


def candidate(name: str, cost: float = 1.0, reason: str | None = None, **more: Any) -> Candidate:
    def run(problem: Any, inputs: Any, outputs: Any, workspace: Any) -> None:
        outputs.append((name, workspace))

    return Candidate(name, run, lambda problem: reason, lambda problem: cost, **more)


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str, str], list[Candidate]]]:
    """A table of candidates to fill, in place of the real one."""
    table: dict[tuple[str, str, str], list[Candidate]] = {}
    monkeypatch.setattr(dispatch, "candidates", lambda *key: tuple(table.get(key, ())))
    monkeypatch.setattr(dispatch, "check_names", lambda names: None)
    dispatch._choose.cache_clear()
    yield table
    dispatch._choose.cache_clear()


KEY = ("cpu", "toy", "forward")


def test_lowest_cost_wins_and_ties_go_to_the_first(lists: Any) -> None:
    lists[KEY] = [candidate("a", 3), candidate("b", 2), candidate("c", 2), candidate("d", 1, "too small")]
    assert dispatch.choose(toy()).name == "b"


def test_refusals_are_listed(lists: Any) -> None:
    lists[KEY] = [candidate("a", reason="odd"), candidate("b", reason="even")]
    with pytest.raises(ValueError, match=r"no cpu kernel takes Toy\(.*\): a: odd; b: even"):
        dispatch.choose(toy())
    with pytest.raises(ValueError, match="no cuda kernel takes .*: the list is empty"):
        dispatch.choose(toy(), "cuda")


def test_override(lists: Any) -> None:
    lists[KEY] = [candidate("a", 1), candidate("b", 2), candidate("c", 3, "broken")]
    with dispatch.use("b"):
        assert dispatch.choose(toy()).name == "b"
        with dispatch.use("a", "b"):
            assert dispatch.choose(toy()).name == "a"
        with dispatch.use("other"):
            assert dispatch.choose(toy()).name == "a", "a name that this list does not have changes nothing"
        assert dispatch.choose(toy()).name == "b"
    assert dispatch.choose(toy()).name == "a"
    with dispatch.use("c"), pytest.raises(ValueError, match="c: broken"):
        dispatch.choose(toy())
    with pytest.raises(KeyError), dispatch.use("b"):
        raise KeyError
    assert dispatch.choose(toy()).name == "a"


def test_override_belongs_to_its_thread(lists: Any) -> None:
    lists[KEY] = [candidate("a", 1), candidate("b", 2)]
    seen: list[str] = []
    with dispatch.use("b"):
        thread = threading.Thread(target=lambda: seen.append(dispatch.choose(toy()).name))
        thread.start()
        thread.join()
    assert seen == ["a"]


def test_choice_follows_precision_and_is_remembered(lists: Any) -> None:
    calls: list[str] = []

    def supports(problem: Any) -> str | None:
        calls.append(nnet.get_precision())
        return "inexact" if nnet.get_precision() == "strict" else None

    lists[KEY] = [Candidate("fast", lambda *a: None, supports), candidate("slow", 9)]
    for _ in range(3):
        assert dispatch.choose(toy()).name == "fast"
        with nnet.precision("strict"):
            assert dispatch.choose(toy()).name == "slow"
    assert sorted(calls) == ["float32", "strict"]


def test_workspace_belongs_to_the_call(lists: Any) -> None:
    lists[KEY] = [candidate("a", workspace_bytes=lambda problem: problem.size)]
    outputs: list[Any] = []
    dispatch.run(toy(0), (), outputs)
    dispatch.run(toy(1 << 20), (), outputs)
    dispatch.run(toy(1 << 20), (), outputs)
    (_, none), (_, first), (_, second) = outputs
    assert none is None and first.dtype == np.uint8 and first.size == 1 << 20
    assert not np.shares_memory(first, second)
    memory.release()


def test_reaching_the_reference_says_so_once(lists: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_warned", set())
    lists[KEY] = [candidate("fast", 1, "odd"), candidate("reference", float("inf"))]
    outputs: list[Any] = []
    with pytest.warns(RuntimeWarning, match=r"no fast kernel takes Toy\(.*\): the slow NumPy reference runs"):
        dispatch.run(toy(), (), outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dispatch.run(toy(3), (), outputs)
    monkeypatch.setattr(dispatch, "_warned", set())
    with warnings.catch_warnings(), dispatch.use("reference"):
        warnings.simplefilter("error")
        dispatch.run(toy(), (), outputs)
    assert [name for name, _ in outputs] == ["reference"] * 3


def test_explanation(lists: Any) -> None:
    lists[KEY] = [candidate("a", 3), candidate("b", 2), candidate("c", 1, "too small")]
    lines = dispatch.explain_problem(toy()).splitlines()
    assert lines[0].startswith("toy forward on cpu: Toy(")
    assert lines[1].startswith("   a ") and lines[2].startswith("-> b ") and "cost 2" in lines[2]
    assert lines[3].startswith("   c ") and lines[3].endswith("refused: too small")
    lists[KEY] = []
    dispatch._choose.cache_clear()
    assert "no candidate takes it" in dispatch.explain_problem(toy())


def test_choice_is_logged(lists: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NUMBANET_VERBOSE", "1")
    lists[KEY] = [candidate("a")]
    dispatch.choose(toy(77))
    assert "toy forward on cpu: a for Toy(" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# The real lists


@pytest.mark.parametrize("operation", dispatch.operations())
def test_real_lists_end_with_the_reference(operation: str) -> None:
    assert dispatch.passes(operation)
    for which in dispatch.passes(operation):
        names = [c.name for c in dispatch.candidates("cpu", operation, which)]
        assert names[-1] == "reference" and len(names) == len(set(names)) > 1, "a kernel and the definition"
        assert all(name.startswith("cpu.") for name in names[:-1])
        assert all(c.name.startswith("cuda.") for c in dispatch.candidates("cuda", operation, which))


def test_no_kernel_module_offers_a_list_that_nobody_asks_for() -> None:
    for operation, (modules, _) in dispatch._FAMILIES.items():
        passes = set(dispatch.passes(operation))
        for name in modules:
            if importlib.util.find_spec(f"numbanet.cpu.{name}") is None:
                assert importlib.util.find_spec(f"numbanet.cuda.{name}") is not None
                continue  # only GPUs have it
            lists = importlib.import_module(f"numbanet.cpu.{name}").CANDIDATES
            for key, which in lists:
                assert key in dispatch._FAMILIES and (key != operation or which in passes), (name, key, which)


def test_use_names_what_is_known() -> None:
    with pytest.raises(ValueError, match="names: no kernel is called 'cpu.nonsense'; known: .*cpu.vector.*reference"):
        with nnet.use("cpu.nonsense"):
            pass


def test_forced_reference_runs() -> None:
    x = np.array([-1.0, np.nan, 2.0])
    with nnet.use("reference"):
        np.testing.assert_array_equal(nnet.ops.relu(x), [0, np.nan, 2])
        assert dispatch.choose(ActivationProblem("forward", "float64", "relu", 3)).name == "reference"
    assert dispatch.choose(ActivationProblem("forward", "float64", "relu", 3)).name == "cpu.vector"


def test_names_of_kernels_are_words() -> None:
    with pytest.raises(TypeError, match="names must be those of kernels, got"), nnet.use(5, []):  # type: ignore[arg-type]
        pass
