"""Elementwise kernels against their definitions, over layouts, broadcasts and special values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numbanet import dispatch, memory, ops
from numbanet.cpu import stream
from numbanet.ops.elementwise import elementwise_backward
from numbanet.problem.activation import ActivationProblem
from numbanet.problem.promotion import result_dtype

BINARY = ["add", "sub", "mul", "div", "pow", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"]
UNARY = ["neg", "exp", "log", "sqrt", "abs"]
BACKWARD = {
    "div_backward_divisor": 3,
    "pow_backward_base": 3,
    "pow_backward_exponent": 3,
    "maximum_backward": 3,
    "minimum_backward": 3,
    "sqrt_backward": 2,
    "abs_backward": 2,
    "at_least_backward": 3,
    "at_most_backward": 3,
}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -3.0, np.inf, -np.inf, np.nan, 4.0, 0.5])


pytestmark = pytest.mark.usefixtures("poisoned")


def close(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=1e-14 if a.dtype == np.float64 else 1e-6, atol=0)


def both(function, *operands):
    """Return the results of the kernel and of the reference."""
    with dispatch.use("reference"):
        expected = function(*operands)
    return function(*operands), expected


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_and_special_values(name):
    a, b = np.meshgrid(SPECIAL, SPECIAL)
    for dtype in (np.float64, np.float32):
        close(*both(getattr(ops, name), a.astype(dtype), b.astype(dtype)))


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_and_special_values(name, rng):
    x = np.concatenate([SPECIAL, rng.standard_normal(50) * 10])
    for dtype in (np.float64, np.float32):
        close(*both(getattr(ops, name), x.astype(dtype)))


@pytest.mark.parametrize(("name", "operands"), BACKWARD.items())
def test_derivatives(name, operands, rng):
    values = [rng.choice(SPECIAL[:6], 100) for _ in range(operands)]
    close(*both(lambda *x: elementwise_backward(name, *x), *values))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 33, 65537, 140000])
def test_sizes_around_vectors_and_tasks(size, dtype, rng):
    a, b = rng.standard_normal((2, size)).astype(dtype)
    close(ops.add(a, b), a + b)
    close(ops.mul(a, 3), a * dtype(3))


BROADCASTS = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((3, 4), (3, 1)),
    ((3, 4), ()),
    ((3, 1), (1, 4)),
    ((2, 5, 4, 3), (5, 1, 1)),
    ((2, 5, 1, 3), (2, 1, 4, 1)),
    ((2, 33, 1, 1), (1, 33, 7, 7)),
    ((0, 5), (5,)),
    ((0, 1), (1, 5)),
    ((1,), (4, 1, 70000)),
    ((2, 1, 3, 1, 2, 1), (1, 2, 1, 3, 1, 2)),
]


@pytest.mark.parametrize(("a", "b"), BROADCASTS)
def test_broadcasting(a, b, rng):
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    close(ops.sub(x, y), x - y)
    close(ops.sub(y, x), y - x)


@pytest.mark.parametrize("channels", [2, 3, 16, 33, 63, 64])
def test_a_number_for_each_of_few_channels(channels, rng):
    x = memory.empty_channels_last((5, channels, 37, 61), np.float64)
    x[...] = rng.standard_normal(x.shape)
    y = rng.standard_normal((channels, 1, 1))
    close(ops.mul(x, y), x * y)
    close(ops.sub(y, x), y - x)
    close(ops.where(x > 0, x, y), np.where(x > 0, x, y))


def variants(x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return arrays with the shape of x in other layouts."""
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = rng.standard_normal(tuple(2 * n for n in x.shape))
    one = rng.standard_normal(tuple(1 if axis % 2 else n for axis, n in enumerate(x.shape)))
    return [
        x,
        read_only,
        np.asfortranarray(x),
        x[tuple(slice(None, None, -1) for _ in x.shape)],
        wide[tuple(slice(None, None, 2) for _ in x.shape)],
        wide[tuple(slice(n, None) for n in x.shape)],
        np.broadcast_to(one, x.shape),
        np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim > 1 else x,
    ]


@pytest.mark.parametrize("shape", [(5,), (6, 17), (3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 2, 3)], ids=str)
def test_layouts(shape, rng):
    x, y = rng.standard_normal((2, *shape))
    for a in variants(x, rng):
        close(ops.neg(a), -a)
        for b in variants(y, rng):
            close(ops.add(a, b), a + b)


def test_result_keeps_the_memory_order():
    last = memory.empty_channels_last((2, 3, 4, 5), np.float32)
    first = np.zeros((2, 3, 4, 5), np.float32)
    channel = np.zeros((3, 1, 1), np.float32)
    assert ops.add(last, channel).strides == last.strides
    assert ops.add(channel, first).strides == first.strides
    assert ops.add(first, last).strides == last.strides  # channels-last wins
    assert ops.add(np.zeros((2, 3, 1, 1), np.float32), np.zeros((4, 5), np.float32)).strides == last.strides
    assert ops.add(first[0].T, 1).strides == first[0].T.strides


