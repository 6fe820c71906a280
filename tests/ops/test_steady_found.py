"""What machine code finds of calls that come again: by the headers of arrays, and options, as they are in memory."""

from __future__ import annotations

import contextvars
import gc
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, ops
from numbanet.cpu import recall
from numbanet.ops.steady import steady
from numbanet.prepared import PreparedWeight
from tests.ops.steadiness import CONV, images, matrix, same, settle, weight

PLUS = {"calls": 0}


@steady(1)
def plus(x: np.ndarray, number: Any = 0, *, shape: Any = ()) -> np.ndarray:
    """Return x + x; the options change nothing but who is asked."""
    PLUS["calls"] += 1
    return ops.add.__wrapped__(x, x)  # type: ignore[attr-defined]


def found(function: Any, operands: tuple[Any, ...], options: tuple[Any, ...] = ()) -> Any:
    """Return what is known of operands and options, or None."""
    names = function.__globals__
    return names["_find"](names["_table"], operands, options)


def asked(*args: Any, **named: Any) -> bool:
    """Return whether a call of `plus` is not found."""
    before = PLUS["calls"]
    np.testing.assert_array_equal(plus(*args, **named), args[0] + args[0])
    return PLUS["calls"] > before


def test_headers_are_read_each_time() -> None:
    settle(ops.add, lambda: (matrix(), matrix()))
    a, b = matrix(), matrix()
    assert found(ops.add, (a, b)) is not None
    for shape, dtype in (((4, 16), "f4"), ((64,), "f4"), ((8, 8), ">f4"), ((8, 8), "i4"), ((8, 4), "f8")):
        x, y = a.copy(), b.copy()
        x.shape = y.shape = (8, 8)
        assert found(ops.add, (x, y)) is not None
        x.dtype = y.dtype = np.dtype(dtype)
        x.shape = y.shape = shape
        with np.errstate(all="ignore"):
            for _ in range(5):
                same(ops.add(x, y), ops.add.__wrapped__(x, y))
    x = np.lib.stride_tricks.as_strided(a, (8, 8), (4, 32))
    assert found(ops.add, (x, b)) is None
    same(ops.add(x, b), ops.add.__wrapped__(x, b))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_dtypes_that_are_equal_and_not_one(dtype: str) -> None:
    settle(ops.add, lambda: (matrix(dtype=np.dtype(dtype)), matrix(dtype=np.dtype(dtype))))
    a = pickle.loads(pickle.dumps(matrix(dtype=np.dtype(dtype))))
    b = a.astype(pickle.loads(pickle.dumps(np.dtype(dtype))))
    assert found(ops.add, (a, b)) is not None
    same(ops.add(a, b), a + b)
    other = a.view(np.dtype(dtype).newbyteorder())
    assert found(ops.add, (a, other)) is None


def test_what_is_no_plain_array_is_not_found() -> None:
    class Sub(np.ndarray):
        pass

    settle(ops.add, lambda: (matrix(), matrix()))
    for x in (matrix().view(Sub), 1.0, None, [1.0], "x", np.float32(1), object(), nnet.tensor(matrix())):
        assert found(ops.add, (matrix(), x)) is None
        assert found(ops.add, (x, matrix())) is None
    assert found(ops.add, (matrix(),)) is None and found(ops.add, ()) is None
    assert found(ops.add, (matrix(), matrix()), (1,)) is None


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,) * 8, (1,) * 9, (2,) * 12])
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    for _ in range(6):
        x = np.full(shape, 1.5, np.float32)
        same(ops.add(x, x), ops.add.__wrapped__(x, x))
    assert (found(ops.add, (x, x)) is not None) is (len(shape) <= 8 and x.size > 0)


def test_as_many_kinds_as_there_are() -> None:
    shapes = [(rows, columns) for rows in range(1, 14) for columns in range(1, 14)]
    for turn in range(6):
        for shape in shapes:
            x = matrix(*shape)
            assert asked(x) is (turn < 3)
    assert all(found(plus, (np.empty(shape, np.float32),), (0, ())) is not None for shape in shapes)


def test_options_are_compared_by_value_and_type() -> None:
    x = matrix(3, 7)
    values = [1, True, 1.0, np.int64(1), np.float64(1), 0.0, -0.0, "one", 1 << 70, (1, 2), (1, 2.0), (1, (2, 3)), None]
    for value in values:
        for turn in range(6):
            assert asked(x, value, shape=(1000, 7)) is (turn < 3), (value, turn)
    for value in values:
        again = pickle.loads(pickle.dumps(value))
        assert not asked(x, again, shape=(int("1000"), 7))
        for shape in ((1000, 7.0), (1000, True), (1000,), (1000, 7, 1), [1000, 7], (1000, (7,))):
            assert asked(x, value, shape=shape), (value, shape)
    assert found(plus, (x,), (float("1"), (int("1000"), 7))) is found(plus, (x,), (1.0, (1000, 7))) is not None
    assert found(plus, (x,), (float("-0"), (1000, 7))) is not found(plus, (x,), (0.0, (1000, 7))) is not None
    assert found(plus, (x,), (np.float64(1), (1000, 7))) is None  # another object: Python looks at it


