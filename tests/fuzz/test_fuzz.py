"""A short run of the fuzzer, and tests of the fuzzer itself: it must find what is planted."""

from __future__ import annotations

import dataclasses
import functools
import gc
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import numbanet as nnet
from numbanet import memory, ops
from numbanet.ops import norm
from tests.fuzz import guards, runner
from tests.fuzz.arrays import Draw, hostile
from tests.fuzz.check import Line, Verdict, generator, run_case
from tests.fuzz.draws import elements
from tests.fuzz.guards import guarded
from tests.fuzz.table import LEFT_OUT, lines, public

TABLE = {line.name: line for line in lines()}
GROUPS = sorted({name.rpartition(".")[0] or name for name in TABLE})


def test_every_public_function_has_a_line():
    assert public() - TABLE.keys() - LEFT_OUT.keys() == set(), "these have no line"
    assert LEFT_OUT.keys() <= public(), "these do not exist"
    assert not LEFT_OUT.keys() & TABLE.keys()


@pytest.mark.parametrize("group", GROUPS)
@settings(
    derandomize=True, deadline=None, database=None, max_examples=8, phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(random=st.randoms(use_true_random=False))
def test_cases_drawn_by_hypothesis(group, random):
    names = [name for name in TABLE if (name.rpartition(".")[0] or name) == group]
    name = names[random.randrange(len(names))]
    verdict = run_case(TABLE[name], random)
    assert verdict.outcome != "finding", f"{name}: {verdict.detail} | {verdict.arguments}"


@pytest.mark.parametrize("name", TABLE)
def test_a_few_cases_of_each_function(name):
    for index in range(3):
        verdict = run_case(TABLE[name], generator(2024, name, index))
        assert verdict.outcome != "finding", f"case {index}: {verdict.detail} | {verdict.arguments}"


# ---------------------------------------------------------------------------------------------------------------------
# The fuzzer finds what is planted


def verdicts(line: Line, count: int = 40) -> list[Verdict]:
    return [run_case(line, generator(0, line.name, index)) for index in range(count)]


def details(line: Line) -> str:
    return " ".join(v.detail for v in verdicts(line) if v.outcome == "finding")


def test_a_wrong_number_is_found():
    wrong = Line("relu", lambda x: ops.relu(x) * 1.001, elements.one, lambda x: np.maximum(x, 0))
    assert "instead of" in details(wrong)


def test_a_wrong_shape_is_found():
    assert "has shape" in details(Line("relu", lambda x: ops.relu(x)[None], elements.one, lambda x: np.maximum(x, 0)))


def test_an_input_that_is_changed_is_found():
    def changing(x):
        if isinstance(x, np.ndarray) and x.flags.writeable and x.size and x.dtype.kind == "f":
            x[...] = 7
        return ops.relu(x)

    assert "was changed" in details(Line("changing", changing, elements.one))


def test_refusing_what_makes_sense_is_found():
    def refusing(x):
        raise ValueError("x is not liked")

    assert "refused what makes sense" in details(Line("refusing", refusing, elements.one))


@pytest.mark.parametrize(
    ("name", "sensible"),
    [("ops.conv2d", lambda *args, **_: args[5] in (2, (2, 2))), ("ops.pad", lambda *args: args[2] == "circular"),
     ("functional.linear", lambda input, *_: input.ndim == 1), ("Tensor.sum", lambda *args: type(args[1]) is tuple),
     ("ops.relu", lambda x: type(x) is np.ndarray and not x.size),
     ("ops.relu", lambda x: type(x) is np.ndarray and not x.flags.aligned)],
)  # fmt: skip
def test_refusing_some_of_what_makes_sense_is_found(name, sensible):
    """The input is named, and most other calls are answered."""

    @functools.wraps(TABLE[name].function)  # whose names of arguments refusals mention
    def refusing(*args, **kwargs):
        try:
            refused = sensible(*args, **kwargs)
        except (AttributeError, IndexError, TypeError):
            refused = False  # a case that was made nonsense
        if refused:
            raise ValueError("input is not liked")
        return TABLE[name].function(*args, **kwargs)

    planted = dataclasses.replace(TABLE[name], function=refusing)
    found = next(
        (v for i in range(238) for v in [run_case(planted, generator(3, name, i))] if v.outcome == "finding"), None
    )
    assert found is not None and "refused what makes sense" in found.detail


def test_other_errors_and_nameless_refusals_are_found():
    def failing(x):
        raise AttributeError("no such thing")

    def nameless(x):
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype.itemsize in (4, 8) and x.dtype.isnative:
            return ops.relu(x)
        raise TypeError("no")

    assert "AttributeError" in details(Line("failing", failing, elements.one))
    assert "names no argument" in details(Line("nameless", nameless, elements.one))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("pages", [True, False])
def test_a_write_beside_a_buffer_is_found(at_end, pages):
    with guarded(at_end, pages) as guard:
        out = memory.empty((5,), np.float32)
        raw, start, size = guard._blocks[0]
        assert np.isnan(out).all()
        assert guard.damage() is None
        out = memory.empty((5,), np.float32)
        raw, start, size = guard._blocks[0]
        beside = start - 1 if at_end or start else start + size
        raw[beside] = 0
        assert "outside a buffer" in (guard.damage() or "")
    assert memory.empty is not guard.empty


def test_guarded_memory_is_used_again():
    for name in ("ops.conv2d", "functional.adaptive_max_pool2d", "functional.batch_norm"):
        for index in range(5):
            run_case(TABLE[name], generator(0, name, index))
        gc.unfreeze()
        gc.collect()  # an error of another test may hold the frames of its call
        norm._statistics_of.cache_clear()  # what batch norms keep lies in memory that other tests guarded
        assert all(slot.free() for slot in guards._SLOTS)


def test_hostile_memory_holds_the_same_values():
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(300):
        values = rng.standard_normal((3, 4, 5)).astype(np.float32)
        view = hostile(values, Draw(random.Random(seed)), lambda size: np.zeros(size, np.uint8))
        np.testing.assert_array_equal(view, values)
        seen |= {
            "strided" if not view.flags.c_contiguous else "plain", "odd" if not view.flags.aligned else "even",
            "big" if not view.dtype.isnative else "native", "fixed" if not view.flags.writeable else "free",
            "negative" if min(view.strides) < 0 else "positive", "packed" if view.strides[2] % 4 else "whole",
        }  # fmt: skip
    assert {"strided", "odd", "big", "fixed", "negative", "packed"} <= seen


def test_a_process_that_ends_or_hangs_is_a_finding(monkeypatch):
    monkeypatch.setattr(runner, "HANG", 0.5)
    monkeypatch.setattr(runner, "STUCK", 12.0)
    monkeypatch.setenv("NUMBANET_FUZZ_PLANT", "1")
    child = runner.Child()
    try:
        answers = child.run("planted", 0, 0, 5)
    finally:
        child.close()
    assert [outcome for outcome, _ in answers] == ["right", "finding", "finding", "finding", "right"]
    assert "status" in answers[1][1]
    assert "no end in 0.5 s of computing" in answers[2][1] and answers[3][1].startswith("no end in 12.0 s")


def test_refusing_everything_is_a_finding():
    tally = runner.Tally(cases=3)
    tally.refused["ValueError"] = 3
    assert "not one of 3 cases was answered" in runner.faults("f", tally)[0]
    assert runner.faults("f", runner.Tally(cases=3, right=1)) == []


def test_cases_can_be_repeated():
    first, second = (run_case(TABLE["ops.conv2d"], generator(5, "ops.conv2d", 3)) for _ in range(2))
    assert (first.arguments, first.outcome) == (second.arguments, second.outcome)
    assert nnet.get_precision() == "float32"