def test_same_bits_for_any_number_of_threads(rng, on_one_thread):
    a, b = rng.standard_normal((2, 40, 5000)).astype(np.float32)
    assert np.array_equal(on_one_thread(lambda: ops.exp(ops.mul(a, b))), ops.exp(ops.mul(a, b)))


def test_where_and_clamp(rng):
    a, b = rng.standard_normal((2, 6, 20)).astype(np.float32)
    a[0, 0] = np.nan
    close(ops.where(a > 0, a, b), np.where(a > 0, a, b))
    close(ops.where(a[:, :1] > 0, 1.0, b[0]), np.where(a[:, :1] > 0, np.float32(1), b[0]))
    close(ops.where((a > 0)[:, ::-2], a[:, ::2], b[:, 1::2]), np.where((a > 0)[:, ::-2], a[:, ::2], b[:, 1::2]))
    close(ops.clamp(a, -0.5, 1), np.clip(a, np.float32(-0.5), np.float32(1)))
    close(ops.clamp(a, max=0.25), np.minimum(a, np.float32(0.25)))
    close(ops.clamp(a, 1, -1), np.where(np.isnan(a), a, np.float32(-1)))
    assert np.array_equal(ops.clamp(np.arange(5), 1, 3), [1, 1, 2, 3, 3])


F32, F64 = np.ones(2, np.float32), np.ones(2)
INT, FLAG = np.ones(2, np.int64), np.ones(2, bool)


@pytest.mark.parametrize(
    ("operands", "expected"),
    [
        ((F32, 2.5), "float32"),
        ((F32, 1), "float32"),
        ((F64, 2.5), "float64"),
        ((F32, F64), "float64"),
        ((F32, np.float64(2)), "float32"),
        ((F32, np.ones(())), "float32"),
        ((F32, INT), "float32"),
        ((INT, 2.5), "float32"),
        ((INT, np.ones(())), "float64"),
        ((INT, 2), "int64"),
        ((INT, FLAG), "int64"),
        ((FLAG, 2), "int64"),
        ((FLAG, True), "bool"),
        ((np.ones(2, np.uint8), 300), "uint8"),
    ],
)
def test_dtypes(operands, expected):
    values = tuple(x.item() if isinstance(x, np.generic) else x for x in operands)
    assert result_dtype(*values) == expected
    assert ops.add(*operands).dtype == expected
    assert ops.add(*reversed(operands)).dtype == expected


def test_integers_divide_as_float32():
    assert np.array_equal(ops.div(np.array([1, 3]), 2), np.array([0.5, 1.5], np.float32))
    assert ops.div(INT, INT).dtype == np.float32
    assert ops.exp(INT).dtype == np.float32


def test_numbers_beyond_float32_are_infinite():
    assert ops.mul(F32, 1e300)[0] == np.inf
    assert ops.mul(F32, -1e39)[0] == -np.inf
    assert np.isnan(ops.mul(F32, float("nan"))).all()


def test_integers_wrap_around():
    assert ops.add(np.ones(2, np.uint8), 300).tolist() == [45, 45]