def test_what_changes_for_all_threads() -> None:
    args = images(32, 16), weight(32, 32), None, *CONV
    settle(ops.conv2d, lambda: args)
    names = ops.conv2d.__globals__
    for _ in range(3):
        default = ops.conv2d(*args)
        try:
            nnet.set_precision("strict")
            strict = [ops.conv2d(*args) for _ in range(6)]
        finally:
            nnet.set_precision("float32")
        for y in strict:
            same(y, strict[0])
        assert (strict[0] != default).any()
        for _ in range(6):
            same(ops.conv2d(*args), default)
    calls: list[Any] = []
    real = names["_meet"]
    try:
        names["_meet"] = lambda *given: calls.append(given) or real(*given)
        ops.conv2d(*args)
        assert not calls  # it is found again, after all these changes
        dispatch.renew()
        ops.conv2d(*args)
        assert calls
    finally:
        names["_meet"] = real


def test_what_changes_in_a_context() -> None:
    settle(ops.matmul, lambda: (matrix(), matrix()))
    pair = matrix(), matrix()
    assert found(ops.matmul, pair) is not None

    def inside() -> None:
        assert found(ops.matmul, pair) is None
        same(ops.matmul(*pair), ops.matmul.__wrapped__(*pair))

    for context in (nnet.use("reference"), nnet.precision("strict"), nnet.precision("float32")):
        with context:
            inside()
            contextvars.copy_context().run(inside)
            there: list[Any] = []
            elsewhere = lambda: there.append(found(ops.matmul, pair))  # noqa: B023, E731
            thread = threading.Thread(target=contextvars.Context().run, args=(elsewhere,))
            thread.start()
            thread.join()
            assert there[0] is not None
        assert found(ops.matmul, pair) is not None


def test_prepared_weights() -> None:
    w = matrix(8, 8)
    assert PreparedWeight(w).array.ctypes.data == PreparedWeight(w).array.ctypes.data
    weights = [ops.prepare_linear(matrix(8, 8), rows=8) for _ in range(2)]
    settle(ops.linear, lambda: (matrix(), weights[0], None))
    for prepared in weights:
        assert found(ops.linear, (matrix(), prepared, None, None), (None,)) is not None
        x = matrix()
        same(ops.linear(x, prepared, None), ops.linear.__wrapped__(x, prepared, None))
    assert found(ops.linear, (matrix(), ops.prepare_linear(matrix(9, 8), rows=8), None, None), (None,)) is None
    empty = PreparedWeight.__new__(PreparedWeight)
    assert found(ops.linear, (matrix(), empty, None, None), (None,)) is None


def test_operands_are_not_kept_and_options_are() -> None:
    class Option:
        pass

    x, option = matrix(5, 3), Option()
    for turn in range(6):
        assert asked(x, option) is (turn < 3)
    held, kept = weakref.ref(x), weakref.ref(option)
    del x, option
    gc.collect()
    assert held() is None and kept() is not None  # else another object could have its address
    assert asked(matrix(5, 3), Option())


def test_what_is_found_lives_as_long_as_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    names = plus.__globals__
    x = matrix(6, 5)
    for _ in range(6):
        asked(x)
    table = names["_table"]
    monkeypatch.setattr("numbanet.ops.steady._KINDS", 1)
    for columns in range(1, 9):
        for _ in range(6):
            asked(matrix(2, columns))
    names["_meet"].__self__.known.clear()
    gc.collect()
    run = names["_find"](table, (x,), (0, ()))
    same(run((x,)), x + x)


def test_threads_that_meet_many_kinds_at_once() -> None:
    function, wrong = steady(2)(ops.add.__wrapped__), []

    def call(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(600):
            x = np.full((rng.integers(1, 12), rng.integers(1, 12)), rng.integers(9), np.float32)
            if not np.array_equal(function(x, x), x + x):
                wrong.append(x)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_table_that_grows() -> None:
    table = recall.new_table(np.zeros(1, np.int64), 0, ())
    names = [object() for _ in range(70)]
    arrays = [np.empty(size, np.float32) for size in range(1, 71)]
    for array, name in zip(arrays, names):
        table = recall.added(table, (array,), (), name)
    for array, name in zip(arrays, names):
        assert recall.finder()(table, (array,), ()) is name
    assert recall.finder()(table, (np.empty(71, np.float32),), ()) is None
    table = recall.added(table, (arrays[3],), (), names[9])
    assert recall.finder()(table, (arrays[3],), ()) is names[9]