def test_refusals():
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2,\)"):
        ops.add(np.ones((2, 3)), np.ones(2))
    with pytest.raises(TypeError, match="float16"):
        ops.add(np.ones(2, np.float16), 1)
    with pytest.raises(TypeError, match="other"):
        ops.add(np.ones(2), "a")
    with pytest.raises(TypeError, match="condition"):
        ops.where(np.ones(2), 1.0, 2.0)
    with pytest.raises(ValueError, match="min and max"):
        ops.clamp(np.ones(2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("exponent", [-0.5, 0.5, 2.5, 3.0, -3.0])
def test_powers_of_denormals_are_those_of_zero(dtype, exponent):
    """The C library scales them by a product, which is zero while denormals are: 2.6e-40 to -0.5 was 3.8e22."""
    tiny = np.finfo(dtype).tiny
    a = np.array([tiny / 4, -tiny / 4, tiny / 1000, 0.0, -0.0] * 7, dtype)
    with np.errstate(divide="ignore"):
        expected = np.power(a * (np.abs(a) >= tiny), exponent)
    np.testing.assert_array_equal(ops.pow(a, np.full_like(a, exponent)), expected)
    np.testing.assert_array_equal(ops.pow(np.full(3, tiny, dtype), 0.5), np.full(3, np.sqrt(tiny), dtype))


def test_integers_to_negative_powers():
    base, exponent = np.arange(-2, 3), np.array([[-1], [-2], [3]])
    out = ops.pow(base, exponent)
    assert out.dtype == np.int64
    assert out.tolist() == [[0, -1, 0, 1, 0], [0, 1, 0, 1, 0], [-8, -1, 0, 1, 8]]
    for number in (base, 2, [1, 2], np.int64(3)):
        with pytest.raises(ValueError, match="exponent must not be negative .* got -1"):
            ops.pow(number, -1)


@pytest.mark.parametrize("shape", [(4_200_003,), (20, 64, 60, 60), (30, 48, 60, 51), (7, 200, 60, 61)], ids=str)
def test_results_beyond_the_caches(shape, rng):
    x, y = rng.standard_normal((2, *shape), np.float32)
    other = np.float32(2)
    if len(shape) == 4:
        x, y = (memory.like_layout(a, memory.empty_channels_last(shape, np.float32)) for a in (x, y))
        other = rng.standard_normal((1, shape[1], 1, 1), np.float32)
    assert x.nbytes > 1 << 24
    assert np.array_equal(ops.add(x, y), x + y)
    assert np.array_equal(ops.mul(x, other), x * other)
    assert np.array_equal(ops.gt(x, y), x > y)
    assert np.array_equal(ops.relu(x), np.maximum(x, 0))
    assert np.array_equal(ops.relu_backward(y, x), np.where(x <= 0, 0, y))
    # A result that starts in the middle of a vector is written as any other.
    block = np.zeros(x.size + 64, np.float32)
    found = block[3 : 3 + x.size]
    dispatch.run(ActivationProblem("forward", "float32", "relu", x.size), (memory.flat(x),), (found,))
    assert np.array_equal(found, np.maximum(memory.flat(x), 0))
    assert not block[:3].any()
    assert not block[3 + x.size :].any()


def packed(values: np.ndarray, gap: int) -> np.ndarray:
    """Return the values as a field of packed records: strides that are no multiple of an element."""
    records = np.zeros(values.shape, [("gap", f"V{gap}"), ("value", values.dtype)])
    records["value"] = values
    return records["value"]


@pytest.mark.parametrize("gap", [1, 2, 4])
def test_fields_of_packed_records(gap, rng):
    for dtype in (np.float32, np.float64):
        a, b = rng.standard_normal((2, 33, 70)).astype(dtype)
        x, y = packed(a, gap), packed(b, gap)[:, ::-1]
        np.testing.assert_array_equal(ops.add(x, y), a + b[:, ::-1])
        np.testing.assert_array_equal(ops.where(a > 0, x, y), np.where(a > 0, a, b[:, ::-1]))
        np.testing.assert_array_equal(ops.neg(x[::-1]), -a[::-1])
        np.testing.assert_array_equal(ops.clone(packed(np.tile(a, (3, 1)), gap)), np.tile(a, (3, 1)))
        np.testing.assert_array_equal(ops.contiguous(packed(np.tile(a, (3, 1)), gap).T), np.tile(a, (3, 1)).T)


def test_refusals_name_the_operand():
    x = np.ones((2, 3), np.float32)
    for call, name in [
        (lambda: ops.add(x, np.ones(4, np.float32)), "input and other"),
        (lambda: ops.where(x > 0, x, np.ones(4, np.float32)), "condition"),
        (lambda: ops.pow(x, "2"), "exponent"),
        (lambda: ops.clamp(x, None, "2"), "max"),
        (lambda: ops.clamp(x, {}), "min"),
        (lambda: ops.add(2**63, x), "input"),
        (lambda: ops.add(x, [[1, 2], [3]]), "other"),
        (lambda: ops.neg(x > 0), "input"),
        (lambda: ops.sub(x > 0, x > 1), "input"),
        (lambda: ops.relu_backward(x, x.astype(int)), "y"),
        (lambda: ops.leaky_relu(x, "steep"), "negative_slope"),
        (lambda: ops.pointwise([], (x,)), "function"),
        (lambda: ops.pointwise("elu", (x, x), 1.0), "operands"),
        (lambda: ops.pointwise("elu", (x,)), "parameters"),
    ]:
        with pytest.raises((TypeError, ValueError), match=name):
            call()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [3, 4, 8, 12, 20, 24, 40, 100, 296, 1000, 1004])
@pytest.mark.parametrize("function", [np.greater, np.less_equal, np.equal, np.add])
def test_results_past_the_caches(function: Any, columns: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of large arrays go: stores want their addresses aligned, and a boolean is a byte."""
    monkeypatch.setattr(stream, "_LARGE", 1)
    rng = np.random.default_rng(columns)
    x, row = rng.standard_normal((40_000 // columns + 3, columns)).astype(dtype), np.zeros(columns, dtype)
    name = {"greater": "gt", "less_equal": "le", "equal": "eq", "add": "add"}[function.__name__]
    for a, b in ((x, row), (x, x[::-1].copy()), (x, row[:1])):
        np.testing.assert_array_equal(getattr(ops, name)(a, b), function(a, b))
